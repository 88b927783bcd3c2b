//! Writes: once, in order, with conditions, large and small, under faults.

use std::collections::BTreeSet;

use futures::future::join_all;
use model::document::CleanReport;
use model::id::NodeId;
use model::service::Refused;
use model::shard::IdempotencyTag;
use model::state::Key;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::*;
use crate::service::testing::{CallFault, Fault};

#[tokio::test]
async fn a_session_is_created_changed_read_and_deleted() {
    let region = region(1, 1);
    let session = created(&region, r#"{"name":"first","tags":["a"],"extra":1.50}"#).await;
    let reply = put(&region, session, r#"{"name":"second"}"#).await.unwrap();
    assert_eq!(reply.version, version(2));
    let stored = read(&region, 1, session).await.unwrap();
    assert_eq!(stored.version, version(2));
    let document = text(&stored);
    assert!(document.contains("second") && document.contains(r#""extra":1.50"#));
    let patch = write(&region, session, WriteOp::Patch(blob(r#"{"tags":null}"#)));
    let reply = region.service(1).write(patch).await.unwrap();
    assert_eq!(reply.stored.unwrap().sections.summary().tags.len(), 0);
    let delete = write(&region, session, WriteOp::Delete);
    let reply = region.service(1).write(delete.clone()).await.unwrap();
    assert_eq!((reply.version, reply.replayed), (version(3), false));
    let again = region.service(1).write(delete).await.unwrap();
    assert_eq!((again.version, again.replayed), (version(3), true));
    let gone = Err(Failure::Refused(Refused::NotFound));
    assert_eq!(read(&region, 1, session).await.map(|_| ()), gone);
    assert_eq!(put(&region, session, "{}").await.map(|_| ()), gone);
}

#[tokio::test]
async fn a_bad_body_is_refused_with_its_place_and_not_its_value() {
    let region = region(1, 1);
    let request = write(
        &region,
        new_session(&region),
        WriteOp::Create(blob(r#"{"cookies":[{"name":"hunter2","value":17}]}"#)),
    );
    let Err(Failure::Refused(Refused::BadDocument { text, path })) =
        region.service(1).write(request).await
    else {
        panic!("it was taken");
    };
    assert_eq!(path.as_deref(), Some("cookies[0].value"));
    assert!(!text.contains("hunter2"));
}

#[tokio::test]
async fn every_unknown_end_is_tried_again_and_applied_once() {
    let region = region(3, 3);
    let session = created(&region, r#"{"name":"0"}"#).await;
    let group = region.group(session);
    let faults = [
        Fault::UnknownApplied,
        Fault::UnknownLost,
        Fault::LeaderKilled(NodeId(2)),
        Fault::NotLeader(NodeId(3)),
        Fault::LeaderKilled(NodeId(1)),
    ];
    for (fault, revision) in faults.into_iter().zip(2..) {
        group.fault(fault.clone());
        let reply = put(&region, session, &format!(r#"{{"name":"{revision}"}}"#)).await;
        assert_eq!(reply.unwrap().version, version(revision), "{fault:?}");
    }
    let stored = read(&region, 3, session).await.unwrap();
    assert_eq!(stored.version, version(6));
    assert_eq!(stored.sections.summary().name, "6");
}

#[tokio::test]
async fn without_an_end_until_its_time_is_over_a_write_is_unknown() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    for _ in 0..100 {
        group.fault(Fault::UnknownLost);
        group.fault(Fault::DiskFull);
    }
    let mut request = write(&region, session, WriteOp::Put(blob("{}")));
    request.not_after = region.clock.now().plus(Duration::from_millis(300));
    let end = region.service(1).write(request).await.map(|_| ());
    assert_eq!(end, Err(Failure::Unknown));
}

#[tokio::test]
async fn a_try_that_comes_too_late_does_not_turn_unknown_into_no() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    group.fault(Fault::UnknownLost);
    group.fault(Fault::Delay(Duration::from_millis(100)));
    let mut request = write(&region, session, WriteOp::Put(blob("{}")));
    request.not_after = region.clock.now().plus(Duration::from_secs(3));
    let service = region.service(1);
    let late = async {
        until(|| group.faults_left() == 0).await;
        region.clock.advance(Duration::from_secs(10));
    };
    let (end, ()) = tokio::join!(service.write(request), late);
    assert_eq!(end.map(|_| ()), Err(Failure::Unknown));
    assert_eq!(
        read(&region, 1, session).await.unwrap().version,
        Version::FIRST
    );
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_and_nothing_is_changed() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    region.group(session).fault(Fault::DiskFull);
    let end = put(&region, session, "{}").await.map(|_| ());
    assert_eq!(end, Err(Failure::DiskFull));
}

#[tokio::test]
async fn thirty_two_writers_of_one_session_all_take_effect_in_order() {
    let region = region(3, 3);
    let session = created(&region, r#"{"name":"0"}"#).await;
    let group = region.group(session);
    let writers = (0..32_u64).map(|writer| {
        let patch = format!(r#"{{"w{writer}":{writer}}}"#);
        let request = write(&region, session, WriteOp::Patch(blob(&patch)));
        let service = region.service(writer % 3 + 1);
        let group = &group;
        async move {
            if writer % 5 == 0 {
                // The leader changes in the middle, so that two nodes' queues meet.
                group.lead(Some(NodeId(writer % 3 + 1)));
            }
            let reply = service.write(request).await.unwrap();
            let own = text(&reply.stored.unwrap());
            assert!(own.contains(&format!(r#""w{writer}":{writer}"#)));
            reply.version.revision
        }
    });
    let revisions: BTreeSet<u64> = join_all(writers).await.into_iter().collect();
    assert_eq!(revisions, (2..=33).collect());
    let document = text(&read(&region, 2, session).await.unwrap());
    for writer in 0..32 {
        assert!(document.contains(&format!(r#""w{writer}":{writer}"#)));
    }
}

#[tokio::test]
async fn a_condition_holds_for_the_version_or_the_write_is_refused() {
    let region = region(1, 1);
    let session = created(&region, "{}").await;
    let service = region.service(1);
    for op in [WriteOp::Put(blob("{}")), WriteOp::Delete] {
        let mut request = write(&region, session, op.clone());
        request.if_match = Some(vec![version(7)]);
        let end = service.write(request).await.map(|_| ());
        let current = Version::FIRST;
        assert_eq!(
            end,
            Err(Failure::Refused(Refused::VersionMismatch { current }))
        );
    }
    let racers = (0..8).map(|_| {
        let mut request = write(&region, session, WriteOp::Put(blob("{}")));
        request.if_match = Some(vec![Version::FIRST]);
        service.write(request)
    });
    let ends = join_all(racers).await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    let mut delete = write(&region, session, WriteOp::Delete);
    delete.if_match = Some(vec![Version::FIRST, version(2)]);
    assert_eq!(service.write(delete).await.unwrap().version, version(2));
}

#[tokio::test]
async fn an_idempotency_key_gives_the_first_answer_again_also_where_it_would_be_refused() {
    let region = region(1, 1);
    let service = region.service(1);
    let tag = |key, fingerprint| {
        Some(IdempotencyTag {
            key: [key; 32],
            fingerprint: [fingerprint; 32],
        })
    };
    let mut create = write(&region, new_session(&region), WriteOp::Create(blob("{}")));
    create.idempotency = tag(1, 1);
    let first = service.write(create.clone()).await.unwrap();
    // As a gateway does: another id in the same slot, another request.
    let birth = create.session;
    create.session = SessionId::new(birth.birth(), birth.slot(), keys::random());
    create.request = RequestId(keys::random());
    let second = service.write(create.clone()).await.unwrap();
    assert_eq!((second.session, second.replayed), (first.session, true));
    assert_eq!(second.stored.unwrap().session, first.session);
    create.idempotency = tag(1, 2);
    let reused = service.write(create).await.map(|_| ());
    assert_eq!(reused, Err(Failure::Refused(Refused::KeyReused)));

    let mut put = write(&region, first.session, WriteOp::Put(blob("{}")));
    put.idempotency = tag(2, 1);
    put.if_match = Some(vec![Version::FIRST]);
    assert_eq!(
        service.write(put.clone()).await.unwrap().version,
        version(2)
    );
    put.request = RequestId(keys::random());
    let again = service.write(put).await.unwrap();
    assert_eq!((again.version, again.replayed), (version(2), true));

    let mut delete = write(&region, first.session, WriteOp::Delete);
    delete.idempotency = tag(3, 1);
    service.write(delete.clone()).await.unwrap();
    delete.request = RequestId(keys::random());
    assert!(service.write(delete).await.unwrap().replayed);
}

/// A body of about this many bytes that does not compress.
fn noise(bytes: usize) -> Blob {
    let mut raw = vec![0; bytes / 2];
    blake3::Hasher::new()
        .update(b"noise")
        .finalize_xof()
        .fill(&mut raw);
    blob(&format!(r#"{{"extra":"{}"}}"#, hex::encode(raw)))
}

#[tokio::test]
async fn thirty_mebibytes_travel_in_chunks_there_and_back_over_another_node() {
    let region = region(3, 2);
    let session = new_session(&region);
    let body = noise(30 * 1024 * 1024);
    let request = write(&region, session, WriteOp::Create(body.clone()));
    region.group(session).fault(Fault::ChunksGone);
    let reply = region.service(3).write(request).await.unwrap();
    let sections = reply.stored.unwrap().sections;
    assert!(sections.len() >= body.0.len() - 64);
    let chunks = |node| {
        let stored = region.group(session).stored(NodeId(node)).0;
        stored
            .into_iter()
            .filter(|(key, _)| matches!(key, Key::Chunk(_)))
            .map(|(_, value)| value.len())
            .collect::<Vec<_>>()
    };
    assert!(chunks(1).len() >= 15 && chunks(1).iter().all(|len| *len < 1_050_000));
    assert_eq!(read(&region, 2, session).await.unwrap().sections, sections);
    assert_eq!(read(&region, 3, session).await.unwrap().sections, sections);
    put(&region, session, r#"{"extra":1}"#).await.unwrap();
    assert!(chunks(1).is_empty());
}

#[tokio::test]
async fn nothing_of_a_document_is_readable_in_a_replica() {
    let region = region(1, 1);
    let body = r#"{"name":"very-secret-name","tags":["very-secret-tag"],
        "cookies":[{"name":"sid","value":"hunter2","domain":"bank.example","path":"/"}]}"#;
    let session = created(&region, body).await;
    for (key, value) in region.group(session).stored(NodeId(1)).0 {
        for secret in [
            "very-secret-name",
            "very-secret-tag",
            "hunter2",
            "bank.example",
        ] {
            let found = value
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {key:?}");
        }
    }
}

#[tokio::test]
async fn a_write_at_another_node_reaches_the_leader_whatever_happens_to_its_calls() {
    let region = region(3, 2);
    let session = created(&region, "{}").await;
    let request = write(&region, session, WriteOp::Put(blob(r#"{"name":"far"}"#)));
    for fault in [
        CallFault::NotSent,
        CallFault::RequestLost,
        CallFault::AnswerLost,
    ] {
        region.call_fault(fault);
    }
    let reply = region.service(3).write(request).await.unwrap();
    assert_eq!(reply.version, version(2));
    assert_eq!(reply.stored.unwrap().sections.summary().name, "far");
    assert_eq!(read(&region, 3, session).await.unwrap().version, version(2));
}

#[tokio::test]
async fn a_killed_leader_costs_no_client_an_error() {
    let region = region(3, 3);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    region.kill(1);
    let new_leader = async {
        until(|| region.calls() > 2).await;
        group.lead(Some(NodeId(3)));
    };
    let request = write(&region, session, WriteOp::Put(blob("{}")));
    let service = region.service(2);
    let (reply, ()) = tokio::join!(service.write(request), new_leader);
    assert_eq!(reply.unwrap().version, version(2));
}

#[tokio::test]
async fn clean_removes_expired_cookies_and_reports() {
    let region = region(1, 1);
    let body = r#"{"cookies":[{"name":"a","value":"1","domain":"x","path":"/","expires":1},
        {"name":"b","value":"2","domain":"x","path":"/","expires":-1}]}"#;
    let session = created(&region, body).await;
    let request = write(&region, session, WriteOp::Clean);
    let reply = region.service(1).write(request).await.unwrap();
    let (removed, remaining) = (1, 1);
    assert_eq!(reply.clean, Some(CleanReport { removed, remaining }));
    assert_eq!(reply.stored.unwrap().sections.summary().cookie_count, 1);
}

#[tokio::test]
async fn past_its_bounds_a_node_says_so_at_once() {
    let config = ServiceConfig {
        max_requests: 1,
        max_waiters: 0,
        ..config()
    };
    let region = FakeRegion::new(2, 1, 1, &config);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    group.fault(Fault::Delay(Duration::from_millis(300)));
    let service = region.service(1);
    let (slow, refused, queued) = tokio::join!(
        service.write(write(&region, session, WriteOp::Put(blob("{}")))),
        async {
            until(|| group.faults_left() == 0).await;
            put(&region, session, "{}").await
        },
        async {
            until(|| group.faults_left() == 0).await;
            let request = write(&region, session, WriteOp::Put(blob("{}")));
            region.service(2).write(request).await
        }
    );
    assert!(slow.is_ok());
    assert!(matches!(refused, Err(Failure::Unavailable { .. })));
    assert!(matches!(
        queued,
        Err(Failure::Refused(Refused::TooManyRequests { .. }))
    ));
}

#[tokio::test]
async fn under_random_faults_each_write_is_applied_once() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let region = region(3, 3);
    let session = created(&region, "{}").await;
    let group = region.group(session);
    let mut revision = 1;
    for round in 0..60_u32 {
        for _ in 0..random.random_range(0..4) {
            let node = NodeId(random.random_range(1..=3));
            match random.random_range(0..8) {
                0 => group.fault(Fault::UnknownApplied),
                1 => group.fault(Fault::UnknownLost),
                2 => group.fault(Fault::LeaderKilled(node)),
                3 => group.fault(Fault::NotLeader(node)),
                4 => region.call_fault(CallFault::AnswerLost),
                5 => region.call_fault(CallFault::RequestLost),
                6 => region.call_fault(CallFault::NotSent),
                _ => group.fault(Fault::Delay(Duration::from_millis(10))),
            }
        }
        region.clock.advance(Duration::from_millis(200));
        let patch = format!(r#"{{"last":{round}}}"#);
        let request = write(&region, session, WriteOp::Patch(blob(&patch)));
        let node = random.random_range(1..=3);
        let reply = region.service(node).write(request).await.unwrap();
        revision += 1;
        assert_eq!(reply.version, version(revision), "round {round}");
    }
}

#[tokio::test]
async fn a_write_is_made_on_top_of_one_that_is_under_way() {
    let region = region(3, 3);
    let session = created(&region, r#"{"name":"none"}"#).await;
    let slow = Duration::from_millis(400);
    region.group(session).fault(Fault::SlowAnswer(slow));
    let from = Instant::now();
    let first = put(&region, session, r#"{"name":"one"}"#);
    let second = async {
        let reply = put(&region, session, r#"{"description":"two"}"#).await;
        (reply, from.elapsed())
    };
    let (first, (second, took)) = tokio::join!(first, second);
    assert_eq!(first.unwrap().version, version(2));
    assert_eq!(second.unwrap().version, version(3));
    assert!(took < slow, "it waited for the one before it: {took:?}");
    let now = text(&read(&region, 2, session).await.unwrap());
    assert!(
        now.contains(r#""name":"one""#) && now.contains(r#""description":"two""#),
        "{now}"
    );
}

#[tokio::test]
async fn what_was_made_on_top_of_a_lost_write_is_made_again() {
    let region = region(3, 3);
    let session = created(&region, r#"{"name":"none"}"#).await;
    let slow = Duration::from_millis(50);
    region.group(session).fault(Fault::SlowLost(slow));
    let first = put(&region, session, r#"{"name":"one"}"#);
    let others = (0..20).map(|number| {
        let (region, body) = (
            &region,
            format!(r#"{{"metadata":{{"key{number}":{number}}}}}"#),
        );
        async move {
            let request = write(region, session, WriteOp::Patch(blob(&body)));
            region.service(1).write(request).await
        }
    });
    let (first, others) = tokio::join!(first, join_all(others));
    assert!(
        first.is_ok() && others.iter().all(Result::is_ok),
        "{first:?}, {others:?}"
    );
    let stored = read(&region, 2, session).await.unwrap();
    assert_eq!(stored.version, version(22), "each was applied once");
    let now = text(&stored);
    assert!(now.contains(r#""name":"one""#), "{now}");
    for number in 0..20 {
        assert!(
            now.contains(&format!(r#""key{number}":{number}"#)),
            "{number} is lost: {now}"
        );
    }
}

#[tokio::test]
async fn a_condition_is_judged_by_what_is_applied_not_by_what_is_under_way() {
    let region = region(3, 3);
    let session = created(&region, r#"{"name":"none"}"#).await;
    region
        .group(session)
        .fault(Fault::SlowLost(Duration::from_millis(50)));
    let first = put(&region, session, r#"{"name":"one"}"#);
    let second = async {
        let mut request = write(&region, session, WriteOp::Put(blob(r#"{"name":"two"}"#)));
        request.if_match = Some(vec![version(1)]);
        region.service(1).write(request).await
    };
    let (_, second) = tokio::join!(first, second);
    // The first was lost when the second was judged: version 1 it was, unless the first was applied again before.
    match second {
        Ok(reply) => assert_eq!(reply.version, version(2)),
        Err(Failure::Refused(Refused::VersionMismatch { current })) => {
            assert_eq!(current, version(2));
        }
        Err(other) => panic!("{other:?}"),
    }
}
