//! Calls and streams between nodes, over QUIC with mutual TLS.
//!
//! | file | what |
//! |---|---|
//! | `api` | lanes, calls, errors, the handler's side |
//! | `reply`, `stream` | the two ends of a reply; streams of raw bytes |
//! | `node`, `config` | a node's transport, its timers and bounds |
//! | `connection`, `carrier`, `socket`, `quic` | connections over one UDP socket, their windows |
//! | `pool`, `queue`, `bulk`, `dial`, `backoff` | the way to a peer |
//! | `server`, `answers` | the accepting side |
//! | `wire`, `codes` | bytes and close codes |
//! | `ca`, `tls`, `join` | the cluster's authority, mutual TLS, joining without a certificate |
//! | `testing` | the same API within one process, with cuts, delay and loss |
//!
//! **What travels where.** Each node dials each peer that it calls; calls go one way over a connection, replies
//! come back on the same stream. The *main* connection has one stream for [`Lane::Control`] and one for
//! [`Lane::Data`], each for all groups. Two streams, not one with interleaved frames: QUIC sends the control
//! stream's bytes first whenever both have some, a lost data packet does not hold up a heartbeat, and nothing has to be
//! cut into pieces and joined again; both still share datagrams. The *bulk* connection has a stream for each large call
//! and a window of its own; the *streams* connection carries snapshots. These two are made on demand.
//!
//! **Order.** Calls of one (peer, lane) are written and handed to the handler in the order in which they were queued
//! ([`Peer::send_call`]), for as long as their connection stands; a new connection replaces the old one at the
//! acceptor before its first call is handled. Replies come in any order.
//!
//! **What an error means.** [`CallError::outcome_unknown`] is false if and only if the call was never handed to a
//! connection, or the handler itself answered.
//!
//! **Versions.** The frame layout is version 1, and the ALPN is `psp-edge-node/1`: nodes agree on a version in the
//! handshake or do not talk. What bodies mean is versioned by those who write them.
//!
//! Not done here: retries, routing, membership. A call goes to one node, once.

mod answers;
mod api;
mod backoff;
mod bulk;
pub mod ca;

mod carrier;
mod codes;
mod config;
mod connection;
mod dial;
pub mod join;
mod node;
mod pool;
mod queue;
mod quic;
mod reply;
mod server;
mod socket;
mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
pub mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::NodeId;

use node::NodeTransport;
use pool::PeerWay;

pub use answers::AnswerLimits;
pub use api::{
    Call, CallError, Inbound, Kind, Lane, PeerStats, Refusal, RemoteError, Request, StreamOpen,
};
pub use config::{Config, Limits, StartError, Timing};
pub use queue::LaneLimits;
pub use reply::{Reply, ReplyFuture};
pub use stream::{ByteStream, ByteStreamReader, ByteStreamWriter, StreamBroken};
pub use tls::TlsError;

/// A node's transport. Clones are the same transport.
///
/// The handlers are kept until [`Self::close`]; handlers that hold a transport make a circle that only closing breaks.
#[derive(Clone)]
pub struct Transport(Arc<NodeTransport>);

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Transport {
    /// Binds the socket and begins to accept. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the address or the identity cannot be used.
    pub fn start(config: Config, inbound: Arc<dyn Inbound>) -> Result<Self, StartError> {
        Ok(Self(Arc::new(NodeTransport::start(config, inbound)?)))
    }

    /// The node that this transport speaks for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.shared.node
    }

    /// Where it listens; `None` within a test's network.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.shared.carrier.local_addr()
    }

    /// The way to `node`, which is dialed when something is to be sent. Cheap, but worth keeping.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Peer {
        Peer { way: self.0.way(node) }
    }

    /// Says where `node` is. A connection to another place is closed.
    pub fn set_address(&self, node: NodeId, address: SocketAddr) {
        self.0.set_address(node, address);
    }

    /// Closes the connections with `node`, fails its calls, and forgets its address.
    pub fn forget(&self, node: NodeId) {
        self.0.forget(node);
    }

    /// Closes all connections with `node` for a reason that it is told. The handlers' [`Inbound::hello`] and
    /// [`Inbound::welcome`] must refuse it too, or it comes back.
    pub fn refuse(&self, node: NodeId, refusal: &Refusal) {
        self.0.refuse(node, refusal);
    }

    /// Uses another certificate of the same node for connections made from now on.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if it is not of the same node and cluster, or cannot be used; the old one stays.
    pub fn set_identity(&self, identity: &ca::Identity) -> Result<(), TlsError> {
        self.0.shared.carrier.set_identity(identity)
    }

    /// Round-trip time to `node`, if there is a main connection.
    #[must_use]
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.0.known(node)?.rtt()
    }

    /// Figures about all peers that were ever asked for and not forgotten, in order of their ids.
    #[must_use]
    pub fn stats(&self) -> Vec<(NodeId, PeerStats)> {
        self.0.ways().iter().map(|way| (way.node, way.stats())).collect()
    }

    /// Closes all connections, fails all calls, and waits for the transport's tasks.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// The way to one peer.
#[derive(Clone)]
pub struct Peer {
    way: Arc<PeerWay>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("node", &self.way.node).finish_non_exhaustive()
    }
}

impl Peer {
    /// Which node it leads to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.way.node
    }

    /// Queues a call now, behind all calls queued before on its lane; the reply is awaited later. Dropping the future
    /// gives the call up.
    ///
    /// # Errors
    ///
    /// At once: [`CallError::Unreachable`] or [`CallError::Refused`] during the pause after a failure,
    /// [`CallError::TooBusy`], [`CallError::TooLarge`]. From the future: any [`CallError`].
    pub fn send_call(&self, call: Call) -> Result<ReplyFuture, CallError> {
        self.way.send_call(call)
    }

    /// [`Self::send_call`], awaited.
    ///
    /// # Errors
    ///
    /// Any [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Bytes, CallError> {
        self.send_call(call)?.await
    }

    /// Opens a stream of raw bytes, both ways. Takes at most the time of a dial and two seconds.
    ///
    /// # Errors
    ///
    /// Any [`CallError`] but [`CallError::Remote`]. That the peer's handler wants the stream shows only by its reply.
    pub async fn open_stream(&self, open: StreamOpen) -> Result<ByteStream, CallError> {
        self.way.open_stream(open).await
    }

    /// Round-trip time, if there is a main connection.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.way.rtt()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        self.way.stats()
    }
}
