//! Transactions, views, marks, crashes, and how much is to be replayed.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use model::id::{ChunkId, SessionId, TenantId};
use model::state::{Due, Key, StateRead, StateWrite};
use model::time::UnixMillis;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use storage::error::TabletError;
use storage::state::{FlushPolicy, Tablet, verify};

use crate::fixture::{Fixture, assert_holds, chunk, commit, for_both_stores, value};

for_both_stores!(
    a_transaction_shows_its_changes_to_itself_alone,
    a_commit_brings_its_changes_and_its_mark_together,
    a_view_shows_one_commit_however_many_follow,
    a_reader_never_sees_half_a_commit,
    records_and_heads_are_of_the_same_commit_as_all_else,
    a_second_writer_is_refused,
    a_tablet_behaves_as_a_sorted_map,
    a_clean_reopen_keeps_what_was_flushed,
    after_a_crash_mark_and_data_are_of_the_same_commit,
    what_a_crash_would_undo_is_known_and_bounded,
    the_tablet_with_the_oldest_unflushed_commit_is_flushed_first,
    large_and_small_and_empty_values_come_back,
    a_compaction_leaves_what_is_current_and_stops_when_it_is_told_to,
);

fn a_transaction_shows_its_changes_to_itself_alone(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    commit(&tablet, 0..2, 10);
    let mut txn = tablet.begin();
    txn.put(chunk(1), Bytes::from_static(b"new"));
    txn.put(chunk(5), Bytes::from_static(b"more"));
    txn.delete(chunk(0));
    assert_eq!(txn.get(&chunk(0)).unwrap(), None);
    assert_eq!(txn.get(&chunk(1)).unwrap().unwrap(), "new");
    let shown: Vec<Key> = txn
        .scan(&chunk(0), 9)
        .unwrap()
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    assert_eq!(shown, [chunk(1), chunk(5)]);
    assert_holds(&*tablet.view(), 2, 10);
    drop(txn);
    assert_holds(&*tablet.view(), 2, 10);
    assert_eq!(tablet.applied().unwrap(), 1_u32.to_be_bytes().as_slice());
}

fn a_commit_brings_its_changes_and_its_mark_together(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    assert_eq!(tablet.applied(), None);
    let mut txn = tablet.begin();
    txn.put(Key::Head, Bytes::from_static(b"head"));
    tablet.commit(&txn, b"log 7").unwrap();
    assert_eq!(tablet.applied().unwrap(), "log 7");
    assert_eq!(tablet.view().get(&Key::Head).unwrap().unwrap(), "head");
    // An entry that changes nothing moves the mark all the same.
    tablet.commit(&tablet.begin(), b"log 8").unwrap();
    assert_eq!(tablet.applied().unwrap(), "log 8");
    tablet.flush().unwrap();
    drop((txn, tablet, store));
    let tablet = fixture.open().current();
    assert_eq!(tablet.applied().unwrap(), "log 8");
    assert_eq!(tablet.view().get(&Key::Head).unwrap().unwrap(), "head");
}

fn a_view_shows_one_commit_however_many_follow(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    commit(&tablet, 0..10, 3000);
    let view = tablet.view();
    for round in 0..20 {
        commit(&tablet, 0..10 + round, 100);
        tablet.flush().unwrap();
    }
    assert_holds(&*view, 10, 3000);
    assert_holds(&*tablet.view(), 29, 100);
}

