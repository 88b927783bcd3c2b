//! Rot, loss and confusion of files: a damaged log does not open, a damaged entry is not served.

use super::*;
use crate::disk::CrashKeeps;
use crate::log::{Damage, OpenError};

/// A log over several segments, closed, with the last entry's index.
fn written(disk: &SimDisk, appends: u64) {
    let (engine, mut writer, _) = open(disk, small());
    let log = engine.group(1);
    for number in 0..appends {
        log.append(entries(1, 2 * number..2 * number + 2, 3000), ignore());
        writer.work();
    }
    drop(engine);
    writer.work();
}

fn damage(disk: &SimDisk) -> Option<Damage> {
    match LogEngine::open_manual(Arc::new(disk.clone()), small()) {
        Ok(_) => None,
        Err(OpenError::Damaged(damage)) => Some(damage),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_flipped_byte_in_the_middle_is_damage() {
    let disk = SimDisk::new(1);
    written(&disk, 4);
    let name = segment(&disk, true);
    let starts = batches(&disk, &name);
    assert_eq!(starts.len(), 4);
    for start in &starts[..3] {
        // In the header, a record's head, a payload: every byte that means something is covered.
        for offset in [
            0, 9, 17, 25, 33, 41, 45, 61, 64, 69, 73, 77, 81, 97, 104, 5000,
        ] {
            disk.flip(&name, start + offset, 4).unwrap();
            assert!(
                damage(&disk).is_some(),
                "byte {offset} of the batch at {start}"
            );
            disk.flip(&name, start + offset, 4).unwrap();
        }
    }
    assert!(damage(&disk).is_none(), "repaired, it opens");
}

#[test]
fn a_flipped_byte_in_the_last_batch_is_damage_once_the_watermark_knows_it() {
    let disk = SimDisk::new(1);
    written(&disk, 4);
    let name = segment(&disk, true);
    let last = *batches(&disk, &name).last().unwrap();
    disk.flip(&name, last + 100, 1).unwrap();
    assert!(matches!(
        damage(&disk),
        Some(Damage::Behind {
            found: 3,
            expected: 4
        })
    ));
}

#[test]
fn an_invalid_last_batch_beyond_the_watermark_boots() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(
        &disk,
        LogConfig {
            watermark_every: Duration::from_secs(60),
            ..small()
        },
    );
    let log = engine.group(1);
    for number in 0..4 {
        log.append(entries(1, number..number + 1, 3000), ignore());
        writer.work();
    }
    let disk = disk.crash(CrashKeeps::Nothing);
    let name = segment(&disk, true);
    let last = *batches(&disk, &name).last().unwrap();
    disk.flip(&name, last + 100, 1).unwrap();
    let (engine, _writer, recovery) = open(&disk, small());
    assert!(recovery.torn_tail);
    assert_eq!(read_all(&engine.group(1)), entries(1, 0..3, 3000));
}

#[test]
fn a_flipped_byte_in_an_old_segment_is_damage() {
    let disk = SimDisk::new(1);
    written(&disk, 40);
    let name = segment(&disk, false);
    let starts = batches(&disk, &name);
    disk.flip(&name, starts[2] + 200, 1).unwrap();
    assert!(matches!(damage(&disk), Some(Damage::Batch { .. })));
    disk.flip(&name, starts[2] + 200, 1).unwrap();
    disk.flip(&name, starts[starts.len() - 1] + 200, 1).unwrap();
    assert!(
        matches!(damage(&disk), Some(Damage::Chain { .. })),
        "the last batch of a segment that is not the last"
    );
    disk.flip(&name, starts[starts.len() - 1] + 200, 1).unwrap();
    disk.flip(&name, 70, 1).unwrap();
    assert!(damage(&disk).is_some(), "the first batch of a segment");
}

#[test]
fn a_lost_segment_is_damage() {
    for newest in [true, false] {
        let disk = SimDisk::new(1);
        written(&disk, 40);
        disk.lose(&segment(&disk, newest));
        assert!(damage(&disk).is_some(), "newest {newest}");
    }
    let disk = SimDisk::new(1);
    written(&disk, 40);
    for name in disk
        .list()
        .unwrap()
        .iter()
        .filter(|name| name.starts_with("segment-"))
    {
        disk.lose(name);
    }
    assert!(matches!(
        damage(&disk),
        Some(Damage::Behind { found: 0, .. })
    ));
}

#[test]
fn a_segment_in_the_middle_that_is_lost_is_named() {
    let disk = SimDisk::new(1);
    written(&disk, 60);
    let oldest = segment(&disk, false);
    let third: Vec<_> = disk
        .list()
        .unwrap()
        .into_iter()
        .filter(|name| name.starts_with("segment-"))
        .collect();
    let middle = third
        .iter()
        .find(|name| **name != oldest && **name != segment(&disk, true))
        .unwrap();
    disk.lose(middle);
    assert!(matches!(damage(&disk), Some(Damage::Segment { .. })));
}

#[test]
fn a_lost_or_damaged_watermark_is_damage() {
    let disk = SimDisk::new(1);
    written(&disk, 4);
    disk.flip("watermark", 3, 1).unwrap();
    disk.flip("watermark", 4099, 1).unwrap();
    assert!(matches!(damage(&disk), Some(Damage::Watermark)));
    disk.lose("watermark");
    assert!(matches!(damage(&disk), Some(Damage::Watermark)));
}

#[test]
fn the_first_batch_of_the_newest_segment_is_missed() {
    // Without a watermark that knows the segment, the batches after its first one tell.
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(
        &disk,
        LogConfig {
            watermark_every: Duration::from_secs(60),
            ..small()
        },
    );
    let log = engine.group(1);
    for number in 0..20 {
        log.append(entries(1, 2 * number..2 * number + 2, 3000), ignore());
        writer.work();
    }
    let disk = disk.crash(CrashKeeps::Nothing);
    let name = segment(&disk, true);
    assert!(batches(&disk, &name).len() > 1);
    disk.flip(&name, 100, 1).unwrap();
    assert!(matches!(damage(&disk), Some(Damage::Segment { .. })));
}

#[test]
fn a_segment_that_cannot_be_read_is_damage() {
    let disk = SimDisk::new(1);
    written(&disk, 4);
    disk.fail_reads(&segment(&disk, true), io::ErrorKind::Other);
    assert!(matches!(damage(&disk), Some(Damage::Unreadable { .. })));
}

#[test]
fn a_misdirected_write_is_found() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(&disk, small());
    let log = engine.group(1);
    for number in 0..4 {
        if number == 2 {
            disk.misdirect_write(8192);
        }
        log.append(entries(1, number..number + 1, 3000), ignore());
        writer.work();
    }
    assert!(damage(&disk.crash(CrashKeeps::Nothing)).is_some());
}

#[test]
fn a_damaged_entry_is_an_error_and_not_served() {
    let disk = SimDisk::new(1);
    let (engine, mut writer, _) = open(
        &disk,
        LogConfig {
            tail_bytes_per_group: 0,
            ..small()
        },
    );
    let log = engine.group(1);
    log.append(entries(1, 1..4, 3000), ignore());
    writer.work();
    let name = segment(&disk, true);
    for offset in [64, 70, 74, 82, 90, 98, 64 + 40 + 9] {
        disk.flip(&name, offset, 1).unwrap();
        assert_eq!(
            log.read(1, 2, 9).unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "byte {offset}"
        );
        assert_eq!(
            log.read(2, 4, 9999).unwrap(),
            entries(1, 2..4, 3000),
            "its neighbors are served"
        );
        disk.flip(&name, offset, 1).unwrap();
    }
    assert_eq!(read_all(&log), entries(1, 1..4, 3000));
    assert_eq!(engine.stats().damaged_reads, 7);
}
