//! A group in memory: one log that its replicas apply at once, unless one is told to lag.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use model::id::{GroupId, NodeId};
use model::shard::{self, BEHAVIOR, Command, Event, Outcome, ShardEntry, ShardHead};
use model::state::{Key, StateRead};
use model::testing::MemoryState;
use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::FakeClock;
use crate::log_time::LeaderTime;
use crate::service::Service;
use crate::shard::{BarrierError, Closed, EventSink, ProposeError, ShardGroup};
use crate::watch;

/// What happens to the next proposal of a write; chunks, ticks and sweeps are spared.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is refused, and this node leads from now on.
    NotLeader(NodeId),
    /// It is applied, but its proposer is not told.
    UnknownApplied,
    /// It is lost, and its proposer is not told.
    UnknownLost,
    /// It is applied but not told, and this node leads from now on.
    LeaderKilled(NodeId),
    /// It takes this long.
    Delay(Duration),
    /// It is applied at once, and its proposer is told after this long.
    SlowAnswer(Duration),
    /// It is lost, and its proposer is told after this long that nobody knows.
    SlowLost(Duration),
    /// The group's disk is full.
    DiskFull,
    /// The chunks that were stored ahead are gone.
    ChunksGone,
}

struct Replica {
    state: Arc<MemoryState>,
    applied: usize,
    lags: bool,
    sink: Weak<Service>,
    changed: watch::Sender<u64>,
}

struct GroupState {
    log: Vec<ShardEntry>,
    leader: Option<NodeId>,
    replicas: HashMap<NodeId, Replica>,
    faults: VecDeque<Fault>,
}

/// A group of replicas on fake nodes.
pub struct FakeGroup {
    id: GroupId,
    clock: Arc<FakeClock>,
    state: Mutex<GroupState>,
}

impl FakeGroup {
    /// A group with replicas on these nodes, led by node 1.
    pub(super) fn new(
        id: GroupId,
        clock: Arc<FakeClock>,
        sinks: impl Iterator<Item = (NodeId, Weak<Service>)>,
    ) -> Self {
        let replica = |sink| Replica {
            state: Arc::default(),
            applied: 0,
            lags: false,
            sink,
            changed: watch::Sender::new(0),
        };
        let state = GroupState {
            log: Vec::new(),
            leader: Some(NodeId(1)),
            replicas: sinks.map(|(node, sink)| (node, replica(sink))).collect(),
            faults: VecDeque::new(),
        };
        Self {
            id,
            clock,
            state: Mutex::new(state),
        }
    }

    /// The replica on a node, if it has one.
    pub(super) fn replica(group: &Arc<Self>, node: NodeId) -> Option<Arc<dyn ShardGroup>> {
        let here = group.state.lock().replicas.contains_key(&node);
        here.then(|| {
            Arc::new(Handle {
                node,
                group: Arc::clone(group),
            }) as _
        })
    }

    /// The nodes that have a replica.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.state.lock().replicas.keys().copied().collect();
        nodes.sort_unstable();
        nodes
    }

    /// Adds a fault for a later proposal.
    pub fn fault(&self, fault: Fault) {
        self.state.lock().faults.push_back(fault);
    }

    /// Faults that were added and did not happen yet.
    pub fn faults_left(&self) -> usize {
        self.state.lock().faults.len()
    }

    /// This node leads from now on, or none.
    pub fn lead(&self, leader: Option<NodeId>) {
        self.state.lock().leader = leader;
    }

    /// A replica stops to apply, or catches up.
    pub fn lag(&self, node: NodeId, lags: bool) {
        if let Some(replica) = self.state.lock().replicas.get_mut(&node) {
            replica.lags = lags;
        }
        self.catch_up();
    }

    /// What a replica has stored.
    pub fn stored(&self, node: NodeId) -> MemoryState {
        let state = self.state.lock();
        state
            .replicas
            .get(&node)
            .map(|replica| replica.state.as_ref().clone())
            .unwrap_or_default()
    }

    /// Damages what a replica has stored.
    pub fn damage(&self, node: NodeId, change: impl FnOnce(&mut MemoryState)) {
        if let Some(replica) = self.state.lock().replicas.get_mut(&node) {
            change(Arc::make_mut(&mut replica.state));
        }
    }

    /// Commits a command at the clock's time, as the leader.
    pub fn commit(&self, command: Command) -> Option<Outcome> {
        self.append(vec![command]).and_then(|mut all| all.pop())
    }

    fn append(&self, commands: Vec<Command>) -> Option<Vec<Outcome>> {
        let leader = {
            let mut state = self.state.lock();
            state.log.push(ShardEntry {
                behavior: BEHAVIOR,
                log_time: self.clock.now(),
                commands,
            });
            state.leader
        };
        let outcomes = self.catch_up();
        leader
            .and_then(|leader| outcomes.into_iter().find(|(node, _)| *node == leader))
            .map(|(_, outcomes)| outcomes)
    }

    /// Applies what is not applied yet; answers each replica's last outcomes.
    fn catch_up(&self) -> Vec<(NodeId, Vec<Outcome>)> {
        let mut outcomes = Vec::new();
        let mut told: Vec<(Weak<Service>, Vec<Event>)> = Vec::new();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for (node, replica) in &mut state.replicas {
            while !replica.lags
                && let Some(entry) = state.log.get(replica.applied)
            {
                let applied = shard::apply(Arc::make_mut(&mut replica.state), entry)
                    .expect("a state in memory can be read");
                replica.applied += 1;
                told.push((Weak::clone(&replica.sink), applied.events));
                outcomes.retain(|(other, _)| other != node);
                outcomes.push((*node, applied.outcomes));
                let index = u64::try_from(replica.applied).expect("logs of tests are short");
                replica.changed.send_replace(index);
            }
        }
        // Told under the lock, as `apply` does: in the order of the log.
        for (sink, events) in told {
            if let Some(sink) = sink.upgrade() {
                sink.committed(self.id, events);
            }
        }
        drop(guard);
        outcomes
    }

    fn with<T>(&self, node: NodeId, read: impl FnOnce(&Replica) -> T) -> T {
        let state = self.state.lock();
        let replica = state.replicas.get(&node);
        read(replica.expect("handles are made for nodes with a replica"))
    }
}

