//! Chunks, and bodies that have some or none.

use super::*;

#[test]
fn an_expired_session_can_be_renewed_for_a_day_and_is_purged_with_its_chunks_after() {
    let mut shard = shard();
    let expires = Some(START.plus(Duration::from_secs(60)));
    shard.put_chunk(1);
    shard.create(
        session(1),
        Content {
            expires,
            ..chunked(&[1])
        },
    );
    shard.create(
        session(2),
        Content {
            expires,
            ..content("b")
        },
    );
    shard.now = START.plus(Duration::from_secs(61));
    shard.apply(Command::Sweep);
    let expired = shard
        .events
        .iter()
        .filter(|event| event.kind == EventKind::Expired)
        .count();
    assert_eq!(expired, 2);
    let renewed = shard.update(session(2), version(1), content("b"));
    assert!(matches!(renewed, Outcome::Written { .. }));
    shard.now = START.plus(PURGE_AFTER).plus(Duration::from_secs(59));
    shard.apply(Command::Sweep);
    assert!(matches!(shard.record(session(1)), Some(Record::Live(_))));
    shard.now = START.plus(PURGE_AFTER).plus(Duration::from_secs(60));
    shard.apply(Command::Sweep);
    assert!(matches!(
        shard.record(session(1)),
        Some(Record::Tombstone(_))
    ));
    assert_eq!(
        shard
            .state
            .get(&Key::Chunk(ChunkId([1; 16])))
            .expect("reads"),
        None
    );
    assert!(matches!(shard.record(session(2)), Some(Record::Live(_))));
}

#[test]
fn a_shared_chunk_stays_while_a_body_refers_to_it_and_goes_with_the_last() {
    let mut shard = shard();
    shard.put_chunk(1);
    shard.put_chunk(2);
    assert!(matches!(
        shard.create(session(1), chunked(&[1])).1,
        Outcome::Written { .. }
    ));
    assert!(matches!(
        shard.update(session(1), version(1), chunked(&[1, 2])),
        Outcome::Written { .. }
    ));
    assert!(shard.state.0.contains_key(&Key::Chunk(ChunkId([1; 16]))));
    shard.update(session(1), version(2), chunked(&[2]));
    assert!(!shard.state.0.contains_key(&Key::Chunk(ChunkId([1; 16]))));
    shard.delete(session(1));
    assert!(!shard.state.0.contains_key(&Key::Chunk(ChunkId([2; 16]))));
}

#[test]
fn a_body_whose_chunks_are_missing_is_refused_and_changes_nothing() {
    let mut shard = shard();
    shard.put_chunk(1);
    let before = shard.state.clone();
    let (_, outcome) = shard.create(session(1), chunked(&[1, 3]));
    assert_eq!(
        outcome,
        Outcome::Rejected(Rejection::ChunksMissing(vec![ChunkId([3; 16])]))
    );
    assert_eq!(shard.state, before);
}

#[test]
fn a_chunk_without_a_reference_goes_after_its_time_and_a_used_one_stays() {
    let mut shard = shard();
    shard.put_chunk(1);
    shard.put_chunk(2);
    shard.create(session(1), chunked(&[2]));
    shard.now = START.plus(CHUNK_TTL);
    shard.apply(Command::Sweep);
    assert!(!shard.state.0.contains_key(&Key::Chunk(ChunkId([1; 16]))));
    assert!(shard.state.0.contains_key(&Key::Chunk(ChunkId([2; 16]))));
    assert_eq!(
        counter(&shard.state, &Key::LooseChunkBytes(TENANT)).expect("reads"),
        0
    );
}

#[test]
fn another_tenant_sees_neither_session_nor_chunk() {
    let mut shard = shard();
    shard.put_chunk(1);
    shard.create(session(1), chunked(&[1]));
    let other = TenantId(2);
    let request = shard.tag();
    let (idempotency, expected) = (None, None);
    let delete = Command::Delete {
        tenant: other,
        session: session(1),
        request,
        idempotency,
        expected,
    };
    assert_eq!(shard.apply(delete), Outcome::Rejected(Rejection::NotFound));
    let request = shard.tag();
    let (key, content) = (Blob::default(), chunked(&[1]));
    let steal = Command::Create {
        tenant: other,
        session: session(2),
        request,
        idempotency: None,
        key,
        content,
    };
    let missing = vec![ChunkId([1; 16])];
    assert_eq!(
        shard.apply(steal),
        Outcome::Rejected(Rejection::ChunksMissing(missing))
    );
}

#[test]
fn a_body_without_chunks_is_not_read_when_it_is_replaced_or_deleted() {
    let mut shard = shard();
    let id = session(1);
    shard.create(id, content("a"));
    // What does not decode would fail whoever reads it.
    let damaged = Bytes::from_static(b"not a body");
    let body = Key::Body(TENANT, id);
    shard.state.put(body, damaged.clone());
    let written = shard.update(id, Version::FIRST, content("b"));
    assert!(matches!(written, Outcome::Written { .. }), "{written:?}");
    assert_ne!(shard.state.get(&body).unwrap(), Some(damaged.clone()));
    shard.state.put(body, damaged);
    let deleted = shard.delete(id);
    assert!(matches!(deleted, Outcome::Deleted { .. }), "{deleted:?}");
    assert_eq!(shard.state.get(&body).unwrap(), None);
}
