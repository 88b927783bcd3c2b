//! What waits for the writer: one queue for all groups, bounded by operations and by bytes.
//!
//! Only what somebody waits for wakes the writer. Purges and committed marks are lazy: they ride on the next batch, unless
//! somebody was refused who needs the room that they make.
//! The lock of a group may be held when the queue's is taken, never the other way round.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::group::Group;
use super::types::{Callback, Entry, LogId, Vote};

/// This many lazy operations wake the writer all the same.
const LAZY_LIMIT: usize = 1024;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Write these entries, those before `written` being done.
    Append { entries: Vec<Entry>, written: usize },
    /// Write a vote.
    Vote(Vote),
    /// Keep the entries before `next`.
    Truncate { next: u64 },
    /// Drop the entries up to this one.
    Purge(LogId),
    /// Forget the group.
    Remove,
}

/// One operation of one group.
pub(crate) struct Op {
    pub(crate) group: Arc<Group>,
    pub(crate) action: Action,
    pub(crate) done: Option<Callback>,
    /// What it counts against the bound of bytes.
    pub(crate) bytes: usize,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    work: Condvar,
    /// Wakes a writer that is driven by a task.
    #[cfg(any(test, feature = "testing"))]
    arrived: Notify,
    /// Wakes those who wait for room.
    pub(crate) room: Notify,
}

#[derive(Default)]
struct QueueState {
    ops: VecDeque<Op>,
    committed: BTreeMap<u32, Option<LogId>>,
    urgent: bool,
    closed: bool,
    /// Operations and bytes taken and not yet completed, wherever they are.
    load: Load,
}

/// How much is taken and not yet completed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) ops: usize,
    pub(crate) bytes: usize,
}

impl Queue {
    /// Adds an operation, unless the queue is closed or `refuse` says no to the present load; then it comes back.
    pub(crate) fn push(&self, op: Op, refuse: impl FnOnce(Load) -> bool) -> Result<(), Op> {
        let mut state = self.state.lock();
        if state.closed || refuse(state.load) {
            return Err(op);
        }
        state.load.ops += 1;
        state.load.bytes += op.bytes;
        if matches!(op.action, Action::Remove) {
            state.committed.remove(&op.group.id);
        }
        let wake = op.done.is_some() || state.ops.len() >= LAZY_LIMIT;
        state.ops.push_back(op);
        if wake && !state.urgent {
            state.urgent = true;
            self.wake();
        }
        Ok(())
    }

    /// Somebody was refused for want of room: what is lazy may make some, and is not to wait for a batch that may never come.
    pub(crate) fn hurry(&self) {
        let mut state = self.state.lock();
        if !state.ops.is_empty() && !state.urgent {
            state.urgent = true;
            self.wake();
        }
    }

    /// Remembers a committed mark for the next batch.
    pub(crate) fn commit(&self, group: u32, id: Option<LogId>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.committed.insert(group, id);
        }
    }

    /// Moves what waits to the writer's own; lazy operations alone only if `lazy`.
    pub(crate) fn take(
        &self,
        lazy: bool,
        ops: &mut VecDeque<Op>,
        committed: &mut BTreeMap<u32, Option<LogId>>,
    ) {
        let mut state = self.state.lock();
        if state.urgent || lazy || !ops.is_empty() {
            state.urgent = false;
            if ops.is_empty() {
                std::mem::swap(ops, &mut state.ops);
            } else {
                ops.append(&mut state.ops);
            }
            committed.append(&mut state.committed);
        }
    }

    fn wake(&self) {
        self.work.notify_one();
        #[cfg(any(test, feature = "testing"))]
        self.arrived.notify_one();
    }

    /// Waits until there is urgent work or the queue is closed. Safe to cancel.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn arrives(&self) {
        loop {
            {
                let state = self.state.lock();
                if state.urgent || state.closed {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Waits until there is urgent work or the queue is closed; at most `limit`.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        let mut state = self.state.lock();
        while !state.urgent && !state.closed {
            match limit {
                None => self.work.wait(&mut state),
                Some(limit) => {
                    // Woken too early or too late does no harm: the writer looks for itself.
                    self.work.wait_for(&mut state, limit);
                    return;
                }
            }
        }
    }

    /// Waits until the queue is closed; at most `limit`.
    pub(crate) fn wait_closed(&self, limit: Duration) {
        let mut state = self.state.lock();
        if !state.closed {
            self.work.wait_for(&mut state, limit);
        }
    }

    /// This much is completed.
    pub(crate) fn complete(&self, load: Load) {
        let mut state = self.state.lock();
        state.load.ops -= load.ops;
        state.load.bytes -= load.bytes;
        drop(state);
        self.room.notify_waiters();
    }

    pub(crate) fn load(&self) -> Load {
        self.state.lock().load
    }

    /// Takes no more operations, and wakes the writer.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake();
        self.room.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

impl Op {
    /// Calls back, if anybody waits.
    pub(crate) fn finish(self, result: io::Result<()>) {
        if let Some(done) = self.done {
            done(result);
        }
    }
}

impl std::fmt::Debug for QueueState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueueState({:?}, closed: {})", self.load, self.closed)
    }
}
