//! Redis: a primary and two replicas, all with an append-only file that is synced for each write. Without snapshots beside it, which
//! favors it.

use std::process::Command;
use std::time::Duration;

use super::{NODES, Peer, Place, Server, local, ready};
use crate::store::redis::Redis as Store;

/// Servers that run.
#[derive(Debug)]
pub struct Redis {
    ports: Vec<u16>,
    servers: Vec<Server>,
}

impl Peer for Redis {
    type Store = Store;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("redis")?;
        let (mut ports, mut servers) = (Vec::new(), Vec::new());
        for node in 0..NODES {
            let port = place.port(500 + node)?;
            let data = folder.join(format!("r{node}"));
            std::fs::create_dir(&data).map_err(|error| error.to_string())?;
            let mut command = Command::new("/usr/bin/redis-server");
            command
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--appendonly", "yes", "--appendfsync", "always"])
                .args(["--save", "", "--repl-diskless-sync-delay", "0", "--dir"])
                .arg(&data);
            if let Some(primary) = ports.first() {
                command.args(["--replicaof", "127.0.0.1", &format!("{primary}")]);
            }
            let log = folder.join(format!("r{node}.log"));
            servers.push(Server::start(&mut command, &log)?);
            ports.push(port);
        }
        let nodes: Vec<_> = ports.iter().map(|port| local(*port)).collect();
        let store = Store::new(&nodes, Duration::from_secs(2));
        ready("Redis with two replicas", &mut servers, async || {
            let info = store.info().await?;
            let online = info.matches("state=online").count();
            if online + 1 < nodes.len() {
                return Err(format!("{online} replicas"));
            }
            Ok(())
        })
        .await?;
        Ok(Self { ports, servers })
    }

    async fn store(&self, limit: Duration) -> Result<Store, String> {
        let nodes: Vec<_> = self.ports.iter().map(|port| local(*port)).collect();
        Ok(Store::new(&nodes, limit))
    }

    fn nodes(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    async fn leader(&self) -> Result<u32, String> {
        Err("without Sentinel nobody follows its primary".to_owned())
    }

    async fn stop(self) {
        // The replicas first: they would try to reach their primary.
        for server in self.servers.into_iter().rev() {
            server.stop().await;
        }
    }
}
