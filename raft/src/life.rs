//! What a node remembers of itself and of its peers, in three small files: its life, its peers' lives, and the map.
//!
//! **Life.** A counter (`storage::life`) that is raised and synced at each start and every few seconds. Peers remember the highest that a node
//! showed, and by which process. A start raises the life, and a process shows only what is on its disk: so another process that does not show a
//! higher life, or shows one of another disk's, came back with an old or an empty disk. It has forgotten what it promised, so it is
//! refused and must be rebuilt under a new id; the same holds for one that has less log than a leader saw it acknowledge. A
//! peer's first life is saved before anything else is heard of it: this node may forget in a crash how often the peer was raised since,
//! but not which disk it has.
//!
//! **Incarnation.** The number of a process. A greeting may be overtaken: it says what was so when it was written, and by the time it is
//! read the same process may have acknowledged more, and raised its life, over a connection that is older. So a process is judged by its
//! first greeting that arrives here; of one that was let in before, a later greeting can say nothing that counts against it.
//!
//! **Map.** The meta group's state as last applied here, so that the shards start without waiting for the meta group.
//!
//! Files are replaced as a whole: written aside, synced, renamed. Each carries a checksum; a damaged one is an error.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use model::codec;
use model::id::NodeId;
use model::meta::MetaState;
use parking_lot::Mutex;
use storage::disk::Disk;
use storage::life::{LifeCounter, birth};
use tokio::time::Instant;

use crate::chance;
use crate::transport::Refusal;

const PEERS: &str = "peers";
const MAP: &str = "map";
const CHECKSUM: usize = 32;

/// The node's disk is older than what the peer remembers of it.
pub(crate) const OLD_LIFE: u16 = 1;
/// The node has less log than it acknowledged.
pub(crate) const LOST_LOG: u16 = 2;
/// The node was removed from the cluster.
pub(crate) const REMOVED: u16 = 3;
/// The node belongs to another cluster.
pub(crate) const OTHER_CLUSTER: u16 = 4;
/// The greeting does not decode.
pub(crate) const BAD_HELLO: u16 = 5;
/// The node that was greeted has stopped.
pub(crate) const GONE: u16 = 6;

/// Why `node` is refused. The text names the node, since both sides of a connection see it.
pub(crate) fn refusal(node: NodeId, code: u16, reason: &str) -> Refusal {
    let reason = format!("node {node}: {reason}");
    Refusal { code, reason }
}

/// Whether a refusal is about this node and for good.
pub(crate) fn is_about(refusal: &Refusal, me: NodeId) -> bool {
    matches!(refusal.code, OLD_LIFE | LOST_LOG | REMOVED)
        && refusal.reason.starts_with(&format!("node {me}:"))
}

/// What a node says first on every connection.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Hello {
    /// Zero when not known yet.
    pub(crate) cluster: [u8; 16],
    /// The node's life.
    pub(crate) life: u64,
    /// The node's process: a number that it drew when it started.
    pub(crate) incarnation: u64,
    /// Groups by number, and the last index of each one's log.
    pub(crate) logs: Vec<(u32, u64)>,
}

/// What a peer showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Seen {
    /// The highest life.
    life: u64,
    /// The process that greeted last; zero when it is not known.
    incarnation: u64,
}

/// What a node knows of the cluster before it has heard anything.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Map {
    /// Whose map this is.
    pub(crate) node: NodeId,
    /// As last applied here.
    pub(crate) meta: MetaState,
}

/// The node's small files.
#[derive(Debug)]
pub(crate) struct Memory {
    disk: Arc<dyn Disk>,
    counter: Mutex<LifeCounter>,
    life: AtomicU64,
    incarnation: u64,
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    unsaved: AtomicBool,
    /// One writer at a time for each of the files.
    writing: Mutex<()>,
}

