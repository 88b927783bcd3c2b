//! What a host counts of its log and its groups. Set once a second, with the housekeeping; a group's name is a label, of which a
//! node has at most 65.

use metrics::{Counter, Gauge, counter, gauge};
use metrics::{Unit, describe_counter, describe_gauge};
use openraft::async_runtime::watch::WatchReceiver;
use storage::db::EngineStats;
use storage::log::LogStats;

use crate::replica::Replica;

/// The log's metrics. Handles are made once.
pub(crate) struct LogMetrics {
    batches: Counter,
    entries: Counter,
    bytes: Counter,
    full: Counter,
    damaged: Counter,
    sync_seconds: Counter,
    sync_max: Gauge,
    syncing: Gauge,
    segments: Gauge,
    queued: Gauge,
    tail: Gauge,
    no_room: Gauge,
    short: Gauge,
}

fn lossy(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl LogMetrics {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            batches: counter!("psp_log_batches_total"),
            entries: counter!("psp_log_entries_total"),
            bytes: counter!("psp_log_bytes_total"),
            full: counter!("psp_log_full_total"),
            damaged: counter!("psp_log_damaged_reads_total"),
            sync_seconds: counter!("psp_log_sync_microseconds_total"),
            sync_max: gauge!("psp_log_sync_max_seconds"),
            syncing: gauge!("psp_log_syncing_seconds"),
            segments: gauge!("psp_log_segments"),
            queued: gauge!("psp_log_queued_bytes"),
            tail: gauge!("psp_log_tail_bytes"),
            no_room: gauge!("psp_log_no_room"),
            short: gauge!("psp_disk_short"),
        }
    }

    /// Shows these figures, and whether the disk is short of space.
    pub(crate) fn set(&self, stats: &LogStats, short: bool) {
        self.short.set(f64::from(u8::from(short)));
        self.batches.absolute(stats.batches);
        self.entries.absolute(stats.entries);
        self.bytes.absolute(stats.bytes);
        self.full.absolute(stats.full);
        self.damaged.absolute(stats.damaged_reads);
        let micros = u64::try_from(stats.sync_time.as_micros()).unwrap_or(u64::MAX);
        self.sync_seconds.absolute(micros);
        self.sync_max.set(stats.sync_max.as_secs_f64());
        self.syncing.set(stats.syncing.as_secs_f64());
        self.segments.set(lossy(stats.segments));
        self.queued.set(lossy(stats.queued_bytes));
        self.tail.set(lossy(stats.tail_bytes));
        self.no_room.set(f64::from(u8::from(stats.no_room)));
    }
}

/// Shows what the states of all groups hold in memory.
pub(crate) fn show_state(stats: &EngineStats) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    let gauge_of = |bytes: u64| bytes as f64;
    gauge!("psp_state_cache_bytes").set(gauge_of(stats.cache_bytes));
    gauge!("psp_state_memtable_bytes").set(gauge_of(stats.memtable_bytes));
}

/// Shows where a replica stands.
pub(crate) fn show(replica: &Replica) {
    let (term, last, applied) = {
        let metrics = replica.parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        (
            metrics.current_term,
            metrics.last_log_index.unwrap_or(0),
            applied,
        )
    };
    let group = replica.parts.group.to_string();
    let leads = replica.role().ready;
    gauge!("psp_raft_leads", "group" => group.clone()).set(f64::from(u8::from(leads)));
    counter!("psp_raft_term", "group" => group.clone()).absolute(term);
    counter!("psp_raft_last_index", "group" => group.clone()).absolute(last);
    counter!("psp_raft_applied_index", "group" => group).absolute(applied);
}

