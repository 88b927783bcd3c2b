//! A cluster of real processes on loopback: `pspd dev`, as a user would start it.
//!
//! Nodes are named by their position. Signals go to a process by its id, taken from `dev.json`. A [`Cluster`] that is
//! dropped ends its supervisor, and with it all nodes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model::id::{GroupId, SessionId};
use model::placement;
use model::status::ClusterStatus;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::time::Instant;

use crate::target::Target;

/// One node, as `dev.json` has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its position, from 0.
    pub id: usize,
    /// Its process.
    pub pid: i32,
    /// Its gateway.
    pub http: String,
    /// Its admin listener.
    pub admin: String,
}

#[derive(Debug, Deserialize)]
struct Dev {
    api_key: String,
    nodes: Vec<Node>,
}

/// A running `pspd dev`.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    supervisor: Child,
    http: reqwest::Client,
}

/// How many shards a cluster of `pspd dev` has.
const SHARDS: u16 = model::limits::DEFAULT_SHARDS;

impl Cluster {
    /// Starts `nodes` nodes with data in `dir`, and waits until they serve.
    ///
    /// # Panics
    /// When it is not ready within 60 seconds.
    pub async fn start(binary: &str, nodes: usize, dir: &Path) -> Self {
        Self::start_with(binary, nodes, dir, &[]).await
    }

