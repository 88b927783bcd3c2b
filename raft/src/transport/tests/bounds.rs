//! Nothing grows without a bound, and bad bytes end the connection that brought them.

use super::*;
use crate::transport::CallError;
use crate::transport::queue::LaneLimits;

#[tokio::test]
async fn past_its_bound_a_lane_turns_calls_away_at_once() {
    let authority = authority();
    let mut small = config(&authority, 1);
    small.limits.data = LaneLimits {
        calls: 3,
        waiting_bytes: 1 << 20,
    };
    small.limits.bulk = LaneLimits {
        calls: 2,
        waiting_bytes: 1 << 20,
    };
    let (one, two) = (start(small), start(config(&authority, 2)));
    let peer = one.meet(&two);
    for (lane, bound) in [(Lane::Data, 3), (Lane::Bulk, 2)] {
        let held: Vec<_> = (0..bound)
            .map(|_| peer.send_call(call(lane, HOLD, "")).unwrap())
            .collect();
        assert_eq!(
            peer.send_call(call(lane, ECHO, "")).unwrap_err(),
            CallError::TooBusy
        );
        let control = peer.call(call(Lane::Control, ECHO, "still")).await.unwrap();
        assert_eq!(control, "still");
        until("all are held", || two.handlers.held.lock().len() == bound).await;
        for reply in two.handlers.held.lock().drain(..) {
            reply.send(Ok(Bytes::new()));
        }
        for reply in held {
            reply.await.unwrap();
        }
        until("there is room again", || peer.stats().in_flight == 0).await;
        peer.call(call(lane, ECHO, "")).await.unwrap();
    }
    assert_eq!(peer.stats().too_busy, 2);
}

#[tokio::test]
async fn a_body_above_its_lanes_limit_is_not_sent() {
    let (_one, _two, peer) = pair();
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        let body = Bytes::from(vec![0; lane.max_body() + 1]);
        assert_eq!(
            peer.send_call(call(lane, ECHO, body)).unwrap_err(),
            CallError::TooLarge
        );
    }
}

#[tokio::test]
async fn an_acceptor_reads_no_more_calls_than_it_may_hold() {
    let authority = authority();
    let mut small = config(&authority, 2);
    small.limits.answers.calls = 4;
    let (one, two) = (start(config(&authority, 1)), start(small));
    let peer = one.meet(&two);
    let calls: Vec<_> = (0..10)
        .map(|_| peer.send_call(call(Lane::Data, HOLD, "")).unwrap())
        .collect();
    until("four are held", || two.handlers.held.lock().len() == 4).await;
    peer.call(call(Lane::Control, ECHO, "")).await.unwrap();
    assert_eq!(two.handlers.held.lock().len(), 4);
    let mut answered = 0;
    while answered < 10 {
        let held: Vec<_> = two.handlers.held.lock().drain(..).collect();
        answered += held.len();
        held.into_iter()
            .for_each(|reply| reply.send(Ok(Bytes::new())));
        until_the_next_look().await;
    }
    for reply in calls {
        reply.await.unwrap();
    }
}

#[tokio::test]
async fn bytes_that_are_no_frames_close_the_connection_with_the_reason() {
    use super::super::wire::{FrameType, Header};
    let hello = |frame: FrameType, kind| Header {
        frame,
        kind,
        id: 0,
        group: 0,
        status: 0,
    };
    let mut wrong_version = hello(FrameType::Hello, 1).encode(0).to_vec();
    wrong_version[4] = 9;
    let cases: [(&str, Vec<Vec<u8>>); 5] = [
        ("version 9", vec![wrong_version]),
        (
            "not expected",
            vec![hello(FrameType::Call, 1).encode(0).to_vec()],
        ),
        (
            "above the limit",
            vec![hello(FrameType::Hello, 1).encode(u32::MAX).to_vec()],
        ),
        (
            "type 255",
            vec![
                hello(FrameType::Hello, 1).encode(0).to_vec(),
                [
                    hello(FrameType::Open, 2).encode(0).to_vec(),
                    vec![0, 0, 0, 0, 1, 255],
                    vec![0; 18],
                ]
                .concat(),
            ],
        ),
        (
            "not expected",
            vec![
                hello(FrameType::Hello, 1).encode(0).to_vec(),
                hello(FrameType::Open, 77).encode(0).to_vec(),
            ],
        ),
    ];
    let authority = authority();
    let node = start(config(&authority, 1));
    let tls = super::super::tls::Tls::new(&identity(&authority, 2)).unwrap();
    for (reason, streams) in cases {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = quinn::ClientConfig::new(Arc::clone(&tls.client) as _);
        let connecting = endpoint.connect_with(config, node.address(), "node-1.test.psp.internal");
        let connection = connecting.unwrap().await.unwrap();
        let mut kept = Vec::new();
        for bytes in streams {
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            let mut byte = [0];
            if kept.is_empty() {
                // The greeting's answer comes, or the connection closes.
                drop(recv.read(&mut byte).await);
            }
            kept.push((send, recv));
        }
        let closed = tokio::time::timeout(LONG, connection.closed())
            .await
            .unwrap();
        let quinn::ConnectionError::ApplicationClosed(close) = closed else {
            panic!("{closed}")
        };
        assert_eq!(close.error_code, super::super::codes::MALFORMED);
        let said = String::from_utf8(close.reason.to_vec()).unwrap();
        assert!(said.contains(reason), "{said} instead of {reason}");
    }
    assert!(node.handlers.seen.lock().is_empty());
}

#[tokio::test]
async fn a_nodes_newer_main_connection_replaces_its_older_one() {
    let authority = authority();
    let two = start(config(&authority, 2));
    let (first, second) = (start(config(&authority, 1)), start(config(&authority, 1)));
    let (old, new) = (first.meet(&two), second.meet(&two));
    old.call(call(Lane::Data, ECHO, "")).await.unwrap();
    let held = old.send_call(call(Lane::Data, HOLD, "")).unwrap();
    until("the call arrived", || two.handlers.held.lock().len() == 1).await;
    new.call(call(Lane::Data, ECHO, "")).await.unwrap();
    assert_eq!(held.await.unwrap_err(), CallError::Closed);
}

#[tokio::test]
async fn connections_have_a_bound_and_dialers_under_pressure_prove_their_address() {
    let authority = authority();
    let mut small = config(&authority, 9);
    small.limits.connections = 2;
    let node = start(small);
    let dialers: Vec<_> = (1..=3)
        .map(|number| start(config(&authority, number)))
        .collect();
    let peers: Vec<_> = dialers.iter().map(|dialer| dialer.meet(&node)).collect();
    // The second finds half of the places taken, and is asked to come again.
    for peer in &peers[..2] {
        peer.call(call(Lane::Control, ECHO, "")).await.unwrap();
    }
    let error = peers[2]
        .call(call(Lane::Control, ECHO, ""))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
    dialers[0].transport.close().await;
    until_answered(&peers[2], || call(Lane::Control, ECHO, "")).await;
}
