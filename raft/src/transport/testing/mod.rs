//! The same transport within one process: no sockets, and a network that a test cuts, slows and makes lossy.
//!
//! Only the carrier is another: lanes, greetings, bounds, frames, backoff and errors are the real ones. Time is tokio's,
//! so it may be paused; what is random comes from the seed, so a run on a single-threaded runtime repeats.
//!
//! As over QUIC, a stream loses nothing and keeps its order: loss costs retransmissions, which is time, and a link that
//! is cut for longer than the idle time ends its connections. A node that crashed is silent until it returns.

mod connection;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

pub(super) use connection::MemoryConnection;
use connection::{Both, Side};

use super::Transport;
use super::api::{CallError, Inbound};
use super::carrier::Carrier;
use super::codes;
use super::config::{Limits, Timing};
use super::connection::Connection;
use super::node::NodeTransport;
use super::server::Door;

/// Pieces on the way in one stream, and streams not yet accepted.
const DEPTH: usize = 64;
/// What a lost packet costs at least: the sender waits this long before it sends again.
const RETRANSMIT: Duration = Duration::from_millis(20);
/// Losses of the same packet in a row, at most.
const MOST_LOSSES: usize = 12;

/// How one direction between two nodes behaves.
#[derive(Clone, Debug)]
pub struct Link {
    /// How long bytes take.
    pub delay: RangeInclusive<Duration>,
    /// How likely it is that they are lost, 0 to 1, and sent again later.
    pub loss: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO..=Duration::ZERO,
            loss: 0.0,
        }
    }
}

type Way = (NodeId, NodeId);

/// Hears of everything that arrives: from whom, at whom, and how many bytes.
pub type Observer = Arc<dyn Fn(NodeId, NodeId, usize) + Send + Sync>;

struct State {
    random: StdRng,
    everywhere: Link,
    links: BTreeMap<Way, Link>,
    cuts: BTreeSet<Way>,
    seats: BTreeMap<NodeId, mpsc::Sender<MemoryConnection>>,
    /// How often a node has joined: what was made in an earlier life of it reaches nobody.
    lives: BTreeMap<NodeId, u64>,
    next: u64,
    connections: BTreeMap<u64, Arc<Both>>,
    observer: Option<Observer>,
}

struct Inner {
    seed: u64,
    idle: Duration,
    state: Mutex<State>,
    /// Says that cuts changed.
    changed: watch::Sender<()>,
    tasks: TaskTracker,
}

/// A network. Clones are the same one.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("seed", &self.0.seed)
            .finish_non_exhaustive()
    }
}

