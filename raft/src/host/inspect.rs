//! What a simulation sees of a node's replicas, and what it may ask of them. Only with the feature `testing`.
//!
//! Reading changes nothing. All that is asked of a replica here is what the host or an operator does by itself too.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use model::id::{GroupId, NodeId, SessionId};
use model::meta::MetaState;
use model::shard::Record;
use model::state::{Due, Key, StateError};
use model::time::UnixMillis;
use storage::disk::Disk;
use storage::log::{GroupLog, LogId, LogState, Vote};
use storage::state::TabletStore;

use super::Host;
use super::inner::Opened;
use crate::{life, types};

/// More values of a kind than a simulated state has.
const PAGE: usize = 1 << 20;

/// What a replica says of itself, at one moment.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub struct Facts {
    /// Its group.
    pub group: GroupId,
    /// The last vote saved; it may not be durable yet.
    pub vote: Option<Vote>,
    /// The term and node of its leadership, if it leads.
    pub leads: Option<(u64, u64)>,
    /// Whether it leads and has applied all that was committed before.
    pub ready: bool,
    /// Whether it would answer a read alone, now.
    pub leased: bool,
    /// Where its log begins and ends.
    pub log: LogState,
    /// If it leads: how much of what is committed each other member has acknowledged to it, by index.
    pub acknowledged: Vec<(NodeId, u64)>,
    /// Up to where it knows the log as committed.
    pub committed: Option<LogId>,
    /// The last entry that it applied.
    pub applied: Option<LogId>,
    /// Log time as applied.
    pub log_time: UnixMillis,
    /// Who votes in its group, as far as it knows.
    pub voters: Vec<NodeId>,
    /// Whether it knows these voters to be committed, with no change under way: until then those before them may decide alone.
    pub settled: bool,
}

impl Facts {
    /// A replica of this group that has done nothing yet.
    #[must_use]
    pub const fn new(group: GroupId) -> Self {
        Self {
            group,
            vote: None,
            leads: None,
            ready: false,
            leased: false,
            log: LogState {
                last: None,
                purged: None,
            },
            acknowledged: Vec::new(),
            committed: None,
            applied: None,
            log_time: UnixMillis(0),
            voters: Vec::new(),
            settled: true,
        }
    }
}

/// A replica, at one moment: its facts, and what it stores.
#[derive(Debug)]
pub struct Inspected {
    /// What it says of itself.
    pub facts: Facts,
    entries: GroupLog,
    store: TabletStore,
}

impl Deref for Inspected {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

/// A hash of all that a replica has applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The index applied, and where it came from.
    pub applied: Option<LogId>,
    /// Over all keys and values.
    pub hash: u64,
    /// The sessions that it holds, gone ones included.
    pub sessions: Vec<SessionId>,
}