impl Memory {
    /// Reads what is there, and begins a new life. Blocks.
    ///
    /// # Errors
    /// When a file is damaged or cannot be read or written.
    pub(crate) fn open(disk: Arc<dyn Disk>, counter: LifeCounter) -> io::Result<Self> {
        let seen = match read(&*disk, PEERS)? {
            Some(bytes) => decode_seen(&bytes)?,
            None => BTreeMap::new(),
        };
        let memory = Self {
            disk,
            counter: Mutex::new(counter),
            life: AtomicU64::new(0),
            incarnation: chance::draw(|chance| chance.next_u64()),
            seen: Mutex::new(seen),
            unsaved: AtomicBool::new(false),
            writing: Mutex::new(()),
        };
        memory.raise()?;
        Ok(memory)
    }

    /// The life that is on disk.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// This process.
    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether this process of a peer is the one that was let in last.
    pub(crate) fn is_let_in(&self, node: NodeId, incarnation: u64) -> bool {
        let seen = self.seen.lock();
        seen.get(&node)
            .is_some_and(|it| it.incarnation == incarnation)
    }

    /// Raises the life, and saves what is new of the peers. Blocks. Says how long the life's sync took.
    ///
    /// # Errors
    /// When it cannot be written; the life is as before.
    pub(crate) fn raise(&self) -> io::Result<Duration> {
        let began = Instant::now();
        let life = self.counter.lock().raise()?;
        let took = began.elapsed();
        self.life.store(life, Ordering::Release);
        self.save_peers()?;
        Ok(took)
    }

    /// Saves what is new of the peers' lives. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; it is still known, and saved later.
    pub(crate) fn save_peers(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        if self.unsaved.swap(false, Ordering::AcqRel) {
            let seen = self.seen.lock().clone();
            if let Err(error) = write(&*self.disk, PEERS, &codec::encode(&seen)) {
                self.unsaved.store(true, Ordering::Release);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets a peer's process in, which greets with this life.
    ///
    /// # Errors
    /// When it is another process than before, and its life is not higher, or another disk's.
    pub(crate) fn let_in(&self, node: NodeId, life: u64, incarnation: u64) -> Result<(), Refusal> {
        let mut seen = self.seen.lock();
        let before = seen.get(&node).copied();
        if let Some(before) = before {
            if before.incarnation == incarnation {
                // Two connections greet at once.
                return Ok(());
            }
            // It may be the process that showed the life, if that is not known.
            let is_other = before.incarnation != 0;
            let least = before.life.saturating_add(u64::from(is_other));
            if life < least || birth(life) != birth(before.life) {
                return Err(refusal(
                    node,
                    OLD_LIFE,
                    "its disk is older than what it showed before",
                ));
            }
        }
        seen.insert(node, Seen { life, incarnation });
        self.unsaved.store(true, Ordering::Release);
        drop(seen);
        // Once for each peer, so it may block.
        if before.is_none()
            && let Err(error) = self.save_peers()
        {
            tracing::warn!(%node, %error, "a new peer's life is not saved yet");
        }
        Ok(())
    }

    /// A peer that was let in shows this life. False if it is lower than what is known: it was sent before a restart.
    pub(crate) fn hear(&self, node: NodeId, life: u64) -> bool {
        let mut seen = self.seen.lock();
        let Some(known) = seen.get_mut(&node) else {
            return false;
        };
        if life < known.life || birth(life) != birth(known.life) {
            return false;
        }
        if life > known.life {
            known.life = life;
            self.unsaved.store(true, Ordering::Release);
        }
        true
    }

    /// The map, if there is one. Blocks.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub(crate) fn map(&self) -> io::Result<Option<Map>> {
        read(&*self.disk, MAP)?
            .map(|bytes| decode(&bytes, MAP))
            .transpose()
    }

    /// Replaces the map. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; the old one is still there.
    pub(crate) fn save_map(&self, map: &Map) -> io::Result<()> {
        let _writing = self.writing.lock();
        write(&*self.disk, MAP, &codec::encode(map))
    }
}

/// Leaves the map of a node that has just joined in its empty folder.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn leave_map(disk: &dyn Disk, map: &Map) -> io::Result<()> {
    write(disk, MAP, &codec::encode(map))
}

/// The map in a node's folder, if there is one that can be read.
pub(crate) fn read_map(disk: &dyn Disk) -> Option<Map> {
    decode(&read(disk, MAP).ok()??, MAP).ok()
}

fn read(disk: &dyn Disk, name: &str) -> io::Result<Option<Bytes>> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.size()?).map_err(|_large| damaged(name))?;
    let mut bytes = vec![0; length];
    if file.read_at(&mut bytes, 0)? != length {
        return Err(damaged(name));
    }
    let Some((sum, body)) = bytes.split_at_checked(CHECKSUM) else {
        return Err(damaged(name));
    };
    if blake3::hash(body).as_bytes() != sum {
        return Err(damaged(name));
    }
    Ok(Some(Bytes::from(bytes).slice(CHECKSUM..)))
}

