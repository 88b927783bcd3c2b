//! The one place where openraft's generics are fixed, and where its names become ours.
//!
//! Nothing outside this crate knows these types; what is stored and sent is our own encoding (`message.rs`). Node ids are
//! plain numbers here and [`model::id::NodeId`] everywhere else.

use std::fmt;

use bytes::Bytes;
use model::meta::MetaOutcome;
use model::shard::Outcome;
use openraft::OptionalSend;

/// The consensus types of every group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Data;
    type R = Reply;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = crate::chance::Runtime;
    type Responder<T>
        = Callback<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// One running group, as openraft sees it.
pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;
/// Who leads, in which term.
pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
/// The place of an entry.
pub(crate) type LogId = openraft::LogId<LeaderId>;
/// A promise to a candidate, or to a leader.
pub(crate) type Vote = openraft::Vote<LeaderId>;
/// What an entry carries.
pub(crate) type Payload = openraft::EntryPayload<Data, u64, ()>;
/// One entry of a log.
pub(crate) type Entry = openraft::Entry<LeaderId, Payload>;
/// Voters and learners.
pub(crate) type Membership = openraft::Membership<u64, ()>;
/// A membership and the entry that made it.
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, ()>;
/// What a snapshot contains.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, ()>;
/// A snapshot and its files.
pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, (), crate::snapshot::SnapshotData>;
/// Entries for a follower.
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<Types>;
/// What a follower says to them.
pub(crate) type AppendResult = openraft::raft::StreamAppendResult<Types>;
/// What comes of a proposal.
pub(crate) type WriteResult = openraft::raft::ClientWriteResult<Types>;

/// Why openraft could not do what was asked.
pub(crate) type RpcError = openraft::error::RPCError<Types>;

/// An encoded entry of a group's state machine: `ShardEntry` or `MetaEntry` in the model's codec. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Data(pub(crate) Bytes);

impl fmt::Debug for Data {
    /// Without the bytes, which hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `apply` answers to the one who proposed an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The entry had no commands: blank, or a change of membership.
    None,
    /// One outcome for each command of a shard's entry.
    Shard(Vec<Outcome>),
    /// One outcome for each command of a meta entry.
    Meta(Vec<MetaOutcome>),
}

/// Tells the proposer what came of its entry, inside the task that knows it: no task is woken in between.
pub(crate) struct Callback<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Callback<T> {
    /// `done` must be quick and must not wait. If the group stops, it is dropped without a call.
    pub(crate) fn new(done: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(done))
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<Types, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// A log id from its three numbers.
pub(crate) const fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId {
            term,
            node_id: node,
        },
        index,
    }
}
