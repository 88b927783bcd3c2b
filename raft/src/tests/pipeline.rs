//! What a leader sends to a follower, and when: on virtual time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use model::id::NodeId;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::machine::Progress;
use crate::message;
use crate::network::Network;
use crate::testing::shard;
use crate::transport::testing::Net;
use crate::transport::{ByteStream, Inbound, Refusal, Reply, Request, StreamOpen};
use crate::types::{AppendRequest, Data, Entry, Payload, Vote, log_id};

const LONG: Duration = Duration::from_secs(5);

/// A follower that takes everything: how many entries each append had, what it said to be committed, and when it came.
#[derive(Default)]
struct Follower(Mutex<Vec<(usize, u64, Instant)>>);

impl Inbound for Follower {
    fn call(&self, request: Request, reply: Reply) {
        let append = message::decode_append(request.body).unwrap();
        let committed = append.leader_commit.map_or(0, |id| id.index);
        let mut seen = self.0.lock();
        seen.push((append.entries.len(), committed, Instant::now()));
        let last = append.entries.last().map(|entry| entry.log_id);
        reply.send(Ok(message::encode_appended(&Ok(
            last.or(append.prev_log_id)
        ))));
    }

    fn stream(&self, _from: NodeId, _open: StreamOpen, _stream: ByteStream) {}

    fn hello_out(&self, _to: NodeId) -> Bytes {
        Bytes::new()
    }

    fn hello(&self, _from: NodeId, _hello: Bytes) -> Result<Bytes, Refusal> {
        Ok(Bytes::new())
    }

    fn welcome(&self, _from: NodeId, _welcome: Bytes) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A leader's stream of appends.
struct Leader {
    appends: mpsc::Sender<AppendRequest>,
    progress: Arc<Progress>,
    follower: Arc<Follower>,
    tasks: TaskTracker,
}

impl Leader {
    fn new() -> Self {
        let net = Net::new(7);
        let follower = Arc::new(Follower::default());
        let transport = net.join(NodeId(1), Arc::new(Follower::default()));
        let there = net.join(NodeId(2), Arc::clone(&follower) as _);
        let progress = Arc::new(Progress::new());
        let mut network = Network::new(transport, shard(0), Arc::clone(&progress));
        let (appends, mut requests) = mpsc::channel(16);
        let tasks = TaskTracker::new();
        drop(tasks.spawn(async move {
            let _there = there;
            let mut link = network.new_client(2, &()).await;
            let input = Box::pin(futures::stream::poll_fn(move |at| requests.poll_recv(at)));
            let results = link.stream_append(input, RPCOption::new(LONG)).await;
            let mut results = results.unwrap();
            while let Some(result) = results.next().await {
                assert!(matches!(result, Ok(Ok(_))), "{result:?}");
            }
        }));
        Self {
            appends,
            progress,
            follower,
            tasks,
        }
    }

    /// Sends one entry, or none, and what is committed.
    fn append(&self, last: u64, entries: u64, committed: u64) {
        let entry = |index| Entry {
            log_id: log_id(1, 1, index),
            payload: Payload::Normal(Data(Bytes::from_static(b"\x01data"))),
        };
        let request = AppendRequest {
            vote: Vote::new(1, 1),
            prev_log_id: Some(log_id(1, 1, last - entries)),
            entries: (last - entries + 1..=last).map(entry).collect(),
            leader_commit: Some(log_id(1, 1, committed)),
        };
        self.appends.try_send(request).unwrap();
    }

    /// What came after `count` appends: entries and commit.
    async fn until_came(&self, count: usize) -> Vec<(usize, u64)> {
        let all = async {
            while self.follower.0.lock().len() < count {
                sleep(Duration::from_micros(100)).await;
            }
        };
        timeout(LONG, all).await.unwrap();
        let seen = self.follower.0.lock();
        seen.iter()
            .map(|(entries, commit, _)| (*entries, *commit))
            .collect()
    }

    async fn end(self) {
        drop(self.appends);
        self.tasks.close();
        timeout(LONG, self.tasks.wait()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_goes_with_the_next_entries() {
    let leader = Leader::new();
    leader.append(2, 1, 1);
    leader.until_came(1).await;
    leader.append(2, 0, 2);
    leader.append(3, 1, 2);
    leader.append(3, 0, 3);
    leader.append(4, 1, 3);
    assert_eq!(leader.until_came(3).await, [(1, 1), (1, 2), (1, 3)]);
    leader.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nothing_follows_goes_by_itself_soon() {
    let leader = Leader::new();
    leader.append(2, 1, 1);
    leader.until_came(1).await;
    let from = Instant::now();
    leader.append(2, 0, 2);
    assert_eq!(leader.until_came(2).await[1], (0, 2));
    let took = leader.follower.0.lock()[1].2 - from;
    assert!(took <= Duration::from_millis(4), "{took:?}");
    // The last of a stream is not lost.
    leader.append(2, 0, 3);
    let follower = Arc::clone(&leader.follower);
    leader.end().await;
    assert_eq!(follower.0.lock()[2].1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_somebody_waits_for_goes_at_once() {
    let leader = Leader::new();
    leader.append(2, 1, 1);
    leader.until_came(1).await;
    let from = Instant::now();
    leader.append(2, 0, 2);
    tokio::task::yield_now().await;
    while leader.follower.0.lock().len() < 2 {
        leader.progress.ask();
        tokio::task::yield_now().await;
    }
    let took = leader.follower.0.lock()[1].2 - from;
    assert_eq!(took, Duration::ZERO);
    leader.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_of_a_stream_is_not_held() {
    let leader = Leader::new();
    let from = Instant::now();
    leader.append(2, 0, 2);
    leader.until_came(1).await;
    assert!(from.elapsed() < Duration::from_millis(2));
    leader.end().await;
}
