//! What an append costs until it is durable, on the real disk of the machine, in a temporary folder.
//!
//! Two questions: how long does one append take alone, by the size of its entry; and how many a second go through
//! when many groups append at once and share the syncs. The folder is that of `TMPDIR`: on a `tmpfs` a sync is free
//! and the figures show the CPU alone.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use storage::disk::{Disk, RealDisk};
use storage::log::{Entry, GroupLog, LogConfig, LogEngine, LogId};

/// Payload kept of each group, so that segments are used again as in a running node. Bytes.
const KEPT: u64 = 64 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    one_append(&mut criterion);
    many_appends(&mut criterion);
    many_entries(&mut criterion);
    criterion.final_summary();
}

/// One entry at a time, waiting for each.
fn one_append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/one_append");
    for size in [256, 4 << 10, 64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(size),
            &size,
            |bencher, &size| {
                let bench = Bench::open(1, size);
                bencher.iter(|| bench.round(1, 1));
            },
        );
    }
    group.finish();
}

/// Entries of 4 KiB, this many appends under way at once, spread over six groups.
fn many_appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/appends_under_way");
    for under_way in [8, 64, 512] {
        group.throughput(Throughput::Elements(under_way as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(under_way),
            &under_way,
            |bencher, &under_way| {
                let bench = Bench::open(6, 4 << 10);
                bencher.iter(|| bench.round(under_way, 1));
            },
        );
    }
    group.finish();
}

/// Appends of this many entries of 4 KiB each, one for each of six groups.
fn many_entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/entries_in_an_append");
    for entries in [1, 16, 64] {
        group.throughput(Throughput::Elements(6 * entries));
        group.bench_with_input(
            BenchmarkId::from_parameter(entries),
            &entries,
            |bencher, &entries| {
                let bench = Bench::open(6, 4 << 10);
                bencher.iter(|| bench.round(6, entries));
            },
        );
    }
    group.finish();
}

struct Bench {
    groups: Vec<GroupLog>,
    payload: Bytes,
    /// Closed before the folder goes.
    _engine: LogEngine,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn open(groups: u32, size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let disk: Arc<dyn Disk> =
            Arc::new(RealDisk::open(folder.path()).expect("the folder opens"));
        let (engine, _) = LogEngine::open(disk, LogConfig::default()).expect("an empty log opens");
        let groups = (0..groups).map(|group| engine.group(group)).collect();
        Self {
            groups,
            payload: vec![7; size].into(),
            _engine: engine,
            _folder: folder,
        }
    }

    /// Starts this many appends of so many entries and waits for all.
    fn round(&self, appends: usize, entries: u64) {
        let (sender, receiver) = sync_channel(appends);
        for log in self.groups.iter().cycle().take(appends) {
            self.append(log, entries, sender.clone());
        }
        for _ in 0..appends {
            receiver
                .recv()
                .expect("every append calls back")
                .expect("the disk works");
        }
    }

    fn append(&self, log: &GroupLog, count: u64, sender: SyncSender<std::io::Result<()>>) {
        let next = log.state().last.map_or(0, |last| last.index + 1);
        let entry = |index| Entry {
            id: LogId {
                term: 1,
                node: 1,
                index,
            },
            payload: self.payload.clone(),
        };
        let entries = (next..next + count).map(entry).collect();
        log.append(
            black_box(entries),
            Box::new(move |result| sender.send(result).expect("the round waits for all")),
        );
        let kept = KEPT / self.payload.len() as u64;
        if next > kept && next.is_multiple_of(64) {
            log.purge(LogId {
                term: 1,
                node: 1,
                index: next - kept,
            });
        }
    }
}
