//! The words of the log: what is appended, remembered and answered.
//!
//! Entries are opaque here; nothing of them is parsed. The ids are those of Raft, spelled without any engine's types.

use std::fmt;
use std::io;

use bytes::Bytes;

/// Called once, when the operation is durable or has failed for good.
///
/// It runs on the log's writer thread, in the order of the operations of all groups, and must return at once.
pub type Callback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The id of an entry: the term and node of the leader that made it, and its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub node: u64,
    /// The place in the log of the group.
    pub index: u64,
}

/// One entry of a group's log.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where and by whom.
    pub id: LogId,
    /// What; opaque.
    pub payload: Bytes,
}

/// A vote of this node in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The candidate voted for.
    pub node: u64,
    /// Whether a quorum has granted it.
    pub committed: bool,
}

/// Where a group's log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// The last entry; if there is none, the last purged one.
    pub last: Option<LogId>,
    /// The last purged entry; all up to it are gone.
    pub purged: Option<LogId>,
}

impl LogId {
    /// Whether both were made by the same leader.
    pub(crate) fn same_leader(&self, other: &Self) -> bool {
        (self.term, self.node) == (other.term, other.node)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.node, self.index)
    }
}

impl fmt::Debug for Entry {
    /// The payload may hold a session: only its length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {} bytes)", self.id, self.payload.len())
    }
}
