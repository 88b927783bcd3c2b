//! The same transport within one process: no sockets, and a network that a test cuts, slows and makes lossy.
//!
//! Only the carrier is another: lanes, greetings, bounds, frames, backoff and errors are the real ones. Time is tokio's,
//! so it may be paused; what is random comes from the seed, so a run on a single-threaded runtime repeats.
//!
//! As over QUIC, a stream loses nothing and keeps its order: loss costs retransmissions, which is time, and a link that
//! is cut for longer than the idle time ends its connections. A node that crashed is silent until it returns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::NodeId;
use parking_lot::Mutex;
use quinn::VarInt;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{CallError, Inbound};
use super::carrier::Carrier;
use super::codes;
use super::config::{Limits, Timing};
use super::connection::{Connection, Path, peer_closed};
use super::node::NodeTransport;
use super::server::Door;
use super::stream::{ByteStream, Piece};
use super::Transport;

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
        Self { delay: Duration::ZERO..=Duration::ZERO, loss: 0.0 }
    }
}

type Way = (NodeId, NodeId);

struct State {
    random: StdRng,
    everywhere: Link,
    links: BTreeMap<Way, Link>,
    cuts: BTreeSet<Way>,
    seats: BTreeMap<NodeId, mpsc::Sender<MemoryConnection>>,
    next: u64,
    connections: BTreeMap<u64, Arc<Both>>,
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
        f.debug_struct("Net").field("seed", &self.0.seed).finish_non_exhaustive()
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
            next: 0,
            connections: BTreeMap::new(),
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
        let carrier = Carrier::Memory(Port { net: self.clone(), node });
        let transport = NodeTransport::new(node, carrier, (Timing::default(), limits), inbound);
        for connection in self.connections_of(node) {
            connection.end(connection.side_of(node).other(), "the peer has restarted");
        }
        self.0.state.lock().seats.insert(node, sender);
        let door = Door::new(&transport.shared);
        let shared = Arc::clone(&transport.shared);
        transport.shared.tasks.spawn(async move {
            let stop = shared.stop.clone();
            while let Some(Some(memory)) = stop.run_until_cancelled(incoming.recv()).await {
                let (door, stop) = (Arc::clone(&door), shared.stop.clone());
                shared.tasks.spawn(async move {
                    let from = memory.both.from;
                    let connection = Connection::Memory(memory);
                    // A transport that stops serves no one any more.
                    drop(stop.run_until_cancelled(door.serve_node(from, &connection)).await);
                });
            }
        });
        Transport(Arc::new(transport))
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

