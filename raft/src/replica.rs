//! One running replica of a group: what openraft, the store and the log make together.
//!
//! Knows who leads, keeps log time while this node does, answers "up to where must be read", and knows how old its
//! view may be. What is proposed, and by whom, is `group.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::id::{GroupId, NodeId};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::type_config::async_runtime::instant::Instant as _;
use parking_lot::Mutex;
use storage::log::GroupLog;
use storage::state::TabletStore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::coalesce::Coalesce;
use crate::lease::{SleepWatch, VoteGate};
use crate::log_time::{Clocks, LogTime};
use crate::machine::Progress;
use crate::timing::Pace;
use crate::types::{LeaderId, LogId, Raft};
use crate::watch;

/// Most probes whose index is not applied yet.
const MAX_PROBES: usize = 64;

/// Why there is no read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoIndex {
    /// Another node leads, or none.
    NotLeader,
    /// No quorum answered.
    NoQuorum,
    /// The group stops.
    Stopped,
}

/// Who leads a group, seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// Who leads, as far as is known.
    pub(crate) leader: Option<NodeId>,
    /// Whether this node does, and has applied what was committed before it did.
    pub(crate) ready: bool,
}

/// What a replica is made of.
pub(crate) struct Parts {
    pub(crate) group: GroupId,
    pub(crate) me: NodeId,
    pub(crate) raft: Raft,
    pub(crate) progress: Arc<Progress>,
    pub(crate) store: TabletStore,
    pub(crate) log: GroupLog,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) sleep: Arc<SleepWatch>,
    pub(crate) tasks: TaskTracker,
    pub(crate) pace: Pace,
    pub(crate) gate: VoteGate,
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) parts: Parts,
    pub(crate) time: Arc<LogTime>,
    role: watch::Sender<Role>,
    /// Whether this leadership was offered to another node. The lease is not worth anything from then on: the voters that promised it do not
    /// keep it from whoever leadership is handed to, and an offer that had no answer may still be on its way.
    offered: AtomicBool,
    closed: AtomicBool,
    rounds: Coalesce<(), Result<u64, NoIndex>>,
    freshness: Mutex<Freshness>,
    /// When an append that the leader got accepted had arrived.
    heard: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Freshness {
    /// When a probe was sent, and the index that its answer named.
    waiting: VecDeque<(Instant, u64)>,
    newest: Option<Instant>,
}