/// One node's replica of a fake group.
struct Handle {
    node: NodeId,
    group: Arc<FakeGroup>,
}

#[async_trait]
impl ShardGroup for Handle {
    fn id(&self) -> GroupId {
        self.group.id
    }

    fn is_leader(&self) -> bool {
        self.leader() == Some(self.node)
    }

    fn leader(&self) -> Option<NodeId> {
        self.group.state.lock().leader
    }

    async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        tokio::task::yield_now().await;
        let leader = self.leader();
        if leader != Some(self.node) {
            return Err(ProposeError::NotLeader { leader });
        }
        let write = matches!(
            command,
            Command::Create { .. } | Command::Update { .. } | Command::Delete { .. }
        );
        let fault = write
            .then(|| self.group.state.lock().faults.pop_front())
            .flatten();
        match fault {
            None => {}
            Some(Fault::NotLeader(leader)) => {
                self.group.lead(Some(leader));
                let leader = Some(leader);
                return Err(ProposeError::NotLeader { leader });
            }
            Some(Fault::UnknownApplied) => {
                self.group.commit(command);
                return Err(ProposeError::Unknown);
            }
            Some(Fault::UnknownLost) => return Err(ProposeError::Unknown),
            Some(Fault::LeaderKilled(leader)) => {
                self.group.commit(command);
                self.group.lead(Some(leader));
                return Err(ProposeError::Unknown);
            }
            Some(Fault::Delay(delay)) => {
                let end = Instant::now() + delay;
                tokio::time::sleep_until(end.min(deadline)).await;
                if end > deadline {
                    return Err(ProposeError::Unknown);
                }
            }
            Some(Fault::SlowAnswer(delay)) => {
                let outcome = self.group.commit(command);
                tokio::time::sleep(delay).await;
                return outcome.ok_or(ProposeError::Unknown);
            }
            Some(Fault::SlowLost(delay)) => {
                tokio::time::sleep(delay).await;
                return Err(ProposeError::Unknown);
            }
            Some(Fault::DiskFull) => return Err(ProposeError::DiskFull),
            Some(Fault::ChunksGone) => {
                let mut state = self.group.state.lock();
                for replica in state.replicas.values_mut() {
                    let memory = Arc::make_mut(&mut replica.state);
                    memory
                        .0
                        .retain(|key, _| !matches!(key, Key::ChunkInfo(_) | Key::Chunk(_)));
                }
            }
        }
        self.group.commit(command).ok_or(ProposeError::Unknown)
    }

    async fn barrier(&self, timeout: Duration) -> Result<(), BarrierError> {
        tokio::task::yield_now().await;
        let lags = self.group.with(self.node, |replica| replica.lags);
        if lags || self.leader().is_none() {
            tokio::time::sleep(timeout).await;
            return Err(BarrierError::NoQuorum);
        }
        Ok(())
    }

    fn view(&self) -> Result<Arc<dyn StateRead + Send + Sync>, Closed> {
        Ok(self
            .group
            .with(self.node, |replica| Arc::clone(&replica.state) as _))
    }

    fn log_time(&self) -> UnixMillis {
        let applied = self.group.with(self.node, |replica| {
            ShardHead::load(&*replica.state)
                .expect("a state in memory can be read")
                .log_time
        });
        if self.is_leader() {
            applied.max(self.group.clock.now())
        } else {
            applied
        }
    }

    fn time_of(&self, at: UnixMillis) -> LeaderTime {
        let now = self.group.clock.now();
        match (self.is_leader(), at <= self.log_time()) {
            (true, true) => LeaderTime::Over,
            (true, false) => LeaderTime::ToCome,
            (false, _) if now.plus(Duration::from_secs(1)) < at => LeaderTime::ToCome,
            (false, _) => LeaderTime::Unclear,
        }
    }

    async fn advance(&self, at: UnixMillis, _deadline: Instant) -> Result<(), ProposeError> {
        let leader = self.leader();
        if leader != Some(self.node) {
            return Err(ProposeError::NotLeader { leader });
        }
        if self.group.clock.now() < at {
            return Err(ProposeError::Unknown);
        }
        self.group.append(Vec::new());
        Ok(())
    }

    fn staleness(&self) -> Option<Duration> {
        let lags = self.group.with(self.node, |replica| replica.lags);
        Some(if lags {
            Duration::from_secs(1)
        } else {
            Duration::from_millis(1)
        })
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.group
            .with(self.node, |replica| replica.changed.subscribe())
    }
}
