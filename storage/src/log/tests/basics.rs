//! What a caller sees while nothing goes wrong.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::log::{LogState, OpenError};

#[test]
fn everything_is_there_after_a_restart() {
    on_both(|open| {
        let (engine, _) = open();
        let (one, two) = (engine.group(1), engine.group(2));
        done(|callback| one.save_vote(vote(4), callback)).unwrap();
        append(&one, entries(4, 0..50, 300)).unwrap();
        append(&two, entries(1, 5..8, 10)).unwrap();
        one.purge(id(4, 9));
        one.save_committed(Some(id(4, 40)));
        done(|callback| one.truncate_after(Some(44), callback)).unwrap();
        let before = (one.state(), one.bytes(), read_all(&one));
        engine.close().unwrap();

        let (engine, recovery) = open();
        assert_eq!(recovery.groups, [1, 2]);
        assert!(!recovery.torn_tail);
        let (one, two) = (engine.group(1), engine.group(2));
        assert_eq!((one.state(), one.bytes(), read_all(&one)), before);
        assert_eq!(
            one.state(),
            LogState {
                last: Some(id(4, 44)),
                purged: Some(id(4, 9))
            }
        );
        assert_eq!((one.vote(), two.vote()), (Some(vote(4)), None));
        assert_eq!((one.committed(), two.committed()), (Some(id(4, 40)), None));
        assert_eq!(read_all(&two), entries(1, 5..8, 10));
        append(&two, entries(2, 8..9, 10)).unwrap();
        assert_eq!(two.leaders(), [id(1, 5), id(2, 8)]);
    });
}

#[test]
fn an_entry_is_read_before_it_is_durable() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (log, calls) = (engine.group(1), Calls::default());
    log.append(entries(1, 1..4, 10), calls.note(1));
    assert_eq!(read_all(&log), entries(1, 1..4, 10));
    log.save_vote(vote(3), calls.note(2));
    assert_eq!(log.vote(), Some(vote(3)));
    log.truncate_after(Some(2), calls.note(3));
    assert_eq!(log.state().last, Some(id(1, 2)));
    assert!(log.truncating() && calls.all().is_empty());
    writer.work();
    assert!(!log.truncating());
    assert_eq!(calls.all(), [(1, true), (2, true), (3, true)]);
}

#[test]
fn callbacks_of_all_groups_come_in_order() {
    on_both(|open| {
        let (engine, _) = open();
        let calls = Calls::default();
        for number in 0..2000 {
            let log = engine.group(u32::try_from(number % 7).unwrap());
            match number % 5 {
                0 => log.save_vote(vote(number), calls.note(number)),
                _ => {
                    let next = log.state().last.map_or(0, |last| last.index + 1);
                    log.append(vec![entry(1, next, 100)], calls.note(number));
                }
            }
        }
        let expected: Vec<_> = (0..2000).map(|number| (number, true)).collect();
        assert_eq!(calls.wait(2000), expected);
        let stats = engine.stats();
        assert!(stats.batches < 2000 && stats.entries == 1600, "{stats:?}");
        assert_eq!((stats.queued_ops, stats.queued_bytes), (0, 0));
        assert_eq!(stats.sync_buckets.iter().sum::<u64>(), stats.batches);
    });
}

