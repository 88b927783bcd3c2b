//! [`LogEngine`]: opens the log of a process and hands out the groups.
//!
//! In production a thread of its own runs the writer. A simulation opens the same log with [`LogEngine::open_manual`]
//! and drives the writer itself, one step at a time, so that a seed repeats a run.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::disk::Disk;

use super::config::LogConfig;
use super::error::OpenError;
use super::group::Group;
use super::handle::GroupLog;
use super::recover::{Recovery, recover};
use super::segment::SegmentSet;
use super::shared::Shared;
use super::stats::LogStats;
use super::types::Callback;
use super::writer::{Start, Writer};

const LOCK: &str = "log.lock";

/// The log of one process: all groups, one writer.
///
/// Dropping it closes it: what was taken is written first, which may take a sync of the disk.
#[derive(Debug)]
pub struct LogEngine {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The writer of a log that a test or a simulation drives.
#[cfg(any(test, feature = "testing"))]
pub struct ManualWriter(Writer);

impl LogEngine {
    /// Opens the log on this disk, making it if there is none, and starts its writer thread.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if the log is not what was written: the node must be rebuilt. Otherwise see there.
    pub fn open(disk: Arc<dyn Disk>, config: LogConfig) -> Result<(Self, Recovery), OpenError> {
        let (mut engine, writer, recovery) = open(disk, config)?;
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())?;
        engine.thread = Some(thread);
        Ok((engine, recovery))
    }

    /// Opens the log without a thread.
    ///
    /// # Errors
    /// As [`LogEngine::open`].
    #[cfg(any(test, feature = "testing"))]
    pub fn open_manual(
        disk: Arc<dyn Disk>,
        config: LogConfig,
    ) -> Result<(Self, ManualWriter, Recovery), OpenError> {
        let (engine, writer, recovery) = open(disk, config)?;
        Ok((engine, ManualWriter(writer), recovery))
    }

    /// The log of this group, empty if it is new. A new group is durable with the first thing written of it.
    pub fn group(&self, group: u32) -> GroupLog {
        GroupLog::new(Arc::clone(&self.shared), self.shared.group(group))
    }

    /// All groups that were recovered or asked for.
    pub fn groups(&self) -> Vec<u32> {
        self.shared.groups.read().keys().copied().collect()
    }

    /// Forgets a group with its vote and its entries. Handles of it that are left answer with errors; a new one of
    /// the same number begins empty. `done` is called when it is durable.
    pub fn remove_group(&self, group: u32, done: Callback) {
        let log = self.group(group);
        let mut groups = self.shared.groups.write();
        groups.remove(&group);
        drop(groups);
        log.remove(done);
    }

    /// Whether callers should hold back: the queue is long, or the disk or the log is full.
    pub fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    /// Why the log has failed, if it has.
    pub fn failure(&self) -> Option<io::Error> {
        self.shared.failure()
    }

    /// The groups whose old entries keep the oldest segment: to make room, they need a snapshot and a purge.
    pub fn oldest_segment_groups(&self) -> Vec<u32> {
        self.shared.stats.lock().oldest_groups.clone()
    }

    /// A copy of all counters and gauges.
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }

    /// Writes what was taken, brings the watermark to the end, and ends the writer. Handles that are left can still
    /// read. It blocks until this is done; on a full disk what cannot be written is failed.
    ///
    /// # Errors
    /// The failure of the log, if it has failed.
    pub fn close(mut self) -> io::Result<()> {
        self.stop();
        self.shared.failure().map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread has panicked");
        }
    }
}

impl Drop for LogEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(any(test, feature = "testing"))]
impl ManualWriter {
    /// From now on a step ends between a batch's write and its sync ([`super::Turn::Written`]).
    pub fn by_halves(&mut self) {
        self.0.by_halves = true;
    }

    /// Waits until there is something to do, or the log is closed. Safe to cancel.
    pub fn work_arrives(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.0.shared);
        async move { shared.queue.arrives().await }
    }

    /// Does one step: at most one batch, one watermark, or one attempt at a full disk.
    pub fn turn(&mut self) -> super::Turn {
        self.0.turn()
    }

    /// Does steps as long as there is something to do at once.
    pub fn work(&mut self) -> super::Turn {
        loop {
            let turn = self.turn();
            if !matches!(turn, super::Turn::Worked | super::Turn::Written) {
                return turn;
            }
        }
    }
}

fn open(
    disk: Arc<dyn Disk>,
    config: LogConfig,
) -> Result<(LogEngine, Writer, Recovery), OpenError> {
    if let Some(problem) = config.problem() {
        return Err(OpenError::Config(problem));
    }
    let lock = disk.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Io(error),
    })?;
    let recovered = recover(disk.as_ref(), &config)?;
    let mut segments = SegmentSet::new(disk, &config, recovered.used, recovered.free);
    let (mut groups, mut marks) = (BTreeMap::new(), BTreeMap::new());
    for (id, replayed) in recovered.replay.groups {
        for (index, location) in (replayed.marks.span.first..).zip(&replayed.located) {
            segments.note_found(id, index, *location);
        }
        marks.insert(id, replayed.marks.clone());
        groups.insert(
            id,
            Arc::new(Group::new(id, replayed.marks, replayed.located)),
        );
    }
    let shared = Arc::new(Shared::new(config, groups, segments.readable()));
    let mut writer = Writer::new(Start {
        shared: Arc::clone(&shared),
        segments,
        marks,
        position: recovered.position,
        capacity: recovered.capacity,
        end: recovered.end,
        watermark: recovered.watermark,
        lock,
    });
    writer.prepare()?;
    Ok((
        LogEngine {
            shared,
            thread: None,
        },
        writer,
        recovered.report,
    ))
}
