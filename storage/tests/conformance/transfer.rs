//! Checkpoints, their way to another node, install and removal.

use storage::error::TabletError;
use storage::snapshot::SnapshotManifest;
use storage::state::StateEngine;

use crate::fixture::{Fixture, assert_holds, chunk, commit, for_both_stores, send};

for_both_stores!(
    a_checkpoint_holds_its_commit_whatever_is_written_later,
    a_snapshot_makes_the_same_state_on_another_node,
    an_interrupted_arrival_goes_on_with_what_is_missing,
    a_damaged_piece_is_found_and_its_file_asked_for_again,
    an_incomplete_or_foreign_snapshot_is_refused,
    a_piece_out_of_order_is_refused,
    an_install_leaves_old_views_valid_and_is_there_after_a_crash,
    the_newest_snapshot_outlives_a_restart_and_a_held_one_its_successor,
    an_empty_tablet_has_a_snapshot_too,
    a_removed_group_is_gone_and_can_be_made_again,
);

fn a_checkpoint_holds_its_commit_whatever_is_written_later(fixture: &Fixture) {
    let store = fixture.open();
    commit(&store.current(), 0..30, 3000);
    let mut checkpoint = store.checkpoint().unwrap();
    commit(&store.current(), 0..60, 10);
    store.current().flush().unwrap();
    assert_eq!(
        checkpoint.applied().unwrap(),
        29_u32.to_be_bytes().as_slice()
    );
    let snapshot = checkpoint.seal().unwrap();
    assert_eq!(
        snapshot.manifest().applied.as_deref(),
        Some(29_u32.to_be_bytes().as_slice())
    );

    let other = fixture.another();
    let target = other.open();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    assert_holds(&*target.install(&receiver).unwrap().view(), 30, 3000);
    assert_holds(&*store.current().view(), 60, 10);
}

fn a_snapshot_makes_the_same_state_on_another_node(fixture: &Fixture) {
    let store = fixture.open();
    commit(&store.current(), 0..40, 20);
    commit(&store.current(), 40..60, 100_000);
    commit(&store.current(), 40..60, 20);
    commit(&store.current(), 60..80, 20);
    let snapshot = store.checkpoint().unwrap().seal().unwrap();
    let bytes = snapshot.manifest().encode();

    let other = fixture.another();
    let target = other.open();
    commit(&target.current(), 1000..1010, 50);
    let mut receiver = target
        .receive(SnapshotManifest::decode(&bytes).unwrap())
        .unwrap();
    let sent = send(&snapshot, &mut receiver, usize::MAX);
    assert!(sent <= snapshot.manifest().total_bytes());
    let tablet = target.install(&receiver).unwrap();
    assert_holds(&*tablet.view(), 80, 20);
    assert_eq!(tablet.applied(), store.current().applied());
    assert_eq!(tablet.durable_applied().unwrap(), tablet.applied());
    // It can be handed on at once.
    assert_eq!(target.snapshot().unwrap().manifest(), snapshot.manifest());
    commit(&tablet, 80..81, 20);
    assert_holds(&*target.current().view(), 81, 20);
}

fn an_interrupted_arrival_goes_on_with_what_is_missing(fixture: &Fixture) {
    let source = fixture.another();
    let store = source.open();
    commit(&store.current(), 0..50, 10_000);
    let snapshot = store.checkpoint().unwrap().seal().unwrap();
    let total = snapshot.manifest().total_bytes();

    let mut arrived = 0;
    for _ in 0..4 {
        let target = fixture.open();
        let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
        arrived += send(&snapshot, &mut receiver, 6);
        let missing: u64 = receiver
            .missing()
            .iter()
            .map(|missing| missing.length)
            .sum();
        assert!(missing <= total - arrived, "{missing} {total} {arrived}");
        assert!(matches!(
            target.install(&receiver),
            Err(TabletError::Incomplete { .. })
        ));
        drop((receiver, target));
        fixture.crash();
    }
    let target = fixture.open();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    arrived += send(&snapshot, &mut receiver, usize::MAX);
    assert!(arrived <= total, "{arrived} bytes were sent of {total}");
    assert_holds(&*target.install(&receiver).unwrap().view(), 50, 10_000);
}

fn a_damaged_piece_is_found_and_its_file_asked_for_again(fixture: &Fixture) {
    let source = fixture.another();
    let store = source.open();
    commit(&store.current(), 0..20, 3000);
    let snapshot = store.checkpoint().unwrap().seal().unwrap();
    let target = fixture.open();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    let missing = receiver.missing();
    let first = missing.iter().find(|missing| missing.length > 0).unwrap();
    let length = usize::try_from(first.length).unwrap();
    let mut piece = snapshot.read_at(first.file, 0, length).unwrap().to_vec();
    assert_eq!(piece.len(), length);
    piece[length / 2] ^= 0x10;
    let found = receiver.write_at(first.file, 0, &piece);
    assert!(
        matches!(found, Err(TabletError::Damaged { .. })),
        "{found:?}"
    );
    assert!(receiver.missing().contains(first));
    send(&snapshot, &mut receiver, usize::MAX);
    assert_holds(&*target.install(&receiver).unwrap().view(), 20, 3000);
}

