//! A full disk, a full log, a long queue: pauses, and goes on by itself.

use super::*;
use crate::disk::CrashKeeps;
use crate::log::Turn;

#[test]
fn a_full_disk_pauses_and_is_resumed() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (log, calls) = (engine.group(1), Calls::default());
    log.append(entries(1, 1..3, 3000), calls.note(1));
    writer.work();
    disk.set_full(true);
    log.append(entries(1, 3..5, 3000), calls.note(2));
    log.save_vote(vote(1), calls.note(3));
    assert_eq!(writer.work(), Turn::Full);
    assert_eq!(writer.work(), Turn::Full);
    assert!(log.is_full() && engine.stats().no_room);
    assert_eq!(read_all(&log), entries(1, 1..5, 3000), "reads go on");
    assert_eq!(calls.all(), [(1, true)]);
    disk.set_full(false);
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert_eq!(calls.all(), [(1, true), (2, true), (3, true)]);
    assert!(!log.is_full());
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, _) = open(&disk, small());
    assert_eq!(read_all(&engine.group(1)), entries(1, 1..5, 3000));
}

#[test]
fn a_sync_that_finds_no_room_is_written_again() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (log, calls) = (engine.group(1), Calls::default());
    log.append(entries(1, 1..3, 3000), ignore());
    writer.work();
    log.append(entries(1, 3..5, 3000), calls.note(1));
    disk.fail_sync(0, io::ErrorKind::StorageFull);
    assert_eq!(writer.work(), Turn::Full);
    writer.work();
    assert_eq!(calls.all(), [(1, true)]);
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, _) = open(&disk, small());
    assert_eq!(read_all(&engine.group(1)), entries(1, 1..5, 3000));
}

#[test]
fn what_was_durable_before_is_marked_so_while_the_disk_is_full() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        watermark_every: Duration::from_millis(20),
        ..small()
    };
    let (engine, mut writer, _) = open(&disk, config);
    let log = engine.group(1);
    for index in 1..4 {
        log.append(entries(1, index..index + 1, 3000), ignore());
        writer.work();
    }
    let before = engine.stats().watermarks;
    log.append(entries(1, 4..5, 3000), ignore());
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while engine.stats().watermarks == before {
        assert!(tokio::time::Instant::now() < limit);
        disk.fail_write(0, io::ErrorKind::StorageFull);
        assert_eq!(writer.work(), Turn::Full);
    }
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert_eq!(read_all(&log), entries(1, 1..5, 3000));
    // Where there is not even room for the mark, it waits as well: it does not try without a pause.
    log.append(entries(1, 5..6, 3000), ignore());
    writer.work();
    log.save_vote(vote(2), ignore());
    disk.set_full(true);
    assert_eq!(writer.work(), Turn::Full);
    disk.set_full(false);
    writer.work();
    disk.set_full(true);
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_millis(60) {
        assert!(matches!(writer.turn(), Turn::Idle(_)));
    }
}

#[test]
fn the_thread_resumes_by_itself() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        retry_every: Duration::from_millis(2),
        ..small()
    };
    let (engine, _) = LogEngine::open(Arc::new(disk.clone()), config).unwrap();
    let (log, calls) = (engine.group(1), Calls::default());
    disk.set_full(true);
    log.append(entries(1, 1..3, 3000), calls.note(1));
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while engine.stats().full < 3 {
        assert!(tokio::time::Instant::now() < limit);
        std::thread::yield_now();
    }
    disk.set_full(false);
    assert_eq!(calls.wait(1), [(1, true)]);
    assert!(!engine.is_full());
}

#[test]
fn the_reserve_is_used_while_the_disk_is_full() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (log, calls) = (engine.group(1), Calls::default());
    log.append(entries(1, 0..2, 3000), ignore());
    writer.work();
    disk.set_capacity(Some(0));
    let mut next = 2;
    while !matches!(writer.work(), Turn::Full) {
        log.append(entries(1, next..next + 2, 3000), calls.note(next));
        next += 2;
        assert!(next < 200, "the disk is full");
    }
    assert!(next > 20, "the spare segment was filled first");
    assert!(log.is_full());
    let acknowledged = calls.all().len();
    log.purge(id(1, 15));
    assert!(
        matches!(writer.work(), Turn::Idle(_)),
        "a purge makes room in the files there are"
    );
    assert_eq!(calls.all().len(), acknowledged + 1);
    let before = read_all(&log);
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, _) = open(&disk, small());
    assert_eq!(read_all(&engine.group(1)), before);
}

