//! Segments come and go: generations, checkpoints, slow groups.

use super::*;
use crate::disk::CrashKeeps;

/// Appends pairs of 3,000 bytes and purges all but the newest few.
fn churn(log: &GroupLog, writer: &mut ManualWriter, rounds: u64) {
    for _ in 0..rounds {
        let next = log.state().last.map_or(0, |last| last.index + 1);
        log.append(entries(1, next..next + 2, 3000), ignore());
        writer.work();
        if next > 8 {
            log.purge(id(1, next - 8));
        }
    }
}

#[test]
fn segments_are_used_again_under_new_generations() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let log = engine.group(1);
    engine.group(2).save_vote(vote(9), ignore());
    churn(&log, &mut writer, 200);
    let stats = engine.stats();
    assert!(stats.segments <= 3, "{stats:?}");
    let files = disk
        .list()
        .unwrap()
        .iter()
        .filter(|name| name.starts_with("segment-"))
        .count();
    assert!(files <= 6, "{files} files for 200 rounds");
    let before = read_all(&log);
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, recovery) = open(&disk, small());
    assert!(recovery.segments <= 3);
    assert!(read_all(&engine.group(1)).ends_with(&before));
    assert_eq!(
        engine.group(2).vote(),
        Some(vote(9)),
        "a vote outlives the segment it was written to"
    );
}

#[test]
fn room_is_laid_out_once_for_many_batches_and_not_again_when_it_is_used_again() {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..small()
    };
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, config);
    let log = engine.group(1);
    // A batch, perhaps a watermark, and seldom room: a segment has four times 256 KiB.
    let mut writes = |rounds| {
        let before = (disk.writes(), engine.stats().watermarks);
        churn(&log, &mut writer, rounds);
        let marks = engine.stats().watermarks - before.1;
        disk.writes() - before.0 - marks - rounds
    };
    assert_eq!(writes(20), 1);
    assert!((3..=5).contains(&writes(100)));
    // Three files in turn.
    writes(600);
    let again = writes(600);
    assert!(again <= 3, "{again} writes beside the batches");
}

#[test]
fn a_crash_at_any_sync_of_the_recycling_boots() {
    for skip in 0..120 {
        let disk = SimDisk::new(skip);
        let (engine, mut writer, _) = open(&disk, small());
        let log = engine.group(1);
        churn(&log, &mut writer, 30);
        disk.cut_sync(skip);
        churn(&log, &mut writer, 60);
        let disk = disk.crash(if skip % 2 == 0 {
            CrashKeeps::Random
        } else {
            CrashKeeps::Everything
        });
        let (engine, mut writer, _) = open(&disk, small());
        let log = engine.group(1);
        let state = log.state();
        let (first, last) = (
            state.purged.map_or(0, |purged| purged.index + 1),
            state.last.unwrap().index,
        );
        assert_eq!(
            read_all(&log),
            entries(1, first..last + 1, 3000),
            "skip {skip}"
        );
        churn(&log, &mut writer, 30);
        assert!(engine.failure().is_none());
    }
}

#[test]
fn a_slow_group_is_named_and_keeps_its_entries() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (slow, fast) = (engine.group(1), engine.group(2));
    slow.append(entries(1, 1..3, 100), ignore());
    churn(&fast, &mut writer, 100);
    assert_eq!(engine.oldest_segment_groups(), [1]);
    assert!(engine.stats().segments > 8);
    slow.purge(id(1, 2));
    churn(&fast, &mut writer, 2);
    assert_eq!(engine.oldest_segment_groups(), [2]);
    assert!(engine.stats().segments <= 3);
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, _) = open(&disk, small());
    assert_eq!(engine.group(1).state().last, Some(id(1, 2)));
}

#[test]
fn a_truncated_or_removed_group_keeps_no_segment() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let (one, two, fast) = (engine.group(1), engine.group(2), engine.group(3));
    one.append(entries(1, 1..3, 100), ignore());
    two.append(entries(1, 1..3, 100), ignore());
    churn(&fast, &mut writer, 50);
    assert_eq!(engine.oldest_segment_groups(), [1, 2]);
    one.truncate_after(None, ignore());
    engine.remove_group(2, ignore());
    churn(&fast, &mut writer, 2);
    assert!(engine.stats().segments <= 3);
    let disk = disk.crash(CrashKeeps::Nothing);
    assert_eq!(open(&disk, small()).2.groups, [1, 3]);
}

#[test]
fn a_reader_of_a_purged_entry_meets_no_other_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
    let config = LogConfig {
        tail_bytes_per_group: 0,
        ..small()
    };
    let (engine, _) = LogEngine::open(disk, config).unwrap();
    let log = engine.group(1);
    append(&log, entries(1, 0..8, 3000)).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..3000 {
                for entry in log
                    .read(0, u64::MAX, 30_000)
                    .expect("a read is never damaged by recycling")
                {
                    assert_eq!(entry, super::entry(1, entry.id.index, 3000));
                }
            }
        });
        let mut next = 8;
        while !reader.is_finished() && next < 4000 {
            append(&log, entries(1, next..next + 2, 3000)).unwrap();
            next += 2;
            log.purge(id(1, next - 8));
        }
        reader.join().unwrap();
    });
    assert_eq!(engine.stats().damaged_reads, 0);
}

#[test]
fn many_groups_fit_in_a_checkpoint() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    for group in 0..200 {
        engine.group(group).save_vote(vote(group.into()), ignore());
        engine.group(group).append(entries(1, 0..3, 500), ignore());
    }
    writer.work();
    churn(&engine.group(999), &mut writer, 60);
    let disk = disk.crash(CrashKeeps::Nothing);
    let (engine, _writer, _) = open(&disk, small());
    for group in 0..200 {
        assert_eq!(engine.group(group).vote(), Some(vote(group.into())));
        assert_eq!(read_all(&engine.group(group)), entries(1, 0..3, 500));
    }
}

#[test]
fn another_segment_size_takes_effect_with_new_segments() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    churn(&engine.group(1), &mut writer, 20);
    let before = read_all(&engine.group(1));
    let disk = disk.crash(CrashKeeps::Nothing);
    for segment_bytes in [128 << 10, 32 << 10] {
        let (engine, mut writer, _) = open(
            &disk,
            LogConfig {
                segment_bytes,
                ..small()
            },
        );
        let log = engine.group(1);
        assert!(read_all(&log).ends_with(&before[before.len() - 1..]) || segment_bytes == 32 << 10);
        churn(&log, &mut writer, 60);
        drop(engine);
        writer.work();
    }
    let (engine, _writer, _) = open(&disk, small());
    assert_eq!(payload(&read_all(&engine.group(1))[0]).len(), 3000);
}
