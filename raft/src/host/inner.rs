//! What the parts of a host share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::id::{GroupId, NodeId, RegionId};
use model::meta::{MetaState, NodeAddress};
use model::shard::Event;
use parking_lot::{Mutex, RwLock};
use storage::log::LogEngine;
use storage::state::StateEngine;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::compact::Compactor;
use super::config::{Attached, Tuning};
use super::health::Health;
use super::repair::Repairs;
use super::scrub::Scrubber;
use super::space::Space;
use crate::error::Fatal;
use crate::group::{MetaReplica, ShardReplica};
use crate::inbound::Door;
use crate::lease::SleepWatch;
use crate::life::Memory;
use crate::log_time::{Clocks, ClusterClock};
use crate::reads::PeerReads;
use crate::replica::Replica;
use crate::shard::EventSink;
use crate::transport::Transport;
use crate::transport::ca::Authority;
use crate::watch;

/// A replica that is open.
pub(crate) struct Opened {
    pub(crate) replica: Arc<Replica>,
    pub(crate) door: Arc<Door>,
    pub(crate) kind: OpenedKind,
}

/// What is proposed to it.
pub(crate) enum OpenedKind {
    Meta(Arc<MetaReplica>),
    Shard(Arc<ShardReplica>),
}

/// What this node knows of a peer since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerView {
    /// Whether the last probe was answered.
    pub(crate) reachable: bool,
    /// It hands its leaderships away.
    pub(crate) draining: bool,
    /// How long its log's syncs take, as it said last; zero while it does not know.
    pub(crate) sync: Duration,
    /// For which part of the time its timers are late, in percent, as it said last; zero while it does not know.
    pub(crate) late: u32,
}

