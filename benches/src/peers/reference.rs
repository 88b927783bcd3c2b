//! The stand-in of the PSP reference server: `benches/peers/reference.mjs`, one process of Node.js.

use std::process::Command;
use std::time::Duration;

use super::{Peer, Place, Server, local, ready};
use crate::store::plain::{self, Plain};

/// A server that runs.
#[derive(Debug)]
pub struct Reference {
    port: u16,
    server: Server,
}

impl Peer for Reference {
    type Store = Plain;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("reference")?;
        let port = place.port(800)?;
        let mut command = Command::new("node");
        command.arg(&place.reference).arg(port.to_string());
        let log = folder.join("log");
        let mut servers = [Server::start(command.arg(folder.join("sessions")), &log)?];
        ready(
            "the stand-in of the reference server",
            &mut servers,
            async || plain::fetch(local(port), "/health", Duration::from_secs(2)).await,
        )
        .await?;
        let [server] = servers;
        Ok(Self { port, server })
    }

    async fn store(&self, limit: Duration) -> Result<Plain, String> {
        Ok(Plain::new(local(self.port), "/api/v2/sessions/", limit))
    }

    fn nodes(&self) -> Vec<u32> {
        vec![self.server.pid()]
    }

    async fn leader(&self) -> Result<u32, String> {
        Err("there is one only".to_owned())
    }

    async fn stop(self) {
        self.server.stop().await;
    }
}
