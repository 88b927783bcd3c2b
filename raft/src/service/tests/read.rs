//! Reads: fresh, local, expired, damaged.

use model::id::NodeId;
use model::service::Refused;
use model::state::{Key, StateWrite};

use super::*;

fn expiring(region: &FakeRegion, seconds: u64) -> String {
    let at = region.clock.now().plus(Duration::from_secs(seconds));
    let at = model::document::format_date(at);
    format!(r#"{{"name":"short","timestamps":{{"expires":"{at}"}}}}"#)
}

#[tokio::test]
async fn every_node_reads_what_was_written() {
    let region = region(3, 2);
    let session = created(&region, r#"{"name":"x"}"#).await;
    for node in 1..=3 {
        let stored = read(&region, node, session).await.unwrap();
        assert_eq!(stored.sections.summary().name, "x");
    }
}

#[tokio::test]
async fn a_known_version_is_answered_without_a_document() {
    let region = region(2, 1);
    let session = created(&region, "{}").await;
    for node in 1..=2 {
        let mut request = reading(session);
        request.known = vec![version(9), Version::FIRST];
        let reply = region.service(node).read(request).await.unwrap();
        assert!(matches!(
            reply,
            ReadReply::Unchanged { version, staleness: None } if version == Version::FIRST
        ));
    }
}

#[tokio::test]
async fn sessions_of_others_and_ids_that_are_not_ours_are_not_found() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    let mut other = reading(session);
    other.tenant = TenantId(2);
    let foreign = reading(SessionId::from_bytes([0; 16]));
    for request in [other, foreign] {
        let end = region.service(1).read(request).await.map(|_| ());
        assert_eq!(end, Err(Failure::Refused(Refused::NotFound)));
    }
}

#[tokio::test]
async fn an_expired_session_is_gone_at_every_node_until_it_is_renewed() {
    let region = region(3, 2);
    let session = created(&region, &expiring(&region, 60)).await;
    assert!(read(&region, 2, session).await.is_ok());
    region.clock.advance(Duration::from_secs(61));
    for node in [2, 1, 3] {
        let end = read(&region, node, session).await.map(|_| ());
        assert!(
            matches!(end, Err(Failure::Refused(Refused::Expired { .. }))),
            "{end:?}"
        );
    }
    let clean = write(&region, session, WriteOp::Clean);
    let end = region.service(1).write(clean).await.map(|_| ());
    assert!(matches!(
        end,
        Err(Failure::Refused(Refused::Expired { .. }))
    ));
    let renewed = put(&region, session, &expiring(&region, 60)).await.unwrap();
    assert_eq!(renewed.version, version(2));
    for node in 1..=3 {
        assert_eq!(
            read(&region, node, session).await.unwrap().version,
            version(2)
        );
    }
}

#[tokio::test]
async fn a_replica_that_lags_is_not_asked_for_fresh_data() {
    let region = region(2, 2);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    group.lag(NodeId(2), true);
    put(&region, session, "{}").await.unwrap();
    assert_eq!(read(&region, 2, session).await.unwrap().version, version(2));
}

#[tokio::test]
async fn a_local_read_says_its_age_and_waits_for_the_version_named() {
    let region = region(2, 2);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    group.lag(NodeId(2), true);
    put(&region, session, "{}").await.unwrap();
    let service = region.service(2);
    let local = |at_least| ReadRequest {
        consistency: Consistency::Local { at_least },
        timeout: Duration::from_secs(1),
        ..reading(session)
    };
    let ReadReply::Found { stored, staleness } = service.read(local(None)).await.unwrap() else {
        panic!("no version was known");
    };
    assert_eq!(stored.version, Version::FIRST);
    assert_eq!(staleness, Some(Duration::from_secs(1)));

    let (reply, ()) = tokio::join!(service.read(local(Some(version(2)))), async {
        tokio::task::yield_now().await;
        group.lag(NodeId(2), false);
    });
    let Ok(ReadReply::Found { stored, .. }) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(stored.version, version(2));

    group.lag(NodeId(2), true);
    put(&region, session, "{}").await.unwrap();
    let reply = service.read(local(Some(version(3)))).await;
    let Ok(ReadReply::Found { stored, staleness }) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!((stored.version, staleness), (version(3), None));

    let end = service.read(local(Some(version(9)))).await.map(|_| ());
    assert!(matches!(end, Err(Failure::Unavailable { .. })), "{end:?}");
}

#[tokio::test]
async fn a_version_of_a_lost_branch_is_refused() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    let lost = Version {
        epoch: 0,
        revision: 5,
    };
    let request = ReadRequest {
        consistency: Consistency::Local {
            at_least: Some(lost),
        },
        ..reading(session)
    };
    let end = region.service(1).read(request).await.map(|_| ());
    assert_eq!(end, Err(Failure::Refused(Refused::BranchLost)));
}

#[tokio::test]
async fn damage_is_never_served_and_another_replica_is_asked() {
    let region = region(2, 2);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    let damage = |node| {
        group.damage(NodeId(node), |state| {
            let key = Key::Body(TENANT, session);
            let mut bytes = state.0[&key].to_vec();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            state.put(key, Bytes::from(bytes));
        });
    };
    damage(2);
    assert!(read(&region, 2, session).await.is_ok());
    region.service(1).inner.cache.clear();
    damage(1);
    for node in 1..=2 {
        let end = read(&region, node, session).await.map(|_| ());
        assert_eq!(end, Err(Failure::Damaged));
    }
}

#[tokio::test]
async fn without_a_leader_a_read_ends_in_time() {
    let region = region(2, 2);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    group.lead(None);
    assert_eq!(region.service(1).leaderless().len(), 1);
    let mut request = reading(session);
    request.timeout = Duration::from_millis(300);
    let end = region.service(1).read(request.clone()).await.map(|_| ());
    assert!(matches!(end, Err(Failure::Unavailable { .. })));
    region.service(1).close();
    group.lead(Some(NodeId(1)));
    let end = region.service(1).read(request).await.map(|_| ());
    assert!(matches!(end, Err(Failure::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_or_stops_says_so_at_once() {
    let region = region(2, 2);
    let session = created(&region, "{}").await;
    region.service(1).close();
    let begun = tokio::time::Instant::now();
    let ends = [
        region.service(1).read(reading(session)).await.map(|_| ()),
        put(&region, session, "{}").await.map(|_| ()),
        region
            .service(1)
            .watch(TENANT, session, None)
            .await
            .map(|_| ()),
    ];
    for end in ends {
        assert!(matches!(end, Err(Failure::Unavailable { .. })), "{end:?}");
    }
    assert!(begun.elapsed().is_zero());
}
