//! What only a disk can break: flipped bytes, lost pointers, half-made directories. RocksDB only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use model::state::StateError;
use storage::keys;
use storage::state::verify;

use crate::fixture::{Fixture, assert_holds, chunk, commit, copy, send, value};

const VALUES: u32 = 40;

fn length(number: u32) -> usize {
    if number.is_multiple_of(2) { 500 } else { 5000 }
}

/// A closed directory with values in tables and in blobs.
fn filled() -> Fixture {
    let fixture = Fixture::rocksdb();
    let store = fixture.open();
    for number in 0..VALUES {
        commit(&store.current(), number..number + 1, length(number));
    }
    store.current().flush().unwrap();
    drop(store);
    fixture
}

fn tablet_files(fixture: &Fixture, extension: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = fs::read_dir(fixture.directory().join("tablet-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    out.sort();
    out
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// Whether damage was found: at the open, by a read, or by a scrub. Panics when a wrong value was served.
fn is_found(fixture: &Fixture) -> bool {
    let store = match fixture.engine.open(&fixture.path(), crate::fixture::GROUP) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.is_damage(), "{error}");
            return true;
        }
    };
    let tablet = store.current();
    let view = tablet.view();
    let mut found = false;
    for number in 0..VALUES {
        match view.get(&chunk(number)) {
            Ok(got) => assert_eq!(got, Some(value(number, length(number))), "{number}"),
            Err(StateError::Damaged(_)) => found = true,
            Err(StateError::Io(cause)) => panic!("{cause}"),
        }
    }
    match view.scan(&chunk(0), usize::MAX) {
        Ok(all) => assert!(all.iter().all(|(key, got)| {
            (0..VALUES).any(|number| chunk(number) == *key && *got == value(number, length(number)))
        })),
        Err(error) => {
            assert!(matches!(error, StateError::Damaged(_)));
            found = true;
        }
    }
    let scrubbed = verify(&*tablet);
    assert_eq!(found || scrubbed.is_err(), tablet.stats().damaged_reads > 0);
    found || scrubbed.is_err()
}

fn flips_are_found(extension: &str, least: usize) {
    let fixture = filled();
    let files = tablet_files(&fixture, extension);
    assert!(!files.is_empty());
    let mut found = 0;
    let samples = 24;
    for sample in 0..samples {
        // Its own engine: a block that another image left in the cache would hide the damage.
        let image = Fixture::rocksdb();
        copy(&fixture.path(), &image.path());
        let file = &tablet_files(&image, extension)[sample % files.len()];
        let size = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        flip(file, size * sample / samples);
        found += usize::from(is_found(&image));
    }
    assert!(found >= least, "{found} of {samples}");
}

#[test]
fn a_flipped_byte_in_a_table_is_found_and_never_served() {
    // Some bytes of a table carry nothing that is read (padding, statistics).
    flips_are_found("sst", 16);
}

#[test]
fn a_flipped_byte_in_a_blob_is_found_and_never_served() {
    flips_are_found("blob", 20);
}

#[test]
fn damage_of_what_is_in_memory_is_found_by_a_scrub_of_the_disk() {
    for extension in ["sst", "blob"] {
        let fixture = filled();
        let store = fixture.open();
        let tablet = store.current();
        // All of it comes into the cache.
        for number in 0..VALUES {
            tablet.view().get(&chunk(number)).unwrap();
        }
        for file in tablet_files(&fixture, extension) {
            flip(&file, 100);
        }
        assert!(verify(&*tablet).is_ok(), "{extension}: it is in the cache");
        let cold = store.cold().and_then(|copy| verify(&*copy));
        assert!(cold.unwrap_err().is_damage(), "{extension}");
        assert!(tablet.damaged_reads() > 0, "{extension}: it counts");
    }
}

#[test]
fn a_scrub_of_the_disk_reads_the_last_commit_and_leaves_nothing() {
    let fixture = filled();
    let copies = fixture.directory().join("cold");
    let store = fixture.open();
    let all = verify(&*store.current()).unwrap().values;
    commit(&store.current(), VALUES..VALUES + 3, 5000);
    let copy = store.cold().unwrap();
    assert_eq!(copy.applied(), store.current().applied());
    commit(&store.current(), VALUES + 3..VALUES + 5, 5000);
    assert_eq!(verify(&*copy).unwrap().values, all + 3);
    assert!(copies.exists());
    drop(copy);
    assert!(!copies.exists());
    assert_eq!(store.current().damaged_reads(), 0);
    drop(store);
    // What a crash left of one.
    fs::create_dir(&copies).unwrap();
    let store = fixture.open();
    assert!(!copies.exists());
    assert_eq!(verify(&*store.cold().unwrap()).unwrap().values, all + 5);
}