fn an_incomplete_or_foreign_snapshot_is_refused(fixture: &Fixture) {
    let source = fixture.another();
    let store = source.open();
    commit(&store.current(), 0..20, 3000);
    let snapshot = store.checkpoint().unwrap().seal().unwrap();

    let target = fixture.open();
    commit(&target.current(), 0..3, 7);
    let receiver = target.receive(snapshot.manifest().clone()).unwrap();
    assert!(matches!(
        target.install(&receiver),
        Err(TabletError::Incomplete { .. })
    ));
    let another_group = fixture.engine.open(&fixture.path(), 5).unwrap();
    let refused = another_group.receive(snapshot.manifest().clone());
    assert!(matches!(refused, Err(TabletError::Refused { .. })));
    // A manifest that claims to be of another group does not help: the content says whose it is.
    let lie = SnapshotManifest {
        group: 5,
        ..snapshot.manifest().clone()
    };
    let mut receiver = another_group.receive(lie).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    assert!(another_group.install(&receiver).is_err());
    // Nor one that claims another commit.
    let lie = SnapshotManifest {
        applied: None,
        ..snapshot.manifest().clone()
    };
    let mut receiver = target.receive(lie).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    assert!(target.install(&receiver).unwrap_err().is_damage());
    assert_holds(&*target.current().view(), 3, 7);
}

fn a_piece_out_of_order_is_refused(fixture: &Fixture) {
    let source = fixture.another();
    let store = source.open();
    commit(&store.current(), 0..5, 3000);
    let snapshot = store.checkpoint().unwrap().seal().unwrap();
    let target = fixture.open();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    let missing = receiver.missing();
    let large = missing.iter().max_by_key(|missing| missing.length).unwrap();
    let refused = |outcome| matches!(outcome, Err(TabletError::Refused { .. }));
    assert!(refused(receiver.write_at(large.file, 1, b"x")));
    let too_long = vec![0; usize::try_from(large.length).unwrap() + 1];
    assert!(refused(receiver.write_at(large.file, 0, &too_long)));
    assert!(refused(receiver.write_at(usize::MAX, 0, b"x")));
    send(&snapshot, &mut receiver, usize::MAX);
    assert!(refused(receiver.write_at(large.file, 0, b"x")));
    target.install(&receiver).unwrap();
}

fn an_install_leaves_old_views_valid_and_is_there_after_a_crash(fixture: &Fixture) {
    let source = fixture.another();
    let store = source.open();
    commit(&store.current(), 0..20, 3000);
    let snapshot = store.checkpoint().unwrap().seal().unwrap();

    let target = fixture.open();
    commit(&target.current(), 0..10, 4000);
    let old = target.current().view();
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    target.install(&receiver).unwrap();
    assert_holds(&*old, 10, 4000);
    fixture.crash();
    let reopened = fixture.open();
    assert_holds(&*reopened.current().view(), 20, 3000);
    assert_eq!(reopened.snapshot().unwrap().manifest(), snapshot.manifest());
    drop((target, old));
}

fn the_newest_snapshot_outlives_a_restart_and_a_held_one_its_successor(fixture: &Fixture) {
    let store = fixture.open();
    assert!(store.snapshot().is_none());
    commit(&store.current(), 0..10, 3000);
    let first = store.checkpoint().unwrap().seal().unwrap();
    commit(&store.current(), 10..20, 3000);
    drop(store.checkpoint().unwrap());
    let second = store.checkpoint().unwrap().seal().unwrap();
    assert_eq!(
        store.snapshot().unwrap().manifest().id(),
        second.manifest().id()
    );
    let files = first.manifest().files.len();
    for file in 0..files {
        first.read_at(file, 0, 10).unwrap();
    }
    let id = second.manifest().id();
    drop((first, second, store));
    let store = fixture.open();
    assert_eq!(store.snapshot().unwrap().manifest().id(), id);
    if matches!(fixture.engine, StateEngine::RocksDb(_)) {
        let names = std::fs::read_dir(fixture.directory()).unwrap();
        let snapshots = names
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("snapshot-")
            })
            .count();
        assert_eq!(snapshots, 1);
    }
}

fn an_empty_tablet_has_a_snapshot_too(fixture: &Fixture) {
    let source = fixture.another();
    let snapshot = source.open().checkpoint().unwrap().seal().unwrap();
    assert_eq!(snapshot.manifest().applied, None);
    let target = fixture.open();
    commit(&target.current(), 0..3, 10);
    let mut receiver = target.receive(snapshot.manifest().clone()).unwrap();
    send(&snapshot, &mut receiver, usize::MAX);
    let tablet = target.install(&receiver).unwrap();
    assert_holds(&*tablet.view(), 0, 10);
    assert_eq!(tablet.applied(), None);
}

fn a_removed_group_is_gone_and_can_be_made_again(fixture: &Fixture) {
    let store = fixture.open();
    commit(&store.current(), 0..10, 3000);
    store.checkpoint().unwrap().seal().unwrap();
    store.remove().unwrap();
    assert!(matches!(store.checkpoint(), Err(TabletError::Removed)));
    assert!(fixture.engine.groups(&fixture.path()).unwrap().is_empty());
    drop(store);
    let store = fixture.open();
    assert!(store.snapshot().is_none());
    assert_eq!(store.current().applied(), None);
    assert_eq!(store.current().view().get(&chunk(1)).unwrap(), None);
}
