//! The HTTP face of PSP Edge: the Persistent Sessions Protocol over HTTP/1.1 and HTTP/2, in front of any
//! [`model::service::Sessions`].
//!
//! A request: accepted within bounds ([`config`]) → given an id → head checked → a place taken ([`limits`]) → path
//! made plain ([`path`]) → routed ([`routes`]) → authenticated ([`auth`]) → body read and decoded ([`body`]) → handed
//! to the store until its deadline → answered with tag, token and coding → one shape for every error ([`error`]).
//!
//! Guarantees: nothing waits or grows without a bound; a key or a document reaches no log; a 2xx to a write says that
//! the store acknowledged it, 504 `outcome_unknown` that nobody knows, everything else that nothing was changed.
//! It knows neither the consensus nor the disk, and reads no clock but the one it is given.

mod admin;
mod api;
pub mod auth;
pub mod body;
mod call;
mod calls;
pub mod config;
mod cors;
pub mod error;
pub mod etag;
mod idle;
pub mod limits;
mod listener;
mod media;
mod metrics;
pub mod negotiate;
pub mod openapi;
mod pace;
pub mod path;
pub mod query;
mod respond;
pub mod routes;
mod server;
mod tls;
pub mod token;
pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::service::Sessions;
use model::time::Clock;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::admin::{AdminHooks, AdminReply, AdminRequest};
pub use crate::config::{GatewayConfig, LimitsConfig, Secrets, TlsConfig};
pub use crate::tls::TlsError;

use crate::admin::Admin;
use crate::listener::Listener;
use crate::server::{App, Server};
use crate::tls::Certificates;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error("the certificate cannot be used")]
    Tls(#[from] TlsError),
}

/// Where a gateway listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// PSP clients.
    pub http: SocketAddr,
    /// The operator.
    pub admin: SocketAddr,
}

/// A running gateway. Dropping it stops accepting; [`Gateway::drain`] also waits for what was begun.
pub struct Gateway {
    addresses: Addresses,
    app: Arc<App>,
    admin: Admin,
    listeners: tokio::task::JoinSet<()>,
}

impl Gateway {
    /// Listens and serves. Metrics go to the process' recorder, which must be installed before.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        config: GatewayConfig,
        secrets: Secrets,
        sessions: Arc<dyn Sessions>,
        clock: Arc<dyn Clock>,
        hooks: Arc<dyn AdminHooks>,
    ) -> Result<Self, StartError> {
        let app = Arc::new(App::new(config.limits, &secrets, sessions, clock));
        drop(secrets);
        let server = Server::new(Arc::clone(&app));
        let certificates = config.tls.map(Certificates::load).transpose()?;
        let tls = certificates
            .clone()
            .map(Certificates::acceptor)
            .transpose()?;
        let listen = |address| move |source| StartError::Listen { address, source };
        let listener = Listener::bind(config.http, tls, server.clone())
            .await
            .map_err(listen(config.http))?;
        let socket = TcpListener::bind(config.admin)
            .await
            .map_err(listen(config.admin))?;
        let addresses = Addresses {
            http: listener.address().map_err(listen(config.http))?,
            admin: socket.local_addr().map_err(listen(config.admin))?,
        };
        let admin = Admin {
            app: Arc::clone(&app),
            hooks,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let mut listeners = tokio::task::JoinSet::new();
        listeners.spawn(listener.run());
        listeners.spawn(admin.clone().run(socket));
        if let Some(certificates) = certificates {
            listeners.spawn(listener::reload(certificates, server));
        }
        Ok(Self {
            addresses,
            app,
            admin,
            listeners,
        })
    }

    /// Where it listens, with the real ports.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Calls answered since the start, for the meter that is not billed.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.app.calls.count()
    }

    /// `/readyz` says `draining` from now on; everything else goes on. For a load balancer to look elsewhere before
    /// [`Gateway::drain`].
    pub fn announce_drain(&self) {
        self.app.leaving.store(true, Ordering::SeqCst);
    }

    /// Says so in `/readyz`, accepts no more, ends watches, lets requests finish for at most `grace`, and ends. What
    /// is not finished then is cut off; its outcome is unknown to its client.
    pub async fn drain(mut self, grace: Duration) {
        self.announce_drain();
        self.app.draining.cancel();
        self.app.tasks.close();
        if timeout(grace, self.app.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = self.app.tasks.len(),
                "connections cut off at the end of the grace period"
            );
            self.app.cut.cancel();
            self.app.tasks.wait().await;
        }
        self.admin.stop.cancel();
        self.admin.tasks.close();
        if timeout(Duration::from_secs(1), self.admin.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("admin connections cut off");
        }
        self.listeners.shutdown().await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.app.draining.cancel();
        self.app.cut.cancel();
        self.admin.stop.cancel();
    }
}