fn ours(id: types::LogId) -> LogId {
    LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

fn acknowledged(opened: &Opened) -> Vec<(NodeId, u64)> {
    use openraft::async_runtime::watch::WatchReceiver as _;
    let metrics = opened.replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched();
    let committed = metrics.local_committed.map_or(0, |id| id.index);
    let matched = metrics.replication.iter().flatten();
    let matched = matched.map(|(node, matched)| {
        let matched = matched.map_or(0, |id: types::LogId| id.index);
        (NodeId(*node), matched.min(committed))
    });
    matched.collect()
}

fn settled(opened: &Opened) -> bool {
    use openraft::async_runtime::watch::WatchReceiver as _;
    let metrics = opened.replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched();
    let (effective, committed) = (
        &metrics.membership_config,
        &metrics.committed_membership_config,
    );
    effective.log_id() == committed.log_id() && effective.membership().get_joint_config().len() == 1
}

impl Inspected {
    fn of(opened: &Opened) -> Self {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let replica = &opened.replica;
        let server = replica.parts.raft.server_metrics();
        let server = server.borrow_watched().clone();
        let leader = server.vote.leader_id;
        let leads = server.state == openraft::ServerState::Leader && server.vote.committed;
        let facts = Facts {
            group: replica.parts.group,
            vote: replica.parts.log.vote(),
            leads: leads.then_some((leader.term, leader.node_id)),
            ready: replica.role().ready,
            leased: replica.leased_index().is_some(),
            log: replica.parts.log.state(),
            acknowledged: acknowledged(opened),
            committed: replica.parts.log.committed(),
            applied: replica.parts.progress.applied().map(ours),
            log_time: replica.parts.progress.log_time(),
            voters: replica.voters(),
            settled: settled(opened),
        };
        Self {
            facts,
            entries: replica.parts.log.clone(),
            store: replica.parts.store.clone(),
        }
    }

    /// The id of an entry of its log.
    #[must_use]
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.entries.id_at(index)
    }

    /// Ids and hashes of the entries from `from` to before `to` that it has.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn entries(&self, from: u64, to: u64) -> io::Result<Vec<(LogId, u64)>> {
        let found = self.entries.read(from, to, usize::MAX)?;
        let hashed = found.into_iter().map(|entry| {
            let mut hasher = DefaultHasher::new();
            entry.payload.hash(&mut hasher);
            (entry.id, hasher.finish())
        });
        Ok(hashed.collect())
    }

    /// A hash of its state.
    ///
    /// # Errors
    /// When the state cannot be read.
    ///
    /// # Panics
    /// When the state is larger than a simulation's.
    pub fn state(&self) -> Result<StateHash, StateError> {
        let view = self.store.current().view();
        let (tenant, session) = (model::id::TenantId(0), SessionId::from_bytes([0; 16]));
        let slot = model::id::Slot::wrapping(0);
        let chunk = model::id::ChunkId([0; 16]);
        let kinds = [
            Key::Head,
            Key::Meta,
            Key::Session(tenant, session),
            Key::Body(tenant, session),
            Key::Secret(tenant, session),
            Key::ChunkInfo(chunk),
            Key::Chunk(chunk),
            Key::Idempotency(tenant, slot, [0; 32]),
            Key::SessionCount(tenant),
            Key::IdempotencyCount(tenant, slot),
            Key::LooseChunkBytes(tenant),
            Key::Due(UnixMillis(0), Due::Expire(tenant, session)),
        ];
        let mut hasher = DefaultHasher::new();
        let mut sessions = Vec::new();
        for kind in kinds {
            let found = view.scan(&kind, PAGE)?;
            for (key, value) in found {
                if let Key::Session(_, session) = key {
                    model::codec::decode::<Record>(&value)?;
                    sessions.push(session);
                }
                (key, value).hash(&mut hasher);
            }
        }
        Ok(StateHash {
            applied: self.applied,
            hash: hasher.finish(),
            sessions,
        })
    }
}

/// Leaves what a node that was admitted starts with on its empty disk, as a join does.
///
/// # Errors
/// When it cannot be written.
pub fn leave_map(disk: &dyn Disk, node: NodeId, meta: MetaState) -> io::Result<()> {
    life::leave_map(disk, &life::Map { node, meta })
}

impl Host {
    /// The replicas of this node.
    #[must_use]
    pub fn inspect(&self) -> Vec<Inspected> {
        let opened = self.inner.all_opened();
        opened.iter().map(|opened| Inspected::of(opened)).collect()
    }

    /// Whether its log takes nothing more: the node ends as soon as somebody sees it.
    #[must_use]
    pub fn log_has_failed(&self) -> bool {
        let log = self.inner.log.lock();
        log.as_ref().is_some_and(|log| log.failure().is_some())
    }

    /// Asks a replica for a snapshot of what it has applied, and to purge the log before it but for `kept` entries.
    pub async fn shorten(&self, group: GroupId, kept: u64) {
        if let Some(opened) = self.inner.opened(group) {
            super::keeper::shorten(&opened, kept).await;
        }
    }

    /// Asks a replica that leads to hand its leadership over.
    pub async fn hand_over(&self, group: GroupId, to: NodeId) -> bool {
        let Some(opened) = self.inner.opened(group) else {
            return false;
        };
        let replica = Arc::clone(&opened.replica);
        replica.role().ready && replica.hand_over(to).await
    }
}
