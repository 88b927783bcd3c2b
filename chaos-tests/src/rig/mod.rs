//! A cluster of real processes on real disks and a real network, all of it to be broken.
//!
//! Each node is a `pspd serve` in a network namespace of its own, on the [`switch`]; its data is on a loop-mounted
//! [`image`], so that a power cut loses what was not synced. Needs root, `/dev/net/tun` and loop devices: without them
//! [`Rig::start`] panics with what is missing. A rig that is dropped removes everything that it made; one whose process
//! died is removed by the next ([`claim`]).
//!
//! | module | what |
//! |---|---|
//! | [`link`] | what one direction does to packets; pure, seeded |
//! | [`switch`] | packets from device to device |
//! | [`network`] | namespaces, devices, addresses |
//! | [`image`] | a node's disk |
//! | `process` | a node's process |
//! | `keys` | certificates, keys, configurations |
//! | [`claim`] | names that are this run's own, and what crashed runs left |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::cluster::Node;
use crate::target::Target;
use claim::Claim;
use image::Image;
use keys::Files;
use network::Network;
use process::{Plan, Process};
use switch::Switch;

pub mod claim;
pub mod command;
pub mod image;
mod keys;
pub mod link;
mod needs;
pub mod network;
mod process;
pub mod switch;

pub use keys::DATA;

/// How long a node may take to end cleanly.
const STOP: Duration = Duration::from_secs(25);
/// How long a cluster may take to serve.
const READY: Duration = Duration::from_secs(60);

/// What a rig is to be.
#[derive(Clone, Debug)]
pub struct RigConfig {
    /// The nodes' program.
    pub binary: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// The switch's chance comes from it.
    pub seed: u64,
    /// Settings (`key=value`) for every node.
    pub settings: Vec<String>,
    /// Size of each disk, in MiB. It is a sparse file.
    pub disk_mib: u64,
    /// Whether the nodes' wall clocks can be moved ([`Rig::set_clock`]).
    pub clocks: bool,
}

impl RigConfig {
    /// Three nodes with disks of 2 GiB.
    #[must_use]
    pub fn new(binary: &str, seed: u64) -> Self {
        Self {
            binary: binary.into(),
            nodes: 3,
            seed,
            settings: Vec::new(),
            disk_mib: 2048,
            clocks: false,
        }
    }
}

/// A running cluster. Nodes are named by their position, from 0.
#[derive(Debug)]
pub struct Rig {
    processes: Vec<Mutex<Process>>,
    plans: Vec<Plan>,
    disks: Vec<Image>,
    network: Network,
    files: Files,
    http: reqwest::Client,
    api_key: String,
    claim: Claim,
}

impl Rig {
    /// Starts a cluster and waits until all its nodes serve and the leaders are spread.
    ///
    /// # Panics
    /// With what is missing, when the machine cannot have a rig; or when it does not serve in time.
    pub async fn start(config: RigConfig) -> Self {
        // Another provider that was installed before serves as well.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let rig = Self::build(&config).expect("a rig can be built here (as root: make chaos)");
        rig.until_ready(READY).await;
        rig.until_balanced(READY).await;
        rig
    }

    fn build(config: &RigConfig) -> Result<Self, String> {
        needs::check(config.clocks)?;
        let claim = Claim::take()?;
        let network = Network::start(&claim, config.nodes, config.seed)?;
        let addresses = (0..config.nodes).map(|i| network.address(i)).collect();
        let files = Files::make(claim.folder(), addresses, needs::seconds())?;
        let disks: Result<Vec<Image>, String> = (0..config.nodes)
            .map(|i| Image::create(&files.disks(), &keys::disk(i), config.disk_mib))
            .collect();
        let mut plans = Vec::new();
        for node in 0..config.nodes {
            let clock = files.node(node).join("clock");
            let variables = if config.clocks {
                std::fs::write(&clock, "+0").map_err(|error| format!("no clock: {error}"))?;
                let library = process::faketime_library().ok_or("libfaketime is not installed")?;
                process::faketime(&library, &clock)
            } else {
                Vec::new()
            };
            plans.push(Plan {
                binary: config.binary.clone(),
                namespace: network.namespace(node).to_owned(),
                folder: files.node(node),
                settings: config.settings.clone(),
                variables,
            });
        }
        let processes: Result<Vec<_>, String> = plans
            .iter()
            .map(|plan| Process::start(plan).map(Mutex::new))
            .collect();
        Ok(Self {
            processes: processes?,
            plans,
            disks: disks?,
            api_key: files.api_key()?,
            network,
            files,
            http: client()?,
            claim,
        })
    }

