//! The network within the process: as real, and with faults on demand. Time is paused.

use super::*;
use crate::transport::CallError;
use crate::transport::testing::{Link, Net};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn net(count: u64) -> (Net, Vec<Node>) {
    let net = Net::new(7);
    let nodes = (1..=count)
        .map(|number| node(&net, NodeId(number)))
        .collect();
    (net, nodes)
}

fn node(net: &Net, id: NodeId) -> Node {
    let handlers = Arc::new(Handlers::default());
    Node {
        transport: net.join(id, Arc::clone(&handlers) as _),
        handlers,
    }
}

#[tokio::test(start_paused = true)]
async fn calls_streams_and_greetings_work_as_over_quic() {
    let (_net, nodes) = net(2);
    let peer = nodes[0].transport.peer(B);
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        assert_eq!(
            peer.call(call(lane, ECHO, "a body")).await.unwrap(),
            "a body"
        );
    }
    assert_eq!(nodes[1].handlers.greeted.lock().len(), 2);
    let open = StreamOpen {
        kind: Kind(3),
        group: GroupId::Meta,
        header: Bytes::from_static(b"header"),
    };
    let mut stream = peer.open_stream(open).await.unwrap();
    stream.writer.finish().await.unwrap();
    assert_eq!(stream.reader.next().await.unwrap().unwrap(), "header");
    assert_eq!(stream.reader.next().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn delay_and_loss_cost_time_but_keep_the_order() {
    let (net, nodes) = net(2);
    let ms = Duration::from_millis;
    net.set_links(Link {
        delay: ms(5)..=ms(15),
        loss: 0.3,
    });
    let peer = nodes[0].transport.peer(B);
    let begin = tokio::time::Instant::now();
    let replies: Vec<_> = (0..200_u32)
        .map(|n| {
            peer.send_call(call(Lane::Data, ECHO, n.to_be_bytes().to_vec()))
                .unwrap()
        })
        .collect();
    for reply in replies {
        reply.await.unwrap();
    }
    for number in 0..20_u32 {
        peer.call(call(Lane::Data, ECHO, number.to_be_bytes().to_vec()))
            .await
            .unwrap();
    }
    assert!(begin.elapsed() >= ms(200), "{:?}", begin.elapsed());
    assert!(nodes[1].handlers.bodies(Lane::Data)[..200].is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_delays_and_a_long_one_breaks() {
    let (net, nodes) = net(2);
    let peer = nodes[0].transport.peer(B);
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();

    net.cut(B, A);
    let late = peer.send_call(call(Lane::Data, ECHO, "late")).unwrap();
    until("the call arrived", || {
        nodes[1].handlers.bodies(Lane::Data).len() == 2
    })
    .await;
    net.heal(B, A);
    assert_eq!(late.await.unwrap(), "late");

    net.cut(A, B);
    assert_eq!(
        peer.call(call(Lane::Data, ECHO, "lost")).await.unwrap_err(),
        CallError::Closed
    );
    until("calls fail at once", || {
        matches!(
            peer.send_call(call(Lane::Data, ECHO, "")),
            Err(CallError::Unreachable(_))
        )
    })
    .await;
    net.heal_all();
    until_answered(&peer, || call(Lane::Data, ECHO, "back")).await;
    let seen = nodes[1].handlers.bodies(Lane::Data);
    assert!(
        !seen.contains(&Bytes::from_static(b"lost")),
        "it died with its connection"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crashed_node_is_silent_and_its_return_is_noticed_at_once() {
    let (net, mut nodes) = net(2);
    let peer = nodes[0].transport.peer(B);
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    let held = peer.send_call(call(Lane::Data, HOLD, "")).unwrap();
    until("the call arrived", || {
        nodes[1].handlers.held.lock().len() == 1
    })
    .await;
    let begin = tokio::time::Instant::now();
    net.crash(B);
    nodes.truncate(1);
    let again = node(&net, B);
    assert_eq!(held.await.unwrap_err(), CallError::Closed);
    assert!(begin.elapsed() < Duration::from_millis(100));
    until_answered(&peer, || call(Lane::Data, ECHO, "")).await;
    assert_eq!(again.handlers.seen.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_a_stopped_node_are_told() {
    let (_net, nodes) = net(2);
    let refusal = Refusal {
        code: 3,
        reason: "old disk".to_owned(),
    };
    *nodes[1].handlers.refusing.lock() = Some(refusal.clone());
    let peer = nodes[0].transport.peer(B);
    let error = peer.call(call(Lane::Control, ECHO, "")).await.unwrap_err();
    assert_eq!(error, CallError::Refused(refusal));
    nodes[1].transport.close().await;
    let error = peer.call(call(Lane::Bulk, ECHO, "")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
}

/// What happens, and when, with faults from a seed.
async fn history(seed: u64) -> Vec<String> {
    let net = Net::new(seed);
    let ms = Duration::from_millis;
    net.set_links(Link {
        delay: ms(1)..=ms(30),
        loss: 0.1,
    });
    let nodes: Vec<_> = (1..=3).map(|number| node(&net, NodeId(number))).collect();
    let begin = tokio::time::Instant::now();
    let mut lines = Vec::new();
    for round in 0..40_u64 {
        let (from, to) = (round % 3, (round + 1) % 3);
        if round % 11 == 7 {
            net.cut(NodeId(from + 1), NodeId(to + 1));
        }
        if round % 11 == 9 {
            net.heal_all();
        }
        let peer = nodes[usize::try_from(from).unwrap()]
            .transport
            .peer(NodeId(to + 1));
        let mut beat = call(Lane::Control, ECHO, "beat");
        beat.timeout = ms(300);
        let outcome = peer.call(beat).await;
        lines.push(format!("{:?} {from}>{to} {outcome:?}", begin.elapsed()));
    }
    lines
}

#[test]
fn a_seed_repeats_a_run() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(history(seed))
    };
    let first = run(42);
    assert_eq!(first, run(42));
    assert_ne!(first, run(43));
    assert!(first.iter().any(|line| line.contains("Ok")));
    assert!(first.iter().any(|line| line.contains("Err")), "{first:#?}");
}