impl Replica {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            time: Arc::default(),
            role: watch::Sender::new(Role::default()),
            offered: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            rounds: Coalesce::default(),
            freshness: Mutex::default(),
            heard: Mutex::default(),
        })
    }

    /// From now on it shows nothing of its store: that may be given another state.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether it was [closed](Self::close).
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Who leads, and whether this node does.
    pub(crate) fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// Changes when the role does.
    pub(crate) fn roles(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// The voters of the group, as this replica knows them.
    pub(crate) fn voters(&self) -> Vec<NodeId> {
        let metrics = self.parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().map(NodeId).collect()
    }

    /// All members: voters, then learners.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        let metrics = self.parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership
            .voter_ids()
            .chain(membership.learner_ids())
            .map(NodeId)
            .collect()
    }

    /// Keeps the role and log time, until the group stops.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut server = self.parts.raft.server_metrics();
        let mut applied = self.parts.progress.index();
        loop {
            let (leads, leader) = {
                let now = server.borrow_and_update();
                let leads = now.state == ServerState::Leader && now.vote.committed;
                let leads = (leads && now.vote.leader_id.node_id == self.parts.me.0)
                    .then_some(now.vote.leader_id);
                (leads, now.current_leader.map(NodeId))
            };
            let waits = self.set_role(leads, leader);
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { break },
                changed = applied.changed(), if waits => if changed.is_err() { break },
            }
        }
        self.set_role(None, None);
    }

    /// Whether this node leads but has not applied its own first entry yet.
    fn set_role(&self, leads: Option<LeaderId>, leader: Option<NodeId>) -> bool {
        // An applied entry of this leadership means that all before it is applied too.
        let applied = self.parts.progress.applied();
        let ready = leads.is_some() && applied.map(|id| id.leader_id) == leads;
        let before = self.role();
        if ready && !before.ready {
            let median = self.parts.clocks.trusted(&self.voters());
            self.time.start(self.parts.progress.log_time(), median);
            self.offered.store(false, Ordering::Release);
            tracing::info!(group = %self.parts.group, "this node leads");
        }
        if !ready && before.ready {
            self.time.stop();
            tracing::info!(group = %self.parts.group, ?leader, "this node leads no more");
        }
        let role = Role { leader, ready };
        self.role
            .send_if_modified(|old| std::mem::replace(old, role) != role);
        leads.is_some() && !ready
    }

    /// Whether this node may answer reads alone, now.
    fn has_lease(&self) -> bool {
        if !self.role().ready || self.offered.load(Ordering::Acquire) {
            return false;
        }
        let acked = {
            let metrics = self.parts.raft.metrics();
            let metrics = metrics.borrow_watched();
            let me = self.parts.me.0;
            // On the path of every read: `voter_ids` would make a set of them.
            let configs = metrics.membership_config.membership().get_joint_config();
            // One that is no voter any more will hand over by openraft's own will, and not ask first.
            if metrics.state != ServerState::Leader
                || metrics.vote.leader_id.node_id != me
                || !configs.iter().any(|config| config.contains(&me))
            {
                return false;
            }
            metrics
                .last_quorum_acked
                .map(|acked| acked.into_inner().elapsed())
        };
        let Some(age) = acked else { return false };
        let sent = Instant::now().checked_sub(age);
        age < self.parts.pace.lease() * 2 / 3
            && sent.is_some_and(|sent| self.parts.sleep.is_since(sent))
    }

    /// Whether this node leads and has heard so from a quorum of late. One whose disk or process hangs does not learn that
    /// another leads: who asks it is sent elsewhere.
    pub(crate) fn leads(&self) -> bool {
        if !self.role().ready {
            return false;
        }
        let metrics = self.parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        let alone = matches!(&configs[..], [config] if config.len() == 1);
        let acked = metrics.last_quorum_acked;
        alone
            || acked.is_some_and(|acked| acked.into_inner().elapsed() < self.parts.pace.lease() * 4)
    }

    /// The index up to which must be read to see every write acknowledged before now. Only on the leader; by the lease if it
    /// holds, else by a round that all who ask at the same time share.
    pub(crate) async fn read_index(&self) -> Result<u64, NoIndex> {
        if let Some(index) = self.leased_index() {
            return Ok(index);
        }
        let raft = self.parts.raft.clone();
        let round = move |waiting: Vec<()>| {
            let raft = raft.clone();
            async move {
                // Without the lease only an answer to a question that is asked now counts.
                let fresh = LinearizerOption::new(Some(Duration::ZERO), true);
                let result = raft.get_read_linearizer(fresh).await;
                let result = result
                    .map(|ready| ready.read_log_id().index())
                    .map_err(|error| no_index(&error));
                vec![result; waiting.len()]
            }
        };
        let answer = self.rounds.ask(&self.parts.tasks, (), round).await;
        answer.unwrap_or(Err(NoIndex::Stopped))
    }

    /// The read index, if the lease gives it at once: up to where anybody may have seen entries. What is applied here would not do: a
    /// follower may have applied, and shown, what this leader has committed and is still to apply.
    pub(crate) fn leased_index(&self) -> Option<u64> {
        self.has_lease().then(|| self.parts.progress.shown())
    }

    /// Whether all up to `index` is applied here.
    pub(crate) fn has_applied(&self, index: u64) -> bool {
        self.parts.progress.applied_index() >= index
    }

    /// Waits until `index` is applied; says whether it was in time.
    pub(crate) async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut applied = self.parts.progress.index();
        let reached = applied.wait_for(|applied| *applied >= index);
        matches!(timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// The leader named `index` in the answer to a probe that was sent at `sent`.
    pub(crate) fn probed(&self, sent: Instant, index: u64) {
        let mut freshness = self.freshness.lock();
        if freshness.waiting.len() < MAX_PROBES {
            freshness.waiting.push_back((sent, index));
        }
        self.settle(&mut freshness);
    }

    fn settle(&self, freshness: &mut Freshness) {
        let applied = self.parts.progress.applied_index();
        while let Some((sent, _)) = freshness
            .waiting
            .pop_front_if(|(_, index)| *index <= applied)
        {
            freshness.newest = freshness.newest.max(Some(sent));
        }
    }

    /// How old this replica's view may be.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        // A leader that is still to apply what others have shown is behind them.
        let leased = self.leased_index();
        if leased.is_some_and(|index| self.has_applied(index)) {
            return Some(Duration::ZERO);
        }
        let mut freshness = self.freshness.lock();
        self.settle(&mut freshness);
        freshness.newest.map(|sent| sent.elapsed())
    }

    /// An append or heartbeat that arrived at `arrived` was accepted.
    pub(crate) fn heard_leader(&self, arrived: Instant) {
        let mut heard = self.heard.lock();
        *heard = heard.max(Some(arrived));
    }

    /// Whether a leader was heard within half of its lease: no election can be due before the next beat (`host/pulse.rs`).
    pub(crate) fn hears_leader(&self) -> bool {
        let patience = self.parts.pace.lease() / 2;
        self.heard.lock().is_some_and(|at| at.elapsed() < patience)
    }

    /// Hands leadership to `to`: from here reads need a round, for as long as this leadership lasts, and writes are refused until the new
    /// leader is known, or openraft takes them up again after an election timeout.
    pub(crate) async fn hand_over(&self, to: NodeId) -> bool {
        self.offered.store(true, Ordering::Release);
        let trigger = self.parts.raft.trigger();
        trigger.transfer_leader(to.0).await.is_ok()
    }

    /// Members that have the whole log, most complete first: to whom leadership can go.
    pub(crate) fn caught_up(&self) -> Vec<NodeId> {
        let metrics = self.parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (Some(replication), Some(last)) = (&metrics.replication, metrics.last_log_index) else {
            return Vec::new();
        };
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let mut ready: Vec<(u64, u64)> = replication
            .iter()
            .filter(|(node, _)| **node != self.parts.me.0 && voters.contains(*node))
            .map(|(node, matched)| (matched.map_or(0, |id: LogId| id.index), *node))
            .filter(|(matched, _)| *matched + 64 >= last)
            .collect();
        ready.sort_unstable_by(|one, other| other.cmp(one));
        ready.into_iter().map(|(_, node)| NodeId(node)).collect()
    }
}

fn no_index(
    error: &RaftError<crate::types::Types, LinearizableReadError<crate::types::Types>>,
) -> NoIndex {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(_)) => NoIndex::NotLeader,
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => NoIndex::NoQuorum,
        RaftError::Fatal(_) => NoIndex::Stopped,
    }
}
