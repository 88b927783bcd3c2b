//! Every key of a group's state, as bytes and back.
//!
//! Guarantees: the order of the bytes is the order of [`Key`]; two keys never have the same bytes; bytes that
//! [`encode`] did not make are refused. The first byte is the kind of key, so that a scan within one kind is a range.
//! Numbers are big-endian. The kind [`OWN`] belongs to the tablet itself and is never a [`Key`].

use std::ops::Deref;

use model::id::{ChunkId, SessionId, Slot, TenantId};
use model::state::{Due, Key};
use model::time::UnixMillis;

/// The kind under which a tablet keeps its own entries; sorts before all others.
pub const OWN: u8 = 0x00;
/// The tablet's applied mark, in the same write as the changes that it names.
pub const APPLIED: [u8; 2] = [OWN, 0x01];
/// Whose tablet this is.
pub const IDENTITY: [u8; 2] = [OWN, 0x02];

/// The longest key, in bytes: a due idempotency key.
pub const MAX_KEY_BYTES: usize = 1 + 8 + 1 + 4 + 2 + 32;

mod kind {
    pub(super) const HEAD: u8 = 0x01;
    pub(super) const META: u8 = 0x02;
    pub(super) const SESSION: u8 = 0x03;
    pub(super) const BODY: u8 = 0x04;
    pub(super) const SECRET: u8 = 0x05;
    pub(super) const CHUNK_INFO: u8 = 0x06;
    pub(super) const CHUNK: u8 = 0x07;
    pub(super) const IDEMPOTENCY: u8 = 0x08;
    pub(super) const SESSION_COUNT: u8 = 0x09;
    pub(super) const IDEMPOTENCY_COUNT: u8 = 0x0A;
    pub(super) const LOOSE_CHUNK_BYTES: u8 = 0x0B;
    pub(super) const DUE: u8 = 0x0C;

    pub(super) const DUE_EXPIRE: u8 = 0x01;
    pub(super) const DUE_PURGE: u8 = 0x02;
    pub(super) const DUE_TOMBSTONE: u8 = 0x03;
    pub(super) const DUE_IDEMPOTENCY: u8 = 0x04;
    pub(super) const DUE_CHUNK: u8 = 0x05;
}

/// Bytes that are not a key of ours: damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: kind {kind}, {length} bytes")]
pub struct BadKey {
    /// The first byte, 0 when there is none.
    pub kind: u8,
    /// How many bytes there were.
    pub length: usize,
}

/// A key as bytes, without an allocation.
#[derive(Clone, Copy)]
pub struct KeyBytes {
    bytes: [u8; MAX_KEY_BYTES],
    length: usize,
}

impl KeyBytes {
    const fn new(kind: u8) -> Self {
        let mut bytes = [0; MAX_KEY_BYTES];
        bytes[0] = kind;
        Self { bytes, length: 1 }
    }

    fn and(mut self, part: &[u8]) -> Self {
        let end = self.length + part.len();
        self.bytes[self.length..end].copy_from_slice(part);
        self.length = end;
        self
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyBytes(kind {}, {} bytes)", self.bytes[0], self.length)
    }
}

