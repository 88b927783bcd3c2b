//! Watches: order, resumption, coalescing, ends, and nodes without a replica.

use futures::StreamExt;
use model::service::{Change, Changes, Refused};
use model::shard::Command;

use super::*;
use crate::service::testing::FakeRegion;
use crate::shard::EventSink;
use model::placement;

async fn watched(
    region: &FakeRegion,
    node: u64,
    session: SessionId,
    from: Option<u64>,
) -> Result<Changes, Failure> {
    let service = region.service(node);
    service.watch(TENANT, session, from.map(version)).await
}

/// A change in short: what, revision, resync.
async fn heard(changes: &mut Changes) -> Option<(&'static str, u64, bool)> {
    let next = tokio::time::timeout(Duration::from_secs(20), changes.next());
    Some(match next.await.expect("a change comes in time")? {
        Change::Updated { stored, resync } => ("updated", stored.version.revision, resync),
        Change::Deleted { version } => ("deleted", version.revision, false),
        Change::Expired { version } => ("expired", version.revision, false),
    })
}

async fn puts(region: &FakeRegion, session: SessionId, count: usize) {
    for _ in 0..count {
        put(region, session, "{}").await.unwrap();
    }
}

#[tokio::test]
async fn changes_come_in_order_until_the_session_is_gone() {
    let region = region(3, 3);
    let session = created(&region, "{}").await;
    for node in [1, 2] {
        let mut changes = watched(&region, node, session, None).await.unwrap();
        let before = read(&region, 1, session).await.unwrap().version.revision;
        puts(&region, session, 3).await;
        for revision in before + 1..=before + 3 {
            assert_eq!(
                heard(&mut changes).await,
                Some(("updated", revision, false))
            );
        }
    }
    let mut changes = watched(&region, 3, session, None).await.unwrap();
    let delete = write(&region, session, WriteOp::Delete);
    region.service(1).write(delete).await.unwrap();
    assert_eq!(heard(&mut changes).await, Some(("deleted", 8, false)));
    assert_eq!(heard(&mut changes).await, None);
    let end = watched(&region, 3, session, None).await.map(|_| ());
    assert_eq!(end, Err(Failure::Refused(Refused::NotFound)));
}

#[tokio::test]
async fn a_watch_resumes_from_a_version_whole_or_with_a_resync() {
    let config = ServiceConfig {
        history_bytes: 5000,
        ..config()
    };
    let region = FakeRegion::new(1, 1, 1, &config);
    let session = created(&region, "{}").await;
    puts(&region, session, 3).await;
    let mut changes = watched(&region, 1, session, Some(2)).await.unwrap();
    assert_eq!(heard(&mut changes).await, Some(("updated", 3, false)));
    assert_eq!(heard(&mut changes).await, Some(("updated", 4, false)));
    puts(&region, session, 30).await;
    let mut changes = watched(&region, 1, session, Some(2)).await.unwrap();
    assert_eq!(heard(&mut changes).await, Some(("updated", 34, true)));
    puts(&region, session, 1).await;
    assert_eq!(heard(&mut changes).await, Some(("updated", 35, false)));
}

#[tokio::test]
async fn a_slow_watcher_gets_the_newest_and_is_told() {
    let config = ServiceConfig {
        watcher_queue: 4,
        ..config()
    };
    let region = FakeRegion::new(1, 1, 1, &config);
    let session = created(&region, "{}").await;
    let mut changes = watched(&region, 1, session, None).await.unwrap();
    puts(&region, session, 9).await;
    assert_eq!(heard(&mut changes).await, Some(("updated", 10, true)));
    puts(&region, session, 1).await;
    assert_eq!(heard(&mut changes).await, Some(("updated", 11, false)));
}

#[tokio::test]
async fn a_snapshot_that_replaces_the_state_begins_anew() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    let mut changes = watched(&region, 1, session, None).await.unwrap();
    puts(&region, session, 2).await;
    let (_, shards) = (region.region(), 3);
    let group = placement::group_of(session, shards);
    region.service(1).replaced(group);
    assert_eq!(heard(&mut changes).await, Some(("updated", 3, true)));
}

#[tokio::test]
async fn the_end_of_a_session_s_time_is_told_and_its_renewal() {
    let region = region(2, 1);
    let expires = |seconds| {
        let at = region.clock.now().plus(Duration::from_secs(seconds));
        let at = model::document::format_date(at);
        format!(r#"{{"timestamps":{{"expires":"{at}"}}}}"#)
    };
    let session = created(&region, &expires(10)).await;
    let mut here = watched(&region, 1, session, None).await.unwrap();
    let mut there = watched(&region, 2, session, None).await.unwrap();
    region.clock.advance(Duration::from_secs(11));
    region.group(session).commit(Command::Sweep);
    assert_eq!(heard(&mut here).await, Some(("expired", 1, false)));
    assert_eq!(heard(&mut there).await, Some(("expired", 1, false)));
    put(&region, session, &expires(10)).await.unwrap();
    assert_eq!(heard(&mut here).await, Some(("updated", 2, false)));
    assert_eq!(heard(&mut there).await, Some(("updated", 2, false)));
}

#[tokio::test]
async fn a_node_without_a_replica_is_told_too() {
    let region = region(3, 2);
    let session = created(&region, "{}").await;
    puts(&region, session, 2).await;
    let mut changes = watched(&region, 3, session, Some(2)).await.unwrap();
    assert_eq!(heard(&mut changes).await, Some(("updated", 3, false)));
    puts(&region, session, 2).await;
    assert_eq!(heard(&mut changes).await, Some(("updated", 5, true)));
    let delete = write(&region, session, WriteOp::Delete);
    region.service(1).write(delete).await.unwrap();
    assert_eq!(heard(&mut changes).await, Some(("deleted", 6, false)));
    assert_eq!(heard(&mut changes).await, None);
}

#[tokio::test]
async fn watches_are_bounded_and_end_with_the_node() {
    let config = ServiceConfig {
        max_watchers: 1,
        ..config()
    };
    let region = FakeRegion::new(1, 1, 1, &config);
    let session = created(&region, "{}").await;
    let mut changes = watched(&region, 1, session, None).await.unwrap();
    let more = watched(&region, 1, session, None).await.map(|_| ());
    assert!(matches!(more, Err(Failure::Unavailable { .. })));
    region.service(1).close();
    assert_eq!(heard(&mut changes).await, None);
}
