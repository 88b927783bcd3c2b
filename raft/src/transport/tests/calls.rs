//! Calls and replies: what goes in comes out, in order, once.

use super::*;
use crate::transport::CallError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_every_lane_are_answered() {
    let (one, two, peer) = pair();
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        let reply = peer.call(call(lane, ECHO, "a body")).await.unwrap();
        assert_eq!(reply, "a body");
        let empty = peer.call(call(lane, ECHO, "")).await.unwrap();
        assert!(empty.is_empty());
    }
    let seen = two.handlers.seen.lock();
    assert!(
        seen.iter()
            .all(|request| request.from == NodeId(1) && request.kind == ECHO)
    );
    assert_eq!(seen.len(), 6);
    drop(seen);
    let stats = peer.stats();
    assert_eq!((stats.calls, stats.in_flight, stats.connects), (6, 0, 2));
    assert!(stats.connected && one.transport.rtt(NodeId(2)).is_some());
    assert!(stats.bytes_out > 0 && stats.bytes_in > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_calls_arrive_in_the_order_in_which_they_were_queued() {
    let (_one, two, peer) = pair();
    let mut replies = Vec::new();
    for number in 0..2000_u32 {
        // Some large, so that frames span packets and writes.
        let length = if number % 97 == 0 { 300_000 } else { 10 };
        let mut body = number.to_be_bytes().to_vec();
        body.resize(length, 7);
        let lane = if number % 3 == 0 {
            Lane::Control
        } else {
            Lane::Data
        };
        let body = if lane == Lane::Control {
            body[..4].to_vec()
        } else {
            body
        };
        replies.push((number, peer.send_call(call(lane, ECHO, body)).unwrap()));
    }
    for (number, reply) in replies {
        let reply = reply.await.unwrap();
        assert_eq!(reply[..4], number.to_be_bytes());
    }
    for lane in [Lane::Control, Lane::Data] {
        let bodies = two.handlers.bodies(lane);
        assert!(
            bodies.is_sorted_by_key(|body| body[..4].to_vec()),
            "{lane:?}"
        );
    }
}

#[tokio::test]
async fn a_handlers_error_and_its_silence_reach_the_caller() {
    let (_one, _two, peer) = pair();
    for lane in [Lane::Data, Lane::Bulk] {
        let error = peer.call(call(lane, FAIL, "why")).await.unwrap_err();
        let CallError::Remote(error) = error else {
            panic!("{error}")
        };
        assert_eq!((error.code, error.detail), (77, Bytes::from_static(b"why")));
        let error = peer.call(call(lane, DROP, "")).await.unwrap_err();
        assert_eq!(
            error,
            CallError::Remote(RemoteError::code(RemoteError::DROPPED))
        );
    }
}

#[tokio::test]
async fn a_call_without_an_answer_times_out_with_an_unknown_outcome() {
    let (_one, two, peer) = pair();
    for lane in [Lane::Data, Lane::Bulk] {
        let mut held = call(lane, HOLD, "");
        held.timeout = Duration::from_millis(50);
        // The first call of a lane also dials.
        peer.call(call(lane, ECHO, "")).await.unwrap();
        let error = peer.call(held).await.unwrap_err();
        assert_eq!(error, CallError::Timeout);
        assert!(error.outcome_unknown());
    }
    assert_eq!(two.handlers.held.lock().len(), 2);
    until("the large call's place is free", || {
        peer.stats().in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn a_dead_address_fails_as_not_sent_and_then_at_once() {
    let authority = authority();
    let one = start(config(&authority, 1));
    let peer = one.transport.peer(NodeId(9));
    let error = peer.call(call(Lane::Data, ECHO, "")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)) && !error.outcome_unknown());

    let nobody = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    one.transport
        .set_address(NodeId(9), nobody.local_addr().unwrap());
    until("calls fail without waiting", || {
        matches!(
            peer.send_call(call(Lane::Data, ECHO, "")),
            Err(CallError::Unreachable(_))
        )
    })
    .await;
    let error = peer.call(call(Lane::Bulk, ECHO, "")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_found_again_and_sent_calls_end_unknown() {
    let authority = authority();
    let (one, two) = (start(config(&authority, 1)), start(config(&authority, 2)));
    let peer = one.meet(&two);
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    let held = peer.send_call(call(Lane::Data, HOLD, "")).unwrap();
    until("the call arrived", || two.handlers.held.lock().len() == 1).await;

    let mut again = config(&authority, 2);
    again.listen = two.address();
    two.transport.close().await;
    let error = held.await.unwrap_err();
    assert_eq!(error, CallError::Closed);
    assert!(error.outcome_unknown());

    let two = start(again);
    until_answered(&peer, || call(Lane::Data, ECHO, "back")).await;
    assert_eq!(two.handlers.bodies(Lane::Data), ["back"]);
}

#[test]
fn a_peer_that_died_without_a_word_is_found_again_at_once() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let authority = authority();
    let mut second = config(&authority, 2);
    let (ours, theirs) = (runtime(), runtime());
    let two = theirs.block_on(async { start(second.clone()) });
    second.listen = two.address();
    let one = ours.block_on(async { start(config(&authority, 1)) });
    let peer = one.meet(&two);
    ours.block_on(async {
        peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    });
    // Nothing of it runs any more, so nothing is said; the socket closes as in a killed process.
    theirs.shutdown_timeout(LONG);
    drop(two);
    let again = runtime();
    let two = again.block_on(async { start(second) });
    ours.block_on(async {
        let begin = tokio::time::Instant::now();
        until_answered(&peer, || call(Lane::Data, ECHO, "back")).await;
        println!("found again after {:?}", begin.elapsed());
        let idle = crate::transport::Timing::default().idle;
        assert!(
            begin.elapsed() < idle / 2,
            "it was not the idle timeout: {:?}",
            begin.elapsed()
        );
    });
    assert_eq!(two.handlers.bodies(Lane::Data), ["back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_talk_in_all_directions() {
    let authority = authority();
    let nodes: Vec<_> = (1..=3)
        .map(|node| start(config(&authority, node)))
        .collect();
    for from in &nodes {
        for to in &nodes {
            if from.transport.node() != to.transport.node() {
                let peer = from.meet(to);
                let body = format!("{}>{}", from.transport.node(), to.transport.node());
                assert_eq!(
                    peer.call(call(Lane::Control, ECHO, body.clone()))
                        .await
                        .unwrap(),
                    body
                );
            }
        }
    }
    for node in &nodes {
        assert_eq!(node.handlers.seen.lock().len(), 2);
        assert_eq!(node.transport.stats().len(), 2);
    }
    nodes[0].transport.forget(NodeId(2));
    assert_eq!(nodes[0].transport.stats().len(), 1);
}

#[tokio::test]
async fn a_forgotten_peers_calls_fail() {
    let (one, two, peer) = pair();
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    let held = peer.send_call(call(Lane::Data, HOLD, "")).unwrap();
    until("the call arrived", || two.handlers.held.lock().len() == 1).await;
    one.transport.forget(NodeId(2));
    assert_eq!(held.await.unwrap_err(), CallError::Closed);
    assert!(matches!(
        peer.send_call(call(Lane::Data, ECHO, "")).unwrap_err(),
        CallError::Unreachable(_)
    ));
}
