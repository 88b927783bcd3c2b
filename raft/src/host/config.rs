//! What a host is started with.

use std::path::PathBuf;
use std::sync::Arc;

use model::id::{NodeId, RegionId};
use model::meta::NodeAddress;
use storage::db::StateConfig;
use storage::disk::Disk;
use storage::state::StateEngine;

use super::scrub::ScrubPace;
use crate::shard::{Directory, EventSink, Peers, ServiceInbound};
use crate::timing::Pace;
use crate::transport;
use crate::transport::ca::Authority;

/// How to start a host.
#[derive(Debug)]
pub struct HostConfig {
    /// Where log, state and the node's own files are.
    pub folder: PathBuf,
    /// The node's region.
    pub region: RegionId,
    /// The region's name, for people.
    pub region_name: String,
    /// Shards of the region. Only counts when the region is made.
    pub shards: u16,
    /// The first nodes of a new cluster, this one included; the same list, in the same order, on each. Empty on a node that
    /// joined later. Once the cluster exists, its own map counts.
    pub seed: Vec<(NodeId, NodeAddress)>,
    /// Where the transport listens, and as whom.
    pub transport: transport::Config,
    /// The cluster's authority, on nodes that may admit others.
    pub authority: Option<Arc<Authority>>,
    /// Sizes and times.
    pub tuning: Tuning,
}

/// Sizes and times that have good defaults.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Of the shards' groups.
    pub shard_pace: Pace,
    /// Of the meta group.
    pub meta_pace: Pace,
    /// A group with more bytes of log than this is snapshotted, and its log purged.
    pub log_bytes: u64,
    /// Sizes of the log.
    pub log: storage::log::LogConfig,
    /// Memory and files of the state.
    pub state: StateConfig,
    /// What a restart applies again at most, in bytes.
    pub replay_bytes: u64,
    /// How cold data is read again.
    pub scrub: ScrubPace,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            shard_pace: Pace::SHARD,
            meta_pace: Pace::META,
            log_bytes: 256 << 20,
            log: storage::log::LogConfig::default(),
            state: StateConfig::default(),
            replay_bytes: storage::state::flush::DEFAULT_REPLAY_BYTES,
            scrub: ScrubPace::default(),
        }
    }
}

/// Who runs the writer of the log.
#[derive(Default)]
pub enum LogWriter {
    /// A thread of its own.
    #[default]
    Thread,
    /// Whoever gets it here: a simulation, in which no thread may decide the order of anything.
    #[cfg(any(test, feature = "testing"))]
    Given(Box<dyn FnOnce(storage::log::ManualWriter) + Send>),
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Thread => "Thread",
            #[cfg(any(test, feature = "testing"))]
            Self::Given(_) => "Given",
        })
    }
}

/// The disks and engines of a node.
#[derive(Debug)]
pub struct Engines {
    /// For the log and the node's life.
    pub log: Arc<dyn Disk>,
    /// For the node's own small files.
    pub own: Arc<dyn Disk>,
    /// For the groups' state.
    pub state: StateEngine,
    /// The folder in which the groups' state is; of no meaning for state in memory.
    pub groups: PathBuf,
    /// Who writes the log.
    pub writer: LogWriter,
}

/// What stands on top of the host.
#[derive(Clone)]
pub struct Attached {
    /// Takes calls of other nodes' services.
    pub inbound: Arc<dyn ServiceInbound>,
    /// Hears what was committed.
    pub events: Arc<dyn EventSink>,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// What the service is built on.
#[derive(Clone)]
pub struct Ground {
    /// The groups, and where they are.
    pub directory: Arc<dyn Directory>,
    /// The services of other nodes.
    pub peers: Arc<dyn Peers>,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").finish_non_exhaustive()
    }
}
