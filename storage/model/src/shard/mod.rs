//! A shard's state machine: entries are batches of commands, applied one after another.
//!
//! What comes in: a [`ShardEntry`] from the log. What goes out: one [`Outcome`] for each command, in order, and
//! the [`Event`]s for those who watch. Nothing else is read: no clock, no randomness, no configuration
//! (`design.md`, section 3, rule 5).
//!
//! | file | command |
//! |---|---|
//! | `write.rs` | `Create`, `Update`, `Delete` |
//! | `chunk.rs` | `PutChunk`, and the references to chunks |
//! | `sweep.rs` | `Sweep`: expiry, purge, forgotten keys and chunks |
//! | `idempotency.rs` | what an `Idempotency-Key` remembers |
//! | `record.rs` | what is stored for a session |
//! | `requests.rs` | the requests that a session remembers |
//!
//! Invariants: see the crate's header (S-1 to S-7).

mod chunk;
mod idempotency;
mod record;
mod requests;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

pub use chunk::ChunkInfo;
pub use idempotency::IdempotencyTag;
pub use record::{Body, Content, Ending, Live, Record, Tombstone};
pub use requests::{Remembered, Requests};
pub use sweep::next_due;
pub use write::decided;

use bincode::{Decode, Encode};

use crate::codec::{self, Blob};
use crate::id::{ChunkId, RequestId, SessionId, TenantId, Version};
use crate::state::{Key, StateError, StateRead, StateWrite};
use crate::time::UnixMillis;

/// The behavior version that this build proposes. The code of the version before stays until no group names it.
pub const BEHAVIOR: u16 = 1;

/// One entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardEntry {
    /// The behavior version under which the commands are applied.
    pub behavior: u16,
    /// The leader's log time. `apply` never lets a shard's time go back.
    pub log_time: UnixMillis,
    /// At most `limits::MAX_BATCH_COMMANDS`; none is a tick.
    pub commands: Vec<Command>,
}

/// Which request a command carries out, so that it is carried out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestTag {
    /// The same for every retry.
    pub id: RequestId,
    /// `apply` refuses the command when log time has passed this.
    pub not_after: UnixMillis,
}

/// One change of a shard's state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// A new session.
    Create {
        /// The session's owner.
        tenant: TenantId,
        /// Made by the gateway.
        session: SessionId,
        /// Whose request this is.
        request: RequestTag,
        /// The client's idempotency key, if it sent one.
        idempotency: Option<IdempotencyTag>,
        /// The session's wrapped key.
        key: Blob,
        /// Its first content.
        content: Content,
    },
    /// New content for a session, made from the version that is expected.
    Update {
        /// The session's owner.
        tenant: TenantId,
        /// The session.
        session: SessionId,
        /// Whose request this is.
        request: RequestTag,
        /// The client's idempotency key, if it sent one.
        idempotency: Option<IdempotencyTag>,
        /// The version from which the content was made; any other is refused.
        expected: Version,
        /// The request that was to make that version, when this was proposed before its end was known. The same version
        /// made by another request is refused as another version is.
        after: Option<RequestId>,
        /// The new content.
        content: Content,
    },
    /// The end of a session.
    Delete {
        /// The session's owner.
        tenant: TenantId,
        /// The session.
        session: SessionId,
        /// Whose request this is.
        request: RequestTag,
        /// The client's idempotency key, if it sent one.
        idempotency: Option<IdempotencyTag>,
        /// The version that must be there, if the client named one.
        expected: Option<Version>,
    },
    /// A piece of a large body, ahead of the command that will refer to it.
    PutChunk {
        /// Who pays for it.
        tenant: TenantId,
        /// Random.
        chunk: ChunkId,
        /// Sealed, at most `limits::MAX_CHUNK_BYTES` and an envelope.
        data: Blob,
    },
    /// Handle what is due at this entry's log time, at most `limits::MAX_SWEEP` items.
    Sweep,
}

