//! The configuration of a node: every key, its unit, its default and its meaning.
//!
//! A file in TOML, then `PSPD_` variables, then `--set` arguments; the later wins ([`overlay`]). Unknown keys are
//! refused, quantities have units, paths are relative to the file's folder. Secrets are not in here: only the paths of
//! their files are. `deploy/systemd/pspd.toml` is a complete example, and a test reads it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::id::RegionId;
use model::limits::{DEFAULT_SHARDS, MAX_DOCUMENT_BYTES};
use serde::Deserialize;

use crate::exit::{Exit, OrProblem as _, Problem};
pub use crate::units::{BadUnit, ByteSize, Span};

mod overlay;
#[cfg(test)]
mod tests;

pub use overlay::Source;

/// Longest time for a request, so that `not_after` stays within the model's bound.
const MAX_REQUEST: Duration = Duration::from_secs(60);

/// All of a node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of everything that the node keeps; belongs to this node alone.
    pub data: PathBuf,
    /// Threads that serve requests. A node that shares a machine with others needs one; default 2.
    #[serde(default = "two")]
    pub worker_threads: NonZeroUsize,
    /// Where the node listens.
    pub listen: Listen,
    /// How others reach what listens; default: the addresses in `listen`.
    #[serde(default)]
    pub advertise: Advertise,
    /// The cluster that the node belongs to.
    pub cluster: ClusterConfig,
    /// Files of keys and certificates.
    pub secrets: SecretFiles,
    /// Limits of the HTTP side; past them, clients get 429 or 503 at once. See [`gateway::LimitsConfig`].
    #[serde(default)]
    pub gateway: gateway::LimitsConfig,
    /// Limits of the disk side.
    #[serde(default)]
    pub storage: StorageLimits,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// How long the steps of a stop may take.
    #[serde(default)]
    pub stop: StopLimits,
}