fn write(disk: &dyn Disk, name: &str, body: &[u8]) -> io::Result<()> {
    let aside = format!("{name}.new");
    match disk.remove(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = disk.create(&aside)?;
    let mut bytes = blake3::hash(body).as_bytes().to_vec();
    bytes.extend_from_slice(body);
    file.write_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(&aside, name)?;
    disk.sync_dir()
}

fn decode<T: Decode<()>>(bytes: &[u8], name: &str) -> io::Result<T> {
    codec::decode(bytes).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file {name} is damaged: {error}"),
        )
    })
}

/// The peers' lives; a file of before processes were told apart has no incarnations.
fn decode_seen(bytes: &[u8]) -> io::Result<BTreeMap<NodeId, Seen>> {
    decode(bytes, PEERS).or_else(|error| {
        let lives: BTreeMap<NodeId, u64> = codec::decode(bytes).map_err(|_also| error)?;
        let unknown = |life| Seen {
            life,
            incarnation: 0,
        };
        Ok(lives
            .into_iter()
            .map(|(node, life)| (node, unknown(life)))
            .collect())
    })
}

fn damaged(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the file {name} is missing or damaged"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::disk::{CrashKeeps, SimDisk};

    const PEER: NodeId = NodeId(2);

    fn open(disk: &SimDisk) -> Memory {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let counter = LifeCounter::open(&disk, || 0).unwrap();
        Memory::open(disk, counter).unwrap()
    }

    #[test]
    fn an_old_disk_that_its_start_raised_to_the_life_that_is_known_is_refused() {
        let disk = SimDisk::new(1);
        let memory = open(&disk);
        memory.let_in(PEER, 4, 70).unwrap();
        assert!(memory.hear(PEER, 5));
        // Its image was taken at 4, and its start made that 5.
        assert!(memory.let_in(PEER, 5, 71).is_err());
        assert!(!memory.is_let_in(PEER, 71));
        // Also by one that was restarted since.
        memory.save_peers().unwrap();
        let memory = open(&disk.crash(CrashKeeps::Nothing));
        assert!(memory.let_in(PEER, 5, 72).is_err());
        assert!(memory.is_let_in(PEER, 70), "the process may run yet");
        memory.let_in(PEER, 6, 73).unwrap();
        assert!(
            memory.let_in(PEER, (1 << 41) + 9, 74).is_err(),
            "another disk"
        );
    }

    #[test]
    fn what_is_late_counts_against_nobody() {
        let memory = open(&SimDisk::new(2));
        assert!(!memory.hear(PEER, 1), "it has not greeted");
        memory.let_in(PEER, 4, 70).unwrap();
        assert!(!memory.hear(PEER, 3));
        assert!(memory.hear(PEER, 4));
        assert!(memory.is_let_in(PEER, 70));
    }

    #[test]
    fn lives_that_were_saved_without_processes_are_known() {
        let disk = SimDisk::new(3);
        let old: BTreeMap<NodeId, u64> = [(PEER, 5), (NodeId(3), 9)].into();
        write(&disk, PEERS, &codec::encode(&old)).unwrap();
        let memory = open(&disk);
        assert!(memory.let_in(PEER, 4, 70).is_err());
        memory.let_in(PEER, 5, 70).unwrap();
        assert!(memory.let_in(PEER, 5, 71).is_err());
        assert!(memory.hear(NodeId(3), 9));
    }
}
