//! One suite for both disks, and what only the simulated one can do.

use std::io;

use super::{CrashKeeps, Disk, RealDisk, SimDisk, is_full};

fn both(check: impl Fn(&dyn Disk)) {
    let folder = tempfile::tempdir().unwrap();
    check(&RealDisk::open(&folder.path().join("made/on/the/way")).unwrap());
    check(&SimDisk::new(1));
}

#[test]
fn what_was_written_is_read() {
    both(|disk| {
        let file = disk.create("a").unwrap();
        file.preallocate(8192).unwrap();
        assert_eq!(file.size().unwrap(), 8192);
        file.write_at(b"hello", 4094).unwrap();
        file.sync_data().unwrap();
        let mut buf = [9; 7];
        assert_eq!(disk.open("a").unwrap().read_at(&mut buf, 4093).unwrap(), 7);
        assert_eq!(&buf, b"\0hello\0");
        assert_eq!(file.read_at(&mut buf, 8190).unwrap(), 2);
        assert_eq!(file.read_at(&mut buf, 9000).unwrap(), 0);
    });
}

#[test]
fn names_are_made_changed_and_removed() {
    both(|disk| {
        assert_eq!(disk.open("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.create("a").unwrap().write_at(b"1", 0).unwrap();
        assert_eq!(
            disk.create("a").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        disk.create("b").unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.open("b").unwrap().size().unwrap(), 1);
        disk.remove("b").unwrap();
        disk.sync_dir().unwrap();
        assert!(disk.list().unwrap().is_empty());
    });
}

#[test]
fn a_lock_is_held_once() {
    both(|disk| {
        let lock = disk.lock("lock").unwrap();
        assert_eq!(
            disk.lock("lock").unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(lock);
        disk.lock("lock").unwrap();
    });
}

#[test]
fn a_crash_forgets_what_was_not_synced() {
    let disk = SimDisk::new(2);
    let file = disk.create("a").unwrap();
    file.write_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    disk.create("b").unwrap();
    file.write_at(b"lost", 0).unwrap();
    let next = disk.crash(CrashKeeps::Nothing);
    assert_eq!(next.content("a").unwrap(), b"kept");
    assert_eq!(next.list().unwrap(), ["a"]);
    assert!(
        file.write_at(b"dead", 0).is_err(),
        "a handle of the dead process changes nothing"
    );
    assert!(disk.list().is_err());
}

#[test]
fn a_random_crash_tears_by_sectors() {
    let mut torn = 0;
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let file = disk.create("a").unwrap();
        file.preallocate(8 * 512).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(&[1; 8 * 512], 0).unwrap();
        let bytes = disk.crash(CrashKeeps::Random).content("a").unwrap();
        for sector in bytes.chunks(512) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a sector is whole"
            );
        }
        torn += usize::from(bytes.contains(&0) && bytes.contains(&1));
    }
    assert!(torn > 5, "some writes are torn");
}

#[test]
fn faults_happen_when_told() {
    let disk = SimDisk::new(3);
    let file = disk.create("a").unwrap();
    disk.fail_sync(1, io::ErrorKind::Other);
    file.sync_data().unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    disk.set_capacity(Some(10));
    file.write_at(&[0; 10], 0).unwrap();
    assert!(is_full(&file.write_at(&[0; 11], 0).unwrap_err()));
    disk.set_full(true);
    assert!(is_full(&file.write_at(&[0; 1], 0).unwrap_err()));
    disk.set_full(false);
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    let image = disk.image();
    disk.set_lying(true);
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    let next = disk.crash(CrashKeeps::Nothing);
    assert_ne!(next.content("a").unwrap().first(), Some(&b'x'));
    next.flip("a", 0, 1).unwrap();
    assert_eq!(next.content("a").unwrap().first(), Some(&1));
    let old = next.restore(&image);
    assert_eq!(old.list().unwrap(), ["a"]);
}
