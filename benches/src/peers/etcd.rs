//! etcd: three members with the defaults, which sync each write on a majority.

use std::process::Command;
use std::time::Duration;

use super::{NODES, Peer, Place, Server, local, ready};
use crate::store::etcd::Etcd as Store;

/// How much a member may hold. The default of 2 GiB is less than what a long run writes; it changes nothing else.
const QUOTA: &str = "--quota-backend-bytes=8589934592";

/// A cluster that runs.
#[derive(Debug)]
pub struct Etcd {
    ports: Vec<u16>,
    servers: Vec<Server>,
}

impl Etcd {
    async fn find(ports: &[u16]) -> Result<usize, String> {
        let nodes: Vec<_> = ports.iter().map(|port| local(*port)).collect();
        let store = Store::new(&nodes, Duration::from_secs(2));
        let mut leader = None;
        for node in 0..nodes.len() {
            if store.leads(node).await? {
                leader = Some(node);
            }
        }
        leader.ok_or_else(|| "there is no leader".to_owned())
    }
}

impl Peer for Etcd {
    type Store = Store;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("etcd")?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut ports = Vec::new();
        let mut peers = Vec::new();
        for node in 0..NODES {
            ports.push(place.port(300 + node)?);
            peers.push(place.port(310 + node)?);
        }
        let members = peers.iter().enumerate();
        let members = members.map(|(node, port)| format!("m{node}={}", url(*port)));
        let members = members.collect::<Vec<_>>().join(",");
        let mut servers = Vec::new();
        for (node, (port, peer)) in ports.iter().zip(&peers).enumerate() {
            let mut command = Command::new(place.bin.join("etcd"));
            command
                .args(["--name", &format!("m{node}"), "--data-dir"])
                .arg(folder.join(format!("m{node}")))
                .args(["--listen-client-urls", &url(*port)])
                .args(["--advertise-client-urls", &url(*port)])
                .args(["--listen-peer-urls", &url(*peer)])
                .args(["--initial-advertise-peer-urls", &url(*peer)])
                .args([
                    "--initial-cluster",
                    &members,
                    "--initial-cluster-state",
                    "new",
                ])
                .args(["--log-level", "warn", QUOTA]);
            let log = folder.join(format!("m{node}.log"));
            servers.push(Server::start(&mut command, &log)?);
        }
        let look = async || Self::find(&ports).await.map(drop);
        ready("etcd with a leader", &mut servers, look).await?;
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