fn describe() {
    describe_repair();
    describe_counter!("psp_log_batches_total", "Batches made durable.");
    describe_counter!("psp_log_entries_total", "Entries in them.");
    describe_counter!(
        "psp_log_bytes_total",
        Unit::Bytes,
        "Bytes written for them."
    );
    describe_counter!("psp_log_full_total", "Attempts that met a full disk.");
    describe_counter!("psp_log_damaged_reads_total", "Reads that met damage.");
    describe_counter!(
        "psp_log_sync_microseconds_total",
        "Time of all writes and syncs together."
    );
    describe_gauge!(
        "psp_log_sync_max_seconds",
        Unit::Seconds,
        "The longest write and sync since the start."
    );
    describe_gauge!("psp_log_segments", "Segment files in use.");
    describe_gauge!(
        "psp_log_queued_bytes",
        Unit::Bytes,
        "Taken and not durable yet."
    );
    describe_gauge!("psp_log_tail_bytes", Unit::Bytes, "Entries in memory.");
    describe_gauge!(
        "psp_log_no_room",
        "1 while the disk or the log is full: writes are refused."
    );
    describe_gauge!(
        "psp_disk_short",
        "1 while less than the reserve is free on the disk: the node leads nothing where another can."
    );
    describe_gauge!(
        "psp_state_cache_bytes",
        Unit::Bytes,
        "In the cache of all groups' states, what is not written to tables yet included."
    );
    describe_gauge!(
        "psp_state_memtable_bytes",
        Unit::Bytes,
        "Of the groups' states, not written to tables yet."
    );
    describe_gauge!("psp_raft_leads", "1 for a group that this node leads.");
    describe_counter!("psp_raft_term", "The term of a group, as known here.");
    describe_counter!("psp_raft_last_index", "The last entry of a group's log.");
    describe_counter!(
        "psp_raft_applied_index",
        "The last entry of a group that is applied here."
    );
}

/// Shows whether the node is too slow to lead, for this reason.
pub(crate) fn sick(reason: &'static str) -> Gauge {
    gauge!("psp_node_sick", "reason" => reason)
}

/// Shows for which part of the time a timer is late, in percent.
pub(crate) fn late(percent: u32) {
    gauge!("psp_node_late_ratio").set(f64::from(percent) / 100.0);
}

/// A candidate gets no vote: what this node promised before its start may still hold.
pub(crate) fn vote_withheld() {
    counter!("psp_votes_withheld_total").increment(1);
}

/// A peer's disk, or what it says of itself, is not what this node knows of it.
pub(crate) fn peer_refused() {
    counter!("psp_peers_refused_total").increment(1);
}

fn describe_repair() {
    counter!("psp_votes_withheld_total").increment(0);
    counter!("psp_peers_refused_total").increment(0);
    describe_counter!(
        "psp_votes_withheld_total",
        "Candidates that got no vote as this node was started a moment ago."
    );
    describe_counter!(
        "psp_peers_refused_total",
        "Connections refused as the peer's disk has less than it promised, or is not the peer's."
    );
    describe_gauge!(
        "psp_node_sick",
        "1 while the node's disk or processor is too slow to lead."
    );
    describe_gauge!(
        "psp_node_late_ratio",
        "The part of the last second by which a timer was late: the processor is not there when it is needed."
    );
    // There from the start, at zero: an alert on what is absent never fires.
    counter!("psp_scrub_bytes_total").increment(0);
    counter!("psp_scrub_damage_total").increment(0);
    counter!("psp_replica_repairs_total").increment(0);
    gauge!("psp_replicas_in_repair").set(0.0);
    describe_counter!(
        "psp_scrub_bytes_total",
        Unit::Bytes,
        "Stored data read to find damage."
    );
    describe_counter!(
        "psp_scrub_damage_total",
        "Damage that scrubs found: values, snapshots' files, segments of the log."
    );
    describe_gauge!(
        "psp_scrub_last_pass_seconds",
        Unit::Seconds,
        "When the last whole scrub ended, since 1970."
    );
    describe_counter!(
        "psp_replica_repairs_total",
        "Damaged replicas that were rebuilt from another node."
    );
    describe_gauge!(
        "psp_replicas_in_repair",
        "Damaged replicas of this node that are being rebuilt."
    );
    describe_gauge!(
        "psp_log_syncing_seconds",
        Unit::Seconds,
        "How long the log's write or sync that is under way has taken until now."
    );
}
