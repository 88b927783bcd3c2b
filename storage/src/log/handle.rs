//! [`GroupLog`]: the log of one group, as its callers hold it.
//!
//! Calls come in, one writer's at a time; each is seen by readers when it returns, durable when its callback is
//! called. Operations of one group are written in the order of the calls, and callbacks of all groups are called in
//! the order of writing: the callback of an append says that all appends and votes of the group before it are
//! durable too. Reads may come from anywhere and never wait for the writer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::group::{Group, GroupState};
use super::queue::{Action, Op};
use super::read;
use super::room::Admission;
use super::shared::Shared;
use super::types::{Callback, Entry, LogId, LogState, Vote};

/// What an operation without entries counts against the bound of bytes.
const OP_BYTES: usize = 64;
/// Above this multiple of the bounds of the queue, appends are refused instead of held back.
const HARD_LIMIT: usize = 4;

/// The log of one group. Clones are the same log.
#[derive(Debug, Clone)]
pub struct GroupLog {
    shared: Arc<Shared>,
    group: Arc<Group>,
}

impl GroupLog {
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>) -> Self {
        Self { shared, group }
    }

    /// The group's number.
    pub fn id(&self) -> u32 {
        self.group.id
    }

    /// Appends entries, which must follow each other and the last one; in a log without entries the first may have
    /// any index that is not purged. They are readable on return. `done` is called when they are durable.
    ///
    /// `done` gets `InvalidInput` if they do not follow or one is longer than half a segment, `StorageFull` if the
    /// queue is four times as long as [`LogEngine::is_full`](super::LogEngine::is_full) allows, and the error of the
    /// disk if that has failed; then nothing was appended.
    pub fn append(&self, entries: Vec<Entry>, done: Callback) {
        let config = &self.shared.config;
        let bytes = OP_BYTES
            + entries
                .iter()
                .map(|entry| entry.payload.len() + OP_BYTES)
                .sum::<usize>();
        let result = self.group.change(|state| {
            if let Some(refusal) = state.refusal(&entries, config.max_payload()) {
                return Err((done, io::Error::new(io::ErrorKind::InvalidInput, refusal)));
            }
            let action = Action::Append {
                entries: entries.clone(),
                written: 0,
            };
            self.push(state, action, Some(done), bytes)?;
            state.append(entries);
            Ok(())
        });
        refuse(result);
    }

    /// Saves a vote; [`GroupLog::vote`] answers it on return. `done` is called when it is durable.
    pub fn save_vote(&self, vote: Vote, done: Callback) {
        let result = self.group.change(|state| {
            self.push(state, Action::Vote(vote), Some(done), OP_BYTES)?;
            state.marks.vote = Some(vote);
            Ok(())
        });
        refuse(result);
    }

    /// The last vote saved.
    pub fn vote(&self) -> Option<Vote> {
        self.group.lock().marks.vote
    }

    /// Drops the entries after index `last`; all of them if it is `None`. They are gone for readers on return.
    /// `done` is called when that is durable.
    pub fn truncate_after(&self, last: Option<u64>, done: Callback) {
        let next = last.map_or(0, |last| last.saturating_add(1));
        let result = self.group.change(|state| {
            self.push(state, Action::Truncate { next }, Some(done), OP_BYTES)?;
            state.truncate(next);
            Ok(())
        });
        refuse(result);
    }

    /// Drops the entries up to and including `upto`, which may be beyond the last one. They are gone for readers on
    /// return; it is durable with some later batch.
    pub fn purge(&self, upto: LogId) {
        let result = self.group.change(|state| {
            if state
                .marks
                .purged
                .is_some_and(|purged| upto.index <= purged.index)
            {
                return Ok(());
            }
            self.push(state, Action::Purge(upto), None, OP_BYTES)?;
            state.purge(upto);
            Ok(())
        });
        refuse(result);
    }

    /// Remembers up to where the group has committed. It is durable with some later batch, never before the entry
    /// itself is; after a restart an older one may be answered.
    pub fn save_committed(&self, id: Option<LogId>) {
        self.group.change(|state| {
            if !state.removed {
                state.marks.committed = id;
                self.shared.queue.commit(self.group.id, id);
            }
        });
    }

    /// The last committed mark saved.
    pub fn committed(&self) -> Option<LogId> {
        self.group.lock().marks.committed
    }

    /// Where the log begins and ends.
    pub fn state(&self) -> LogState {
        self.group.lock().marks.state()
    }

    /// The id of the entry at `index`, if it is here; of the purged ones only the last is known.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        let state = self.group.lock();
        state
            .marks
            .span
            .id(index)
            .or_else(|| state.marks.purged.filter(|purged| purged.index == index))
    }

    /// The first id of each run of entries of one leader, in order; the first run from the first entry on.
    pub fn leaders(&self) -> Vec<LogId> {
        self.group.lock().marks.span.runs().collect()
    }

    /// The entries from index `from` to before `to`, without a hole, as far as they are here and within `max_bytes`
    /// of payload, but at least one if there is any. Recent ones come from memory; for others it blocks on the disk.
    ///
    /// # Errors
    /// `InvalidData` if an entry is damaged, `NotFound` if the group was removed, and whatever the disk says.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        read::read(&self.shared, &self.group, from, to, max_bytes)
    }

    /// Whether a truncate is not yet durable; until it is, nothing may be applied.
    pub fn truncating(&self) -> bool {
        self.group.lock().truncating()
    }

    /// Waits until no truncate is outstanding. Safe to cancel.
    ///
    /// # Errors
    /// The error of the disk, if the log has failed.
    pub async fn truncated(&self) -> io::Result<()> {
        self.settled(|| !self.truncating()).await
    }

    async fn settled(&self, is: impl Fn() -> bool) -> io::Result<()> {
        loop {
            let notified = self.group.settled.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if is() {
                return Ok(());
            }
            if let Some(error) = self.shared.failure() {
                return Err(error);
            }
            notified.await;
        }
    }

    /// Waits until all appends, votes and truncates that were taken are durable. Who begins to answer for a log that somebody else held
    /// must: what readers see may not be on the disk yet. Writes nothing. Safe to cancel.
    ///
    /// # Errors
    /// The error of the disk, if the log has failed.
    pub async fn durable(&self) -> io::Result<()> {
        self.settled(|| self.group.is_durable()).await
    }

    /// Whether callers should hold back: the queue is long, or the disk or the log is full.
    pub fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    /// Whether the disk or the log takes no more: its last segment is begun. There is still room for what frees room.
    pub fn no_room(&self) -> bool {
        self.shared.no_room.load(Ordering::Relaxed)
    }

    /// Whether the log was closed, or has failed.
    pub fn is_closed(&self) -> bool {
        self.shared.queue.is_closed()
    }

    /// Promises room for entries of this many bytes, to whom asks before each append. `None` in a log so full that they
    /// might wait: then append nothing, and try again when some group is purged.
    pub fn admit(&self, bytes: usize) -> Option<Admission> {
        Admission::new(&self.shared, bytes)
    }

    /// Waits until the queue is shorter than its bounds. Safe to cancel. On a full disk this may take until there
    /// is room.
    ///
    /// # Errors
    /// If the log has failed or is closed.
    pub async fn ready(&self) -> io::Result<()> {
        loop {
            let notified = self.shared.queue.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.shared.queue.is_closed() {
                return Err(self.shared.refusal());
            }
            let load = self.shared.queue.load();
            if load.ops < self.shared.config.queue_ops
                && load.bytes < self.shared.config.queue_bytes
            {
                return Ok(());
            }
            notified.await;
        }
    }

    /// Bytes of the log kept for this group, as stored.
    pub fn bytes(&self) -> u64 {
        self.group.lock().log_bytes()
    }

    /// Bytes of this group's entries in memory.
    pub fn tail_bytes(&self) -> usize {
        self.group.tail_bytes()
    }

    pub(crate) fn remove(&self, done: Callback) {
        let result = self.group.change(|state| {
            self.push(state, Action::Remove, Some(done), OP_BYTES)?;
            state.remove();
            Ok(())
        });
        self.group.settled.notify_waiters();
        refuse(result);
    }

    /// Queues an operation while the group is locked, so that the queue has the order of the changes.
    fn push(
        &self,
        state: &GroupState,
        action: Action,
        done: Option<Callback>,
        bytes: usize,
    ) -> Result<(), (Callback, io::Error)> {
        let nobody = || -> Callback { Box::new(|_| ()) };
        if state.removed {
            let error = io::Error::new(io::ErrorKind::NotFound, "the group was removed");
            return Err((done.unwrap_or_else(nobody), error));
        }
        let config = &self.shared.config;
        let bounded = matches!(action, Action::Append { .. });
        let op = Op {
            group: Arc::clone(&self.group),
            action,
            done,
            bytes,
        };
        let waits = op.done.is_some();
        if waits {
            // Before the writer can have it.
            self.group.taken();
        }
        let refused = self.shared.queue.push(op, |load| {
            bounded
                && (load.ops >= HARD_LIMIT * config.queue_ops
                    || load.bytes >= HARD_LIMIT * config.queue_bytes)
        });
        refused.map_err(|op| {
            if waits {
                self.group.dropped();
            }
            (op.done.unwrap_or_else(nobody), self.shared.refusal())
        })
    }
}

/// Calls back outside of the group's lock.
fn refuse(result: Result<(), (Callback, io::Error)>) {
    if let Err((done, error)) = result {
        done(Err(error));
    }
}