#[test]
fn one_sync_serves_many_groups() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(
        &disk,
        LogConfig {
            watermark_every: Duration::from_secs(60),
            ..small()
        },
    );
    let calls = Calls::default();
    engine.group(0).save_vote(vote(1), ignore());
    writer.work();
    let (syncs, writes) = (disk.syncs(), disk.writes());
    for group in 0..50 {
        engine
            .group(group)
            .append(entries(1, 0..1, 100), calls.note(group.into()));
    }
    writer.work();
    assert_eq!(calls.all().len(), 50);
    assert_eq!((disk.syncs() - syncs, disk.writes() - writes), (1, 1));
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn who_waits_for_what_was_taken_waits_for_its_sync() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (log, calls) = (engine.group(1), Calls::default());
    let at_first = poll(std::pin::pin!(log.durable()));
    assert!(at_first.is_ready(), "nothing was taken yet");
    log.append(entries(1, 1..4, 10), calls.note(1));
    log.save_vote(vote(1), calls.note(2));
    let other = engine.group(1);
    let mut durable = std::pin::pin!(other.durable());
    assert!(poll(durable.as_mut()).is_pending());
    writer.work();
    assert_eq!(calls.all(), [(1, true), (2, true)]);
    assert!(matches!(poll(durable), Poll::Ready(Ok(()))));
    // What is refused is not waited for.
    log.append(entries(1, 9..10, 10), calls.note(3));
    assert!(poll(std::pin::pin!(log.durable())).is_ready());
    // What is longer than a batch is written in parts.
    log.append(entries(1, 4..40, 1000), calls.note(4));
    let mut durable = std::pin::pin!(log.durable());
    assert!(poll(durable.as_mut()).is_pending());
    writer.work();
    assert_eq!(calls.all()[2..], [(3, false), (4, true)]);
    assert!(poll(durable).is_ready());
    disk.fail_sync(0, io::ErrorKind::Other);
    log.save_vote(vote(2), calls.note(5));
    let mut durable = std::pin::pin!(log.durable());
    assert!(poll(durable.as_mut()).is_pending());
    writer.work();
    assert!(matches!(poll(durable), Poll::Ready(Err(_))));
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (log, calls) = (engine.group(1), Calls::default());
    log.append(entries(1, 1..4, 10), calls.note(1));
    log.append(entries(1, 5..6, 10), calls.note(2));
    log.append(vec![entry(1, 4, 0), entry(1, 6, 0)], calls.note(3));
    log.append(vec![entry(1, 4, 32 << 10)], calls.note(4));
    log.append(entries(1, 3..4, 10), calls.note(5));
    log.append(Vec::new(), calls.note(6));
    writer.work();
    assert_eq!(
        calls.all(),
        [
            (2, false),
            (3, false),
            (4, false),
            (5, false),
            (1, true),
            (6, true)
        ]
    );
    assert_eq!(log.state().last, Some(id(1, 3)));
    assert!(engine.failure().is_none(), "a wrong call harms nobody else");
}

#[test]
fn reads_are_bounded_by_bytes_and_give_at_least_one() {
    let disk = SimDisk::new(1);
    // With no tail at all every durable entry comes from a segment.
    for (number, tail) in [(1, 0), (2, 1 << 20)] {
        let config = LogConfig {
            tail_bytes_per_group: tail,
            ..small()
        };
        let (engine, mut writer, _) = open(&disk, config);
        let log = engine.group(number);
        log.append(entries(1, 10..30, 1000), ignore());
        writer.work();
        log.append(entries(1, 30..32, 1000), ignore());
        assert_eq!(log.read(12, 20, 3500).unwrap(), entries(1, 12..15, 1000));
        assert_eq!(log.read(12, 20, 0).unwrap(), entries(1, 12..13, 1000));
        assert_eq!(log.read(28, 99, 1 << 20).unwrap(), entries(1, 28..32, 1000));
        assert_eq!(log.read(0, 12, 1 << 20).unwrap(), entries(1, 10..12, 1000));
        assert!(log.read(32, 99, 1 << 20).unwrap().is_empty());
        assert!(log.read(20, 20, 1 << 20).unwrap().is_empty());
        assert!(log.tail_bytes() >= 2000 && (tail > 0 || log.tail_bytes() < 3000));
        drop((engine, writer));
    }
}

#[test]
fn memory_is_bounded_for_a_group_and_for_all() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        tail_bytes_per_group: 20_000,
        tail_bytes: 50_000,
        ..small()
    };
    let (engine, mut writer, _) = open(&disk, config);
    for round in 0..20 {
        for group in 0..5 {
            engine
                .group(group)
                .append(entries(1, round * 4..round * 4 + 4, 1000), ignore());
        }
        writer.work();
        assert!(engine.stats().tail_bytes <= 50_000);
        assert!((0..5).all(|group| engine.group(group).tail_bytes() <= 20_000));
    }
    assert!(engine.stats().tail_bytes > 25_000, "memory is used");
    for group in 0..5 {
        assert_eq!(read_all(&engine.group(group)), entries(1, 0..80, 1000));
    }
}