#[test]
fn a_truncated_file_is_found() {
    for extension in ["sst", "blob"] {
        let fixture = filled();
        let file = tablet_files(&fixture, extension).pop().unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() * 2 / 3]).unwrap();
        assert!(is_found(&fixture), "{extension}");
    }
}

#[test]
fn a_missing_table_is_found() {
    let fixture = filled();
    fs::remove_file(tablet_files(&fixture, "sst").pop().unwrap()).unwrap();
    assert!(
        fixture
            .engine
            .open(&fixture.path(), crate::fixture::GROUP)
            .is_err()
    );
}

/// Writes past the storage layer, as a fault of memory would before RocksDB's own checksum is made.
fn corrupt_value(fixture: &Fixture) {
    let path = fixture.directory().join("tablet-1");
    let database = rocksdb::DB::open(&rocksdb::Options::default(), path).unwrap();
    let key = keys::encode(&chunk(4));
    let mut stored = database.get(key).unwrap().unwrap();
    stored[100] ^= 1;
    database.put(key, stored).unwrap();
    database.flush().unwrap();
}

#[test]
fn a_value_whose_own_checksum_does_not_hold_is_never_served() {
    let fixture = filled();
    corrupt_value(&fixture);
    assert!(is_found(&fixture));
}

#[test]
fn a_snapshot_with_such_a_value_is_not_installed() {
    let source = filled();
    corrupt_value(&source);
    let snapshot = source.open().checkpoint().unwrap().seal().unwrap();

    let fixture = Fixture::rocksdb();
    let target = fixture.open();
    commit(&target.current(), 0..3, 7);
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    assert!(target.install(&receiver).unwrap_err().is_damage());
    assert_holds(&*target.current().view(), 3, 7);
    drop(receiver);
    // What arrived is gone: the next one begins anew.
    let receiver = target.receive(snapshot.manifest().clone()).unwrap();
    let missing: u64 = receiver
        .missing()
        .iter()
        .map(|missing| missing.length)
        .sum();
    assert!(missing > 0);
    let left = names(&fixture);
    assert!(
        left.is_subset(&set(&["CURRENT", "tablet-1", "staging"])),
        "{left:?}"
    );
}

#[test]
fn a_snapshot_is_verified_before_its_install_and_a_damaged_one_is_dropped() {
    for damaged in [false, true] {
        let source = filled();
        if damaged {
            corrupt_value(&source);
        }
        let snapshot = source.open().checkpoint().unwrap().seal().unwrap();
        let fixture = Fixture::rocksdb();
        let target = fixture.open();
        let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
        assert!(target.verify(&receiver).is_err(), "nothing has arrived");
        send(&snapshot, &mut receiver, usize::MAX);
        let verified = target.verify(&receiver);
        assert!(!names(&fixture).contains("arriving"));
        assert_eq!(target.current().applied(), None, "nothing is installed");
        if damaged {
            assert!(verified.unwrap_err().is_damage());
            let again = target.receive(snapshot.manifest().clone()).unwrap();
            assert!(!again.missing().is_empty(), "what arrived is gone");
        } else {
            verified.unwrap();
            let tablet = target.install(&receiver).unwrap();
            assert_eq!(
                tablet.view().get(&chunk(3)).unwrap(),
                Some(value(3, length(3)))
            );
        }
    }
}

#[test]
fn what_does_not_open_is_set_aside_and_an_empty_store_takes_its_place() {
    let fixture = filled();
    fs::remove_file(fixture.directory().join("CURRENT")).unwrap();
    let (path, group) = (fixture.path(), crate::fixture::GROUP);
    assert!(fixture.engine.open(&path, group).unwrap_err().is_damage());
    fixture.engine.set_aside(&path, group).unwrap();
    let store = fixture.open();
    assert_eq!(store.current().applied(), None);
    assert_eq!(fixture.engine.groups(&path).unwrap(), [group]);
    let aside = fixture.directory().with_extension("damaged");
    assert!(aside.join("tablet-1").is_dir());
    fixture.engine.forget_aside(&path, group).unwrap();
    assert!(!aside.exists());
}

