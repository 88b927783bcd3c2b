//! A cluster within one process: real groups, logs and state machines on simulated disks and a simulated network.
//!
//! Nodes can be killed (what was not synced is gone), started again, wiped, cut off. Time is tokio's. Nothing here is for
//! production.

mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::codec::Blob;
use model::id::{ChunkId, GroupId, NodeId, RegionId, RequestId, ShardId, TenantId};
use model::meta::NodeAddress;
use model::shard::{Command, Event, Outcome};
use model::state::Key;
use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use storage::disk::{CrashKeeps, Disk, SimDisk};
use storage::memory::MemoryDisk;
use storage::state::StateEngine;
use tokio::time::Instant;

pub use faults::Image;

use crate::error::StartError;
use crate::host::{Attached, Engines, Host, HostConfig, LogWriter, Tuning};
use crate::shard::{EventSink, ProposeError, ServiceInbound, ShardGroup};
use crate::transport::ca::{Authority, ClusterName, Validity};
use crate::transport::testing::Net;

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Wall time at which every test begins, in seconds.
const NOW: u64 = 1_800_000_000;

/// A wall clock that follows tokio's clock, off by as much as a test wants.
#[derive(Debug)]
pub struct TestClock {
    began: Instant,
    /// Milliseconds by which it is ahead.
    ahead: Mutex<i64>,
}

impl TestClock {
    /// A clock that is right.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let ahead = Mutex::new(0);
        let began = Instant::now();
        Arc::new(Self { began, ahead })
    }

    /// Sets how many milliseconds it is ahead.
    pub fn set_ahead(&self, millis: i64) {
        *self.ahead.lock() = millis;
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        let right = UnixMillis(NOW * 1000).plus(self.began.elapsed());
        UnixMillis(right.0.saturating_add_signed(*self.ahead.lock()))
    }
}

/// Keeps what it hears, and answers calls with what they bring.
#[derive(Debug, Default)]
pub struct Echo {
    /// All events, in the order of their groups' logs.
    pub events: Mutex<Vec<(GroupId, Event)>>,
}

impl EventSink for Echo {
    fn committed(&self, group: GroupId, events: Vec<Event>) {
        self.events
            .lock()
            .extend(events.into_iter().map(|event| (group, event)));
    }

    fn replaced(&self, _group: GroupId) {}
}

#[async_trait]
impl ServiceInbound for Echo {
    async fn handle(&self, _from: NodeId, _group: GroupId, body: Bytes) -> Bytes {
        body
    }
}

/// One node's machine: what stays when the process dies.
#[derive(Debug)]
struct Machine {
    log: SimDisk,
    own: SimDisk,
    state: MemoryDisk,
    clock: Arc<TestClock>,
    host: Option<Host>,
}

/// A cluster of one region.
#[derive(Debug)]
pub struct Cluster {
    /// The network between the nodes.
    pub net: Net,
    /// What each host is started with, beside the usual.
    pub tuning: Tuning,
    /// Shards of the region.
    pub shards: u16,
    authority: Arc<Authority>,
    seed: u64,
    first: Vec<(NodeId, NodeAddress)>,
    machines: BTreeMap<NodeId, Machine>,
}

/// The region of all test clusters.
///
/// # Panics
/// Never: one is a region.
#[must_use]
pub fn region() -> RegionId {
    RegionId::new(1).expect("one is a region")
}

/// A shard's group.
#[must_use]
pub fn shard(number: u16) -> GroupId {
    GroupId::Shard(region(), ShardId(number))
}

fn name() -> ClusterName {
    "test".parse().expect("a cluster's name")
}

impl Cluster {
    /// A cluster of `nodes` nodes that are not started yet.
    ///
    /// # Panics
    /// When keys cannot be made.
    #[must_use]
    pub fn new(seed: u64, nodes: u64, shards: u16) -> Self {
        let authority = Authority::create(name(), NOW).expect("an authority is made");
        let first: Vec<_> = (1..=nodes)
            .map(|node| (NodeId(node), address(node)))
            .collect();
        let mut cluster = Self {
            net: Net::new(seed),
            tuning: Tuning::default(),
            shards,
            authority: Arc::new(authority),
            seed,
            first,
            machines: BTreeMap::new(),
        };
        for node in 1..=nodes {
            cluster.add(NodeId(node));
        }
        cluster
    }