fn a_reader_never_sees_half_a_commit(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    commit(&tablet, 0..8, 100);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                let view = tablet.view();
                let first = view.get(&chunk(0)).unwrap().unwrap();
                for number in 1..8 {
                    assert_eq!(
                        view.get(&chunk(number)).unwrap().unwrap().len(),
                        first.len()
                    );
                }
                let all = view.scan(&chunk(0), 8).unwrap();
                assert!(all.iter().all(|(_, value)| value.len() == first.len()));
                reads += 1;
            }
        });
        for round in 0..300 {
            commit(&tablet, 0..8, 100 + round);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

/// What may be kept in memory beside what is not: chunks tell which commit a view is of.
fn records_and_heads_are_of_the_same_commit_as_all_else(fixture: &Fixture) {
    const RECORDS: u8 = 4;
    let store = fixture.open();
    let tablet = store.current();
    let record = |number| Key::Session(TenantId(1), SessionId::from_bytes([number; 16]));
    // A record is changed in every commit, in every second one, and so on; each third time it is deleted.
    let expected = |number: u8, round: u32| {
        let changed = round / u32::from(number + 1);
        (!changed.is_multiple_of(3)).then(|| Bytes::copy_from_slice(&changed.to_be_bytes()))
    };
    let write = |round: u32| {
        let mut txn = tablet.begin();
        let bytes = Bytes::copy_from_slice(&round.to_be_bytes());
        txn.put(chunk(0), bytes.clone());
        txn.put(Key::Head, bytes);
        for number in (0..RECORDS).filter(|it| round.is_multiple_of(u32::from(it + 1))) {
            match expected(number, round) {
                Some(value) => txn.put(record(number), value),
                None => txn.delete(record(number)),
            }
        }
        // One that does not come to an end leaves nothing.
        let late = tablet.begin();
        tablet.commit(&txn, &round.to_be_bytes()).unwrap();
        assert!(tablet.commit(&late, b"late").is_err());
    };
    let check = |view: &dyn StateRead| {
        let round = view.get(&chunk(0)).unwrap().unwrap();
        let round = u32::from_be_bytes(round[..].try_into().unwrap());
        let head = view.get(&Key::Head).unwrap().unwrap();
        assert_eq!(head[..], round.to_be_bytes());
        let mut scanned = view.scan(&record(0), 9).unwrap().into_iter();
        for number in 0..RECORDS {
            let found = view.get(&record(number)).unwrap();
            assert_eq!(found, expected(number, round), "record {number} of {round}");
            if let Some(found) = found {
                assert_eq!(scanned.next(), Some((record(number), found)));
            }
        }
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut older = tablet.view();
            while !done.load(Ordering::Relaxed) {
                let view = tablet.view();
                check(&*view);
                check(&*older);
                older = view;
            }
        });
        for round in 1..400 {
            write(round);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    check(&*tablet.view());
}

fn a_second_writer_is_refused(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    let late = tablet.begin();
    commit(&tablet, 0..1, 10);
    let refused = tablet.commit(&late, b"late");
    assert!(matches!(refused, Err(TabletError::Conflict)));
    assert_eq!(tablet.applied().unwrap(), 0_u32.to_be_bytes().as_slice());
}

fn any_key() -> impl Strategy<Value = Key> {
    let tenant = (0..2_u32).prop_map(TenantId);
    let id = (0..6_u8).prop_map(|byte| SessionId::from_bytes([byte; 16]));
    prop_oneof![
        Just(Key::Head),
        (tenant.clone(), id.clone()).prop_map(|(t, id)| Key::Session(t, id)),
        (tenant.clone(), id.clone()).prop_map(|(t, id)| Key::Body(t, id)),
        (0..6_u8).prop_map(|byte| Key::Chunk(ChunkId([byte; 16]))),
        (0..300_u64, tenant, id)
            .prop_map(|(at, t, id)| Key::Due(UnixMillis(at), Due::Expire(t, id))),
    ]
}

fn a_tablet_behaves_as_a_sorted_map(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    let model = std::cell::RefCell::new(BTreeMap::<Key, Bytes>::new());
    let changes = prop::collection::vec((any_key(), prop::option::of(0..5000_usize)), 0..12);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    // Every case goes on with the tablet of the case before.
    let outcome = runner.run(
        &(changes, any_key(), 0..10_usize),
        |(changes, from, limit)| {
            let mut txn = tablet.begin();
            let mut model = model.borrow_mut();
            for (key, change) in changes {
                match change {
                    Some(length) => {
                        let value = value(7, length);
                        txn.put(key, value.clone());
                        model.insert(key, value);
                    }
                    None => {
                        txn.delete(key);
                        model.remove(&key);
                    }
                }
            }
            let same = |key: &Key| discriminant(key) == discriminant(&from);
            let range = model
                .range(from..)
                .take_while(|(key, _)| same(key))
                .take(limit);
            let expected: Vec<(Key, Bytes)> = range.map(|(k, v)| (*k, v.clone())).collect();
            prop_assert_eq!(&txn.scan(&from, limit).unwrap(), &expected);
            tablet.commit(&txn, b"mark").unwrap();
            let view = tablet.view();
            prop_assert_eq!(&view.scan(&from, limit).unwrap(), &expected);
            prop_assert_eq!(view.get(&from).unwrap(), model.get(&from).cloned());
            Ok(())
        },
    );
    outcome.unwrap();
}

fn a_clean_reopen_keeps_what_was_flushed(fixture: &Fixture) {
    let store = fixture.open();
    commit(&store.current(), 0..50, 3000);
    store.current().flush().unwrap();
    drop(store);
    let store = fixture.open();
    assert_holds(&*store.current().view(), 50, 3000);
    assert_eq!(verify(&*store.current()).unwrap().damaged, 0);
}

fn after_a_crash_mark_and_data_are_of_the_same_commit(fixture: &Fixture) {
    let mut undone = 0;
    for round in 0..4_u32 {
        let store = fixture.open();
        let tablet = store.current();
        // A crash leaves some commits; each goes on from there, as a replay does.
        let begin = applied(&*tablet);
        for number in begin..begin + 150 {
            commit(&tablet, number..number + 1, 1500);
            if number == begin + 40 * round {
                tablet.flush().unwrap();
            }
        }
        let durable = tablet.durable_applied().unwrap();
        fixture.crash();
        let store = fixture.open();
        let end = applied(&*store.current());
        // RocksDB may flush by itself between the two reads, so that more survives; never less.
        let promised = durable.map_or(0, |mark| number(&mark) + 1);
        assert!(
            promised > begin && end >= promised && end <= begin + 150,
            "{begin} {promised} {end}"
        );
        assert_holds(&*store.current().view(), end, 1500);
        undone += begin + 150 - end;
    }
    assert!(undone > 0, "no crash undid anything");
}

fn applied(tablet: &dyn Tablet) -> u32 {
    tablet.applied().map_or(0, |mark| number(&mark) + 1)
}

fn number(mark: &Bytes) -> u32 {
    u32::from_be_bytes(mark[..].try_into().unwrap())
}

fn what_a_crash_would_undo_is_known_and_bounded(fixture: &Fixture) {
    let store = fixture.open();
    let tablets = [store.current()];
    let policy = FlushPolicy {
        limit_bytes: 50_000,
    };
    for number in 0..200 {
        commit(&tablets[0], number..number + 1, 1000);
        policy.run(&tablets).unwrap();
        assert!(tablets[0].unflushed().unwrap().bytes <= 50_000);
    }
    tablets[0].flush().unwrap();
    assert_eq!(tablets[0].unflushed().unwrap().bytes, 0);
    assert_eq!(tablets[0].unflushed().unwrap().oldest, None);
    assert_eq!(tablets[0].durable_applied().unwrap(), tablets[0].applied());
}

fn the_tablet_with_the_oldest_unflushed_commit_is_flushed_first(fixture: &Fixture) {
    let one = fixture.engine.open(&fixture.path(), 1).unwrap().current();
    let two = fixture.engine.open(&fixture.path(), 2).unwrap().current();
    commit(&two, 0..1, 500);
    commit(&one, 0..1, 5000);
    let tablets = [Arc::clone(&one), Arc::clone(&two)];
    let policy = FlushPolicy { limit_bytes: 5000 };
    assert_eq!(policy.choose(&tablets).unwrap().unwrap().group(), 2);
    assert_eq!(policy.run(&tablets).unwrap(), 2);
    assert!(policy.choose(&tablets).unwrap().is_none());
    assert_eq!(fixture.engine.groups(&fixture.path()).unwrap(), [1, 2]);
}

fn large_and_small_and_empty_values_come_back(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    let lengths = [0, 1, 2042, 2043, 2044, 2047, 2048, 2049, 300_000, 1_100_000];
    let mut txn = tablet.begin();
    for (number, length) in (0..).zip(lengths) {
        txn.put(chunk(number), value(number, length));
    }
    tablet.commit(&txn, b"m").unwrap();
    for _ in 0..2 {
        for (number, length) in (0..).zip(lengths) {
            assert_eq!(
                tablet.view().get(&chunk(number)).unwrap(),
                Some(value(number, length))
            );
        }
        tablet.flush().unwrap();
    }
}

fn a_compaction_leaves_what_is_current_and_stops_when_it_is_told_to(fixture: &Fixture) {
    let store = fixture.open();
    let tablet = store.current();
    // In tables, and apart from them.
    for length in [1500, 20_000] {
        for _ in 0..4 {
            commit(&tablet, 0..400, length);
            tablet.flush().unwrap();
        }
    }
    let before = tablet.view();
    assert!(!store.compact(&|| false).unwrap());
    store.checkpoint().unwrap().seal().unwrap();
    commit(&tablet, 0..200, 1500);
    let bytes = bytes_of(&fixture.path());
    assert!(store.compact(&|| true).unwrap());
    assert_holds(&*before, 400, 20_000);
    drop(before);
    let holds = |view: &dyn StateRead| {
        for number in 0..400 {
            let length = if number < 200 { 1500 } else { 20_000 };
            let found = view.get(&chunk(number)).unwrap();
            assert!(found == Some(value(number, length)), "{number}");
        }
    };
    holds(&*tablet.view());
    assert_eq!(verify(&*tablet).unwrap().damaged, 0);
    let newest = store.snapshot().unwrap();
    assert_eq!(newest.manifest().applied, tablet.applied(), "a new one");
    drop(newest);
    // Again, now that neither a view nor a snapshot has the old ones: 200 values in tables and 200 apart, with what tables cost.
    assert!(store.compact(&|| true).unwrap());
    let least = 200 * 20_000;
    let after = bytes_of(&fixture.path());
    let few = if bytes == 0 { 0 } else { least + least / 4 };
    assert!(after <= few, "{bytes} bytes became {after}");
    tablet.flush().unwrap();
    drop((tablet, store));
    fixture.crash();
    holds(&*fixture.open().current().view());
}

/// Bytes of tables and bodies on the disk; links count once. Zero where nothing is on a disk.
fn bytes_of(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = 0;
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        if about.is_dir() {
            found += bytes_of(&entry.path());
        } else if name.ends_with(".sst") || name.ends_with(".blob") {
            found += about.len() / about.nlink();
        }
    }
    found
}
