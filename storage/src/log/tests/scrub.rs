//! Damage in cold segments is found by reading them again, without a restart.

use super::*;
use crate::log::LogCursor;

/// A log of several segments.
fn filled(disk: &SimDisk) -> (LogEngine, ManualWriter) {
    let (engine, mut writer, _) = open(disk, small());
    let log = engine.group(1);
    for round in 0..60 {
        log.append(entries(1, round * 2..round * 2 + 2, 3000), ignore());
        writer.work();
    }
    assert!(engine.stats().segments > 4);
    (engine, writer)
}

/// Reads all that is cold in small steps: the bytes, and the damaged generations.
fn scrub(engine: &LogEngine) -> (u64, Vec<u64>) {
    let (mut bytes, mut damaged) = (0, Vec::new());
    let mut cursor = LogCursor::default();
    for _ in 0..10_000 {
        let step = engine.cold().scrub(cursor, 10_000);
        bytes += step.bytes;
        damaged.extend(step.damaged);
        match step.next {
            Some(next) => cursor = next,
            None => return (bytes, damaged),
        }
    }
    panic!("the scrub does not end");
}

#[test]
fn a_whole_log_is_read_to_its_newest_segment_and_nothing_is_found() {
    let disk = SimDisk::new(1);
    let (engine, _writer) = filled(&disk);
    let (bytes, damaged) = scrub(&engine);
    assert_eq!(damaged, []);
    let cold = (engine.stats().segments - 1) as u64;
    assert!(bytes > cold * 40_000, "{bytes} bytes of {cold} segments");
}

#[test]
fn a_flip_anywhere_in_a_cold_segment_is_found() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (engine, _writer) = filled(&disk);
        let name = segment(&disk, false);
        let offsets = batches(&disk, &name);
        let number = usize::try_from(seed).unwrap();
        let place = offsets[number % offsets.len()];
        disk.flip(&name, place + 40 + number * 20, 3).unwrap();
        let (_, damaged) = scrub(&engine);
        assert_eq!(damaged.len(), 1, "seed {seed}: batch at {place}");
    }
}

#[test]
fn what_is_purged_behind_the_scrub_is_left_out() {
    let disk = SimDisk::new(2);
    let (engine, mut writer) = filled(&disk);
    let first = engine.cold().scrub(LogCursor::default(), 1);
    let log = engine.group(1);
    log.purge(id(1, 100));
    log.append(entries(1, 120..122, 3000), ignore());
    writer.work();
    let oldest = engine.stats().oldest_generation;
    assert!(oldest > 1, "segments went");
    let mut cursor = first.next.unwrap();
    while let step = engine.cold().scrub(cursor, u64::MAX)
        && let Some(next) = step.next
    {
        assert_eq!(step.damaged, None);
        cursor = next;
    }
}
