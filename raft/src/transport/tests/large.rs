//! Large things: they arrive whole, and what is small does not wait for them.

use super::*;

fn pattern(length: usize) -> Bytes {
    (0..length)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_leaves_control_calls_quick() {
    let _alone = ALONE.lock().await;
    let (_one, _two, peer) = pair();
    peer.call(call(Lane::Control, ECHO, "")).await.unwrap();
    peer.call(call(Lane::Bulk, ECHO, "")).await.unwrap();
    let body = pattern(50 << 20);
    let mut measured = Vec::new();
    // A busy machine may spoil a measurement, not three.
    for _ in 0..3 {
        let p99 = control_beside(&peer, &body).await;
        measured.push(p99);
        if p99 < Duration::from_millis(30) {
            return;
        }
    }
    panic!("p99 of control calls beside a large one: {measured:?}");
}

/// The slowest but one in a hundred of the control calls while a large body goes there and back.
async fn control_beside(peer: &Peer, body: &Bytes) -> Duration {
    let transfer = async {
        peer.call(call(Lane::Bulk, ECHO, body.clone()))
            .await
            .unwrap()
    };
    let control = async {
        let mut times = Vec::new();
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let begin = tokio::time::Instant::now();
            peer.call(call(Lane::Control, ECHO, "beat")).await.unwrap();
            times.push(begin.elapsed());
            pace.tick().await;
            if peer.stats().in_flight == 0 {
                return times;
            }
        }
    };
    let begin = tokio::time::Instant::now();
    let (echoed, mut times) = tokio::join!(transfer, control);
    assert!(echoed == body, "the body came back changed");
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!(
        "{} control calls in {:?}, p99 {p99:?}",
        times.len(),
        begin.elapsed()
    );
    assert!(times.len() > 10);
    p99
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_data_lane_leaves_control_calls_quick() {
    let _alone = ALONE.lock().await;
    let (_one, _two, peer) = pair();
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    let body = pattern(1 << 20);
    let mut replies = Vec::new();
    for _ in 0..24 {
        replies.push(
            peer.send_call(call(Lane::Data, ECHO, body.clone()))
                .unwrap(),
        );
    }
    // It was queued last, and is answered long before the data is.
    peer.call(call(Lane::Control, ECHO, "beat")).await.unwrap();
    let waiting = peer.stats().in_flight;
    assert!(waiting > 12, "{waiting} data calls wait");
    for reply in replies {
        assert_eq!(reply.await.unwrap().len(), body.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_carries_bytes_both_ways_and_ends_cleanly() {
    let (_one, _two, peer) = pair();
    let open = StreamOpen {
        kind: Kind(3),
        group: GroupId::Meta,
        header: Bytes::from_static(b"header"),
    };
    let ByteStream {
        mut writer,
        mut reader,
    } = peer.open_stream(open).await.unwrap();
    let body = pattern(9 << 20);
    let sending = async {
        for start in (0..body.len()).step_by(1 << 20) {
            writer
                .write(body.slice(start..start + (1 << 20)))
                .await
                .unwrap();
        }
        writer.finish().await.unwrap();
    };
    let receiving = async {
        let mut received = Vec::new();
        while let Some(bytes) = reader.next().await.unwrap() {
            received.extend_from_slice(&bytes);
        }
        received
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert_eq!(&received[..6], b"header");
    assert!(received[6..] == body, "the bytes came back changed");
}

#[tokio::test]
async fn a_dropped_writer_is_not_a_clean_end() {
    let (mut here, mut there) = ByteStream::pair(4);
    here.writer
        .write(Bytes::from_static(b"half"))
        .await
        .unwrap();
    assert_eq!(there.reader.next().await.unwrap().unwrap(), "half");
    drop(here.writer);
    assert!(there.reader.next().await.is_err());
    there.writer.finish().await.unwrap();
    assert_eq!(here.reader.next().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_finds_its_large_datagrams() {
    let (_one, _two, peer) = pair();
    let body = pattern(1 << 20);
    let mut calls = 0;
    while peer.stats().mtu < 60_000 {
        calls += 1;
        assert!(calls < 1000, "{:?}", peer.stats());
        peer.call(call(Lane::Data, ECHO, body.clone()))
            .await
            .unwrap();
    }
    println!("{calls} calls of 1 MiB, {:?}", peer.stats());
}
