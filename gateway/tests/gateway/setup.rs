//! A running gateway in front of a [`Fake`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gateway::{Gateway, GatewayConfig, LimitsConfig, Secrets, TlsConfig};
use secrecy::SecretBox;

use crate::fake::{Fake, Hooks, Wall};

/// The key that is right.
pub(crate) const KEY: &str = "psp_Test-Key/1";
/// 2026-01-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_767_225_600_000;

pub(crate) struct Setup {
    pub(crate) gateway: Gateway,
    pub(crate) fake: Arc<Fake>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) wall: Arc<Wall>,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::with(LimitsConfig::default(), None).await
    }

    pub(crate) async fn with(limits: LimitsConfig, tls: Option<TlsConfig>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = GatewayConfig {
            http: any,
            admin: any,
            tls,
            limits,
        };
        let secrets = Secrets {
            api_key: KEY.into(),
            cluster: SecretBox::new(Box::new([7; 32])),
        };
        let wall = Arc::new(Wall(AtomicU64::new(NOW)));
        let fake = Arc::new(Fake::new(Arc::clone(&wall)));
        let hooks = Arc::new(Hooks::default());
        let (sessions, clock, admin) = (Arc::clone(&fake), Arc::clone(&wall), Arc::clone(&hooks));
        let gateway = Gateway::start(config, secrets, sessions, clock, admin).await;
        Self {
            gateway: gateway.expect("starts"),
            fake,
            hooks,
            wall,
        }
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.gateway.addresses().http
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.gateway.addresses().admin
    }
}
