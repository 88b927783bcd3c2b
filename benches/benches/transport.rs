//! What a call between two nodes costs: two transports over loopback with their certificates, in one thread.
//!
//! `alone`: one call after the other, from the caller's hands to the reply. `together`: 64 at a time, which share packets; the figure
//! is for one of them.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use futures::future::try_join_all;
use model::id::{GroupId, NodeId};
use raft::transport::ca::{Authority, Validity};
use raft::transport::{
    ByteStream, Call, Config, Inbound, Kind, Lane, Peer, Refusal, Reply, Request, StreamOpen,
    Transport,
};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const SIZES: [usize; 3] = [64, 2 << 10, 16 << 10];
const TOGETHER: u64 = 64;

/// Answers with the first bytes of what it got, as an append is answered.
struct Answers;

impl Inbound for Answers {
    fn call(&self, request: Request, reply: Reply) {
        reply.send(Ok(request.body.slice(..request.body.len().min(32))));
    }

    fn stream(&self, _from: NodeId, _open: StreamOpen, stream: ByteStream) {
        drop(stream);
    }

    fn hello_out(&self, _to: NodeId) -> Bytes {
        Bytes::new()
    }

    fn hello(&self, _from: NodeId, hello: Bytes) -> Result<Bytes, Refusal> {
        Ok(hello)
    }

    fn welcome(&self, _from: NodeId, _welcome: Bytes) -> Result<(), Refusal> {
        Ok(())
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (here, there) = runtime.block_on(async { pair() });
    let peer = here.peer(there.node());
    runtime.block_on(async { ask(&peer, &Bytes::new(), 1).await });
    calls(&mut criterion, &runtime, &peer);
    criterion.final_summary();
    runtime.block_on(async {
        here.close().await;
        there.close().await;
    });
}

fn calls(criterion: &mut Criterion, runtime: &Runtime, peer: &Peer) {
    let mut group = criterion.benchmark_group("transport/call");
    for size in SIZES {
        let body = Bytes::from(vec![7; size]);
        for (name, at_once) in [("alone", 1), ("together", TOGETHER)] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_custom(|calls| {
                    let began = Instant::now();
                    runtime.block_on(async {
                        let mut left = calls;
                        while left > 0 {
                            let now = left.min(at_once);
                            ask(peer, &body, now).await;
                            left -= now;
                        }
                    });
                    began.elapsed()
                });
            });
        }
    }
    group.finish();
}

async fn ask(peer: &Peer, body: &Bytes, at_once: u64) {
    let call = |_| {
        peer.call(Call {
            lane: Lane::Data,
            kind: Kind(100),
            group: GroupId::Meta,
            body: body.clone(),
            timeout: Duration::from_secs(10),
        })
    };
    black_box(try_join_all((0..at_once).map(call)).await.expect("answers"));
}

fn pair() -> (Transport, Transport) {
    let now = UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let cluster = "bench".parse().expect("a name");
    let authority = Authority::create(cluster, now).expect("an authority");
    let start = |node| {
        let validity = Validity { now, days: 1 };
        let identity = authority.identity(NodeId(node), validity);
        let config = Config::new(
            (Ipv4Addr::LOCALHOST, 0).into(),
            identity.expect("an identity"),
        );
        Transport::start(config, Arc::new(Answers)).expect("a socket")
    };
    let (here, there) = (start(1), start(2));
    let address = there.local_addr().expect("an address");
    here.set_address(there.node(), address);
    (here, there)
}
