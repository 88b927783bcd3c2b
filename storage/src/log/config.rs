//! What an operator or a test may set of the log, and how the values bound each other.

use std::time::Duration;

use super::format::BLOCK;

/// Sizes and limits of the log of one process. The defaults suit a node; tests make segments small.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size of one segment file, in bytes; a multiple of 4 KiB, from 32 KiB to 1 GiB. An entry may be at most half of it.
    pub segment_bytes: u32,
    /// Segment files kept ready beside the one in use: the reserve of a full disk. At least 1.
    pub spare_segments: usize,
    /// Segment files that may hold entries at one time. An eighth of them, one at least, is for what cannot be refused: votes, and
    /// the few entries that Raft itself makes. From there on no entry is admitted until a group is purged; at the limit nothing is written.
    pub max_segments: usize,
    /// A batch is closed when it holds this many bytes; it can be longer by one entry.
    pub batch_bytes: u32,
    /// Recent entries of one group kept in memory, in bytes of payload. What is not yet synced is kept in any case.
    pub tail_bytes_per_group: usize,
    /// The same for all groups together.
    pub tail_bytes: usize,
    /// Bytes waiting to be written, above which [`is_full`](super::LogEngine::is_full) holds. At four times as many an
    /// append fails.
    pub queue_bytes: usize,
    /// Operations waiting to be written; the same two limits.
    pub queue_ops: usize,
    /// How long a synced batch may be the newest without the watermark saying so.
    pub watermark_every: Duration,
    /// How long to wait between two attempts while the disk is full.
    pub retry_every: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spare_segments: 1,
            max_segments: 64,
            batch_bytes: 4 << 20,
            tail_bytes_per_group: 8 << 20,
            tail_bytes: 32 << 20,
            queue_bytes: 32 << 20,
            queue_ops: 16 << 10,
            watermark_every: Duration::from_millis(100),
            retry_every: Duration::from_millis(100),
        }
    }
}

impl LogConfig {
    /// What is wrong with the values, if anything is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if !(32 << 10..=1 << 30).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(BLOCK)
        {
            Some("segment_bytes must be a multiple of 4 KiB from 32 KiB to 1 GiB")
        } else if self.spare_segments == 0 {
            Some("spare_segments must be at least 1")
        } else if self.max_segments < 2 {
            Some("max_segments must be at least 2")
        } else if self.queue_ops == 0 || self.queue_bytes == 0 {
            Some("queue_ops and queue_bytes must be above 0")
        } else {
            None
        }
    }

    /// Segments from which on no entry is admitted.
    pub(crate) fn soft_segments(&self) -> usize {
        self.max_segments - (self.max_segments / 8).max(1)
    }

    /// The longest payload an entry may have, in bytes.
    pub(crate) fn max_payload(&self) -> u32 {
        self.segment_bytes / 2 - BLOCK
    }

    /// The end of each segment that only purges may use, so that a full log can still make room. Bytes.
    pub(crate) fn reserve(&self) -> u32 {
        (self.segment_bytes / 8 / BLOCK * BLOCK).min(64 << 10)
    }
}
