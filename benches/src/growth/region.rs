//! A region of ours whose data stays when it ends: it can be started again, and a node's disk be wiped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model::status::ClusterStatus;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::dev::{Dev, Node};
use crate::peers::{Place, Server};
use crate::store::plain;

/// How long a region may take until it is ready, or a node until it has all.
const READY: Duration = Duration::from_mins(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How many entries a replica may be behind its leader.
const BEHIND: u64 = 64;

/// What kind of region.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Nodes.
    pub nodes: u16,
    /// Shards.
    pub shards: u16,
}

/// A region that runs.
#[derive(Debug)]
pub struct Region {
    /// Where its nodes are.
    pub dev: Dev,
    data: PathBuf,
    pspd: PathBuf,
    supervisor: Server,
}

impl Region {
    /// Starts it on the data in this folder, if there is any; ready when each shard has a leader that every node knows.
    ///
    /// # Errors
    /// In words.
    pub async fn start(place: &Place, data: &Path, shape: Shape) -> Result<Self, String> {
        std::fs::create_dir_all(data).map_err(|error| format!("{}: {error}", data.display()))?;
        // What the last one left there would be taken for this one's.
        drop(std::fs::remove_file(data.join("dev.json")));
        let began = Instant::now();
        let mut command = Command::new(&place.pspd);
        command
            .args(["dev", "--nodes", &shape.nodes.to_string()])
            .args(["--set", &format!("cluster.shards={}", shape.shards)])
            .args(["--port", &place.port(0)?.to_string(), "--data"])
            .arg(data);
        let mut supervisor = Server::start(&mut command, &data.join("supervisor.log"))?;
        loop {
            supervisor.lives()?;
            match known(data).await {
                Ok(dev) => {
                    return Ok(Self {
                        dev,
                        data: data.to_owned(),
                        pspd: place.pspd.clone(),
                        supervisor,
                    });
                }
                Err(why) if began.elapsed() > READY => return Err(why),
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// The processes of its nodes.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.dev.nodes.iter().map(|node| node.pid).collect()
    }

    /// Kills the last node, wipes its disk and starts it; how long it takes until every leader has it as a voter that is not behind.
    ///
    /// # Errors
    /// In words.
    pub async fn rebuild(&mut self) -> Result<Duration, String> {
        let last = self.dev.nodes.len().saturating_sub(1);
        let node = self.dev.nodes.get(last).ok_or("there is no node")?;
        // It comes back under another id; until then its leaders count the lost one among the voters.
        let lost = status(node).await?.node;
        for verb in ["kill", "wipe"] {
            self.node(verb, last)?;
        }
        let began = Instant::now();
        self.node("start", last)?;
        self.dev = Dev::read(&self.data)?;
        loop {
            match caught_up(&self.dev, lost).await {
                Ok(()) => return Ok(began.elapsed()),
                Err(why) if began.elapsed() > READY => return Err(why),
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Has all nodes rewrite their state; how long it takes until all have.
    ///
    /// # Errors
    /// In words.
    pub async fn compact(&self) -> Result<Duration, String> {
        let began = Instant::now();
        // It waits for each.
        self.pspd(&["node", "compact"])?;
        for node in &self.dev.nodes {
            let report: Compacted = ask(node, "/admin/v1/compact").await?;
            if let Some((group, why)) = report.skipped.first_key_value() {
                return Err(format!("{group} was not compacted: {why}"));
            }
        }
        Ok(began.elapsed())
    }

    fn node(&self, verb: &str, node: usize) -> Result<(), String> {
        self.pspd(&["dev", "node", verb, &node.to_string()])
    }

    fn pspd(&self, args: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.pspd);
        let out = command.args(args).arg("--data").arg(&self.data).output();
        let out = out.map_err(|error| error.to_string())?;
        if out.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        Err(format!("{}: {said}", args.join(" ")))
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.supervisor.stop().await;
    }
}

/// What a node says of its compaction.
#[derive(Deserialize)]
struct Compacted {
    skipped: BTreeMap<String, String>,
}

async fn status(node: &Node) -> Result<ClusterStatus, String> {
    ask(node, "/admin/v1/cluster").await
}

/// What a node's admin listener says.
async fn ask<T: DeserializeOwned>(node: &Node, path: &str) -> Result<T, String> {
    let admin = Node {
        http: node.admin.clone(),
        ..node.clone()
    };
    let limit = Duration::from_secs(5);
    let text = plain::fetch(admin.address()?, path, limit).await?;
    serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))
}

/// The region in a folder, when each node knows a leader of each shard.
async fn known(data: &Path) -> Result<Dev, String> {
    let dev = Dev::read(data)?;
    for node in &dev.nodes {
        let status = status(node).await?;
        let led = status.groups.iter().filter(|it| it.leader.is_some());
        if led.count() != usize::from(status.shards) + 1 {
            return Err("a shard has no leader".to_owned());
        }
    }
    Ok(dev)
}

/// That each leader has as many voters as there are nodes, none of them behind, and none the node that is lost.
async fn caught_up(dev: &Dev, lost: u64) -> Result<(), String> {
    let mut whole = 0;
    let mut groups = 0;
    for node in &dev.nodes {
        let status = status(node).await?;
        groups = usize::from(status.shards) + 1;
        for group in &status.groups {
            let near = |lag: Option<u64>| lag.is_some_and(|lag| lag <= BEHIND);
            let voters = group.replicas.iter();
            let voters = voters.filter(|it| it.role == "voter" && it.node != lost && near(it.lag));
            let all = voters.count() == dev.nodes.len();
            whole += usize::from(group.leader == Some(status.node) && all);
        }
    }
    if whole == groups {
        return Ok(());
    }
    Err(format!(
        "{whole} of {groups} groups have all their replicas"
    ))
}
