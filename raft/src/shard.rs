//! What a shard's group offers to the service on top of it, and how the service reaches other nodes.
//!
//! These traits are the seam inside this crate: `group` implements [`ShardGroup`] over openraft, `host` implements
//! [`Directory`] and [`Peers`]; `service` knows only the traits, so that it can be tested against a group in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::id::{GroupId, NodeId};
use model::shard::{Command, Event, Outcome};
use model::state::StateRead;
use model::time::UnixMillis;
use tokio::time::Instant;

use crate::log_time::LeaderTime;
use crate::watch;

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead: nothing was appended.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// A bound is reached: nothing was appended.
    #[error("too busy")]
    Busy,
    /// The disk is full: nothing was appended.
    #[error("disk full")]
    DiskFull,
    /// The command may or may not be applied.
    #[error("outcome unknown")]
    Unknown,
}

/// Why a read could not be made fresh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// No quorum, or no leader, within the time given.
    #[error("no quorum answered in time")]
    NoQuorum,
    /// The replica is still catching up, or the group is closing.
    #[error("the replica is not ready")]
    NotReady,
}

/// The replica was closed: it is rebuilt, or is not this node's any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica is closed")]
pub struct Closed;

/// A replica of a shard on this node.
#[async_trait]
pub trait ShardGroup: Send + Sync + 'static {
    /// Which group.
    fn id(&self) -> GroupId;

    /// Whether this replica leads, and has applied everything that was committed before it did.
    fn is_leader(&self) -> bool;

    /// Who leads, as far as is known.
    fn leader(&self) -> Option<NodeId>;

    /// Puts a command into the log and answers when it is applied. Commands that arrive together share an entry.
    /// Commands of one caller are applied in the order of the calls only if it waits for each.
    ///
    /// # Errors
    /// See [`ProposeError`]; all but `Unknown` mean that the command is not and will not be applied.
    async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError>;

    /// Returns when [`ShardGroup::view`] shows every write acknowledged before the call. Works on a follower too. Writes
    /// nothing to the log.
    ///
    /// # Errors
    /// See [`BarrierError`].
    async fn barrier(&self, timeout: Duration) -> Result<(), BarrierError>;

    /// A consistent view of what this replica has applied: it never goes back from one to the next.
    ///
    /// # Errors
    /// When the replica is closed: its store may be another one's by now, with an older state.
    fn view(&self) -> Result<Arc<dyn StateRead + Send + Sync>, Closed>;

    /// The log time that the next entry would have, if this replica leads; else the one last applied.
    fn log_time(&self) -> UnixMillis;

    /// Whether `at` is over, and with it a session that expires then: by log time if this replica leads, else by the clocks
    /// that it knows, and then never surely over.
    fn time_of(&self, at: UnixMillis) -> LeaderTime;

    /// Makes the applied log time reach `at`, by an empty entry if need be. Only on the leader.
    ///
    /// # Errors
    /// See [`ProposeError`].
    async fn advance(&self, at: UnixMillis, deadline: Instant) -> Result<(), ProposeError>;

    /// How old this replica's view may be: now less the time at which it sent the newest probe whose answer it has
    /// applied. `None` when there was none yet.
    fn staleness(&self) -> Option<Duration>;

    /// The applied index; changes when an entry is applied.
    fn applied(&self) -> watch::Receiver<u64>;
}

/// Hears what was committed, in the order of each group's log. Called inside `apply`: must be quick, must not wait.
pub trait EventSink: Send + Sync + 'static {
    /// These happened in this group.
    fn committed(&self, group: GroupId, events: Vec<Event>);

    /// A snapshot replaced the group's state: events before it were not told.
    fn replaced(&self, group: GroupId);
}

/// Which groups there are, and where.
pub trait Directory: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> NodeId;

    /// The region of this node and its number of shards.
    fn region(&self) -> (model::id::RegionId, u16);

    /// The replica of a group on this node, if it has one that is open.
    fn local(&self, group: GroupId) -> Option<Arc<dyn ShardGroup>>;

    /// The nodes that have a replica, this one included if it has.
    fn replicas(&self, group: GroupId) -> Vec<NodeId>;
}

/// Why a call to another node's service has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It was not sent: nothing happened there.
    #[error("peer cannot be reached")]
    NotSent,
    /// It was sent, and may have been carried out.
    #[error("peer did not answer")]
    Lost,
}

/// The services of other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Hands `body` to the service of node `to` ([`ServiceInbound::handle`]) and returns its answer. Large bodies travel on the
    /// bulk connection.
    ///
    /// # Errors
    /// See [`PeerError`].
    async fn call(
        &self,
        to: NodeId,
        group: GroupId,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError>;
}

/// The receiving end of [`Peers::call`].
#[async_trait]
pub trait ServiceInbound: Send + Sync + 'static {
    /// Carries out a call of another node's service. The bytes are the service's own encoding, both ways.
    async fn handle(&self, from: NodeId, group: GroupId, body: Bytes) -> Bytes;
}
