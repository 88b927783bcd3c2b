//! The envelope in which everything that says something about a person is stored.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, 1 |
//! | 1 | algorithm: 1 is AES-256-GCM |
//! | 1 | kind of content |
//! | 1 | 0 as it is, 1 compressed with zstd, 2 so with a dictionary (`pack.rs`) |
//! | 4 | id of the key, big-endian |
//! | 4 | length before compression, big-endian |
//! | 12 | nonce, random |
//! | .. | sealed content, then a tag of 16 bytes |
//!
//! Guarantees: the first twelve bytes, the owner (tenant and session, or chunk) and the kind are authenticated, so an
//! envelope that was changed, or stands in another place, does not open. Compression is only used where it helps. The
//! length of a document is not hidden.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use bytes::Bytes;
use model::id::{ChunkId, SessionId, TenantId};

use super::pack::{Coding, Packed, unpack};
use crate::service::keys::{Secret, random};

const FORMAT: u8 = 1;
const AES_256_GCM: u8 = 1;
const HEADER_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What an envelope adds to its content, in bytes.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_LEN + TAG_BYTES;

/// Why an envelope does not open. Never says anything of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// Changed, cut, or of another place.
    #[error("sealed value is damaged")]
    Damaged,
    /// Written by a version that this build does not know.
    #[error("sealed value has format {0}, which this build does not know")]
    Format(u8),
    /// Sealed by a key that this node does not have.
    #[error("sealed by key {0}, which this node does not have")]
    UnknownKey(u32),
}

/// What an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A document's sections.
    Body = 1,
    /// A document's summary.
    Summary = 2,
    /// The list of a large body's chunks.
    Manifest = 3,
    /// One chunk.
    Chunk = 4,
    /// A session's key.
    Key = 5,
}

/// Whom an envelope belongs to: part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    tenant: TenantId,
    place: [u8; 16],
}

impl Owner {
    pub(super) const fn session(tenant: TenantId, session: SessionId) -> Self {
        Self {
            tenant,
            place: *session.as_bytes(),
        }
    }

    /// A chunk belongs to no session: forks share it.
    pub(super) const fn chunk(tenant: TenantId, chunk: ChunkId) -> Self {
        Self {
            tenant,
            place: chunk.0,
        }
    }

    pub(super) fn bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..4].copy_from_slice(&self.tenant.0.to_be_bytes());
        out[4..].copy_from_slice(&self.place);
        out
    }
}

/// Seals content as it is. Leaves no copy of it behind.
pub(super) fn seal(key: &Secret, what: (Kind, u32), owner: Owner, plain: &[u8]) -> Bytes {
    let header = header(what, Coding::Plain, plain.len());
    seal_with(key, &header, owner, plain, random())
}

/// Seals content that [`super::pack::pack`] made.
pub(super) fn seal_packed(key: &Secret, what: (Kind, u32), owner: Owner, packed: &Packed) -> Bytes {
    let header = header(what, packed.coding, packed.plain_bytes);
    seal_with(key, &header, owner, &packed.bytes, random())
}

fn header((kind, key_id): (Kind, u32), coding: Coding, plain_bytes: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(plain_bytes).expect("sealed content is within the document limit");
    let [k0, k1, k2, k3] = key_id.to_be_bytes();
    let [l0, l1, l2, l3] = length.to_be_bytes();
    [
        FORMAT,
        AES_256_GCM,
        kind as u8,
        coding.number(),
        k0,
        k1,
        k2,
        k3,
        l0,
        l1,
        l2,
        l3,
    ]
}

fn seal_with(
    key: &Secret,
    header: &[u8; HEADER_BYTES],
    owner: Owner,
    content: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Bytes {
    let mut out = Vec::with_capacity(content.len() + OVERHEAD_BYTES);
    out.extend_from_slice(header);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(content);
    let tag = key
        .cipher()
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            associated(header, owner),
            &mut out[HEADER_BYTES + NONCE_LEN..],
        )
        .expect("content is below the cipher's limit");
    out.extend_from_slice(tag.as_ref());
    Bytes::from(out)
}

/// Opens an envelope whose content was sealed as it is, or compressed.
pub(super) fn open(
    key: &Secret,
    what: (Kind, u32),
    owner: Owner,
    sealed: &[u8],
) -> Result<Vec<u8>, SealError> {
    let packed = open_packed(key, what, owner, sealed)?;
    unpack(packed).map(Vec::from).ok_or(SealError::Damaged)
}

