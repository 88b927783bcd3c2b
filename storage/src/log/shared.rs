//! What callers and the writer share: the queue, the groups, the segments to read from, and the verdict.
//!
//! A failure is final: the first one is kept, and every later call answers with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::config::LogConfig;
use super::group::Group;
use super::marks::GroupMarks;
use super::queue::Queue;
use super::room::Room;
use super::segment::Readable;
use super::stats::LogStats;

/// The state of an open log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: LogConfig,
    pub(crate) queue: Queue,
    pub(crate) groups: RwLock<BTreeMap<u32, Arc<Group>>>,
    pub(crate) readable: Arc<Readable>,
    pub(crate) stats: Mutex<LogStats>,
    pub(crate) no_room: AtomicBool,
    pub(crate) room: Room,
    pub(crate) damaged_reads: AtomicU64,
    pub(crate) syncing: Syncing,
    failure: OnceLock<(io::ErrorKind, String)>,
}

/// Since when the writer's step that is under way has been so: a write or a sync that never returns shows only here.
#[derive(Debug, Default)]
pub(crate) struct Syncing(Mutex<Option<Instant>>);

impl Syncing {
    pub(crate) fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0
            .lock()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Shared {
    pub(crate) fn new(
        config: LogConfig,
        groups: BTreeMap<u32, Arc<Group>>,
        readable: Arc<Readable>,
    ) -> Self {
        Self {
            config,
            queue: Queue::default(),
            groups: RwLock::new(groups),
            readable,
            stats: Mutex::default(),
            no_room: AtomicBool::new(false),
            room: Room::default(),
            damaged_reads: AtomicU64::new(0),
            syncing: Syncing::default(),
            failure: OnceLock::new(),
        }
    }

    /// The group, made if it is new.
    pub(crate) fn group(&self, id: u32) -> Arc<Group> {
        if let Some(group) = self.groups.read().get(&id) {
            return Arc::clone(group);
        }
        let mut groups = self.groups.write();
        let group = groups
            .entry(id)
            .or_insert_with(|| Arc::new(Group::new(id, GroupMarks::default(), [].into())));
        Arc::clone(group)
    }

    /// The log has failed for good.
    pub(crate) fn fail(&self, error: &io::Error) {
        // Only the first failure counts; what follows is its consequence.
        if self.failure.set((error.kind(), error.to_string())).is_ok() {
            tracing::error!(%error, "the log has failed and takes nothing more");
        }
        self.queue.close();
    }

    /// Why nothing works any more, if so.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure
            .get()
            .map(|(kind, text)| io::Error::new(*kind, format!("the log has failed: {text}")))
    }

    /// What to answer to an operation that the queue did not take.
    pub(crate) fn refusal(&self) -> io::Error {
        self.failure().unwrap_or_else(|| {
            if self.queue.is_closed() {
                io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
            } else {
                io::Error::new(io::ErrorKind::StorageFull, "the log's queue is full")
            }
        })
    }

    /// Whether callers should hold back.
    pub(crate) fn is_full(&self) -> bool {
        let load = self.queue.load();
        load.ops >= self.config.queue_ops
            || load.bytes >= self.config.queue_bytes
            || self.no_room.load(Ordering::Relaxed)
    }

    /// Bytes in the tails of all groups.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.groups
            .read()
            .values()
            .map(|group| group.tail_bytes())
            .sum()
    }

    /// Takes durable entries out of memory, from the longest tails, until the limit of all groups holds.
    pub(crate) fn evict(&self) {
        let limit = self.config.tail_bytes;
        if self.tail_bytes() <= limit {
            return;
        }
        let mut groups: Vec<_> = self.groups.read().values().cloned().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.tail_bytes()));
        // A little below, so that the next batch need not do it again.
        let mut excess = self.tail_bytes().saturating_sub(limit - limit / 8);
        for group in groups {
            let bytes = group.tail_bytes();
            group.evict(bytes.saturating_sub(excess));
            excess = excess.saturating_sub(bytes - group.tail_bytes().min(bytes));
            if excess == 0 {
                break;
            }
        }
    }

    pub(crate) fn stats(&self) -> LogStats {
        let load = self.queue.load();
        LogStats {
            queued_ops: load.ops,
            queued_bytes: load.bytes,
            tail_bytes: self.tail_bytes(),
            damaged_reads: self.damaged_reads.load(Ordering::Relaxed),
            no_room: self.no_room.load(Ordering::Relaxed),
            syncing: self.syncing.elapsed(),
            ..self.stats.lock().clone()
        }
    }
}
