//! NATS: three servers with JetStream, a bucket with three replicas, and a sync for each write (the default is one in two minutes).

use std::process::Command;
use std::time::Duration;

use super::{NODES, Peer, Place, Server, local, ready, write};
use crate::store::nats::Nats as Store;

/// A cluster that runs, with its bucket.
#[derive(Debug)]
pub struct Nats {
    ports: Vec<u16>,
    servers: Vec<Server>,
}

impl Nats {
    async fn find(ports: &[u16]) -> Result<usize, String> {
        let nodes: Vec<_> = ports.iter().map(|port| local(*port)).collect();
        let store = Store::new(&nodes, Duration::from_secs(2));
        let name = store.leader().await?;
        let place = (0..ports.len()).find(|node| name == format!("n{node}"));
        place.ok_or_else(|| format!("{name} is none of ours"))
    }
}

impl Peer for Nats {
    type Store = Store;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("nats")?;
        let mut ports = Vec::new();
        let mut routes = Vec::new();
        for node in 0..NODES {
            ports.push(place.port(400 + node)?);
            routes.push(place.port(410 + node)?);
        }
        let urls = routes.iter().map(|port| format!("nats://127.0.0.1:{port}"));
        let urls = urls.collect::<Vec<_>>().join(", ");
        let mut servers = Vec::new();
        for (node, (port, route)) in ports.iter().zip(&routes).enumerate() {
            let config = folder.join(format!("n{node}.conf"));
            let data = folder.join(format!("n{node}"));
            let text = format!(
                "server_name: n{node}\nlisten: \"127.0.0.1:{port}\"\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
                 cluster {{ name: peers, listen: \"127.0.0.1:{route}\", routes: [{urls}] }}\n",
                data.display()
            );
            write(&config, &text)?;
            let mut command = Command::new(place.bin.join("nats-server"));
            let log = folder.join(format!("n{node}.log"));
            servers.push(Server::start(command.arg("-c").arg(&config), &log)?);
        }
        ready("NATS with a bucket", &mut servers, async || {
            let nodes: Vec<_> = ports.iter().map(|port| local(*port)).collect();
            // Until it has a leader, the cluster does not answer at all.
            let store = Store::new(&nodes, Duration::from_secs(2));
            store.prepare().await?;
            Self::find(&ports).await
        })
        .await?;
        Ok(Self { ports, servers })
    }

    async fn store(&self, limit: Duration) -> Result<Store, String> {
        let leader = Self::find(&self.ports).await?;
        let mut nodes: Vec<_> = self.ports.iter().map(|port| local(*port)).collect();
        nodes.rotate_left(leader);
        Ok(Store::new(&nodes, limit))
    }

    fn nodes(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    async fn leader(&self) -> Result<u32, String> {
        let leader = Self::find(&self.ports).await?;
        Ok(self.servers[leader].pid())
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}
