//! PSP Edge: `pspd dev` with three nodes. Its clients know no leader and are spread over all nodes.

use std::process::Command;
use std::time::Duration;

use model::status::ClusterStatus;

use super::{NODES, Peer, Place, Server, ready};
use crate::dev::{Dev, Node};
use crate::store::plain;
use crate::store::psp::{Protocol, Psp as Store};

/// A region that runs.
#[derive(Debug)]
pub struct Psp {
    dev: Dev,
    supervisor: Server,
}

/// How many groups of sessions a node leads, and how many there are.
async fn leads(node: &Node) -> Result<(usize, usize), String> {
    let admin = Node {
        http: node.admin.clone(),
        ..node.clone()
    };
    let limit = Duration::from_secs(2);
    let text = plain::fetch(admin.address()?, "/admin/v1/cluster", limit).await?;
    let status: ClusterStatus =
        serde_json::from_slice(&text).map_err(|error| format!("its status: {error}"))?;
    let groups = status.groups.iter();
    let led = groups.filter(|group| group.leader == Some(status.node) && group.group != "meta");
    Ok((led.count(), usize::from(status.shards)))
}

impl Peer for Psp {
    type Store = Store;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("psp")?;
        let data = folder.join("dev");
        let port = place.port(0)?;
        let mut command = Command::new(&place.pspd);
        command
            .args(["dev", "--nodes", &NODES.to_string()])
            .args(["--port", &port.to_string(), "--data"])
            .arg(&data);
        let mut servers = [Server::start(&mut command, &folder.join("log"))?];
        let dev = ready(
            "a region with a leader of each shard on its place",
            &mut servers,
            async || {
                let dev = Dev::read(&data)?;
                let (mut fewest, mut all, mut shards) = (usize::MAX, 0, 0);
                for node in &dev.nodes {
                    let led;
                    (led, shards) = leads(node).await?;
                    fewest = fewest.min(led);
                    all += led;
                }
                if all != shards || fewest < shards / dev.nodes.len() {
                    return Err(format!(
                        "{all} of {shards} led, {fewest} by one of the nodes"
                    ));
                }
                Ok(dev)
            },
        );
        let dev = dev.await?;
        let [supervisor] = servers;
        Ok(Self { dev, supervisor })
    }

    async fn store(&self, limit: Duration) -> Result<Store, String> {
        let nodes = self.dev.nodes.iter().map(Node::address);
        let nodes = nodes.collect::<Result<_, _>>()?;
        Store::new(nodes, &self.dev.api_key, Protocol::Http1, (1, limit))
    }

    fn nodes(&self) -> Vec<u32> {
        self.dev.nodes.iter().map(|node| node.pid).collect()
    }

    /// Every node leads its part of the shards: the first one that does.
    async fn leader(&self) -> Result<u32, String> {
        for node in &self.dev.nodes {
            if leads(node).await?.0 > 0 {
                return Ok(node.pid);
            }
        }
        Err("nobody leads anything".to_owned())
    }

    async fn stop(self) {
        self.supervisor.stop().await;
    }
}
