//! Chunks of large bodies: stored ahead, then referred to, and counted by reference.
//!
//! A chunk without a reference counts against its tenant and goes after ten minutes of log time. A chunk whose last
//! reference goes is removed at once.

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::{self, Blob};
use crate::id::{ChunkId, TenantId};
use crate::limits::{CHUNK_TTL, MAX_LOOSE_CHUNK_BYTES};
use crate::shard::{Outcome, Rejection, counter, set_counter};
use crate::state::{Due, Key, StateError, StateRead, StateWrite};
use crate::time::UnixMillis;

/// Who a chunk belongs to and how many bodies refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkInfo {
    /// Its owner; a body of another tenant cannot refer to it.
    pub tenant: TenantId,
    /// Its sealed length.
    pub bytes: u64,
    /// How many bodies refer to it.
    pub references: u32,
}

fn load(state: &impl StateRead, chunk: ChunkId) -> Result<Option<ChunkInfo>, StateError> {
    let bytes = state.get(&Key::ChunkInfo(chunk))?;
    Ok(bytes.map(|bytes| codec::decode(&bytes)).transpose()?)
}

fn add_loose(
    state: &mut impl StateWrite,
    info: &ChunkInfo,
    change: impl Fn(u64, u64) -> u64,
) -> Result<(), StateError> {
    let key = Key::LooseChunkBytes(info.tenant);
    let loose = counter(state, &key)?;
    set_counter(state, key, change(loose, info.bytes));
    Ok(())
}

/// Stores a chunk; storing it again changes nothing.
pub(super) fn put(
    state: &mut impl StateWrite,
    tenant: TenantId,
    chunk: ChunkId,
    data: &Blob,
    now: UnixMillis,
) -> Result<Outcome, StateError> {
    if let Some(info) = load(state, chunk)? {
        return Ok(if info.tenant == tenant {
            Outcome::Done { swept: 0 }
        } else {
            Outcome::Rejected(Rejection::Exists)
        });
    }
    let bytes = u64::try_from(data.0.len()).unwrap_or(u64::MAX);
    let loose = counter(state, &Key::LooseChunkBytes(tenant))?;
    if loose.saturating_add(bytes) > MAX_LOOSE_CHUNK_BYTES {
        return Ok(Outcome::Rejected(Rejection::TooManyLooseChunks));
    }
    let info = ChunkInfo {
        tenant,
        bytes,
        references: 0,
    };
    state.put(Key::ChunkInfo(chunk), codec::encode(&info));
    state.put(Key::Chunk(chunk), data.0.clone());
    state.put(
        Key::Due(now.plus(CHUNK_TTL), Due::Chunk(chunk)),
        Bytes::new(),
    );
    add_loose(state, &info, u64::saturating_add)?;
    Ok(Outcome::Done { swept: 0 })
}

/// Those of the chunks that the tenant does not have here.
pub(super) fn missing(
    state: &impl StateRead,
    tenant: TenantId,
    chunks: &[ChunkId],
) -> Result<Vec<ChunkId>, StateError> {
    let mut missing = Vec::new();
    for &chunk in chunks {
        if load(state, chunk)?.is_none_or(|info| info.tenant != tenant) {
            missing.push(chunk);
        }
    }
    Ok(missing)
}

/// Adds a reference to each chunk. All of them are there: [`missing`] was asked.
pub(super) fn refer(state: &mut impl StateWrite, chunks: &[ChunkId]) -> Result<(), StateError> {
    for &chunk in chunks {
        if let Some(mut info) = load(state, chunk)? {
            if info.references == 0 {
                add_loose(state, &info, u64::saturating_sub)?;
            }
            info.references = info.references.saturating_add(1);
            state.put(Key::ChunkInfo(chunk), codec::encode(&info));
        }
    }
    Ok(())
}

/// Takes a reference from each chunk, and removes those that have none left.
pub(super) fn release(state: &mut impl StateWrite, chunks: &[ChunkId]) -> Result<(), StateError> {
    for &chunk in chunks {
        if let Some(mut info) = load(state, chunk)? {
            info.references = info.references.saturating_sub(1);
            if info.references == 0 {
                state.delete(Key::ChunkInfo(chunk));
                state.delete(Key::Chunk(chunk));
            } else {
                state.put(Key::ChunkInfo(chunk), codec::encode(&info));
            }
        }
    }
    Ok(())
}

/// Removes a chunk to which nothing has come to refer.
pub(super) fn forget(state: &mut impl StateWrite, chunk: ChunkId) -> Result<(), StateError> {
    if let Some(info) = load(state, chunk)?.filter(|info| info.references == 0) {
        add_loose(state, &info, u64::saturating_sub)?;
        state.delete(Key::ChunkInfo(chunk));
        state.delete(Key::Chunk(chunk));
    }
    Ok(())
}
