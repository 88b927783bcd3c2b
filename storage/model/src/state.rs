//! What a group's state holds, by name, and the narrow door through which `apply` reads and writes it.
//!
//! The order of [`Key`] is the order of a scan. How a key becomes bytes is `storage::keys`' business, which
//! keeps that order. Values are opaque here; each type's home says what its value is.

use bytes::Bytes;

use crate::id::{ChunkId, SessionId, Slot, TenantId};
use crate::time::UnixMillis;

/// The name of one value in a group's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The shard's own small state: log time (`session::ShardHead`).
    Head,
    /// The meta group's state (`meta::MetaState`).
    Meta,
    /// A session's record or tombstone (`session::Record`).
    Session(TenantId, SessionId),
    /// A session's sealed body or chunk manifest (`session::Body`).
    Body(TenantId, SessionId),
    /// A session's wrapped key, apart from data and backups (sealed under the master key).
    Secret(TenantId, SessionId),
    /// A chunk's owner, size and references (`chunk::ChunkInfo`).
    ChunkInfo(ChunkId),
    /// A chunk's sealed bytes.
    Chunk(ChunkId),
    /// The outcome remembered for an idempotency key, by the key's hash (`idempotency::Remembered`).
    Idempotency(TenantId, Slot, [u8; 32]),
    /// Live sessions of a tenant in this shard (a `u64`).
    SessionCount(TenantId),
    /// Live idempotency keys of a tenant and slot (a `u64`).
    IdempotencyCount(TenantId, Slot),
    /// Bytes of a tenant's chunks without a reference (a `u64`).
    LooseChunkBytes(TenantId),
    /// Something to look at when log time has reached the time; the value is empty.
    Due(UnixMillis, Due),
}

/// What a sweep looks at when its time has come. The item's own record decides what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// A session that expired: a subscriber is told; nothing is destroyed.
    Expire(TenantId, SessionId),
    /// A session whose time to be renewed is over.
    Purge(TenantId, SessionId),
    /// A tombstone whose time is over.
    Tombstone(TenantId, SessionId),
    /// An idempotency key whose time is over.
    Idempotency(TenantId, Slot, [u8; 32]),
    /// A chunk that may still be without a reference.
    Chunk(ChunkId),
}

/// State that cannot be read: the disk fails, or a value's checksum does not hold. Never a client's fault.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store answered with an error.
    #[error("state store failed: {0}")]
    Io(String),
    /// A stored value is damaged; it must be repaired from another replica and is never served.
    #[error("stored value is damaged: {0}")]
    Damaged(String),
}

impl From<crate::codec::CodecError> for StateError {
    fn from(error: crate::codec::CodecError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A consistent view of a group's state.
pub trait StateRead {
    /// The value of a key.
    ///
    /// # Errors
    /// When the value cannot be read or is damaged.
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError>;

    /// Up to `limit` values of the same kind as `from`, in key order, beginning at `from` itself.
    ///
    /// # Errors
    /// When a value cannot be read or is damaged.
    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError>;
}

/// A view that takes changes and shows them to its own reads; they become real together, or not at all.
pub trait StateWrite: StateRead {
    /// Sets a value.
    fn put(&mut self, key: Key, value: Bytes);
    /// Removes a value; nothing happens when there is none.
    fn delete(&mut self, key: Key);
}
