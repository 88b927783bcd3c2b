//! A node's transport: its carrier, its peers, and the tasks that serve them.
//!
//! Guarantees: after [`NodeTransport::close`] no task of the transport runs and the port is free; calls in flight have
//! failed. Dropping the transport without closing it stops its tasks soon after.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::id::NodeId;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Inbound, Refusal};
use super::carrier::{Carrier, QuicCarrier};
use super::codes;
use super::config::{Config, Limits, StartError, Timing};
use super::pool::PeerWay;
use super::server::{self, Accepted};

/// What all tasks of a transport share.
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) carrier: Carrier,
    pub(super) timing: Timing,
    pub(super) limits: Limits,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) accepted: Accepted,
}

/// The transport of one node.
pub(super) struct NodeTransport {
    pub(super) shared: Arc<Shared>,
    peers: Mutex<BTreeMap<NodeId, Arc<PeerWay>>>,
}

impl NodeTransport {
    pub(super) fn start(config: Config, inbound: Arc<dyn Inbound>) -> Result<Self, StartError> {
        let Config { listen, identity, timing, limits } = config;
        let (carrier, endpoint) = QuicCarrier::start(listen, &identity, timing)?;
        let carrier = Carrier::Quic(carrier);
        let transport = Self::new(identity.node(), carrier, (timing, limits), inbound);
        let shared = &transport.shared;
        shared.tasks.spawn(server::accept(Arc::clone(shared), endpoint));
        Ok(transport)
    }

    /// A transport that accepts nothing yet.
    pub(super) fn new(
        node: NodeId,
        carrier: Carrier,
        (timing, limits): (Timing, Limits),
        inbound: Arc<dyn Inbound>,
    ) -> Self {
        let shared = Arc::new(Shared {
            node,
            carrier,
            timing,
            limits,
            inbound,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            accepted: Accepted::default(),
        });
        Self { shared, peers: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn way(&self, node: NodeId) -> Arc<PeerWay> {
        let mut peers = self.peers.lock();
        let way = peers.entry(node).or_insert_with(|| {
            let way = PeerWay::new(node, Arc::clone(&self.shared));
            self.shared.tasks.spawn(Arc::clone(&way).run());
            way
        });
        Arc::clone(way)
    }

    pub(super) fn known(&self, node: NodeId) -> Option<Arc<PeerWay>> {
        self.peers.lock().get(&node).map(Arc::clone)
    }

    /// All ways, in order of their nodes.
    pub(super) fn ways(&self) -> Vec<Arc<PeerWay>> {
        self.peers.lock().values().map(Arc::clone).collect()
    }

    pub(super) fn set_address(&self, node: NodeId, address: SocketAddr) {
        self.way(node).set_address(address);
    }

    pub(super) fn forget(&self, node: NodeId) {
        if let Some(way) = self.peers.lock().remove(&node) {
            way.stop.cancel();
        }
        self.shared.accepted.close_all(node, codes::DONE, b"forgotten");
    }

    pub(super) fn refuse(&self, node: NodeId, refusal: &Refusal) {
        self.shared.accepted.close_all(node, codes::REFUSED, &refusal.encode());
        if let Some(way) = self.known(node) {
            way.close_connections(codes::REFUSED, &refusal.encode());
        }
    }

    pub(super) async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.carrier.close();
        self.peers.lock().clear();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.carrier.stop().await;
    }
}

impl Drop for NodeTransport {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.carrier.close();
    }
}
