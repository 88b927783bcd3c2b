//! What is measured at one size: throughput and latency, memory, disk, how long a start takes, and a rebuild.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::region::{Region, Shape};
use crate::data::Text;
use crate::load::{self, Load, Outcome, Pace};
use crate::peers::Place;
use crate::procs;
use crate::store::psp::{Protocol, Psp};
use crate::store::{Connection as _, Fresh, Store as _};

/// Who asks at a time.
const CLIENTS: usize = 64;
/// After so long a request has failed.
const LIMIT: Duration = Duration::from_secs(10);
/// How long nothing is asked, to see what an idle region takes.
const IDLE: Duration = Duration::from_secs(10);
/// After the last write, for what the databases do by themselves.
const SETTLE: Duration = Duration::from_secs(5);

/// One size.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Nodes of the region.
    pub nodes: u16,
    /// Its shards.
    pub shards: u16,
    /// Sessions in it.
    pub sessions: usize,
    /// Sessions that were created a second, to come to this size.
    pub created: f64,
    /// Writes a second of 64 clients.
    pub writes: f64,
    /// Milliseconds, half of the writes.
    pub write_p50: f64,
    /// Seconds of processor time of all nodes for 1,000 writes.
    pub write_cpu: f64,
    /// Linearizable reads a second of 64 clients.
    pub reads: f64,
    /// Milliseconds, half of the reads.
    pub read_p50: f64,
    /// Resident bytes of the largest node, after the loads.
    pub memory: u64,
    /// Processors that the idle region takes, all nodes together.
    pub idle: f64,
    /// Bytes on disk of the state of one node, without its log.
    pub disk: u64,
    /// The same once it is compacted; only of the last size, for those after it would begin from less.
    pub compacted: Option<u64>,
    /// Seconds until one node after the other has compacted it, and taken a snapshot if it had one.
    pub compaction: Option<f64>,
    /// Bytes of the bodies as they were sent.
    pub user: u64,
    /// Seconds from the start of the stopped region to the first read.
    pub start: f64,
    /// Seconds until a node whose disk was wiped has all again; only of three nodes and more.
    pub rebuild: Option<f64>,
}

/// What loads write, and how long they last.
#[derive(Clone, Copy, Debug)]
pub struct Loads {
    /// Bytes of a session.
    pub bytes: usize,
    /// Counted.
    pub time: Duration,
    /// Before.
    pub warm_up: Duration,
}

/// Measures a region that is filled up to each of these sizes; each is shown when it is there.
///
/// # Errors
/// In words; what was measured before was shown.
pub async fn measure(
    place: &Place,
    (shape, sizes): (Shape, &[usize]),
    loads: Loads,
    each: &mut dyn FnMut(Stage),
) -> Result<(), String> {
    let data = place.empty("growth")?.join("dev");
    let mut region = Region::start(place, &data, shape).await?;
    let mut store = store(&region)?;
    let mut filled = 0;
    for &sessions in sizes {
        let began = Instant::now();
        load::fill(&store, &load_of((sessions, 0), loads), filled..sessions).await?;
        let took = began.elapsed().as_secs_f64();
        let created = number(sessions - filled) / took.max(f64::EPSILON);
        filled = sessions;
        let nodes = region.processes();
        let writes = run(&store, (sessions, 0), loads, &nodes).await?;
        let reads = run(&store, (sessions, 1000), loads, &nodes).await?;
        sleep(SETTLE).await;
        let before = procs::usage(&nodes).cpu;
        sleep(IDLE).await;
        let idle = procs::usage(&nodes).cpu.saturating_sub(before);
        let memory = nodes.iter().map(|node| procs::usage(&[*node]).memory);
        let memory = memory.max().unwrap_or(0);
        let rebuild = match shape.nodes {
            1 | 2 => None,
            _ => Some(region.rebuild().await?.as_secs_f64()),
        };
        region.stop().await;
        // What ends in order has written all of its state.
        let disk = state_bytes(&data.join("node-0"));
        let began = Instant::now();
        region = Region::start(place, &data, shape).await?;
        store = store.moved(nodes_of(&region)?, &region.dev.api_key, LIMIT)?;
        let mut connection = store.connect(0).await?;
        connection.get(0, Fresh::Linearizable).await?;
        let start = began.elapsed().as_secs_f64();
        let (mut compacted, mut compaction) = (None, None);
        if sizes.last() == Some(&sessions) {
            compaction = Some(region.compact().await?.as_secs_f64());
            compacted = Some(state_bytes(&data.join("node-0")));
        }
        each(Stage {
            nodes: shape.nodes,
            shards: shape.shards,
            sessions,
            created,
            writes: writes.per_second(),
            write_p50: writes.writes.millis(0.5),
            write_cpu: writes.cpu_per_thousand(),
            reads: reads.per_second(),
            read_p50: reads.reads.millis(0.5),
            memory,
            idle: idle.as_secs_f64() / IDLE.as_secs_f64(),
            disk,
            compacted,
            compaction,
            user: u64::try_from(sessions * loads.bytes).unwrap_or(u64::MAX),
            start,
            rebuild,
        });
    }
    region.stop().await;
    std::fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))
}

fn nodes_of(region: &Region) -> Result<Vec<std::net::SocketAddr>, String> {
    let nodes = region.dev.nodes.iter();
    nodes.map(crate::dev::Node::address).collect()
}

fn store(region: &Region) -> Result<Psp, String> {
    let nodes = nodes_of(region)?;
    Psp::new(nodes, &region.dev.api_key, Protocol::Http1, (1, LIMIT))
}

/// Creates these sessions, many at a time.
async fn run(
    store: &Psp,
    (keys, reads): (usize, u32),
    loads: Loads,
    nodes: &[u32],
) -> Result<Outcome, String> {
    let outcome = load::run(store, &load_of((keys, reads), loads), nodes).await?;
    match &outcome.failure {
        Some(why) => Err(why.clone()),
        None => Ok(outcome),
    }
}

fn load_of((keys, reads): (usize, u32), loads: Loads) -> Load {
    Load {
        clients: CLIENTS,
        pace: Pace::Closed,
        reads,
        fresh: Fresh::Linearizable,
        keys,
        bytes: loads.bytes,
        text: Text::Real,
        warm_up: loads.warm_up,
        time: loads.time,
        seed: 1,
    }
}

/// Bytes of all files of a node's state that take place on the disk.
fn state_bytes(node: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    fn all(folder: &Path, found: &mut u64) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.metadata() {
                Ok(about) if about.is_dir() => all(&path, found),
                Ok(about) => {
                    let state = ["sst", "blob"].map(std::ffi::OsStr::new);
                    if path.extension().is_some_and(|it| state.contains(&it)) {
                        *found += about.blocks() * 512 / about.nlink().max(1);
                    }
                }
                Err(_) => {}
            }
        }
    }
    let mut found = 0;
    all(node, &mut found);
    found
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_state_counts_and_links_once() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("r1-s0/1");
        std::fs::create_dir_all(&inner).unwrap();
        for name in ["000012.sst", "000013.blob", "LOG"] {
            std::fs::write(inner.join(name), vec![7; 100_000]).unwrap();
        }
        std::fs::hard_link(inner.join("000012.sst"), folder.path().join("link.sst")).unwrap();
        let bytes = state_bytes(folder.path());
        assert!((200_000..220_000).contains(&bytes), "{bytes}");
    }
}
