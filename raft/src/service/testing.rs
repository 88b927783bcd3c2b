//! Nodes, groups and links in memory, to test the service against: real `apply`, faults on demand.
//!
//! A [`FakeGroup`] is one log that its replicas apply at once, unless one is told to lag. What it does not have:
//! elections, terms, disks. Faults are consumed in the order in which they were added.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::id::{GroupId, NodeId, RegionId};
use model::placement;
use model::shard::{self, BEHAVIOR, Command, Event, Outcome, ShardEntry, ShardHead};
use model::state::StateRead;
use model::testing::MemoryState;
use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::service::{KeyRing, MasterKey, Service, ServiceConfig};
use crate::shard::{
    BarrierError, Directory, EventSink, PeerError, Peers, ProposeError, ServiceInbound, ShardGroup,
};

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

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
                told.push((replica.sink.clone(), applied.events));
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
            Some(Fault::DiskFull) => return Err(ProposeError::DiskFull),
            Some(Fault::ChunksGone) => {
                let mut state = self.group.state.lock();
                for replica in state.replicas.values_mut() {
                    use model::state::Key;
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

    fn view(&self) -> Arc<dyn StateRead + Send + Sync> {
        self.group
            .with(self.node, |replica| Arc::clone(&replica.state) as _)
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

struct Network {
    services: Mutex<HashMap<NodeId, Weak<Service>>>,
    /// What happens to the next calls.
    faults: Mutex<VecDeque<CallFault>>,
    dead: Mutex<Vec<NodeId>>,
    calls: AtomicU64,
}

/// What happens to a call between nodes.
#[derive(Clone, Copy, Debug)]
pub enum CallFault {
    /// It is not sent.
    NotSent,
    /// It arrives; its answer does not.
    AnswerLost,
    /// It does not arrive, and nobody knows.
    RequestLost,
}

struct Link {
    from: NodeId,
    network: Arc<Network>,
}

#[async_trait]
impl Peers for Link {
    async fn call(
        &self,
        to: NodeId,
        group: GroupId,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        self.network.calls.fetch_add(1, Ordering::Relaxed);
        let fault = self.network.faults.lock().pop_front();
        let service = self
            .network
            .services
            .lock()
            .get(&to)
            .and_then(Weak::upgrade);
        let dead = self.network.dead.lock().contains(&to);
        let Some(service) = service.filter(|_| !dead) else {
            return Err(PeerError::NotSent);
        };
        match fault {
            Some(CallFault::NotSent) => return Err(PeerError::NotSent),
            Some(CallFault::RequestLost) => return Err(PeerError::Lost),
            Some(CallFault::AnswerLost) | None => {}
        }
        let answer = service.handle(self.from, group, body);
        let answer = tokio::time::timeout(timeout, answer).await;
        match (answer, fault) {
            (Ok(answer), None) => Ok(answer),
            _ => Err(PeerError::Lost),
        }
    }
}

struct Map {
    me: NodeId,
    region: RegionId,
    shards: u16,
    groups: HashMap<GroupId, Arc<FakeGroup>>,
}

impl Directory for Map {
    fn me(&self) -> NodeId {
        self.me
    }

    fn region(&self) -> (RegionId, u16) {
        (self.region, self.shards)
    }

    fn local(&self, group: GroupId) -> Option<Arc<dyn ShardGroup>> {
        let group = self.groups.get(&group)?;
        let here = group.state.lock().replicas.contains_key(&self.me);
        here.then(|| {
            Arc::new(Handle {
                node: self.me,
                group: Arc::clone(group),
            }) as _
        })
    }

    fn replicas(&self, group: GroupId) -> Vec<NodeId> {
        let Some(group) = self.groups.get(&group) else {
            return Vec::new();
        };
        let mut nodes: Vec<_> = group.state.lock().replicas.keys().copied().collect();
        nodes.sort_unstable();
        nodes
    }
}

/// A region of fake nodes.
pub struct FakeRegion {
    /// The clock of all nodes.
    pub clock: Arc<FakeClock>,
    region: RegionId,
    shards: u16,
    groups: HashMap<GroupId, Arc<FakeGroup>>,
    services: HashMap<NodeId, Arc<Service>>,
    network: Arc<Network>,
}

impl FakeRegion {
    /// Nodes 1 to `nodes`; every group has replicas on the first `replicas` of them, and is led by node 1.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new(nodes: u64, replicas: u64, shards: u16, config: &ServiceConfig) -> Self {
        let region = RegionId::new(1).expect("a small number");
        let clock = Arc::new(FakeClock(AtomicU64::new(1_800_000_000_000)));
        let network = Arc::new(Network {
            services: Mutex::default(),
            faults: Mutex::default(),
            dead: Mutex::default(),
            calls: AtomicU64::new(0),
        });
        let keys = KeyRing::new(MasterKey::new(1, [42; 32]), Vec::new());
        let services: HashMap<_, _> = (1..=nodes)
            .map(|node| {
                let clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
                let service = Service::new(config.clone(), region, keys.clone(), clock);
                (NodeId(node), service)
            })
            .collect();
        let replica = |node: u64| Replica {
            state: Arc::default(),
            applied: 0,
            lags: false,
            sink: Arc::downgrade(&services[&NodeId(node)]),
            changed: watch::Sender::new(0),
        };
        let groups: HashMap<_, _> = placement::groups(region, shards)
            .map(|id| {
                let state = GroupState {
                    log: Vec::new(),
                    leader: Some(NodeId(1)),
                    replicas: (1..=replicas)
                        .map(|node| (NodeId(node), replica(node)))
                        .collect(),
                    faults: VecDeque::new(),
                };
                let group = FakeGroup {
                    id,
                    clock: Arc::clone(&clock),
                    state: Mutex::new(state),
                };
                (id, Arc::new(group))
            })
            .collect();
        for (node, service) in &services {
            network
                .services
                .lock()
                .insert(*node, Arc::downgrade(service));
            let map = Map {
                me: *node,
                region,
                shards,
                groups: groups.clone(),
            };
            let link = Link {
                from: *node,
                network: Arc::clone(&network),
            };
            service.attach(Arc::new(map), Arc::new(link));
        }
        Self {
            clock,
            region,
            shards,
            groups,
            services,
            network,
        }
    }

    /// The region's number.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        self.region
    }

    /// The service of a node.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn service(&self, node: u64) -> Arc<Service> {
        Arc::clone(&self.services[&NodeId(node)])
    }

    /// The group of a session.
    ///
    /// # Panics
    /// When the session is of another region.
    #[must_use]
    pub fn group(&self, session: model::id::SessionId) -> Arc<FakeGroup> {
        Arc::clone(&self.groups[&placement::group_of(session, self.shards)])
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<FakeGroup>> {
        self.groups.values()
    }

    /// Something happens to the next call between nodes.
    pub fn call_fault(&self, fault: CallFault) {
        self.network.faults.lock().push_back(fault);
    }

    /// A node cannot be reached any more.
    pub fn kill(&self, node: u64) {
        self.network.dead.lock().push(NodeId(node));
    }

    /// Calls between nodes so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.network.calls.load(Ordering::Relaxed)
    }
}
