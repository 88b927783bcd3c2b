//! Keys: the master key of the cluster, and the random key that each session has.
//!
//! A session's key is wrapped (AES-256-GCM) by a key made from the master key, the tenant and the session (HKDF-SHA256),
//! so that one key never seals more than a few values. The wrapped form names the master key by its id; older master
//! keys stay in the ring until nothing names them. Keys are wiped when dropped and print as `***`.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{aead, hkdf};
use bytes::Bytes;
use model::id::{SessionId, TenantId};
use zeroize::{Zeroize, Zeroizing};

use crate::service::seal::{self, Kind, Owner, SealError};

/// Length of every key in bytes.
pub const KEY_BYTES: usize = 32;

/// Fills a buffer from the system's random generator.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system's random generator works");
    bytes
}

/// Thirty-two secret bytes.
#[derive(Clone)]
pub(super) struct Secret([u8; KEY_BYTES]);

impl Secret {
    pub(super) const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn random() -> Self {
        Self(random())
    }

    pub(super) const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    pub(super) fn cipher(&self) -> aead::LessSafeKey {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &self.0)
            .expect("AES-256 takes keys of 32 bytes");
        aead::LessSafeKey::new(key)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key that wraps the keys of sessions.
#[derive(Clone, Debug)]
pub struct MasterKey {
    id: u32,
    secret: Secret,
}

impl MasterKey {
    /// The master key with this id. The id is stored with what the key wraps; two keys must never share one.
    #[must_use]
    pub const fn new(id: u32, bytes: [u8; KEY_BYTES]) -> Self {
        Self {
            id,
            secret: Secret::new(bytes),
        }
    }

    fn wrapping(&self, owner: Owner) -> Secret {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                KEY_BYTES
            }
        }
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"psp edge session key")
            .extract(self.secret.bytes());
        let mut out = Zeroizing::new([0; KEY_BYTES]);
        prk.expand(&[&owner.bytes()], Length)
            .and_then(|okm| okm.fill(&mut *out))
            .expect("HKDF-SHA256 gives 32 bytes");
        Secret::new(*out)
    }
}

/// The master keys that a node knows.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: MasterKey,
    older: Vec<MasterKey>,
}

impl KeyRing {
    /// New sessions' keys are wrapped by `current`; those of `older` are still opened.
    #[must_use]
    pub const fn new(current: MasterKey, older: Vec<MasterKey>) -> Self {
        Self { current, older }
    }

    /// A new session's key, and its wrapped form.
    pub(super) fn create(&self, tenant: TenantId, session: SessionId) -> (SessionKey, Bytes) {
        let key = SessionKey(Secret::random());
        let owner = Owner::session(tenant, session);
        let wrapping = self.current.wrapping(owner);
        let sealed = seal::seal(
            &wrapping,
            (Kind::Key, self.current.id),
            owner,
            key.0.bytes(),
        );
        (key, sealed)
    }

    /// Opens a session's wrapped key.
    pub(super) fn open(
        &self,
        tenant: TenantId,
        session: SessionId,
        wrapped: &Bytes,
    ) -> Result<SessionKey, SealError> {
        let id = seal::key_id(wrapped)?;
        let master = std::iter::once(&self.current)
            .chain(&self.older)
            .find(|master| master.id == id)
            .ok_or(SealError::UnknownKey(id))?;
        let owner = Owner::session(tenant, session);
        let plain = Zeroizing::new(seal::open(
            &master.wrapping(owner),
            (Kind::Key, id),
            owner,
            wrapped,
        )?);
        let bytes: [u8; KEY_BYTES] = plain
            .as_slice()
            .try_into()
            .map_err(|_length| SealError::Damaged)?;
        Ok(SessionKey(Secret::new(bytes)))
    }
}

/// The key under which a session's body and summary are sealed.
#[derive(Clone, Debug)]
pub(super) struct SessionKey(pub(super) Secret);

#[cfg(test)]
impl SessionKey {
    /// A key that nothing is sealed with.
    pub(super) fn for_test() -> Self {
        Self(Secret::new([0; KEY_BYTES]))
    }
}

/// The id that envelopes under a session's key name: sessions have one key each, so far.
pub(super) const SESSION_KEY_ID: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{RegionId, Slot};

    fn session(random: u8) -> SessionId {
        SessionId::new(
            RegionId::new(1).expect("in range"),
            Slot::wrapping(3),
            [random; 16],
        )
    }

    #[test]
    fn a_wrapped_key_opens_for_its_session_with_its_master_key_only() {
        let ring = KeyRing::new(MasterKey::new(7, [1; 32]), Vec::new());
        let (key, wrapped) = ring.create(TenantId(1), session(1));
        let opened = ring.open(TenantId(1), session(1), &wrapped).unwrap();
        assert_eq!(opened.0.bytes(), key.0.bytes());
        assert!(ring.open(TenantId(2), session(1), &wrapped).is_err());
        assert!(ring.open(TenantId(1), session(2), &wrapped).is_err());
        let newer = KeyRing::new(MasterKey::new(8, [2; 32]), Vec::new());
        assert_eq!(
            newer.open(TenantId(1), session(1), &wrapped).unwrap_err(),
            SealError::UnknownKey(7)
        );
        let rotated = KeyRing::new(MasterKey::new(8, [2; 32]), vec![MasterKey::new(7, [1; 32])]);
        assert!(rotated.open(TenantId(1), session(1), &wrapped).is_ok());
    }

    #[test]
    fn keys_print_as_stars() {
        let ring = KeyRing::new(MasterKey::new(7, [0xAB; 32]), Vec::new());
        let (key, _) = ring.create(TenantId(1), session(1));
        assert_eq!(format!("{key:?}"), "SessionKey(***)");
        assert!(!format!("{ring:?}").contains("171"));
    }
}
