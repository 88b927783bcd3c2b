//! Room for what is not yet in the queue: a log that is nearly full is to refuse, not to let its callers wait.
//!
//! An append that waits for room holds up all that its group asks for after it, a vote too, and so the snapshot and the
//! purge that would make room. So who brings entries asks first ([`GroupLog::admit`]), and there is always more room than
//! what was admitted, by a quarter of a segment and the segments that nothing is admitted to
//! ([`LogConfig::max_segments`](super::LogConfig::max_segments)): votes, truncates, purges and the few entries that Raft itself makes.
//!
//! [`GroupLog::admit`]: super::GroupLog::admit

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{BLOCK, HEADER, RECORD};
use super::shared::Shared;

/// How much the writer can surely write, and how much of that is promised.
#[derive(Debug, Default)]
pub(crate) struct Room {
    left: AtomicU64,
    admitted: AtomicU64,
}

impl Room {
    /// This much can be written before a purge is needed, or more of the disk than there is.
    pub(crate) fn set(&self, bytes: u64) {
        self.left.store(bytes, Ordering::Release);
    }

    /// Promises `bytes`, if `margin` stays.
    fn take(&self, bytes: u64, margin: u64) -> bool {
        let before = self.admitted.fetch_add(bytes, Ordering::AcqRel);
        let needed = before.saturating_add(bytes).saturating_add(margin);
        let fits = needed <= self.left.load(Ordering::Acquire);
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: u64) {
        self.admitted.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// A promise of room in the log, until it is dropped: hold it until the entries are durable, or not appended.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Admission {
    /// `None` if the log may not take this much more.
    pub(crate) fn new(shared: &Arc<Shared>, bytes: usize) -> Option<Self> {
        // It may be in a batch by itself, which takes whole blocks.
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 4);
        let bytes = bytes + u64::from(BLOCK + HEADER + RECORD);
        let margin = u64::from(shared.config.segment_bytes / 4);
        if !shared.room.take(bytes, margin) {
            shared.queue.hurry();
            return None;
        }
        Some(Self {
            shared: Arc::clone(shared),
            bytes,
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.room.give_back(self.bytes);
    }
}