    /// As [`Self::start`], with settings (`key=value`) for every node.
    ///
    /// # Panics
    /// When it is not ready within 60 seconds.
    pub async fn start_with(binary: &str, nodes: usize, dir: &Path, settings: &[&str]) -> Self {
        // Another provider that was installed before serves as well.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let port = free_ports();
        let supervisor = Command::new(binary)
            .args([
                "dev",
                "--nodes",
                &nodes.to_string(),
                "--port",
                &port.to_string(),
                "--data",
            ])
            .arg(dir)
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::null())
            .spawn()
            .expect("pspd starts");
        let http = crate::workload::client::http()
            .build()
            .expect("an HTTP client can be made");
        let cluster = Self {
            binary: binary.into(),
            dir: dir.to_owned(),
            supervisor,
            http,
        };
        cluster
            .until("dev.json is written", Duration::from_secs(60), || async {
                cluster.dev().is_some()
            })
            .await;
        cluster
    }

    fn dev(&self) -> Option<Dev> {
        serde_json::from_slice(&std::fs::read(self.dir.join("dev.json")).ok()?).ok()
    }

    /// The key of the cluster's one tenant.
    ///
    /// # Panics
    /// When the cluster has ended.
    #[must_use]
    pub fn api_key(&self) -> String {
        self.dev().expect("the cluster runs").api_key
    }

    /// The nodes as they are now.
    ///
    /// # Panics
    /// When the cluster has ended.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.dev().expect("the cluster runs").nodes
    }

    /// The client that all checks share.
    #[must_use]
    pub const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// What checks need to know of this cluster.
    ///
    /// # Panics
    /// When the cluster has ended.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            api_key: self.api_key(),
            nodes: self.nodes(),
            http: self.http.clone(),
            folders: vec![self.dir.clone()],
        }
    }

    /// The folder with all data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sends a signal to a node.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn signal(&self, position: usize, signal: Signal) {
        let pid = self.nodes()[position].pid;
        kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("the node runs");
    }

    /// Runs `pspd dev node WHAT POSITION`.
    ///
    /// # Panics
    /// When the command fails.
    pub fn node_command(&self, what: &str, position: usize) {
        self.node_commands(what, &[position]);
    }

    /// Runs `pspd dev node WHAT POSITION` for several nodes at once.
    ///
    /// # Panics
    /// When one of the commands fails.
    pub fn node_commands(&self, what: &str, positions: &[usize]) {
        let start = |position: &usize| {
            Command::new(&self.binary)
                .args(["dev", "node", what, &position.to_string(), "--data"])
                .arg(&self.dir)
                .stdout(Stdio::null())
                .spawn()
                .expect("pspd starts")
        };
        let commands: Vec<Child> = positions.iter().map(start).collect();
        for mut command in commands {
            let status = command.wait().expect("the command is ours");
            assert!(status.success(), "pspd dev node {what} failed");
        }
    }

    /// What a node's admin listener says of the cluster, if it answers.
    pub async fn status(&self, position: usize) -> Option<ClusterStatus> {
        let admin = self.dev()?.nodes.get(position)?.admin.clone();
        let url = format!("{admin}/admin/v1/cluster");
        let request = self.http.get(url).timeout(Duration::from_secs(2));
        request.send().await.ok()?.json().await.ok()
    }

    /// The shard group of a session, by name.
    ///
    /// # Panics
    /// When the text is not a session's id.
    #[must_use]
    pub fn shard_of(&self, session: &str) -> String {
        let id: SessionId = session.parse().expect("a session's id");
        placement::group_of(id, SHARDS).to_string()
    }

    /// Which position leads which shard group: what the leaders themselves say.
    pub async fn leaders(&self) -> BTreeMap<String, usize> {
        let mut leaders = BTreeMap::new();
        for node in self.nodes() {
            let Some(status) = self.status(node.id).await else {
                continue;
            };
            for group in status.groups {
                if group.leader == Some(status.node) && group.group != GroupId::Meta.to_string() {
                    leaders.insert(group.group, node.id);
                }
            }
        }
        leaders
    }

    /// Waits until every shard has a leader and every node leads as many as any other.
    ///
    /// # Panics
    /// When that takes more than 30 seconds.
    pub async fn until_balanced(&self) {
        let nodes = self.nodes().len();
        self.until(
            "the leaders are spread",
            Duration::from_secs(30),
            || async {
                let leaders = self.leaders().await;
                leaders.len() == usize::from(SHARDS)
                    && (0..nodes).all(|position| {
                        leaders
                            .values()
                            .filter(|leader| **leader == position)
                            .count()
                            * nodes
                            == usize::from(SHARDS)
                    })
            },
        )
        .await;
    }

    /// Whether every node returns a session.
    pub async fn serves(&self, session: &str) -> bool {
        let Some(dev) = self.dev() else { return false };
        for node in dev.nodes {
            let url = format!("{}/api/v2/sessions/{session}", node.http);
            let request = self.http.get(url).bearer_auth(&dev.api_key);
            match request.timeout(Duration::from_secs(1)).send().await {
                Ok(response) if response.status() == 200 => {}
                _ => return false,
            }
        }
        true
    }

    /// Waits for a condition.
    ///
    /// # Panics
    /// When it does not hold within `limit`.
    pub async fn until<F: Future<Output = bool>>(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn() -> F,
    ) -> Duration {
        let start = Instant::now();
        let mut period = tokio::time::interval(Duration::from_millis(10));
        while !condition().await {
            assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
            period.tick().await;
        }
        start.elapsed()
    }

    /// Ends the cluster as a user does, and waits for it.
    ///
    /// # Panics
    /// When it does not end cleanly within 30 seconds.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.supervisor.id()).expect("a process id");
        kill_process(Pid::from_raw(pid).expect("a process id"), Signal::TERM)
            .expect("the supervisor runs");
        let start = Instant::now();
        let mut period = tokio::time::interval(Duration::from_millis(20));
        loop {
            if let Some(status) = self.supervisor.try_wait().expect("the supervisor is ours") {
                assert!(status.success(), "the supervisor ended with {status}");
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the cluster does not stop"
            );
            period.tick().await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // After `stop` it is gone already, and there is nothing to end.
        drop(self.supervisor.kill());
        drop(self.supervisor.wait());
    }
}

/// A port P for which the ports that `pspd dev` takes (see its help) are free now.
fn free_ports() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let base = 20_000 + u16::try_from(std::process::id() % 200).expect("below 200") * 50;
    (0..400)
        .map(|step| base + step * 10)
        .find(|port| (0..5).all(|i| [0, 100, 200].iter().all(|offset| free(port + offset + i))))
        .expect("some ports are free")
}
