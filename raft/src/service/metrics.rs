//! What the service counts. Handles are made once; no tenant, session or node is a label.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, describe_counter, describe_gauge};
use metrics::{Unit, describe_histogram, gauge, histogram};
use model::service::Failure;

/// How a request ended, as a label.
const RESULTS: [&str; 5] = ["ok", "refused", "unavailable", "unknown", "failed"];

const fn result_index<T>(result: &Result<T, Failure>) -> usize {
    match result {
        Ok(_) => 0,
        Err(Failure::Refused(_)) => 1,
        Err(Failure::Unavailable { .. }) => 2,
        Err(Failure::Unknown) => 3,
        Err(Failure::DiskFull | Failure::Damaged) => 4,
    }
}

/// The service's metrics.
pub(super) struct Metrics {
    writes: [Counter; RESULTS.len()],
    reads: [Counter; RESULTS.len()],
    write_seconds: Histogram,
    read_seconds: Histogram,
    pub(super) list_seconds: Histogram,
    pub(super) forwards: Counter,
    pub(super) retries: Counter,
    pub(super) races: Counter,
    pub(super) refused_busy: Counter,
    pub(super) chunks: Counter,
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    pub(super) cache_bytes: Gauge,
    pub(super) watchers: Gauge,
    pub(super) resyncs: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        describe();
        Self {
            writes: RESULTS.map(|result| counter!("psp_service_writes_total", "result" => result)),
            reads: RESULTS.map(|result| counter!("psp_service_reads_total", "result" => result)),
            write_seconds: histogram!("psp_service_write_seconds"),
            read_seconds: histogram!("psp_service_read_seconds"),
            list_seconds: histogram!("psp_service_list_seconds"),
            forwards: counter!("psp_service_forwards_total"),
            retries: counter!("psp_service_retries_total"),
            races: counter!("psp_service_write_races_total"),
            refused_busy: counter!("psp_service_refused_busy_total"),
            chunks: counter!("psp_service_chunks_proposed_total"),
            cache_hits: counter!("psp_service_cache_hits_total"),
            cache_misses: counter!("psp_service_cache_misses_total"),
            cache_bytes: gauge!("psp_service_cache_bytes"),
            watchers: gauge!("psp_service_watchers"),
            resyncs: counter!("psp_service_watch_resyncs_total"),
        }
    }

    pub(super) fn write_ended<T>(&self, took: Duration, result: &Result<T, Failure>) {
        self.writes[result_index(result)].increment(1);
        self.write_seconds.record(took);
    }

    pub(super) fn read_ended<T>(&self, took: Duration, result: &Result<T, Failure>) {
        self.reads[result_index(result)].increment(1);
        self.read_seconds.record(took);
    }
}

fn describe() {
    describe_counter!(
        "psp_service_writes_total",
        "Writes of clients of this node, by how they ended."
    );
    describe_counter!(
        "psp_service_reads_total",
        "Reads of clients of this node, by how they ended."
    );
    describe_histogram!(
        "psp_service_write_seconds",
        Unit::Seconds,
        "Time of a write, with all its tries."
    );
    describe_histogram!(
        "psp_service_read_seconds",
        Unit::Seconds,
        "Time of a read, with all its tries."
    );
    describe_histogram!(
        "psp_service_list_seconds",
        Unit::Seconds,
        "Time of one page of a list."
    );
    describe_counter!(
        "psp_service_forwards_total",
        "Requests sent to other nodes."
    );
    describe_counter!(
        "psp_service_retries_total",
        "Tries of requests after their first."
    );
    describe_counter!(
        "psp_service_write_races_total",
        "Writes made again because another leader wrote meanwhile."
    );
    describe_counter!(
        "psp_service_refused_busy_total",
        "Requests refused at once because too much was in flight."
    );
    describe_counter!(
        "psp_service_chunks_proposed_total",
        "Chunks of large bodies proposed."
    );
    describe_counter!(
        "psp_service_cache_hits_total",
        "Documents found opened in the cache."
    );
    describe_counter!(
        "psp_service_cache_misses_total",
        "Documents that had to be opened."
    );
    describe_gauge!(
        "psp_service_cache_bytes",
        Unit::Bytes,
        "Opened documents in memory."
    );
    describe_gauge!("psp_service_watchers", "Watches open on this node.");
    describe_counter!(
        "psp_service_watch_resyncs_total",
        "Watches that had to skip versions."
    );
}
