//! `PSP-Consistency` tokens and list cursors: what a gateway hands out and takes back, authenticated.
//!
//! A token is a few (session, version) pairs that its holder has seen; a local read that is given it is never older.
//! Guarantees: bounded in size; made by a gateway of this cluster for this tenant, or refused; the check takes the same
//! time for all wrong tokens. It hides nothing: it holds ids and versions that the client knows.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::id::{SessionId, TenantId, Version};
use secrecy::{ExposeSecret, SecretBox};
use subtle::ConstantTimeEq;

/// Most sessions in one token; the one seen longest ago goes first.
pub const MAX_SESSIONS: usize = 8;
/// Longest text of a token or cursor, in bytes; a longer one is refused unread.
pub const MAX_TEXT: usize = 512;

const FORMAT: u8 = 1;
const MAC_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16 + 4 + 8;

const _: () = assert!((1 + MAX_SESSIONS * ENTRY_BYTES + MAC_BYTES).div_ceil(3) * 4 <= MAX_TEXT);

/// Not made by this cluster for this tenant, or not in a form that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this cluster")]
pub struct BadToken;

/// What a client has seen: sessions and versions, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(SessionId, Version)>);

impl Seen {
    /// The version of a session that the client has seen.
    #[must_use]
    pub fn version(&self, session: SessionId) -> Option<Version> {
        let entry = self.0.iter().find(|(id, _)| *id == session);
        entry.map(|(_, version)| *version)
    }

    /// What the client has seen after one more answer.
    #[must_use]
    pub fn and(&self, session: SessionId, version: Version) -> Self {
        let version = self
            .version(session)
            .map_or(version, |seen| seen.max(version));
        let others = self.0.iter().filter(|(id, _)| *id != session).copied();
        let mut seen = vec![(session, version)];
        seen.extend(others.take(MAX_SESSIONS.saturating_sub(1)));
        Self(seen)
    }
}

/// Makes tokens and cursors, and checks them.
pub struct Tokens {
    key: SecretBox<[u8; 32]>,
}

#[derive(Clone, Copy)]
enum Purpose {
    Seen = 1,
    Cursor = 2,
}

impl Tokens {
    /// With the secret that all gateways of the cluster share.
    #[must_use]
    pub fn new(cluster: &SecretBox<[u8; 32]>) -> Self {
        let key = blake3::derive_key("psp-edge gateway 2026 tokens", cluster.expose_secret());
        Self {
            key: SecretBox::new(Box::new(key)),
        }
    }

    /// The text of a token.
    #[must_use]
    pub fn seal(&self, tenant: TenantId, seen: &Seen) -> String {
        let mut bytes = vec![FORMAT];
        for (session, version) in &seen.0 {
            bytes.extend_from_slice(session.as_bytes());
            bytes.extend_from_slice(&version.epoch.to_be_bytes());
            bytes.extend_from_slice(&version.revision.to_be_bytes());
        }
        self.close(tenant, Purpose::Seen, bytes)
    }