impl Command {
    /// About how many bytes the command takes in an entry.
    #[must_use]
    pub fn weight(&self) -> usize {
        const HEAD: usize = 128;
        HEAD.saturating_add(match self {
            Self::Create { content, key, .. } => content.weight().saturating_add(key.0.len()),
            Self::Update { content, .. } => content.weight(),
            Self::PutChunk { data, .. } => data.0.len(),
            Self::Delete { .. } | Self::Sweep => 0,
        })
    }
}

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The session has this version now; or had it, when `replayed`.
    Written {
        /// The session; another one than asked for when an idempotency key remembered it.
        session: SessionId,
        /// The version that this request made.
        version: Version,
        /// Whether an earlier try of the same request did it.
        replayed: bool,
    },
    /// The session is gone.
    Deleted {
        /// The session.
        session: SessionId,
        /// Whether an earlier try of the same request did it.
        replayed: bool,
    },
    /// A chunk is stored, or a sweep has handled this many items.
    Done {
        /// How many items a sweep handled; zero for others.
        swept: u32,
    },
    /// Nothing was changed.
    Rejected(Rejection),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Rejection {
    /// No such session of this tenant.
    NotFound,
    /// The session has another version than was expected.
    VersionMismatch {
        /// The version it has.
        current: Version,
    },
    /// The id is taken.
    Exists,
    /// Log time has passed the request's `not_after`.
    Late,
    /// The session remembers as many live requests as it may.
    TooManyRequests,
    /// The tenant has as many live idempotency keys in this slot as it may.
    TooManyKeys,
    /// The idempotency key was used for another request.
    KeyReused,
    /// These chunks are not here, or belong to another tenant.
    ChunksMissing(Vec<ChunkId>),
    /// The tenant has too many bytes of chunks without a reference.
    TooManyLooseChunks,
}

/// Something that those who watch a session are told, after it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The session's owner.
    pub tenant: TenantId,
    /// The session.
    pub session: SessionId,
    /// The version that the event made, or ended.
    pub version: Version,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Created or changed; with what a watcher needs to show it.
    Updated(Box<Live>, Body),
    /// Deleted or purged.
    Deleted,
    /// Its time is over; it can still be renewed.
    Expired,
}

/// What one entry did.
#[derive(Debug, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// In the order in which they happened.
    pub events: Vec<Event>,
}

/// The shard's own small state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ShardHead {
    /// Never goes back.
    pub log_time: UnixMillis,
}

impl ShardHead {
    /// The head of a shard; of an empty one, that of 1970.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn load(state: &impl StateRead) -> Result<Self, StateError> {
        Ok(state
            .get(&Key::Head)?
            .map(|bytes| codec::decode(&bytes))
            .transpose()?
            .unwrap_or_default())
    }
}

/// Applies one entry. Deterministic: the same state and entry give the same state, outcomes and events on every
/// replica.
///
/// # Errors
/// Only when the state cannot be read. The caller must then drop all of the entry's changes.
pub fn apply(state: &mut impl StateWrite, entry: &ShardEntry) -> Result<Applied, StateError> {
    let before = ShardHead::load(state)?;
    let now = before.log_time.max(entry.log_time);
    if now != before.log_time {
        state.put(Key::Head, codec::encode(&ShardHead { log_time: now }));
    }
    let mut applied = Applied::default();
    for command in &entry.commands {
        let outcome = match command {
            Command::Create { .. } | Command::Update { .. } | Command::Delete { .. } => {
                write::apply(state, command, now, &mut applied.events)?
            }
            Command::PutChunk {
                tenant,
                chunk,
                data,
            } => chunk::put(state, *tenant, *chunk, data, now)?,
            Command::Sweep => sweep::apply(state, now, &mut applied.events)?,
        };
        applied.outcomes.push(outcome);
    }
    Ok(applied)
}

/// Live sessions of a tenant in this shard.
///
/// # Errors
/// When the state cannot be read.
pub fn live_sessions(state: &impl StateRead, tenant: TenantId) -> Result<u64, StateError> {
    counter(state, &Key::SessionCount(tenant))
}

fn counter(state: &impl StateRead, key: &Key) -> Result<u64, StateError> {
    Ok(state
        .get(key)?
        .map(|bytes| codec::decode(&bytes))
        .transpose()?
        .unwrap_or(0))
}

fn set_counter(state: &mut impl StateWrite, key: Key, value: u64) {
    if value == 0 {
        state.delete(key);
    } else {
        state.put(key, codec::encode(&value));
    }
}