#[test]
fn a_log_at_its_limit_of_segments_waits_for_a_purge() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(
        &disk,
        LogConfig {
            max_segments: 4,
            ..small()
        },
    );
    let (slow, log, calls) = (engine.group(1), engine.group(2), Calls::default());
    slow.append(entries(1, 1..2, 100), ignore());
    let mut next = 0;
    while writer.work() != Turn::Full {
        log.append(entries(1, next..next + 2, 3000), calls.note(next));
        next += 2;
        assert!(next < 100);
    }
    assert!(engine.is_full());
    assert_eq!(engine.oldest_segment_groups(), [1, 2]);
    log.purge(id(1, next - 6));
    assert_eq!(
        writer.work(),
        Turn::Full,
        "the slow group still keeps the oldest"
    );
    slow.purge(id(1, 1));
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert_eq!(calls.all().len() as u64, next / 2);
    assert!(!engine.is_full());
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, _) = open(&disk, small());
    assert!(read_all(&engine.group(2)).ends_with(&entries(1, next - 2..next, 3000)));
}

#[test]
fn what_a_nearly_full_log_admits_never_waits() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        max_segments: 3,
        ..small()
    };
    let (engine, mut writer, _) = open(&disk, config);
    let (log, other, calls) = (engine.group(1), engine.group(2), Calls::default());
    let mut next = 0;
    loop {
        // Two appends are under way at a time.
        let Some(first) = log.admit(3000) else { break };
        log.append(entries(1, next..next + 1, 3000), ignore());
        next += 1;
        let second = log.admit(3000);
        if second.is_some() {
            log.append(entries(1, next..next + 1, 3000), ignore());
            next += 1;
        }
        assert!(matches!(writer.work(), Turn::Idle(_)), "room was promised");
        drop((first, second));
        assert!(next < 100, "the log is full");
    }
    assert!(next > 10, "it was filled: {next}");
    assert!(log.no_room() && other.admit(3000).is_none());
    // What Raft needs to go on has room.
    other.save_vote(vote(1), calls.note(1));
    other.append(entries(1, 0..1, 10), calls.note(2));
    log.truncate_after(Some(next - 2), calls.note(3));
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert_eq!(calls.all(), [(1, true), (2, true), (3, true)]);
    log.purge(id(1, next - 3));
    other.purge(id(1, 0));
    log.save_vote(vote(1), calls.note(4));
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert!(!log.no_room() && log.admit(3000).is_some());
}

#[test]
fn a_refusal_makes_the_purges_be_written_that_wait() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        max_segments: 4,
        ..small()
    };
    let (engine, mut writer, _) = open(&disk, config);
    let log = engine.group(1);
    let mut next = 0;
    while log.admit(12_000).is_some() {
        log.append(entries(1, next..next + 1, 3000), ignore());
        next += 1;
        assert!(matches!(writer.work(), Turn::Idle(_)));
        assert!(next < 100, "the log is nearly full");
    }
    assert!(!log.no_room() && log.admit(100).is_some(), "nearly");
    let batches = || engine.stats().batches;
    let before = batches();
    log.purge(id(1, next - 1));
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert_eq!(batches(), before, "nobody needs it yet");
    assert!(log.admit(12_000).is_none());
    assert!(matches!(writer.work(), Turn::Idle(_)));
    assert!(log.admit(12_000).is_some(), "nothing else was written");
}

#[test]
fn a_promise_of_room_counts_until_it_is_dropped() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        max_segments: 8,
        ..small()
    };
    let (engine, _writer, _) = open(&disk, config);
    let log = engine.group(1);
    let promises: Vec<_> = std::iter::from_fn(|| log.admit(4096)).take(1000).collect();
    assert!((10..1000).contains(&promises.len()), "{}", promises.len());
    assert!(engine.group(2).admit(4096).is_none(), "of all groups");
    drop(promises);
    assert!(engine.group(2).admit(4096).is_some());
}

#[tokio::test]
async fn a_long_queue_is_seen_and_in_the_end_refused() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        queue_bytes: 20_000,
        ..small()
    };
    let (engine, mut writer, _) = open(&disk, config);
    let (log, calls) = (engine.group(1), Calls::default());
    log.ready().await.unwrap();
    for index in 0..10 {
        log.append(entries(1, index..index + 1, 10_000), calls.note(index));
    }
    assert!(log.is_full() && engine.is_full());
    assert_eq!(
        log.state().last.unwrap().index + 1,
        10 - calls.all().len() as u64
    );
    assert!(calls.all().iter().all(|(_, ok)| !ok) && !calls.all().is_empty());
    log.save_vote(vote(1), calls.note(99));
    let (ready, _) = tokio::join!(log.ready(), async { writer.work() });
    ready.unwrap();
    assert!(!log.is_full());
    assert!(calls.all().ends_with(&[(99, true)]));
}

#[test]
fn a_close_on_a_full_disk_fails_those_who_wait() {
    let disk = SimDisk::new(1);
    let (engine, _) = LogEngine::open(Arc::new(disk.clone()), small()).unwrap();
    let calls = Calls::default();
    disk.set_full(true);
    engine
        .group(1)
        .append(entries(1, 1..3, 3000), calls.note(1));
    assert!(engine.close().is_err());
    assert_eq!(calls.all(), [(1, false)]);
}