/// Everything a host's parts share.
pub(crate) struct Inner {
    pub(crate) me: NodeId,
    pub(crate) region: RegionId,
    pub(crate) region_name: String,
    /// Of the configuration; the map's number counts once there is one.
    pub(crate) shards: u16,
    pub(crate) seed: Vec<(NodeId, NodeAddress)>,
    pub(crate) tuning: Tuning,
    pub(crate) authority: Option<Arc<Authority>>,
    /// Until the host stops.
    pub(crate) log: Mutex<Option<LogEngine>>,
    pub(crate) space: Arc<Space>,
    pub(crate) state: StateEngine,
    pub(crate) folder: PathBuf,
    pub(crate) clocks: Arc<Clocks>,
    /// What requests are stamped with, if somebody wants it kept.
    pub(crate) time: OnceLock<Arc<ClusterClock>>,
    pub(crate) sleep: Arc<SleepWatch>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) transport: OnceLock<Transport>,
    pub(crate) reads: OnceLock<Arc<PeerReads>>,
    pub(crate) attached: OnceLock<Attached>,
    /// Held while a group is opened.
    pub(crate) opening: tokio::sync::Mutex<()>,
    pub(crate) groups: RwLock<BTreeMap<GroupId, Arc<Opened>>>,
    pub(crate) map: watch::Sender<Arc<MetaState>>,
    pub(crate) peers: Mutex<BTreeMap<NodeId, PeerView>>,
    pub(crate) draining: AtomicBool,
    pub(crate) health: Health,
    pub(crate) repairs: Repairs,
    pub(crate) scrub: Scrubber,
    pub(crate) compact: Compactor,
    pub(crate) fatal: watch::Sender<Option<Fatal>>,
    /// One request for hashes is served at a time.
    pub(crate) hashing: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Inner {
    pub(crate) fn transport(&self) -> &Transport {
        self.transport
            .get()
            .expect("the transport is started before anything uses it")
    }

    pub(crate) fn reads(&self) -> &Arc<PeerReads> {
        self.reads.get().expect("made together with the transport")
    }

    pub(crate) fn opened(&self, group: GroupId) -> Option<Arc<Opened>> {
        self.groups.read().get(&group).cloned()
    }

    pub(crate) fn all_opened(&self) -> Vec<Arc<Opened>> {
        self.groups.read().values().cloned().collect()
    }

    pub(crate) fn meta(&self) -> Option<Arc<MetaReplica>> {
        match &self.opened(GroupId::Meta)?.kind {
            OpenedKind::Meta(meta) => Some(Arc::clone(meta)),
            OpenedKind::Shard(_) => None,
        }
    }

    /// The shards' replicas that are open here.
    pub(crate) fn shards_opened(&self) -> Vec<Arc<ShardReplica>> {
        let groups = self.groups.read();
        let shards = groups.values().filter_map(|opened| match &opened.kind {
            OpenedKind::Shard(shard) => Some(Arc::clone(shard)),
            OpenedKind::Meta(_) => None,
        });
        shards.collect()
    }

    /// What is known of the cluster.
    pub(crate) fn map(&self) -> Arc<MetaState> {
        Arc::clone(&self.map.borrow())
    }

    /// The other nodes.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        let map = self.map();
        let nodes: Vec<NodeId> = if map.is_bootstrapped() {
            map.nodes.keys().copied().collect()
        } else {
            self.seed.iter().map(|(node, _)| *node).collect()
        };
        nodes.into_iter().filter(|node| *node != self.me).collect()
    }

    /// How long the syncs of those peers take that are there and say it.
    pub(crate) fn peer_syncs(&self) -> Vec<Duration> {
        let peers = self.peers.lock();
        let there = peers.values().filter(|peer| peer.reachable);
        there
            .map(|peer| peer.sync)
            .filter(|sync| !sync.is_zero())
            .collect()
    }

    /// For which part of the time the timers of those peers are late that are there and say it, in percent.
    pub(crate) fn peers_late(&self) -> Vec<u32> {
        let peers = self.peers.lock();
        let there = peers.values().filter(|peer| peer.reachable);
        there
            .map(|peer| peer.late)
            .filter(|late| *late != 0)
            .collect()
    }

    /// Ends the node, for this reason; the first one counts.
    pub(crate) fn fail(&self, reason: Fatal) {
        if self.stop.is_cancelled() {
            return;
        }
        let text = reason.to_string();
        let first = self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            fatal.get_or_insert(reason);
            first
        });
        if first {
            tracing::error!(reason = text, "the node cannot go on");
        }
    }

    /// Tells the transport where the nodes are.
    pub(crate) async fn set_addresses(&self) {
        let map = self.map();
        let mut known: BTreeMap<NodeId, String> = self
            .seed
            .iter()
            .map(|(node, at)| (*node, at.peer.clone()))
            .collect();
        known.extend(
            map.nodes
                .iter()
                .map(|(node, record)| (*node, record.address.peer.clone())),
        );
        for node in &map.removed {
            known.remove(node);
            self.transport().forget(*node);
            // Or every write would look at it from then on.
            self.space.heard(*node, false);
        }
        known.remove(&self.me);
        for (node, address) in known {
            match resolve(&address).await {
                Some(address) => self.transport().set_address(node, address),
                None => tracing::warn!(%node, address, "address of a node cannot be resolved"),
            }
        }
    }

    /// Waits, or returns false when the host stops.
    pub(crate) async fn pause(&self, span: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(span) => true,
        }
    }
}

/// A node's address; the first, if a name has several.
pub(crate) async fn resolve(address: &str) -> Option<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Some(address);
    }
    tokio::net::lookup_host(address).await.ok()?.next()
}

impl EventSink for Inner {
    fn committed(&self, group: GroupId, events: Vec<Event>) {
        if let Some(attached) = self.attached.get() {
            attached.events.committed(group, events);
        }
    }

    fn replaced(&self, group: GroupId) {
        if let Some(attached) = self.attached.get() {
            attached.events.replaced(group);
        }
    }
}

impl Inner {
    /// Shards of the node's region.
    pub(crate) fn shards_of_region(&self) -> u16 {
        let map = self.map();
        let region = map.regions.get(&self.region);
        region.map_or(self.shards, |region| region.shards)
    }

    /// Whether a peer is there that would do better than a sick node.
    pub(crate) fn has_better(&self) -> bool {
        let peers = self.peers.lock();
        peers.values().any(|peer| peer.reachable && !peer.draining)
    }

    /// Whether this node hands its leaderships away.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