    /// How many nodes it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.plans.len()
    }

    /// The folder of everything: logs, and disks while they are mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.claim.folder()
    }

    /// Leaves disks and logs where they are when the rig is gone, until the next one takes their place.
    pub fn keep(&self) {
        self.claim.keep();
    }

    /// The folders that hold what the nodes wrote: each one's logs and disk.
    #[must_use]
    pub fn written(&self) -> Vec<PathBuf> {
        let disks = self.disks.iter().map(|disk| disk.path().to_owned());
        let nodes = (0..self.count()).map(|node| self.files.node(node));
        disks.chain(nodes).collect()
    }

    /// The network between nodes and clients.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The switch: nodes by position, the clients at position [`Self::count`].
    #[must_use]
    pub const fn switch(&self) -> &Switch {
        self.network.switch()
    }

    /// A node's disk.
    #[must_use]
    pub fn disk(&self, node: usize) -> &Image {
        &self.disks[node]
    }

    /// The name of a node's namespace, and of what else is made for it.
    #[must_use]
    pub fn name(&self, node: usize) -> String {
        self.claim.node_name(node)
    }

    /// A node's process.
    #[must_use]
    pub fn pid(&self, node: usize) -> i32 {
        self.processes[node].lock().pid()
    }

    /// How a node's process ended, if it did.
    #[must_use]
    pub fn ended(&self, node: usize) -> Option<ExitStatus> {
        self.processes[node].lock().ended()
    }

    /// A node's log so far.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        let bytes = std::fs::read(self.files.node(node).join("pspd.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal to a node.
    pub fn signal(&self, node: usize, signal: Signal) {
        self.processes[node].lock().signal(signal);
    }

    /// SIGKILL; the process is gone when this returns.
    pub fn kill(&self, node: usize) {
        self.processes[node].lock().kill();
    }

    /// Ends a node as an operator does.
    ///
    /// # Panics
    /// When it does not end cleanly in time.
    pub fn stop(&self, node: usize) {
        let stopped = self.processes[node].lock().stop(STOP);
        stopped.expect("a node ends when it is asked to");
    }

    /// Starts a node that does not run; nothing if it does.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn begin(&self, node: usize) {
        let mut process = self.processes[node].lock();
        if process.ended().is_some() {
            *process = Process::start(&self.plans[node]).expect("a node can be started");
        }
    }

    /// Power off for these nodes at once: processes killed, what was not synced gone. They do not start again by themselves.
    ///
    /// # Errors
    /// With a sentence, when a disk could not be cut off.
    pub fn power_cut(&self, nodes: &[usize]) -> Result<(), String> {
        let mut locked: Vec<_> = nodes.iter().map(|n| self.processes[*n].lock()).collect();
        // All of them first: a node that lives on for a moment must not be answered by one that is cut off later.
        for process in &mut locked {
            process.signal(Signal::KILL);
        }
        for process in &mut locked {
            process.kill();
        }
        for node in nodes {
            self.disks[*node].power_off()?;
        }
        for node in nodes {
            self.disks[*node].power_on()?;
        }
        Ok(())
    }

    /// Moves a node's wall clock to this many seconds beside the true time. Its timers go on as before.
    ///
    /// # Errors
    /// With a sentence, when the rig was not made with [`RigConfig::clocks`].
    pub fn set_clock(&self, node: usize, seconds: i64) -> Result<(), String> {
        if self.plans[node].variables.is_empty() {
            return Err("the rig was made without clocks that can be moved".to_owned());
        }
        let (file, new) = (
            self.files.node(node).join("clock"),
            self.files.node(node).join("clock.new"),
        );
        // Never half a text: the node reads it at every look at the clock.
        std::fs::write(&new, format!("{seconds:+}"))
            .and_then(|()| std::fs::rename(&new, &file))
            .map_err(|error| format!("cannot move the clock: {error}"))
    }

    /// Lets a node whose disk was wiped join in place of `replaces`, with a token from the node at `sponsor`.
    ///
    /// # Errors
    /// With a sentence, when no token can be had.
    pub async fn rejoin(&self, node: usize, replaces: u64, sponsor: usize) -> Result<(), String> {
        let url = format!("{}/admin/v1/join-tokens", self.files.admin(sponsor));
        let wish = serde_json::json!({"minutes": 10});
        let request = self.http.post(url).json(&wish).send();
        let failed = |error: reqwest::Error| format!("no join token: {error}");
        let answer: serde_json::Value = request
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?
            .json()
            .await
            .map_err(failed)?;
        let token = answer["token"].as_str().ok_or("no join token")?;
        self.files.rejoin(node, replaces, token)?;
        self.begin(node);
        Ok(())
    }

    /// The nodes, as checks need them.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        (0..self.count())
            .map(|id| Node {
                id,
                pid: self.pid(id),
                http: self.files.http(id),
                admin: self.files.admin(id),
            })
            .collect()
    }

    /// What checks need to know of this cluster.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            api_key: self.api_key.clone(),
            nodes: self.nodes(),
            http: self.http.clone(),
            folders: self.written(),
        }
    }

    /// The key of the cluster's one tenant.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The client that all checks share.
    #[must_use]
    pub const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The highest term of each group that any node knows.
    pub async fn terms(&self) -> BTreeMap<String, u64> {
        let mut terms = BTreeMap::new();
        let target = self.target();
        for node in 0..self.count() {
            for group in target.status(node).await.into_iter().flat_map(|s| s.groups) {
                let term = terms.entry(group.group).or_insert(0);
                *term = group.term.max(*term);
            }
        }
        terms
    }

    /// Whether a node says that it is ready.
    pub async fn is_ready(&self, node: usize) -> bool {
        let url = format!("{}/readyz", self.files.admin(node));
        let request = self.http.get(url).timeout(Duration::from_secs(1));
        request
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
    }

    /// Waits until every node is ready.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub async fn until_ready(&self, limit: Duration) -> Duration {
        let all = || async {
            for node in 0..self.count() {
                if !self.is_ready(node).await {
                    return false;
                }
            }
            true
        };
        self.until("all nodes are ready", limit, all).await
    }

    /// Waits until every shard has a leader and every node leads its share, rounded down.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub async fn until_balanced(&self, limit: Duration) -> Duration {
        let target = &self.target();
        let spread = || async {
            let leaders = target.leaders().await;
            let led = |node| leaders.values().filter(|leader| **leader == node).count();
            let shards = target.shards().await.unwrap_or(0);
            shards > 0
                && leaders.len() == usize::from(shards)
                && (0..self.count()).all(|node| led(node) + 1 > leaders.len() / self.count())
        };
        self.until("the leaders are spread", limit, spread).await
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
            assert!(
                start.elapsed() < limit,
                "not within {limit:?}: {what}; logs in {}",
                self.folder().display()
            );
            period.tick().await;
        }
        start.elapsed()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // All at once, so that none of them sees the others go; the rest goes as its owners are dropped.
        for process in &self.processes {
            process.lock().signal(Signal::KILL);
        }
    }
}

fn client() -> Result<reqwest::Client, String> {
    crate::workload::client::http()
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))
}