    /// Puts a new, empty machine in the place of a node.
    pub fn add(&mut self, node: NodeId) {
        let machine = Machine {
            log: SimDisk::new(self.seed ^ node.0),
            own: SimDisk::new(self.seed ^ (node.0 << 8)),
            state: MemoryDisk::default(),
            clock: TestClock::new(),
            host: None,
        };
        self.machines.insert(node, machine);
    }

    /// A cluster of which all nodes run and all groups have leaders.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn started(seed: u64, nodes: u64, shards: u16) -> Self {
        let mut cluster = Self::new(seed, nodes, shards);
        cluster.start_all().await;
        cluster.led().await;
        cluster
    }

    /// Starts all nodes that do not run.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start_all(&mut self) {
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in nodes {
            self.start(node).await.expect("the node starts");
        }
    }

    /// Starts a node on what its machine has.
    ///
    /// # Errors
    /// That of [`Host::start_on`].
    ///
    /// # Panics
    /// When there is no such machine.
    pub async fn start(&mut self, node: NodeId) -> Result<(), StartError> {
        let validity = Validity { now: NOW, days: 30 };
        let identity = self
            .authority
            .identity(node, validity)
            .expect("an identity is made");
        let listen = ([127, 0, 0, 1], 0).into();
        let is_first = self.first.iter().any(|(first, _)| *first == node);
        let machine = self.machines.get_mut(&node).expect("the machine was added");
        if machine.host.is_some() {
            return Ok(());
        }
        let config = HostConfig {
            folder: std::path::PathBuf::new(),
            region: region(),
            region_name: "test".to_owned(),
            shards: self.shards,
            seed: if is_first {
                self.first.clone()
            } else {
                Vec::new()
            },
            transport: crate::transport::Config::new(listen, identity),
            authority: Some(Arc::clone(&self.authority)),
            tuning: self.tuning.clone(),
        };
        let engines = Engines {
            log: Arc::new(machine.log.clone()),
            own: Arc::new(machine.own.clone()),
            state: StateEngine::Memory(machine.state.clone()),
            groups: std::path::PathBuf::new(),
            writer: LogWriter::Thread,
        };
        let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&machine.clock);
        let net = self.net.clone();
        let connect = move |inbound| Ok(net.join(node, inbound));
        let attach = |_ground| {
            let echo = Arc::new(Echo::default());
            Attached {
                inbound: Arc::<Echo>::clone(&echo),
                events: echo,
            }
        };
        machine.host = Some(Host::start_on(config, engines, clock, connect, attach).await?);
        Ok(())
    }

    /// The node's host.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn host(&self, node: NodeId) -> &Host {
        let machine = self.machines.get(&node).expect("the machine was added");
        machine.host.as_ref().expect("the node runs")
    }

    /// What the node's state is stored on.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    pub fn state_disk(&self, node: NodeId) -> &MemoryDisk {
        &self
            .machines
            .get(&node)
            .expect("the machine was added")
            .state
    }

    /// The node's wall clock.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    pub fn clock(&self, node: NodeId) -> Arc<TestClock> {
        Arc::clone(
            &self
                .machines
                .get(&node)
                .expect("the machine was added")
                .clock,
        )
    }

    /// The node's own disk, for a machine that joins.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    pub fn own_disk(&self, node: NodeId) -> Arc<dyn Disk> {
        Arc::new(
            self.machines
                .get(&node)
                .expect("the machine was added")
                .own
                .clone(),
        )
    }

    /// Admits a machine that was added under the id that the cluster gives out next, as a join would, and starts it.
    ///
    /// # Panics
    /// When the cluster does not admit it, or gives it another id.
    pub async fn admit(&mut self, through: NodeId, replaces: Option<NodeId>) -> NodeId {
        let address = address(self.machines.len() as u64 + 1);
        let request = RequestId(rand::random());
        let granted = self
            .host(through)
            .admit_for_test(request, region(), address, replaces)
            .await;
        let (node, meta) = granted.expect("the cluster admits a node");
        self.add(node);
        let map = crate::life::Map { node, meta };
        crate::life::leave_map(&*self.own_disk(node), &map).expect("the map is left");
        self.start(node).await.expect("the new node starts");
        node
    }

    /// Nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        let running = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.host.is_some());
        running.map(|(node, _)| *node).collect()
    }

    /// Kills a node: it falls silent at once, and what it had not synced is lost as `keeps` says.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&mut self, node: NodeId, keeps: CrashKeeps) {
        self.silence(node);
        self.net.crash(node);
        let others: Vec<NodeId> = self.machines.keys().copied().collect();
        let machine = self.machines.get_mut(&node).expect("the machine was added");
        let host = machine.host.take().expect("the node runs");
        machine.log = machine.log.crash(keeps);
        machine.own = machine.own.crash(keeps);
        host.stop().await;
        machine.state.crash();
        for other in others {
            self.net.heal(node, other);
            self.net.heal(other, node);
        }
    }

    /// Cuts a node off from all others.
    pub fn silence(&self, node: NodeId) {
        let others: Vec<NodeId> = self
            .machines
            .keys()
            .copied()
            .filter(|other| *other != node)
            .collect();
        self.net.isolate(node, &others);
    }

    /// Stops a node in order.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn stop(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("the machine was added");
        machine.host.take().expect("the node runs").stop().await;
    }

    /// Stops all.
    pub async fn stop_all(&mut self) {
        for node in self.running() {
            self.stop(node).await;
        }
    }

    /// A node's replica of a shard.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn group(&self, node: NodeId, group: GroupId) -> Arc<dyn ShardGroup> {
        let local = self.host(node).ground().directory.local(group);
        local.expect("the node has a replica")
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            if Instant::now() >= deadline {
                unreachable!("not in time: {what}{}", self.told());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How every node is, for a test that fails: a test has no log.
    fn told(&self) -> String {
        let mut told = String::new();
        for node in self.running() {
            let host = self.host(node);
            let (fatal, repairs) = (host.fatal().borrow().clone(), host.repairs());
            told.push_str(&format!(
                "\nnode {node}: fatal {fatal:?}, repairs {repairs:?}"
            ));
            for group in host.status().groups {
                told.push_str(&format!("\n  {group:?}"));
            }
        }
        told
    }

    /// Waits until every shard has a leader among the running nodes.
    pub async fn led(&self) {
        let all = |cluster: &Self| {
            (0..cluster.shards).all(|number| cluster.leader(shard(number)).is_some())
        };
        self.until("every shard has a leader", all).await;
    }

    /// Who leads a shard, by its own word.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.running().into_iter().find(|node| {
            let local = self.host(*node).ground().directory.local(group);
            local.is_some_and(|group| group.is_leader())
        })
    }

    /// Waits for a leader, and returns it.
    pub async fn wait_leader(&self, group: GroupId) -> NodeId {
        self.until("a leader", |cluster| cluster.leader(group).is_some())
            .await;
        self.leader(group).unwrap_or_default()
    }

    /// Writes a chunk through whoever leads, trying again until it is applied.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn write(&self, group: GroupId, id: u64, data: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "not written in time");
            if let Some(leader) = self.leader(group) {
                let written = write(&*self.group(leader, group), id, data).await;
                if written.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn address(node: u64) -> NodeAddress {
    NodeAddress {
        peer: format!("127.0.0.1:{node}"),
        ..NodeAddress::default()
    }
}

/// The id of a test's chunk.
#[must_use]
pub fn chunk(id: u64) -> ChunkId {
    ChunkId(u128::from(id).to_be_bytes())
}

/// Proposes a chunk.
///
/// # Errors
/// That of the proposal.
pub async fn write(group: &dyn ShardGroup, id: u64, data: &[u8]) -> Result<Outcome, ProposeError> {
    let command = Command::PutChunk {
        tenant: TenantId::DEFAULT,
        chunk: chunk(id),
        data: Blob(Bytes::copy_from_slice(data)),
    };
    group
        .propose(command, Instant::now() + Duration::from_secs(2))
        .await
}

/// What a replica has of a test's chunk.
#[must_use]
pub fn read(group: &dyn ShardGroup, id: u64) -> Option<Bytes> {
    let view = group.view().ok()?;
    view.get(&Key::Chunk(chunk(id))).ok().flatten()
}