impl Net {
    /// A network without delay, loss or cuts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            everywhere: Link::default(),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            seats: BTreeMap::new(),
            lives: BTreeMap::new(),
            next: 0,
            connections: BTreeMap::new(),
            observer: None,
        };
        Self(Arc::new(Inner {
            seed,
            idle: Timing::default().idle,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            tasks: TaskTracker::new(),
        }))
    }

    /// Adds a node, or starts it again after a crash. Addresses play no part.
    #[must_use]
    pub fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Transport {
        self.join_with(node, Limits::default(), inbound)
    }

    /// [`Self::join`] with bounds of its own.
    #[must_use]
    pub fn join_with(&self, node: NodeId, limits: Limits, inbound: Arc<dyn Inbound>) -> Transport {
        let (sender, mut incoming) = mpsc::channel(DEPTH);
        let carrier = Carrier::Memory(Port {
            net: self.clone(),
            node,
            life: self.next_life(node),
        });
        let transport = NodeTransport::new(node, carrier, (Timing::default(), limits), inbound);
        for connection in self.connections_of(node) {
            connection.end(connection.side_of(node).other(), "the peer has restarted");
        }
        self.0.state.lock().seats.insert(node, sender);
        let door = Door::new(&transport.shared);
        let shared = Arc::clone(&transport.shared);
        transport.shared.spawn(async move {
            let stop = shared.stop.clone();
            while let Some(Some(memory)) = stop.run_until_cancelled(incoming.recv()).await {
                let (door, stop) = (Arc::clone(&door), shared.stop.clone());
                shared.spawn(async move {
                    let from = memory.both.from;
                    let connection = Connection::Memory(memory);
                    let served = stop
                        .run_until_cancelled(door.serve_node(from, &connection))
                        .await;
                    tracing::trace!(%from, stopped = served.is_none(), "connection served");
                });
            }
        });
        Transport(Arc::new(transport))
    }

    /// From now on, tells the observer what arrives.
    pub fn observe(&self, observer: Observer) {
        self.0.state.lock().observer = Some(observer);
    }

    fn arrived(&self, (from, to): Way, bytes: usize) {
        let observer = self.0.state.lock().observer.clone();
        if let Some(observer) = observer {
            observer(from, to, bytes);
        }
    }

    /// Nothing from `from` reaches `to` any more.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.0.state.lock().cuts.insert((from, to));
        self.0.changed.send_replace(());
    }

    /// Nothing goes between `node` and any of `others`.
    pub fn isolate(&self, node: NodeId, others: &[NodeId]) {
        for other in others {
            self.cut(node, *other);
            self.cut(*other, node);
        }
    }

    /// What is on the way from `from` to `to` arrives again, unless its connection has ended.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.0.state.lock().cuts.remove(&(from, to));
        self.0.changed.send_replace(());
    }

    /// Ends all cuts.
    pub fn heal_all(&self) {
        self.0.state.lock().cuts.clear();
        self.0.changed.send_replace(());
    }

    /// How one direction behaves from now on.
    pub fn set_link(&self, from: NodeId, to: NodeId, link: Link) {
        self.0.state.lock().links.insert((from, to), link);
    }

    /// How all directions without a link of their own behave from now on.
    pub fn set_links(&self, link: Link) {
        self.0.state.lock().everywhere = link;
    }

    /// The node falls silent in the middle of whatever it does. Its transport is of no more use; drop it.
    pub fn crash(&self, node: NodeId) {
        self.next_life(node);
        self.0.state.lock().seats.remove(&node);
        for connection in self.connections_of(node) {
            let side = connection.side_of(node);
            connection.end(side, "this node has crashed");
            let net = self.clone();
            self.0.tasks.spawn(async move {
                tokio::time::sleep(net.0.idle).await;
                connection.end(side.other(), "the peer is silent");
            });
        }
    }

    fn next_life(&self, node: NodeId) -> u64 {
        let mut state = self.0.state.lock();
        let life = state.lives.entry(node).or_default();
        *life += 1;
        *life
    }

    fn connections_of(&self, node: NodeId) -> Vec<Arc<Both>> {
        let mut state = self.0.state.lock();
        state.connections.retain(|_, both| !both.is_over());
        let all = state.connections.values();
        all.filter(|both| both.from == node || both.to == node)
            .map(Arc::clone)
            .collect()
    }

    fn is_open(&self, way: Way) -> bool {
        !self.0.state.lock().cuts.contains(&way)
    }

    /// Waits until a condition on the cuts holds.
    async fn when(&self, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.0.changed.subscribe();
        while !holds(self) {
            // The sender lives as long as the network.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn delay(&self, way: Way) -> Duration {
        let mut state = self.0.state.lock();
        let link = state.links.get(&way).unwrap_or(&state.everywhere).clone();
        if link == Link::default() {
            return Duration::ZERO;
        }
        let mut delay = state.random.random_range(link.delay.clone());
        for _ in 0..MOST_LOSSES {
            if state.random.random_bool(link.loss.clamp(0.0, 1.0)) {
                delay += RETRANSMIT + *link.delay.end();
            } else {
                break;
            }
        }
        delay
    }

    /// Ends a connection that is cut for too long.
    async fn watch(self, both: Arc<Both>) {
        let there = (both.from, both.to);
        let back = (both.to, both.from);
        let whole = |net: &Self| net.is_open(there) && net.is_open(back);
        loop {
            tokio::select! {
                biased;
                () = both.over() => return,
                () = self.when(|net| !whole(net)) => {}
            }
            tokio::select! {
                biased;
                () = both.over() => return,
                () = self.when(whole) => {}
                () = tokio::time::sleep(self.0.idle) => {
                    both.end(Side::Dialer, "the peer is silent");
                    both.end(Side::Acceptor, "the peer is silent");
                    return;
                }
            }
        }
    }
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        self.delay == other.delay && self.loss.total_cmp(&other.loss).is_eq()
    }
}

/// A node's place in the network.
pub(in crate::transport) struct Port {
    net: Net,
    node: NodeId,
    life: u64,
}

impl Port {
    pub(in crate::transport) fn jitter(&self) -> f64 {
        self.net.0.state.lock().random.random()
    }

    pub(in crate::transport) async fn connect(
        &self,
        to: NodeId,
    ) -> Result<MemoryConnection, CallError> {
        let (net, from) = (&self.net, self.node);
        for way in [(from, to), (to, from)] {
            tokio::time::sleep(net.delay(way)).await;
            net.when(|net| net.is_open(way)).await;
        }
        let seat = {
            let state = net.0.state.lock();
            let lives = state.lives.get(&from) == Some(&self.life);
            state.seats.get(&to).cloned().filter(|_| lives)
        };
        let Some(seat) = seat else {
            // As with a real one, silence until the dial is given up.
            return std::future::pending().await;
        };
        let (dialer, acceptor) = MemoryConnection::pair(net, from, to);
        seat.send(acceptor)
            .await
            .map_err(|_gone| CallError::Unreachable("the peer has stopped"))?;
        Ok(dialer)
    }

    pub(in crate::transport) fn close(&self) {
        {
            let mut state = self.net.0.state.lock();
            if state.lives.get(&self.node) != Some(&self.life) {
                return;
            }
            state.seats.remove(&self.node);
        }
        for both in self.net.connections_of(self.node) {
            both.close(both.side_of(self.node), codes::DONE, b"the node stops");
        }
    }
}