    fn connections_of(&self, node: NodeId) -> Vec<Arc<Both>> {
        let mut state = self.0.state.lock();
        state.connections.retain(|_, both| !both.is_over());
        let all = state.connections.values();
        all.filter(|both| both.from == node || both.to == node).map(Arc::clone).collect()
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
pub(super) struct Port {
    net: Net,
    node: NodeId,
}

impl Port {
    pub(super) fn jitter(&self) -> f64 {
        self.net.0.state.lock().random.random()
    }

    pub(super) async fn connect(&self, to: NodeId) -> Result<MemoryConnection, CallError> {
        let (net, from) = (&self.net, self.node);
        for way in [(from, to), (to, from)] {
            tokio::time::sleep(net.delay(way)).await;
            net.when(|net| net.is_open(way)).await;
        }
        let seat = net.0.state.lock().seats.get(&to).cloned();
        let Some(seat) = seat else {
            // As with a real one, silence until the dial is given up.
            return std::future::pending().await;
        };
        let (dialer, acceptor) = MemoryConnection::pair(net, from, to);
        seat.send(acceptor).await.map_err(|_gone| CallError::Unreachable("the peer has stopped"))?;
        Ok(dialer)
    }

    pub(super) fn close(&self) {
        self.net.0.state.lock().seats.remove(&self.node);
        for both in self.net.connections_of(self.node) {
            both.close(both.side_of(self.node), codes::DONE, b"the node stops");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// What one side knows of the end.
#[derive(Default)]
struct Ending {
    error: Mutex<Option<CallError>>,
    token: CancellationToken,
}

/// What the two sides of a connection share.
struct Both {
    net: Net,
    from: NodeId,
    to: NodeId,
    endings: [Ending; 2],
}

impl Both {
    const fn ending(&self, side: Side) -> &Ending {
        let [dialer, acceptor] = &self.endings;
        match side {
            Side::Dialer => dialer,
            Side::Acceptor => acceptor,
        }
    }

    fn side_of(&self, node: NodeId) -> Side {
        if self.from == node { Side::Dialer } else { Side::Acceptor }
    }

    const fn way_from(&self, side: Side) -> Way {
        match side {
            Side::Dialer => (self.from, self.to),
            Side::Acceptor => (self.to, self.from),
        }
    }

    fn is_over(&self) -> bool {
        self.endings.iter().all(|ending| ending.token.is_cancelled())
    }

    async fn over(&self) {
        for ending in &self.endings {
            ending.token.cancelled().await;
        }
    }

    fn end(&self, side: Side, reason: &'static str) {
        self.end_with(side, CallError::Unreachable(reason));
    }

    fn end_with(&self, side: Side, error: CallError) {
        let ending = self.ending(side);
        ending.error.lock().get_or_insert(error);
        ending.token.cancel();
    }

    /// One side closes; the other hears it when the network lets it.
    fn close(self: &Arc<Self>, side: Side, code: VarInt, reason: &[u8]) {
        if self.ending(side).token.is_cancelled() {
            return;
        }
        self.end(side, "this node closed the connection");
        let (both, reason) = (Arc::clone(self), Bytes::copy_from_slice(reason));
        self.net.0.tasks.spawn(async move {
            let way = both.way_from(side);
            let told = async {
                tokio::time::sleep(both.net.delay(way)).await;
                both.net.when(|net| net.is_open(way)).await;
            };
            let error = match tokio::time::timeout(both.net.0.idle, told).await {
                Ok(()) => peer_closed(code, &reason),
                Err(_elapsed) => CallError::Unreachable("the peer is silent"),
            };
            both.end_with(side.other(), error);
        });
    }

    /// Runs until either side's connection has ended.
    async fn alive(&self, work: impl Future<Output = ()>) {
        let [dialer, acceptor] = &self.endings;
        tokio::select! {
            biased;
            () = dialer.token.cancelled() => {}
            () = acceptor.token.cancelled() => {}
            () = work => {}
        }
    }
}

/// Carries the pieces of one direction of a stream, in order and late.
async fn carry(both: Arc<Both>, side: Side, mut from: mpsc::Receiver<Piece>, to: mpsc::Sender<Piece>) {
    let way = both.way_from(side);
    let work = async {
        let mut last = Instant::now();
        while let Some((written, bytes)) = from.recv().await {
            last = last.max(written + both.net.delay(way));
            if last > Instant::now() {
                tokio::time::sleep_until(last).await;
            }
            both.net.when(|net| net.is_open(way)).await;
            if to.send((written, bytes)).await.is_err() {
                return;
            }
        }
    };
    both.alive(work).await;
}

/// One side of a connection.
#[derive(Clone)]
pub(super) struct MemoryConnection {
    both: Arc<Both>,
    side: Side,
    opened: mpsc::Sender<ByteStream>,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<ByteStream>>>,
}

impl fmt::Debug for MemoryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConnection").field("side", &self.side).finish_non_exhaustive()
    }
}

impl MemoryConnection {
    fn pair(net: &Net, from: NodeId, to: NodeId) -> (Self, Self) {
        let both = Arc::new(Both { net: net.clone(), from, to, endings: Default::default() });
        let mut state = net.0.state.lock();
        let number = state.next;
        state.next += 1;
        state.connections.retain(|_, both| !both.is_over());
        state.connections.insert(number, Arc::clone(&both));
        drop(state);
        net.0.tasks.spawn(net.clone().watch(Arc::clone(&both)));
        let (there, back) = (mpsc::channel(DEPTH), mpsc::channel(DEPTH));
        let side = |side, opened, incoming| Self {
            both: Arc::clone(&both),
            side,
            opened,
            incoming: Arc::new(tokio::sync::Mutex::new(incoming)),
        };
        (side(Side::Dialer, there.0, back.1), side(Side::Acceptor, back.0, there.1))
    }

    pub(super) fn end(&self) -> Option<CallError> {
        self.both.ending(self.side).error.lock().clone()
    }

    pub(super) async fn closed(&self) -> CallError {
        self.both.ending(self.side).token.cancelled().await;
        self.end().unwrap_or(CallError::Closed)
    }

    pub(super) fn close(&self, code: VarInt, reason: &[u8]) {
        self.both.close(self.side, code, reason);
    }

    pub(super) async fn open(&self) -> Result<ByteStream, CallError> {
        if let Some(error) = self.end() {
            return Err(error);
        }
        let mut ends = Vec::new();
        for side in [self.side, self.side.other()] {
            let (writer, written) = mpsc::channel(DEPTH);
            let (arrived, reader) = mpsc::channel(DEPTH);
            self.both.net.0.tasks.spawn(carry(Arc::clone(&self.both), side, written, arrived));
            ends.push((writer, reader));
        }
        let [there, back] = <[_; 2]>::try_from(ends).expect("two directions were made");
        let theirs = ByteStream::memory(back.0, there.1);
        match self.opened.send(theirs).await {
            Ok(()) => Ok(ByteStream::memory(there.0, back.1)),
            Err(_gone) => Err(self.end().unwrap_or(CallError::Unreachable("the peer is gone"))),
        }
    }

    pub(super) async fn accept(&self) -> Result<ByteStream, CallError> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! {
            biased;
            error = self.closed() => Err(error),
            stream = incoming.recv() => {
                stream.ok_or_else(|| self.end().unwrap_or(CallError::Unreachable("the peer is gone")))
            }
        }
    }

    pub(super) fn path(&self) -> Path {
        let net = &self.both.net;
        let rtt = net.delay(self.both.way_from(self.side))
            + net.delay(self.both.way_from(self.side.other()));
        Path { rtt, lost_packets: 0, mtu: u16::MAX }
    }
}