/// The bytes of a key.
#[must_use]
pub fn encode(key: &Key) -> KeyBytes {
    match key {
        Key::Head => KeyBytes::new(kind::HEAD),
        Key::Meta => KeyBytes::new(kind::META),
        Key::Session(tenant, id) => session(KeyBytes::new(kind::SESSION), *tenant, id),
        Key::Body(tenant, id) => session(KeyBytes::new(kind::BODY), *tenant, id),
        Key::Secret(tenant, id) => session(KeyBytes::new(kind::SECRET), *tenant, id),
        Key::ChunkInfo(chunk) => KeyBytes::new(kind::CHUNK_INFO).and(&chunk.0),
        Key::Chunk(chunk) => KeyBytes::new(kind::CHUNK).and(&chunk.0),
        Key::Idempotency(tenant, slot, hash) => {
            place(KeyBytes::new(kind::IDEMPOTENCY), *tenant, *slot).and(hash)
        }
        Key::SessionCount(tenant) => {
            KeyBytes::new(kind::SESSION_COUNT).and(&tenant.0.to_be_bytes())
        }
        Key::IdempotencyCount(tenant, slot) => {
            place(KeyBytes::new(kind::IDEMPOTENCY_COUNT), *tenant, *slot)
        }
        Key::LooseChunkBytes(tenant) => {
            KeyBytes::new(kind::LOOSE_CHUNK_BYTES).and(&tenant.0.to_be_bytes())
        }
        Key::Due(at, due) => {
            let out = KeyBytes::new(kind::DUE).and(&at.0.to_be_bytes());
            match due {
                Due::Expire(tenant, id) => session(out.and(&[kind::DUE_EXPIRE]), *tenant, id),
                Due::Purge(tenant, id) => session(out.and(&[kind::DUE_PURGE]), *tenant, id),
                Due::Tombstone(tenant, id) => session(out.and(&[kind::DUE_TOMBSTONE]), *tenant, id),
                Due::Idempotency(tenant, slot, hash) => {
                    place(out.and(&[kind::DUE_IDEMPOTENCY]), *tenant, *slot).and(hash)
                }
                Due::Chunk(chunk) => out.and(&[kind::DUE_CHUNK]).and(&chunk.0),
            }
        }
    }
}

/// The key that these bytes are.
///
/// # Errors
/// When [`encode`] did not make them.
pub fn decode(bytes: &[u8]) -> Result<Key, BadKey> {
    let mut reader = Reader(bytes);
    match reader.key() {
        Some(key) if reader.0.is_empty() => Ok(key),
        _ => Err(BadKey {
            kind: bytes.first().copied().unwrap_or(0),
            length: bytes.len(),
        }),
    }
}

/// The smallest key of each kind, in order: scanning from each visits everything.
#[must_use]
pub fn first_of_kinds() -> [Key; 12] {
    let (tenant, slot, hash) = (TenantId(0), Slot::wrapping(0), [0; 32]);
    let (id, chunk) = (SessionId::from_bytes([0; 16]), ChunkId([0; 16]));
    [
        Key::Head,
        Key::Meta,
        Key::Session(tenant, id),
        Key::Body(tenant, id),
        Key::Secret(tenant, id),
        Key::ChunkInfo(chunk),
        Key::Chunk(chunk),
        Key::Idempotency(tenant, slot, hash),
        Key::SessionCount(tenant),
        Key::IdempotencyCount(tenant, slot),
        Key::LooseChunkBytes(tenant),
        Key::Due(UnixMillis(0), Due::Expire(tenant, id)),
    ]
}

/// The first bytes after all keys of the same kind as `key`.
#[must_use]
pub fn end_of_kind(key: &Key) -> [u8; 1] {
    [encode(key)[0] + 1]
}

fn session(out: KeyBytes, tenant: TenantId, id: &SessionId) -> KeyBytes {
    out.and(&tenant.0.to_be_bytes()).and(id.as_bytes())
}

