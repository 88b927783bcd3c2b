//! From a document to what is stored of it, and back.
//!
//! A body that is small when compressed is sealed whole under its session's key. A larger one is cut into chunks, each
//! sealed under a random key of its own, and what the session's key seals is the manifest that names them: ids, lengths,
//! keys and hashes. Nothing here waits; callers decide on which thread large documents are worked on.

use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;
use model::codec::{self, Blob};
use model::document::{Input, Sections, Summary};
use model::id::{ChunkId, SessionId, TenantId};
use model::limits::{MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_INLINE_BYTES};
use model::shard::{Body, Content};
use model::state::{Key, StateError, StateRead};

use crate::service::keys::{KEY_BYTES, KeyRing, SESSION_KEY_ID, Secret, SessionKey, random};
use crate::service::pack::{self, Coding, Packed};
use crate::service::seal::{self, Kind, OVERHEAD_BYTES, Owner, SealError};

/// The id that a chunk's envelope names: its key is in the manifest.
const CHUNK_KEY_ID: u32 = 0;
/// From this many bytes a summary is compressed.
const LONG_SUMMARY_BYTES: usize = 1024;

/// Why stored content cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    /// The state store failed, or a value is damaged.
    #[error("state cannot be read")]
    State(#[from] StateError),
    /// An envelope does not open.
    #[error("sealed value cannot be opened")]
    Seal(#[from] SealError),
    /// The session has no key, no body, or a chunk is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// What was sealed is not what we write.
    #[error("sealed content cannot be read")]
    Unreadable,
}

/// One chunk, as the manifest names it.
#[derive(Encode, Decode)]
struct Entry {
    id: ChunkId,
    /// Sealed length in bytes.
    bytes: u32,
    key: [u8; KEY_BYTES],
    /// BLAKE3 of the sealed bytes.
    hash: [u8; 32],
}

impl Drop for Entry {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// What the session's key seals in place of a large body.
#[derive(Encode, Decode)]
struct Manifest {
    coding: Coding,
    /// Length of the body before compression.
    plain_bytes: u64,
    chunks: Vec<Entry>,
}

/// A chunk to be stored ahead of the body that refers to it.
#[derive(Clone)]
pub(super) struct Chunk {
    pub(super) id: ChunkId,
    pub(super) data: Bytes,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.data.len())
    }
}

/// A document ready to be proposed.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) content: Content,
    /// To be stored ahead; empty for a small body.
    pub(super) chunks: Vec<Chunk>,
    /// The document, for the cache and the answer.
    pub(super) sections: Sections,
}

/// Seals a document for a session. Costs a compression and an encryption of it.
pub(super) fn prepare(
    key: &SessionKey,
    (tenant, session): (TenantId, SessionId),
    input: Input,
) -> Prepared {
    let owner = Owner::session(tenant, session);
    let sealed_under = |kind| (kind, SESSION_KEY_ID);
    let summary = Vec::from(codec::encode(&input.summary));
    // A short one is hardly shorter compressed, and costs as much as a body of some KiB.
    let summary = if summary.len() < LONG_SUMMARY_BYTES {
        pack::plain(summary)
    } else {
        pack::pack(summary)
    };
    let summary = seal::seal_packed(&key.0, sealed_under(Kind::Summary), owner, &summary);
    let packed = pack::pack(input.sections.encode());
    let (body, chunks) = if packed.bytes.len() + OVERHEAD_BYTES <= MAX_INLINE_BYTES {
        let sealed = seal::seal_packed(&key.0, sealed_under(Kind::Body), owner, &packed);
        (Body::Inline(Blob(sealed)), Vec::new())
    } else {
        let (manifest, chunks) = cut(tenant, &packed);
        let manifest = zeroize::Zeroizing::new(Vec::from(codec::encode(&manifest)));
        let manifest = seal::seal(&key.0, sealed_under(Kind::Manifest), owner, &manifest);
        let ids = chunks.iter().map(|chunk| chunk.id).collect();
        let body = Body::Chunked {
            manifest: Blob(manifest),
            chunks: ids,
        };
        (body, chunks)
    };
    Prepared {
        content: Content {
            summary: Blob(summary),
            body,
            plain_bytes: u64::try_from(input.sections.len()).unwrap_or(u64::MAX),
            expires: input.expires,
        },
        chunks,
        sections: input.sections,
    }
}