    /// What a token says.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn open(&self, tenant: TenantId, text: &str) -> Result<Seen, BadToken> {
        let bytes = self.check(tenant, Purpose::Seen, text)?;
        let (entries, []) = bytes.as_chunks::<ENTRY_BYTES>() else {
            return Err(BadToken);
        };
        if entries.len() > MAX_SESSIONS {
            return Err(BadToken);
        }
        let entry = |bytes: &[u8; ENTRY_BYTES]| {
            let (session, version) = bytes.split_first_chunk::<16>().ok_or(BadToken)?;
            let (epoch, revision) = version.split_first_chunk::<4>().ok_or(BadToken)?;
            let revision = revision.first_chunk::<8>().ok_or(BadToken)?;
            let version = Version {
                epoch: u32::from_be_bytes(*epoch),
                revision: u64::from_be_bytes(*revision),
            };
            Ok((SessionId::from_bytes(*session), version))
        };
        Ok(Seen(entries.iter().map(entry).collect::<Result<_, _>>()?))
    }

    /// A cursor that continues after a session.
    #[must_use]
    pub fn seal_cursor(&self, tenant: TenantId, after: SessionId) -> String {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(after.as_bytes());
        self.close(tenant, Purpose::Cursor, bytes)
    }

    /// Where a cursor continues.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn open_cursor(&self, tenant: TenantId, text: &str) -> Result<SessionId, BadToken> {
        let bytes = self.check(tenant, Purpose::Cursor, text)?;
        let id = <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_length| BadToken)?;
        Ok(SessionId::from_bytes(id))
    }

    fn close(&self, tenant: TenantId, purpose: Purpose, mut bytes: Vec<u8>) -> String {
        let mac = self.mac(tenant, purpose, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn check(&self, tenant: TenantId, purpose: Purpose, text: &str) -> Result<Vec<u8>, BadToken> {
        if text.len() > MAX_TEXT {
            return Err(BadToken);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_not_base64| BadToken)?;
        let (content, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(BadToken)?;
        let right = self.mac(tenant, purpose, content).ct_eq(mac);
        match content.split_first() {
            Some((&FORMAT, rest)) if right.into() => Ok(rest.to_vec()),
            _ => Err(BadToken),
        }
    }

    fn mac(&self, tenant: TenantId, purpose: Purpose, content: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(self.key.expose_secret());
        hasher.update(&[purpose as u8]);
        hasher.update(&tenant.0.to_be_bytes());
        hasher.update(content);
        let mut mac = [0; MAC_BYTES];
        hasher.finalize_xof().fill(&mut mac);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(byte: u8) -> Tokens {
        Tokens::new(&SecretBox::new(Box::new([byte; 32])))
    }

    fn session(byte: u8) -> SessionId {
        SessionId::from_bytes([byte; 16])
    }

    proptest! {
        #[test]
        fn a_token_comes_back_and_a_changed_one_does_not(
            entries in prop::collection::vec((any::<[u8; 16]>(), any::<u32>(), any::<u64>()), 0..12),
            flip: prop::sample::Index,
        ) {
            let tenant = TenantId::DEFAULT;
            let seen = entries.iter().fold(Seen::default(), |seen, (id, epoch, revision)| {
                seen.and(SessionId::from_bytes(*id), Version { epoch: *epoch, revision: *revision })
            });
            prop_assert!(seen.0.len() <= MAX_SESSIONS);
            let text = tokens(1).seal(tenant, &seen);
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert_eq!(tokens(1).open(tenant, &text), Ok(seen));
            prop_assert_eq!(tokens(2).open(tenant, &text), Err(BadToken));
            prop_assert_eq!(tokens(1).open(TenantId(2), &text), Err(BadToken));
            let mut changed = text.into_bytes();
            let at = flip.index(changed.len());
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ascii");
            prop_assert_eq!(tokens(1).open(tenant, &changed), Err(BadToken));
        }

        #[test]
        fn any_text_is_refused(text in "\\PC{0,80}") {
            prop_assert_eq!(tokens(1).open(TenantId::DEFAULT, &text), Err(BadToken));
        }
    }

    #[test]
    fn a_cursor_is_no_token_and_comes_back() {
        let text = tokens(1).seal_cursor(TenantId::DEFAULT, session(7));
        assert_eq!(
            tokens(1).open_cursor(TenantId::DEFAULT, &text),
            Ok(session(7))
        );
        assert_eq!(tokens(1).open(TenantId::DEFAULT, &text), Err(BadToken));
    }

    #[test]
    fn what_was_seen_never_goes_back() {
        let version = |revision| Version { epoch: 1, revision };
        let seen = Seen::default()
            .and(session(1), version(5))
            .and(session(1), version(3));
        assert_eq!(seen.version(session(1)), Some(version(5)));
        assert_eq!(seen.version(session(2)), None);
    }
}