/// Where a node listens. The three addresses must differ.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Clients, HTTP/1.1 and 2, TCP.
    pub http: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics` and `/admin/v1/*`, TCP. Not for clients: keep it on a private network.
    pub admin: SocketAddr,
    /// Other nodes, QUIC with mutual TLS, UDP.
    pub peer: SocketAddr,
}

/// How others reach a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    /// The gateway, a whole URL.
    pub http: Option<String>,
    /// The admin listener, a whole URL.
    pub admin: Option<String>,
    /// For other nodes, `host:port`; the host may be a name.
    pub peer: Option<String>,
}

/// The cluster that a node belongs to, and how it came into it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The cluster's name in its certificates: 1 to 40 of `a-z`, `0-9` and inner hyphens.
    pub name: String,
    /// The region's number, 0 to 1,023. Never changes.
    #[serde(default)]
    pub region: u16,
    /// The region's name, for people.
    #[serde(default = "local")]
    pub region_name: String,
    /// Shards of the region, 1 to 64: used when the cluster is made, and never changed after. Default 6.
    #[serde(default = "default_shards")]
    pub shards: u16,
    /// The failure domain of this node, for people and for placement.
    #[serde(default)]
    pub zone: String,
    /// The first nodes of the cluster, the same list on each of them. Only used when the cluster is made; a node that
    /// joins later has none.
    #[serde(default)]
    pub members: Vec<Member>,
    /// How a new node gets in. Only used while it has no certificate.
    #[serde(default)]
    pub join: Option<Join>,
    /// What a node does whose log is damaged, or whose disk the cluster refuses: `auto` sets the old disk aside and comes back under a
    /// new id, let in by its old certificate, as soon as a node with the authority's key answers; `manual` (the default)
    /// ends with exit code 71.
    #[serde(default)]
    pub rebuild: Rebuild,
}

/// Who decides that a node with a damaged log is made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rebuild {
    /// The node itself.
    Auto,
    /// Its operator.
    #[default]
    Manual,
}

/// One of the first nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its id, from 1.
    pub id: u64,
    /// Where other nodes reach it, `host:port`.
    pub peer: String,
    /// Its gateway, a whole URL.
    pub http: String,
    /// Its admin listener, a whole URL.
    pub admin: String,
    /// Its failure domain.
    #[serde(default)]
    pub zone: String,
}

/// How a new node gets into a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// File with the token that `pspd node join-token` printed, mode 0600.
    pub token: PathBuf,
    /// Nodes of the cluster, `host:port` of their peer listeners. Tried in order.
    pub seeds: Vec<String>,
    /// The node whose place this one takes, if that one's disk is lost: its id is gone for good once this one is in.
    pub replaces: Option<u64>,
}

/// Files of keys and certificates, each readable by its owner only (0600 or less).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFiles {
    /// Folder with `node.crt`, `node.key` and `ca.crt`: the node among nodes. A joining node writes them itself. With
    /// `ca.key` there too, this node may admit others.
    pub identity: PathBuf,
    /// 64 hexadecimal digits: wraps the keys of all sessions. The same on every node. Without it, the disks are noise.
    pub master_key: PathBuf,
    /// 64 hexadecimal digits: authenticates what nodes hand out to clients. The same on every node.
    pub cluster_secret: PathBuf,
    /// The key that clients show.
    pub api_key: PathBuf,
    /// Certificate chain (PEM) of the client listener; without it, the listener speaks plain HTTP.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// Private key (PEM) of the client listener.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
}

/// Limits of the disk side.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageLimits {
    /// Block cache and write buffers of all tablets together. Default `192MiB`.
    pub memory: ByteSize,
    /// A shard with more log than this is snapshotted, and its log cut: what a node that was away must not have missed to
    /// be brought up from the log alone. At least `1MiB`. Default `256MiB`.
    pub shard_log: ByteSize,
    /// How often all stored data is read again to find damage, from the beginning of one pass to the next. Default `24h`.
    pub scrub_every: Span,
    /// How much of it is read in a second, at least `64KiB`; a pass that is asked for reads 16 times as much. Default `8MiB`.
    pub scrub_rate: ByteSize,
}

impl Default for StorageLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize(192 << 20),
            shard_log: ByteSize(256 << 20),
            scrub_every: Span(Duration::from_hours(24)),
            scrub_rate: ByteSize(8 << 20),
        }
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, and levels of modules, as in `info,raft=debug`. Default: `info`, with openraft's own only from `warn`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info,openraft=warn".to_owned(),
        }
    }
}

/// How long the steps of a stop may take. Past it, the next step begins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopLimits {
    /// Handing leaderships to other nodes. Default `3s`.
    pub drain: Span,
    /// Letting requests in flight end. Default `5s`.
    pub grace: Span,
    /// Closing groups and files. Default `10s`.
    pub close: Span,
}

impl Default for StopLimits {
    fn default() -> Self {
        let seconds = |count| Span(Duration::from_secs(count));
        Self {
            drain: seconds(3),
            grace: seconds(5),
            close: seconds(10),
        }
    }
}

fn two() -> NonZeroUsize {
    NonZeroUsize::new(2).expect("not zero")
}

fn local() -> String {
    "local".to_owned()
}

const fn default_shards() -> u16 {
    DEFAULT_SHARDS
}

impl Config {
    /// Reads the configuration from its sources, resolves paths, and checks it.
    ///
    /// # Errors
    /// When a source cannot be read, a key is unknown or missing, or a value is out of its range.
    pub fn load(source: &Source) -> Result<Self, Problem> {
        let table = source.table()?;
        let mut config: Self = toml::Value::Table(table)
            .try_into()
            .or_problem(Exit::Config, || {
                format!("configuration {}", source.file.display())
            })?;
        let folder = source.file.parent().unwrap_or_else(|| Path::new("."));
        config.resolve(folder);
        config.validate()?;
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        let secrets = &mut self.secrets;
        let paths = [
            &mut self.data,
            &mut secrets.identity,
            &mut secrets.master_key,
        ]
        .into_iter()
        .chain([&mut secrets.cluster_secret, &mut secrets.api_key])
        .chain(&mut secrets.tls_certificate)
        .chain(&mut secrets.tls_key)
        .chain(self.cluster.join.as_mut().map(|join| &mut join.token));
        for path in paths {
            *path = folder.join(&*path);
        }
    }

    fn validate(&self) -> Result<(), Problem> {
        let Listen { http, admin, .. } = self.listen;
        let cluster = &self.cluster;
        let ids: std::collections::BTreeSet<u64> = cluster.members.iter().map(|m| m.id).collect();
        let rules = [
            (
                http != admin || http.port() == 0,
                "listen.http and listen.admin are the same",
            ),
            (
                RegionId::new(cluster.region).is_some(),
                "cluster.region is above 1023",
            ),
            (
                (1..=64).contains(&cluster.shards),
                "cluster.shards is not from 1 to 64",
            ),
            (
                ids.len() == cluster.members.len(),
                "cluster.members has an id twice",
            ),
            (!ids.contains(&0), "cluster.members has the id 0"),
            (
                cluster
                    .join
                    .as_ref()
                    .is_none_or(|join| !join.seeds.is_empty()),
                "cluster.join.seeds is empty",
            ),
            (
                self.secrets.tls_certificate.is_some() == self.secrets.tls_key.is_some(),
                "secrets.tls_certificate and secrets.tls_key go together",
            ),
            (
                self.gateway.large_request_timeout <= MAX_REQUEST,
                "gateway.large_request_timeout is above 60s",
            ),
            (
                self.gateway.body_bytes > MAX_DOCUMENT_BYTES,
                "gateway.body_bytes is less than one largest session",
            ),
            (
                self.storage.memory.0 >= 16 << 20,
                "storage.memory is below 16MiB",
            ),
            (
                self.storage.shard_log.0 >= 1 << 20,
                "storage.shard_log is below 1MiB",
            ),
            (
                self.storage.scrub_rate.0 >= 64 << 10 && !self.storage.scrub_every.0.is_zero(),
                "storage.scrub_rate is below 64KiB, or storage.scrub_every is zero",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(Problem::new(
                Exit::Config,
                format!("configuration: {broken}"),
            )),
            None => Ok(()),
        }
    }

    /// The gateway's URL for others.
    #[must_use]
    pub fn http_url(&self) -> String {
        let scheme = if self.secrets.tls_certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let default = || format!("{scheme}://{}", self.listen.http);
        self.advertise.http.clone().unwrap_or_else(default)
    }

    /// The admin listener's URL for others.
    #[must_use]
    pub fn admin_url(&self) -> String {
        let default = || format!("http://{}", self.listen.admin);
        self.advertise.admin.clone().unwrap_or_else(default)
    }

    /// Where other nodes reach this one.
    #[must_use]
    pub fn peer_address(&self) -> String {
        self.advertise
            .peer
            .clone()
            .unwrap_or_else(|| self.listen.peer.to_string())
    }
}
