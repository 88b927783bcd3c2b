//! The log on both disks: the common tools of the tests, one file for each subject.

mod basics;
mod crash;
mod damage;
mod model;
mod recycle;
mod scrub;
mod space;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{Callback, Entry, GroupLog, LogConfig, LogEngine, LogId, ManualWriter, Recovery, Vote};
use crate::disk::{Disk, RealDisk, SimDisk};

/// Small segments, so that a test fills many.
fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        batch_bytes: 16 << 10,
        ..LogConfig::default()
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node: 7,
        index,
    }
}

/// An entry whose payload is known from its id and length.
fn entry(term: u64, index: u64, length: usize) -> Entry {
    let byte = |place: usize| ((term * 31 + index * 7 + place as u64) % 256).to_le_bytes()[0];
    Entry {
        id: id(term, index),
        payload: (0..length).map(byte).collect::<Vec<u8>>().into(),
    }
}

fn entries(term: u64, indexes: std::ops::Range<u64>, length: usize) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, length)).collect()
}

fn vote(term: u64) -> Vote {
    Vote {
        term,
        node: 7,
        committed: term.is_multiple_of(2),
    }
}

/// Collects the results of callbacks in the order of their calls.
#[derive(Clone, Default)]
struct Calls(Arc<(Mutex<Results>, Condvar)>);

/// The number of each callback, and whether it got `Ok`.
type Results = Vec<(u64, bool)>;

impl Calls {
    /// A callback that notes this number.
    fn note(&self, number: u64) -> Callback {
        let calls = Arc::clone(&self.0);
        Box::new(move |result: io::Result<()>| {
            calls.0.lock().push((number, result.is_ok()));
            calls.1.notify_all();
        })
    }

    fn all(&self) -> Vec<(u64, bool)> {
        self.0.0.lock().clone()
    }

    /// Waits until there were `count` calls.
    fn wait(&self, count: usize) -> Vec<(u64, bool)> {
        let mut calls = self.0.0.lock();
        while calls.len() < count {
            assert!(
                !self
                    .0
                    .1
                    .wait_for(&mut calls, Duration::from_secs(20))
                    .timed_out(),
                "calls: {calls:?}"
            );
        }
        calls.clone()
    }
}

/// Waits for one operation and gives its result.
fn done(operation: impl FnOnce(Callback)) -> io::Result<()> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    operation(Box::new(move |result| sender.send(result).unwrap()));
    receiver
        .recv_timeout(Duration::from_secs(20))
        .expect("called back within the limit")
}

fn append(log: &GroupLog, entries: Vec<Entry>) -> io::Result<()> {
    done(|callback| log.append(entries, callback))
}

fn read_all(log: &GroupLog) -> Vec<Entry> {
    log.read(0, u64::MAX, usize::MAX).unwrap()
}

fn open(disk: &SimDisk, config: LogConfig) -> (LogEngine, ManualWriter, Recovery) {
    LogEngine::open_manual(Arc::new(disk.clone()), config).unwrap()
}

fn ignore() -> Callback {
    Box::new(|_| ())
}

/// Opens the log again.
type Open<'a> = &'a dyn Fn() -> (LogEngine, Recovery);

/// Runs a check on a real and on a simulated disk; the check may open the log again by the function it gets.
fn on_both(check: impl Fn(Open<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    check(&|| {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
        LogEngine::open(disk, small()).unwrap()
    });
    let disk = SimDisk::new(1);
    check(&|| LogEngine::open(Arc::new(disk.clone()), small()).unwrap());
}

/// The segment file that begins with the highest generation, or the lowest.
fn segment(disk: &SimDisk, newest: bool) -> String {
    let names = disk.list().unwrap();
    let mut found: Vec<_> = names
        .into_iter()
        .filter(|name| name.starts_with("segment-"))
        .filter_map(|name| {
            Some((
                super::format::Header::decode(&disk.content(&name).unwrap())?
                    .0
                    .generation,
                name,
            ))
        })
        .collect();
    found.sort();
    let place = if newest { found.len() - 1 } else { 0 };
    found.swap_remove(place).1
}

/// Where the batches of a segment begin, from its start.
fn batches(disk: &SimDisk, name: &str) -> Vec<usize> {
    let bytes = disk.content(name).unwrap();
    let first = super::format::Header::decode(&bytes).unwrap().0;
    let (mut at, mut offsets) = (0, Vec::new());
    while let Some((header, _)) = super::format::Header::decode(&bytes[at..]) {
        if header.generation != first.generation {
            break;
        }
        offsets.push(at);
        at += super::format::to_block(header.length) as usize;
    }
    offsets
}

fn payload(entry: &Entry) -> Bytes {
    entry.payload.clone()
}