/// Cuts a packed body into sealed chunks.
fn cut(tenant: TenantId, packed: &Packed) -> (Manifest, Vec<Chunk>) {
    let mut entries = Vec::new();
    let mut chunks = Vec::new();
    for piece in packed.bytes.chunks(MAX_CHUNK_BYTES) {
        let id = ChunkId(random());
        let secret = Secret::random();
        let what = (Kind::Chunk, CHUNK_KEY_ID);
        let data = seal::seal(&secret, what, Owner::chunk(tenant, id), piece);
        entries.push(Entry {
            id,
            bytes: u32::try_from(data.len()).expect("a chunk is about a mebibyte"),
            key: *secret.bytes(),
            hash: *blake3::hash(&data).as_bytes(),
        });
        chunks.push(Chunk { id, data });
    }
    let manifest = Manifest {
        coding: packed.coding,
        plain_bytes: u64::try_from(packed.plain_bytes).unwrap_or(u64::MAX),
        chunks: entries,
    };
    (manifest, chunks)
}

/// Opens a body, fetching its chunks one by one from the view.
pub(super) fn open_body(
    state: &impl StateRead,
    key: &SessionKey,
    (tenant, session): (TenantId, SessionId),
    body: &Body,
) -> Result<Sections, ContentError> {
    let owner = Owner::session(tenant, session);
    let plain = match body {
        Body::Inline(blob) => {
            let what = (Kind::Body, SESSION_KEY_ID);
            let packed = seal::open_packed(&key.0, what, owner, &blob.0)?;
            pack::unpack(packed).ok_or(SealError::Damaged)?
        }
        Body::Chunked { manifest, .. } => {
            let what = (Kind::Manifest, SESSION_KEY_ID);
            let bytes = zeroize::Zeroizing::new(seal::open(&key.0, what, owner, &manifest.0)?);
            let manifest: Manifest =
                codec::decode(&bytes).map_err(|_content| ContentError::Unreadable)?;
            join(state, tenant, &manifest)?
        }
    };
    Sections::decode(&plain).map_err(|_content| ContentError::Unreadable)
}

fn join(
    state: &impl StateRead,
    tenant: TenantId,
    manifest: &Manifest,
) -> Result<Bytes, ContentError> {
    if manifest.chunks.len() > MAX_CHUNKS {
        return Err(ContentError::Unreadable);
    }
    let total: usize = manifest
        .chunks
        .iter()
        .filter_map(|entry| usize::try_from(entry.bytes).ok())
        .sum();
    let mut packed = Vec::with_capacity(total);
    for entry in &manifest.chunks {
        let sealed = state
            .get(&Key::Chunk(entry.id))?
            .ok_or(ContentError::Missing("a chunk"))?;
        if blake3::hash(&sealed) != blake3::Hash::from_bytes(entry.hash) {
            return Err(SealError::Damaged.into());
        }
        let owner = Owner::chunk(tenant, entry.id);
        let secret = Secret::new(entry.key);
        packed.extend(seal::open(
            &secret,
            (Kind::Chunk, CHUNK_KEY_ID),
            owner,
            &sealed,
        )?);
    }
    let plain_bytes =
        usize::try_from(manifest.plain_bytes).map_err(|_too_large| SealError::Damaged)?;
    let packed = Packed {
        bytes: Bytes::from(packed),
        coding: manifest.coding,
        plain_bytes,
    };
    Ok(pack::unpack(packed).ok_or(SealError::Damaged)?)
}

/// Opens a sealed summary.
pub(super) fn open_summary(
    key: &SessionKey,
    (tenant, session): (TenantId, SessionId),
    sealed: &Blob,
) -> Result<Summary, ContentError> {
    let what = (Kind::Summary, SESSION_KEY_ID);
    let bytes = seal::open(&key.0, what, Owner::session(tenant, session), &sealed.0)?;
    codec::decode(&bytes).map_err(|_content| ContentError::Unreadable)
}

