//! The endpoint of a node: one UDP socket, its TLS, its peers, and the tasks that serve them.
//!
//! Guarantees: after [`QuicTransport::close`] no task of the transport runs and the port is free; calls in flight have
//! failed. Dropping the transport without closing it stops its tasks soon after.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use parking_lot::{Mutex, RwLock};
use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, TokioRuntime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Inbound, Refusal};
use super::ca::{ClusterName, Identity};
use super::config::{Config, Limits, StartError, Timing};
use super::pool::QuicPeer;
use super::quic::{MAX_UDP_PAYLOAD, Profiles, Timers};
use super::server::{Accepted, accept};
use super::tls::{Tls, TlsError};
use super::{Backend, BoxFuture, Dial, Peer, codes, socket};

/// How long closing waits for the last packets.
const CLOSE_WAIT: Duration = Duration::from_millis(300);

/// What all tasks of a transport share.
pub(super) struct Shared {
    /// Gone once the transport is closed, so that its socket goes too.
    endpoint: Mutex<Option<Endpoint>>,
    socket_gone: CancellationToken,
    pub(super) cluster: ClusterName,
    pub(super) node: NodeId,
    pub(super) profiles: Profiles,
    pub(super) timing: Timing,
    pub(super) limits: Limits,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) accepted: Accepted,
    current: RwLock<Current>,
}

/// What follows from the identity in use.
struct Current {
    tls: Tls,
    loopback: Arc<quinn::ServerConfig>,
    network: Arc<quinn::ServerConfig>,
}

impl Current {
    fn new(tls: Tls, profiles: &Profiles) -> Self {
        let server = |loopback| {
            let mut config = quinn::ServerConfig::with_crypto(Arc::clone(&tls.server) as _);
            config
                .transport_config(profiles.accept(loopback))
                // Dialers that wait for their handshake, and what is kept of each meanwhile.
                .max_incoming(256)
                .incoming_buffer_size(64 << 10)
                .incoming_buffer_size_total(4 << 20)
                .migration(false);
            Arc::new(config)
        };
        Self {
            loopback: server(true),
            network: server(false),
            tls,
        }
    }
}

impl Shared {
    /// The endpoint, until the transport is closed.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.lock().clone()
    }

    pub(super) fn tls(&self) -> Tls {
        self.current.read().tls.clone()
    }

    pub(super) fn server_config(&self, loopback: bool) -> Arc<quinn::ServerConfig> {
        let current = self.current.read();
        Arc::clone(if loopback {
            &current.loopback
        } else {
            &current.network
        })
    }
}

/// The transport over QUIC.
pub(super) struct QuicTransport {
    shared: Arc<Shared>,
    peers: Mutex<HashMap<NodeId, Arc<QuicPeer>>>,
}

impl QuicTransport {
    pub(super) fn start(config: Config, inbound: Arc<dyn Inbound>) -> Result<Self, StartError> {
        let Config {
            listen,
            identity,
            timing,
            limits,
        } = config;
        let tls = Tls::new(&identity).map_err(StartError::Identity)?;
        let profiles = Profiles::new(Timers {
            keep_alive: timing.keep_alive,
            idle: timing.idle,
        });
        let current = Current::new(tls, &profiles);
        let socket_gone = CancellationToken::new();
        let socket = socket::bind(listen, socket_gone.clone()).map_err(StartError::Bind)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(&identity),
            Some((*current.network).clone()),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(StartError::Bind)?;
        let shared = Arc::new(Shared {
            endpoint: Mutex::new(Some(endpoint.clone())),
            socket_gone,
            cluster: identity.cluster().clone(),
            node: identity.node(),
            profiles,
            timing,
            limits,
            inbound,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            accepted: Accepted::default(),
            current: RwLock::new(current),
        });
        shared.tasks.spawn(accept(Arc::clone(&shared), endpoint));
        Ok(Self {
            shared,
            peers: Mutex::new(HashMap::new()),
        })
    }

    fn quic_peer(&self, node: NodeId) -> Arc<QuicPeer> {
        let mut peers = self.peers.lock();
        let peer = peers.entry(node).or_insert_with(|| {
            let peer = QuicPeer::new(node, Arc::clone(&self.shared));
            self.shared.tasks.spawn(Arc::clone(&peer).run());
            peer
        });
        Arc::clone(peer)
    }
}

/// Reset tokens come from the node's key, so that a restarted node can tell a peer at once that its connection is gone,
/// where the peer would otherwise wait for a timeout.
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset = blake3::derive_key("psp-edge transport 2025 stateless reset", identity.key());
    let reset = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &reset);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .cid_generator(|| Box::new(RandomIds))
        .max_udp_payload_size(MAX_UDP_PAYLOAD)
        .expect("the largest payload is one that QUIC allows");
    config
}

/// Connection ids of eight random bytes. quinn's own know those of the process before by a secret, and drop what is
/// sent to them; these let it be answered with a reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl Backend for QuicTransport {
    fn node(&self) -> NodeId {
        self.shared.node
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.endpoint()?.local_addr().ok()
    }

    fn peer(&self, node: NodeId) -> Peer {
        Peer::new(node, Arc::new(self.quic_peer(node)) as Arc<dyn Dial>)
    }

    fn peers(&self) -> Vec<Peer> {
        let peers = self.peers.lock();
        peers
            .iter()
            .map(|(node, peer)| Peer::new(*node, Arc::new(Arc::clone(peer))))
            .collect()
    }

    fn set_address(&self, node: NodeId, address: SocketAddr) {
        self.quic_peer(node).set_address(address);
    }

    fn forget(&self, node: NodeId) {
        if let Some(peer) = self.peers.lock().remove(&node) {
            peer.stop.cancel();
        }
        self.shared
            .accepted
            .close_all(node, codes::DONE, b"forgotten");
    }

    fn refuse(&self, node: NodeId, refusal: &Refusal) {
        self.shared
            .accepted
            .close_all(node, codes::REFUSED, &refusal.encode());
        let peer = self.peers.lock().get(&node).map(Arc::clone);
        if let Some(peer) = peer {
            peer.refuse(refusal);
        }
    }

    fn set_identity(&self, identity: &Identity) -> Result<(), TlsError> {
        if identity.node() != self.shared.node || *identity.cluster() != self.shared.cluster {
            return Err(TlsError::another_node());
        }
        let current = Current::new(Tls::new(identity)?, &self.shared.profiles);
        if let Some(endpoint) = self.shared.endpoint() {
            endpoint.set_server_config(Some((*current.network).clone()));
        }
        *self.shared.current.write() = current;
        Ok(())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.shared.stop.cancel();
            let endpoint = self.shared.endpoint.lock().take();
            if let Some(endpoint) = &endpoint {
                endpoint.close(codes::DONE, b"the node stops");
            }
            self.peers.lock().clear();
            self.shared.tasks.close();
            self.shared.tasks.wait().await;
            // A peer that does not hear the close finds out by itself.
            let idle = async {
                if let Some(endpoint) = endpoint {
                    endpoint.wait_idle().await;
                }
                self.shared.socket_gone.cancelled().await;
            };
            if tokio::time::timeout(CLOSE_WAIT, idle).await.is_err() {
                tracing::debug!("a peer did not confirm the close");
            }
        })
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        if let Some(endpoint) = self.shared.endpoint.lock().take() {
            endpoint.close(codes::DONE, b"the node stops");
        }
    }
}
