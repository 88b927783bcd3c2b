//! What the log counts, for metrics and for the decisions of the layer above.
//!
//! The writer adds once for each batch; a reader gets a copy. It names no metric; who exports these does.

use std::time::Duration;

/// Upper bounds of the buckets of [`LogStats::sync_buckets`]; the last bucket has none.
pub const SYNC_BUCKETS: [Duration; 11] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// A copy of the log's counters and gauges. Counters begin at zero when the log is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches that are durable; each took one write and one sync.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes written for them, padding included.
    pub bytes: u64,
    /// Times the watermark was synced.
    pub watermarks: u64,
    /// Attempts that met a full disk or a full log.
    pub full: u64,
    /// Reads that met damage.
    pub damaged_reads: u64,
    /// Time of write and sync of all batches together.
    pub sync_time: Duration,
    /// The longest of them.
    pub sync_max: Duration,
    /// How many took at most as long as the bound in [`SYNC_BUCKETS`] and longer than the bound before it.
    pub sync_buckets: [u64; SYNC_BUCKETS.len() + 1],
    /// The last durable batch.
    pub sequence: u64,
    /// Segment files in use.
    pub segments: usize,
    /// Segment files ready for use.
    pub segments_free: usize,
    /// The groups whose entries keep the oldest segment.
    pub oldest_groups: Vec<u32>,
    /// The oldest segment in use.
    pub oldest_generation: u64,
    /// How long what the writer is doing (a write, a sync) has taken until now; zero when it rests.
    pub syncing: Duration,
    /// Operations taken and not yet durable.
    pub queued_ops: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Entries in memory, in bytes.
    pub tail_bytes: usize,
    /// Whether the disk or the log is full, or its last reserve is in use.
    pub no_room: bool,
}

impl LogStats {
    pub(crate) fn synced(&mut self, took: Duration) {
        self.sync_time += took;
        self.sync_max = self.sync_max.max(took);
        let bucket = SYNC_BUCKETS.iter().position(|bound| took <= *bound);
        self.sync_buckets[bucket.unwrap_or(SYNC_BUCKETS.len())] += 1;
    }
}