/// A session's key, from the view.
pub(super) fn load_key(
    state: &impl StateRead,
    ring: &KeyRing,
    (tenant, session): (TenantId, SessionId),
) -> Result<SessionKey, ContentError> {
    let wrapped = state
        .get(&Key::Secret(tenant, session))?
        .ok_or(ContentError::Missing("a session's key"))?;
    Ok(ring.open(tenant, session, &wrapped)?)
}

/// A session's body, from the view, still sealed.
pub(super) fn load_body(
    state: &impl StateRead,
    (tenant, session): (TenantId, SessionId),
) -> Result<Body, ContentError> {
    let bytes = state
        .get(&Key::Body(tenant, session))?
        .ok_or(ContentError::Missing("a session's body"))?;
    Ok(codec::decode(&bytes).map_err(StateError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::keys::MasterKey;
    use model::document;
    use model::state::StateWrite;
    use model::testing::MemoryState;

    const WHO: (TenantId, SessionId) = (TenantId(1), SessionId::from_bytes([5; 16]));

    fn key() -> SessionKey {
        KeyRing::new(MasterKey::new(1, [1; 32]), Vec::new())
            .create(WHO.0, WHO.1)
            .0
    }

    /// A document that does not compress.
    fn noise(bytes: usize) -> Input {
        let mut raw = vec![0; bytes / 2];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut raw);
        let body = format!(r#"{{"name":"n","extra":"{}"}}"#, hex::encode(raw));
        document::create(&Bytes::from(body)).unwrap()
    }

    fn stored(prepared: &Prepared) -> MemoryState {
        let mut state = MemoryState::default();
        for chunk in &prepared.chunks {
            state.put(Key::Chunk(chunk.id), chunk.data.clone());
        }
        state
    }

    #[test]
    fn a_large_body_is_cut_and_comes_back_whole() {
        let key = key();
        let input = noise(5 * 1024 * 1024);
        let sections = input.sections.clone();
        let prepared = prepare(&key, WHO, input);
        assert!(prepared.chunks.len() >= 3);
        assert!(
            prepared
                .chunks
                .iter()
                .all(|chunk| chunk.data.len() <= MAX_CHUNK_BYTES + OVERHEAD_BYTES)
        );
        let state = stored(&prepared);
        let back = open_body(&state, &key, WHO, &prepared.content.body).unwrap();
        assert_eq!(back, sections);
    }

    #[test]
    fn a_chunk_that_is_changed_exchanged_or_gone_is_refused() {
        let key = key();
        let prepared = prepare(&key, WHO, noise(3 * 1024 * 1024));
        let whole = stored(&prepared);
        let (first, second) = (prepared.chunks[0].id, prepared.chunks[1].id);
        let mut changed = whole.clone();
        let mut bytes = prepared.chunks[0].data.to_vec();
        bytes[500] ^= 1;
        changed.put(Key::Chunk(first), Bytes::from(bytes));
        let mut exchanged = whole.clone();
        exchanged.put(Key::Chunk(first), prepared.chunks[1].data.clone());
        exchanged.put(Key::Chunk(second), prepared.chunks[0].data.clone());
        let mut gone = whole;
        gone.delete(Key::Chunk(second));
        for state in [changed, exchanged, gone] {
            assert!(open_body(&state, &key, WHO, &prepared.content.body).is_err());
        }
    }

    #[test]
    fn nothing_of_a_document_is_readable_in_what_is_stored() {
        let key = key();
        let body = br#"{"name":"very-secret-name","cookies":[{"name":"sid","value":"hunter2","domain":"a.b","path":"/"}]}"#;
        let input = document::create(&Bytes::from_static(body)).unwrap();
        let prepared = prepare(&key, WHO, input);
        let bytes = codec::encode(&prepared.content);
        for secret in [&b"hunter2"[..], b"very-secret-name", b"sid", b"a.b"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        assert!(!format!("{prepared:?}").contains("hunter2"));
        let summary = open_summary(&key, WHO, &prepared.content.summary).unwrap();
        assert_eq!(summary.name, "very-secret-name");
    }
}
