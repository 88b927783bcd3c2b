//! Nodes in memory: each with a service, all with the same groups.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::id::{GroupId, NodeId, RegionId};
use model::placement;
use model::time::Clock;
use parking_lot::Mutex;

use super::{FakeClock, FakeGroup};
use crate::service::{KeyRing, MasterKey, Service, ServiceConfig};
use crate::shard::{Directory, PeerError, Peers, ServiceInbound, ShardGroup};

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
        FakeGroup::replica(group, self.me)
    }

    fn replicas(&self, group: GroupId) -> Vec<NodeId> {
        self.groups
            .get(&group)
            .map(|group| group.nodes())
            .unwrap_or_default()
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
        let clock = Arc::new(FakeClock::new());
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
        let groups: HashMap<_, _> = placement::groups(region, shards)
            .map(|id| {
                let sinks = (1..=replicas).map(|node| {
                    let node = NodeId(node);
                    (node, Arc::downgrade(&services[&node]))
                });
                let group = FakeGroup::new(id, Arc::clone(&clock), sinks);
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