#[test]
fn a_snapshot_whose_file_has_changed_since_is_known() {
    let source = filled();
    let snapshot = source.open().checkpoint().unwrap().seal().unwrap();
    let files = &snapshot.manifest().files;
    let table = files.iter().position(|file| file.name.ends_with(".sst"));
    let table = table.unwrap();
    for (file, entry) in files.iter().enumerate() {
        assert_eq!(snapshot.check(file).unwrap(), entry.length);
    }
    let folder = names(&source);
    let folder = folder.iter().find(|name| name.starts_with("snapshot-"));
    let path = source.directory().join(folder.unwrap()).join("files");
    flip(&path.join(&files[table].name), 20);
    assert!(snapshot.check(table).unwrap_err().is_damage());
    fs::remove_file(path.join(&files[table].name)).unwrap();
    assert!(snapshot.check(table).unwrap_err().is_damage());
}

fn names(fixture: &Fixture) -> BTreeSet<String> {
    fs::read_dir(fixture.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_an_interrupted_install_left_is_ignored_and_removed() {
    let fixture = filled();
    let directory = fixture.directory();
    copy(&directory.join("tablet-1"), &directory.join("tablet-7"));
    fs::create_dir_all(directory.join("tablet-8")).unwrap();
    fs::write(directory.join("tablet-8/CURRENT"), "half").unwrap();
    copy(
        &directory.join("tablet-1"),
        &directory.join("snapshot-9/files"),
    );
    fs::write(directory.join("CURRENT.draft"), "tablet-7").unwrap();
    let store = fixture.open();
    assert!(store.snapshot().is_none());
    assert_eq!(
        store.current().view().get(&chunk(3)).unwrap(),
        Some(value(3, length(3)))
    );
    assert_eq!(names(&fixture), set(&["CURRENT", "tablet-1"]));
}

#[test]
fn an_install_that_was_pointed_to_stands_and_the_old_tablet_goes() {
    let source = filled();
    let snapshot = source.open().checkpoint().unwrap().seal().unwrap();
    let fixture = Fixture::rocksdb();
    let target = fixture.open();
    commit(&target.current(), 0..3, 7);
    target.current().flush().unwrap();
    // The old tablet is held, as if the crash came before it was removed.
    let old = target.current();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    target.install(&receiver).unwrap();
    assert!(names(&fixture).contains("tablet-1"));
    fixture.crash();
    let store = fixture.open();
    assert_eq!(
        store.current().applied().unwrap(),
        (VALUES - 1).to_be_bytes().as_slice()
    );
    assert!(!names(&fixture).contains("tablet-1"));
    drop((old, target));
}

#[test]
fn a_replaced_tablet_goes_when_its_last_view_has_gone() {
    let source = filled();
    let snapshot = source.open().checkpoint().unwrap().seal().unwrap();
    let fixture = Fixture::rocksdb();
    let target = fixture.open();
    let view = target.current().view();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    target.install(&receiver).unwrap();
    assert!(names(&fixture).contains("tablet-1"));
    drop(view);
    assert!(!names(&fixture).contains("tablet-1"));
}

#[test]
fn a_lost_or_damaged_pointer_is_damage_and_never_an_empty_group() {
    for content in [
        None,
        Some(""),
        Some("tablet-1"),
        Some("tablet-1 00000000\n"),
        Some("tablet-9 ?"),
    ] {
        let fixture = filled();
        let pointer = fixture.directory().join("CURRENT");
        match content {
            Some(text) => fs::write(&pointer, text).unwrap(),
            None => fs::remove_file(&pointer).unwrap(),
        }
        let refused = fixture.engine.open(&fixture.path(), crate::fixture::GROUP);
        assert!(refused.unwrap_err().is_damage(), "{content:?}");
        assert!(names(&fixture).contains("tablet-1"));
    }
}

#[test]
fn a_group_whose_making_was_interrupted_is_made_again() {
    let fixture = Fixture::rocksdb();
    drop(fixture.open());
    fs::remove_file(fixture.directory().join("CURRENT")).unwrap();
    let store = fixture.open();
    commit(&store.current(), 0..3, 7);
    assert_holds(&*store.current().view(), 3, 7);
}

#[test]
fn a_newer_snapshot_is_sent_without_the_files_that_have_arrived() {
    let source = filled();
    let store = source.open();
    let first = store.checkpoint().unwrap().seal().unwrap();
    let fixture = Fixture::rocksdb();
    let target = fixture.open();
    let mut receiver = target.receive(first.manifest().clone()).unwrap();
    let total = send(&first, &mut receiver, usize::MAX);
    drop(receiver);
    commit(&store.current(), VALUES..VALUES + 1, 500);
    let second = store.checkpoint().unwrap().seal().unwrap();
    let mut receiver = target.receive(second.manifest().clone()).unwrap();
    let sent = send(&second, &mut receiver, usize::MAX);
    assert!(sent < total / 2, "{sent} of {total}");
    let tablet = target.install(&receiver).unwrap();
    assert_eq!(tablet.applied(), store.current().applied());
}
