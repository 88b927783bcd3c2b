//! What carries connections: a QUIC endpoint, or a test's network.
//!
//! The QUIC carrier owns the UDP socket and the TLS of both sides; [`Carrier::stop`] gives the port back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use parking_lot::{Mutex, RwLock};
use quinn::{
    ClientConfig, ConnectError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    TokioRuntime,
};
use tokio_util::sync::CancellationToken;

use super::api::CallError;
use super::ca::{ClusterName, Identity};
use super::config::{StartError, Timing};
use super::connection::{Connection, meaning};
use super::quic::{MAX_UDP_PAYLOAD, Profiles, Purpose, Timers};
#[cfg(any(test, feature = "testing"))]
use super::testing::Port;
use super::tls::{Tls, TlsError};
use super::{codes, socket};

/// How long stopping waits for the last packets.
const STOP_WAIT: Duration = Duration::from_millis(300);

/// Makes connections.
pub(super) enum Carrier {
    Quic(QuicCarrier),
    #[cfg(any(test, feature = "testing"))]
    Memory(Port),
}

impl Carrier {
    /// A connection to `node`, whose certificate was checked; not yet greeted.
    pub(super) async fn connect(
        &self,
        node: NodeId,
        address: Option<SocketAddr>,
        purpose: Purpose,
    ) -> Result<Connection, CallError> {
        match self {
            Self::Quic(carrier) => {
                let address = address.ok_or(CallError::Unreachable("its address is not known"))?;
                carrier.connect(node, address, purpose).await.map(Connection::Quic)
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(port) => port.connect(node).await.map(Connection::Memory),
        }
    }

    /// The QUIC carrier, if it is one.
    pub(super) const fn quic(&self) -> Option<&QuicCarrier> {
        match self {
            Self::Quic(carrier) => Some(carrier),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => None,
        }
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Quic(carrier) => carrier.endpoint()?.local_addr().ok(),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => None,
        }
    }

    pub(super) fn set_identity(&self, identity: &Identity) -> Result<(), TlsError> {
        match self {
            Self::Quic(carrier) => carrier.set_identity(identity),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => Ok(()),
        }
    }

    /// A number from 0 to 1 to spread what would otherwise happen at once; a test's comes from its seed.
    pub(super) fn jitter(&self) -> f64 {
        match self {
            Self::Quic(_) => rand::random(),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(port) => port.jitter(),
        }
    }

    /// Closes all connections, now.
    pub(super) fn close(&self) {
        match self {
            Self::Quic(carrier) => {
                if let Some(endpoint) = carrier.endpoint() {
                    endpoint.close(codes::DONE, b"the node stops");
                }
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(port) => port.close(),
        }
    }

    /// After [`Self::close`] and the end of all tasks: waits until the port is free, for a bounded time.
    pub(super) async fn stop(&self) {
        match self {
            Self::Quic(carrier) => carrier.stop().await,
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => {}
        }
    }
}

/// A UDP socket with its TLS.
pub(super) struct QuicCarrier {
    /// Gone once stopped, so that its socket goes too.
    endpoint: Mutex<Option<Endpoint>>,
    socket_gone: CancellationToken,
    cluster: ClusterName,
    node: NodeId,
    profiles: Profiles,
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
        Self { loopback: server(true), network: server(false), tls }
    }
}

impl QuicCarrier {
    /// Binds. The endpoint that is given too is for accepting.
    pub(super) fn start(
        listen: SocketAddr,
        identity: &Identity,
        timing: Timing,
    ) -> Result<(Self, Endpoint), StartError> {
        let tls = Tls::new(identity).map_err(StartError::Identity)?;
        let profiles = Profiles::new(Timers { keep_alive: timing.keep_alive, idle: timing.idle });
        let current = Current::new(tls, &profiles);
        let socket_gone = CancellationToken::new();
        let socket = socket::bind(listen, socket_gone.clone()).map_err(StartError::Bind)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(identity),
            Some((*current.network).clone()),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(StartError::Bind)?;
        let carrier = Self {
            endpoint: Mutex::new(Some(endpoint.clone())),
            socket_gone,
            cluster: identity.cluster().clone(),
            node: identity.node(),
            profiles,
            current: RwLock::new(current),
        };
        Ok((carrier, endpoint))
    }

    fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.lock().clone()
    }

    /// The cluster whose nodes it accepts.
    pub(super) const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// How to accept a dialer, by where it is.
    pub(super) fn server_config(&self, loopback: bool) -> Arc<quinn::ServerConfig> {
        let current = self.current.read();
        Arc::clone(if loopback { &current.loopback } else { &current.network })
    }

    async fn connect(
        &self,
        node: NodeId,
        address: SocketAddr,
        purpose: Purpose,
    ) -> Result<quinn::Connection, CallError> {
        let endpoint = self.endpoint().ok_or(CallError::Unreachable("this node is stopping"))?;
        let mut config = ClientConfig::new(Arc::clone(&self.current.read().tls.client) as _);
        config.transport_config(self.profiles.dial(purpose, address));
        let connecting = endpoint
            .connect_with(config, address, &self.cluster.node_name(node))
            .map_err(|error| CallError::Unreachable(undialable(&error)))?;
        connecting.await.map_err(|error| {
            tracing::debug!(%node, %address, %error, "dial failed");
            meaning(&error)
        })
    }

    fn set_identity(&self, identity: &Identity) -> Result<(), TlsError> {
        if identity.node() != self.node || *identity.cluster() != self.cluster {
            return Err(TlsError::another_node());
        }
        let current = Current::new(Tls::new(identity)?, &self.profiles);
        if let Some(endpoint) = self.endpoint() {
            endpoint.set_server_config(Some((*current.network).clone()));
        }
        *self.current.write() = current;
        Ok(())
    }

    async fn stop(&self) {
        let endpoint = self.endpoint.lock().take();
        // A peer that does not hear the close finds out by itself.
        let idle = async {
            if let Some(endpoint) = endpoint {
                endpoint.wait_idle().await;
            }
            self.socket_gone.cancelled().await;
        };
        if tokio::time::timeout(STOP_WAIT, idle).await.is_err() {
            tracing::debug!("the socket is still in use");
        }
    }
}

const fn undialable(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::EndpointStopping => "this node is stopping",
        ConnectError::CidsExhausted => "too many connections",
        ConnectError::InvalidServerName(_) => "the peer's name is not valid",
        ConnectError::InvalidRemoteAddress(_) => "the peer's address is not valid",
        ConnectError::NoDefaultClientConfig | ConnectError::UnsupportedVersion => {
            "QUIC is not set up"
        }
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