fn place(out: KeyBytes, tenant: TenantId, slot: Slot) -> KeyBytes {
    out.and(&tenant.0.to_be_bytes())
        .and(&slot.get().to_be_bytes())
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn tenant(&mut self) -> Option<TenantId> {
        self.take().map(|bytes| TenantId(u32::from_be_bytes(bytes)))
    }

    fn slot(&mut self) -> Option<Slot> {
        let number = u16::from_be_bytes(self.take()?);
        (number < Slot::COUNT).then(|| Slot::wrapping(number))
    }

    fn session(&mut self) -> Option<(TenantId, SessionId)> {
        Some((self.tenant()?, SessionId::from_bytes(self.take()?)))
    }

    fn chunk(&mut self) -> Option<ChunkId> {
        self.take().map(ChunkId)
    }

    fn key(&mut self) -> Option<Key> {
        let [first] = self.take()?;
        Some(match first {
            kind::HEAD => Key::Head,
            kind::META => Key::Meta,
            kind::SESSION => self.session().map(|(t, id)| Key::Session(t, id))?,
            kind::BODY => self.session().map(|(t, id)| Key::Body(t, id))?,
            kind::SECRET => self.session().map(|(t, id)| Key::Secret(t, id))?,
            kind::CHUNK_INFO => Key::ChunkInfo(self.chunk()?),
            kind::CHUNK => Key::Chunk(self.chunk()?),
            kind::IDEMPOTENCY => Key::Idempotency(self.tenant()?, self.slot()?, self.take()?),
            kind::SESSION_COUNT => Key::SessionCount(self.tenant()?),
            kind::IDEMPOTENCY_COUNT => Key::IdempotencyCount(self.tenant()?, self.slot()?),
            kind::LOOSE_CHUNK_BYTES => Key::LooseChunkBytes(self.tenant()?),
            kind::DUE => Key::Due(UnixMillis(u64::from_be_bytes(self.take()?)), self.due()?),
            _ => return None,
        })
    }

    fn due(&mut self) -> Option<Due> {
        let [first] = self.take()?;
        Some(match first {
            kind::DUE_EXPIRE => self.session().map(|(t, id)| Due::Expire(t, id))?,
            kind::DUE_PURGE => self.session().map(|(t, id)| Due::Purge(t, id))?,
            kind::DUE_TOMBSTONE => self.session().map(|(t, id)| Due::Tombstone(t, id))?,
            kind::DUE_IDEMPOTENCY => Due::Idempotency(self.tenant()?, self.slot()?, self.take()?),
            kind::DUE_CHUNK => Due::Chunk(self.chunk()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> impl Strategy<Value = (TenantId, SessionId)> {
        (any::<u32>(), any::<[u8; 16]>())
            .prop_map(|(tenant, id)| (TenantId(tenant), SessionId::from_bytes(id)))
    }

    fn hashed() -> impl Strategy<Value = (TenantId, Slot, [u8; 32])> {
        (any::<u32>(), any::<u16>(), any::<[u8; 32]>())
            .prop_map(|(tenant, slot, hash)| (TenantId(tenant), Slot::wrapping(slot), hash))
    }

    fn any_due() -> impl Strategy<Value = Due> {
        prop_oneof![
            pair().prop_map(|(t, id)| Due::Expire(t, id)),
            pair().prop_map(|(t, id)| Due::Purge(t, id)),
            pair().prop_map(|(t, id)| Due::Tombstone(t, id)),
            hashed().prop_map(|(t, s, h)| Due::Idempotency(t, s, h)),
            any::<[u8; 16]>().prop_map(|id| Due::Chunk(ChunkId(id))),
        ]
    }

    fn any_key() -> impl Strategy<Value = Key> {
        prop_oneof![
            Just(Key::Head),
            Just(Key::Meta),
            pair().prop_map(|(t, id)| Key::Session(t, id)),
            pair().prop_map(|(t, id)| Key::Body(t, id)),
            pair().prop_map(|(t, id)| Key::Secret(t, id)),
            any::<[u8; 16]>().prop_map(|id| Key::ChunkInfo(ChunkId(id))),
            any::<[u8; 16]>().prop_map(|id| Key::Chunk(ChunkId(id))),
            hashed().prop_map(|(t, s, h)| Key::Idempotency(t, s, h)),
            any::<u32>().prop_map(|t| Key::SessionCount(TenantId(t))),
            hashed().prop_map(|(t, s, _)| Key::IdempotencyCount(t, s)),
            any::<u32>().prop_map(|t| Key::LooseChunkBytes(TenantId(t))),
            (any::<u64>(), any_due()).prop_map(|(at, due)| Key::Due(UnixMillis(at), due)),
        ]
    }

    proptest! {
        #[test]
        fn the_order_of_bytes_is_the_order_of_keys(mut keys in prop::collection::vec(any_key(), 2..20)) {
            let mut encoded: Vec<Vec<u8>> = keys.iter().map(|key| encode(key).to_vec()).collect();
            keys.sort();
            encoded.sort();
            let in_order: Vec<Vec<u8>> = keys.iter().map(|key| encode(key).to_vec()).collect();
            prop_assert_eq!(encoded, in_order);
        }

        #[test]
        fn a_key_comes_back_and_lies_within_its_kind(key in any_key()) {
            let bytes = encode(&key);
            prop_assert_eq!(decode(&bytes), Ok(key));
            prop_assert!(*bytes > *APPLIED.as_slice() && *bytes < *end_of_kind(&key).as_slice());
        }

        #[test]
        fn every_key_lies_at_or_after_the_first_of_its_kind(key in any_key()) {
            let firsts = first_of_kinds();
            prop_assert!(firsts.is_sorted());
            let own = firsts.iter().filter(|first| encode(first)[0] == encode(&key)[0]);
            prop_assert_eq!(own.filter(|first| **first <= key).count(), 1);
        }

        #[test]
        fn any_bytes_are_refused_or_are_a_key(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(key) = decode(&bytes) {
                prop_assert_eq!(encode(&key).to_vec(), bytes);
            }
        }

        #[test]
        fn a_key_with_a_byte_more_or_less_is_refused(key in any_key(), more: u8) {
            let bytes = encode(&key);
            prop_assert!(decode(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(decode(&[&bytes[..], &[more]].concat()).is_err());
        }
    }

    #[test]
    fn the_bytes_of_keys_are_those_of_version_one() {
        let tenant = TenantId(0x0102_0304);
        let id = SessionId::from_bytes([0xAB; 16]);
        let chunk = ChunkId([0xCD; 16]);
        let slot = Slot::wrapping(0x1234);
        let hash = [0xEF; 32];
        let at = UnixMillis(0x0102_0304_0506_0708);
        let who = format!("01020304{}", "ab".repeat(16));
        let place = "010203041234";
        let (chunk_hex, hash_hex) = ("cd".repeat(16), "ef".repeat(32));
        let when = "0c0102030405060708";
        let golden = [
            (Key::Head, "01".to_owned()),
            (Key::Meta, "02".to_owned()),
            (Key::Session(tenant, id), format!("03{who}")),
            (Key::Body(tenant, id), format!("04{who}")),
            (Key::Secret(tenant, id), format!("05{who}")),
            (Key::ChunkInfo(chunk), format!("06{chunk_hex}")),
            (Key::Chunk(chunk), format!("07{chunk_hex}")),
            (
                Key::Idempotency(tenant, slot, hash),
                format!("08{place}{hash_hex}"),
            ),
            (Key::SessionCount(tenant), "0901020304".to_owned()),
            (Key::IdempotencyCount(tenant, slot), format!("0a{place}")),
            (Key::LooseChunkBytes(tenant), "0b01020304".to_owned()),
            (
                Key::Due(at, Due::Expire(tenant, id)),
                format!("{when}01{who}"),
            ),
            (
                Key::Due(at, Due::Purge(tenant, id)),
                format!("{when}02{who}"),
            ),
            (
                Key::Due(at, Due::Tombstone(tenant, id)),
                format!("{when}03{who}"),
            ),
            (
                Key::Due(at, Due::Idempotency(tenant, slot, hash)),
                format!("{when}04{place}{hash_hex}"),
            ),
            (
                Key::Due(at, Due::Chunk(chunk)),
                format!("{when}05{chunk_hex}"),
            ),
        ];
        for (key, expected) in golden {
            let hex: String = encode(&key)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(hex, expected, "{key:?}");
        }
    }
}