#[test]
fn a_purge_beyond_the_end_leaves_an_empty_log() {
    on_both(|open| {
        let (engine, _) = open();
        let log = engine.group(1);
        append(&log, entries(1, 1..10, 10)).unwrap();
        log.purge(id(3, 20));
        assert_eq!(
            log.state(),
            LogState {
                last: Some(id(3, 20)),
                purged: Some(id(3, 20))
            }
        );
        assert_eq!(
            (log.bytes(), log.id_at(20), log.id_at(9)),
            (0, Some(id(3, 20)), None)
        );
        assert!(append(&log, entries(3, 20..21, 1)).is_err());
        append(&log, entries(3, 21..23, 1)).unwrap();
        log.purge(id(1, 4));
        engine.close().unwrap();
        let (engine, _) = open();
        let log = engine.group(1);
        assert_eq!(
            log.state(),
            LogState {
                last: Some(id(3, 22)),
                purged: Some(id(3, 20))
            }
        );
        assert_eq!(read_all(&log), entries(3, 21..23, 1));
    });
}

#[test]
fn a_removed_group_begins_anew() {
    on_both(|open| {
        let (engine, _) = open();
        let old = engine.group(1);
        append(&old, entries(5, 1..10, 10)).unwrap();
        done(|callback| old.save_vote(vote(5), callback)).unwrap();
        done(|callback| engine.remove_group(1, callback)).unwrap();
        assert!(append(&old, entries(5, 10..11, 10)).is_err());
        assert!(old.read(0, 9, 9).is_err());
        let new = engine.group(1);
        assert_eq!((new.state(), new.vote()), (LogState::default(), None));
        append(&new, entries(1, 0..2, 10)).unwrap();
        drop(engine);
        let (engine, _) = open();
        assert_eq!(read_all(&engine.group(1)), entries(1, 0..2, 10));
        assert_eq!(engine.group(1).vote(), None);
    });
}

#[test]
fn a_log_is_opened_once() {
    on_both(|open| {
        let (engine, _) = open();
        drop(engine);
        open();
    });
    let disk = SimDisk::new(1);
    let (engine, writer, _) = open(&disk, small());
    let again = LogEngine::open(Arc::new(disk.clone()), small());
    assert!(matches!(again, Err(OpenError::Locked)));
    drop((engine, writer));
    open(&disk, small());
}

#[test]
fn a_closed_log_answers_and_reads() {
    on_both(|open| {
        let (engine, _) = open();
        let log = engine.group(1);
        let calls = Calls::default();
        log.append(entries(1, 1..3, 10), calls.note(1));
        engine.close().unwrap();
        assert_eq!(calls.all(), [(1, true)]);
        assert!(append(&log, entries(1, 3..4, 10)).is_err());
        assert_eq!(read_all(&log), entries(1, 1..3, 10));
    });
}

#[test]
fn a_wrong_configuration_is_said() {
    for config in [
        LogConfig {
            segment_bytes: 5000,
            ..small()
        },
        LogConfig {
            spare_segments: 0,
            ..small()
        },
        LogConfig {
            max_segments: 1,
            ..small()
        },
        LogConfig {
            queue_ops: 0,
            ..small()
        },
    ] {
        let opened = LogEngine::open(Arc::new(SimDisk::new(1)), config);
        assert!(matches!(opened, Err(OpenError::Config(_))));
    }
}

#[tokio::test]
async fn apply_waits_for_a_truncate() {
    let disk = SimDisk::new(1);
    let (engine, _) = LogEngine::open(Arc::new(disk.clone()), small()).unwrap();
    let log = engine.group(1);
    log.truncated().await.unwrap();
    append(&log, entries(1, 1..9, 10)).unwrap();
    disk.hold_syncs(true);
    log.truncate_after(Some(3), ignore());
    assert!(log.truncating());
    let waiting = tokio::time::timeout(Duration::from_millis(5), log.truncated());
    assert!(waiting.await.is_err(), "not durable yet");
    disk.hold_syncs(false);
    log.truncated().await.unwrap();
    assert!(!log.truncating());
}

#[test]
fn an_entry_of_the_debug_output_shows_no_payload() {
    let text = format!(
        "{:?}",
        Entry {
            id: id(1, 2),
            payload: Bytes::from_static(b"secret")
        }
    );
    assert_eq!(text, "Entry(1-7-2, 6 bytes)");
}