/// Opens an envelope, and leaves the content compressed.
pub(super) fn open_packed(
    key: &Secret,
    (kind, key_id): (Kind, u32),
    owner: Owner,
    sealed: &[u8],
) -> Result<Packed, SealError> {
    let (header, rest) = split_header(sealed)?;
    let [
        _,
        algorithm,
        said_kind,
        coding,
        k0,
        k1,
        k2,
        k3,
        l0,
        l1,
        l2,
        l3,
    ] = *header;
    let (nonce, rest) = rest
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(SealError::Damaged)?;
    let said_id = u32::from_be_bytes([k0, k1, k2, k3]);
    if algorithm != AES_256_GCM || said_kind != kind as u8 || said_id != key_id {
        return Err(SealError::Damaged);
    }
    let coding = Coding::of(coding).ok_or(SealError::Damaged)?;
    let mut content = rest.to_vec();
    let length = key
        .cipher()
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            associated(header, owner),
            &mut content,
        )
        .map_err(|_unspecified| SealError::Damaged)?
        .len();
    content.truncate(length);
    Ok(Packed {
        bytes: Bytes::from(content),
        coding,
        plain_bytes: usize::try_from(u32::from_be_bytes([l0, l1, l2, l3]))
            .map_err(|_too_large| SealError::Damaged)?,
    })
}

/// The id of the key that an envelope names.
pub(super) fn key_id(sealed: &[u8]) -> Result<u32, SealError> {
    let (header, _) = split_header(sealed)?;
    let [_, _, _, _, a, b, c, d, ..] = *header;
    Ok(u32::from_be_bytes([a, b, c, d]))
}

fn split_header(sealed: &[u8]) -> Result<(&[u8; HEADER_BYTES], &[u8]), SealError> {
    let (header, rest) = sealed
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(SealError::Damaged)?;
    if header[0] != FORMAT {
        return Err(SealError::Format(header[0]));
    }
    Ok((header, rest))
}

fn associated(header: &[u8; HEADER_BYTES], owner: Owner) -> Aad<[u8; HEADER_BYTES + 20]> {
    let mut out = [0; HEADER_BYTES + 20];
    out[..HEADER_BYTES].copy_from_slice(header);
    out[HEADER_BYTES..].copy_from_slice(&owner.bytes());
    Aad::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::pack::pack;

    const WHAT: (Kind, u32) = (Kind::Body, 1);

    fn key() -> Secret {
        Secret::new([7; 32])
    }

    fn owner() -> Owner {
        Owner::session(TenantId(1), SessionId::from_bytes([9; 16]))
    }

    fn sealed(plain: &[u8]) -> Bytes {
        let packed = pack(plain.to_vec());
        let header = header(WHAT, packed.coding, packed.plain_bytes);
        seal_with(&key(), &header, owner(), &packed.bytes, [3; NONCE_LEN])
    }

    #[test]
    fn an_envelope_has_these_bytes() {
        assert_eq!(
            hex::encode(sealed(b"cookie")),
            "010101000000000100000006030303030303030303030303\
             4691cc68334db9a4c527a1c17ca51a260be817341a94"
        );
    }

    #[test]
    fn what_is_sealed_opens_again_small_or_compressed() {
        for plain in [Vec::new(), b"x".to_vec(), vec![b'a'; 10_000]] {
            let sealed = sealed(&plain);
            assert!(plain.len() < 1000 || sealed.len() < 200);
            assert_eq!(open(&key(), WHAT, owner(), &sealed), Ok(plain));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_and_a_cut_anywhere_are_refused() {
        let whole = sealed(&b"secret ".repeat(40));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bad = whole.to_vec();
                bad[at] ^= 1 << bit;
                assert!(open(&key(), WHAT, owner(), &bad).is_err(), "byte {at}");
            }
            assert!(open(&key(), WHAT, owner(), &whole[..at]).is_err());
        }
    }

    #[test]
    fn another_session_tenant_kind_and_key_are_refused() {
        let whole = sealed(b"secret");
        let other_session = Owner::session(TenantId(1), SessionId::from_bytes([8; 16]));
        let other_tenant = Owner::session(TenantId(2), SessionId::from_bytes([9; 16]));
        assert!(open(&key(), WHAT, other_session, &whole).is_err());
        assert!(open(&key(), WHAT, other_tenant, &whole).is_err());
        assert!(open(&key(), (Kind::Summary, 1), owner(), &whole).is_err());
        assert!(open(&key(), (Kind::Body, 2), owner(), &whole).is_err());
        assert!(open(&Secret::new([8; 32]), WHAT, owner(), &whole).is_err());
    }
}
