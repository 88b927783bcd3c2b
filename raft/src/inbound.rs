//! What other replicas ask of one of ours.
//!
//! Appends of one peer are handed to openraft in the order in which they came, without waiting for each other's sync; every
//! other question has a task of its own. A vote is refused while the gate is closed (`lease.rs`).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{Future, FutureExt, StreamExt};
use model::id::NodeId;
use openraft::entry::RaftEntry;
use openraft::error::RaftError;
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;
use storage::log::Admission;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fetch::{self, Ask};
use crate::kinds;
use crate::message;
use crate::metrics;
use crate::replica::Replica;
use crate::snapshot::{self, Offer};
use crate::transport::{ByteStream, Lane, RemoteError, Reply, Request};
use crate::types::{AppendRequest, Raft};

/// Appends of one peer that wait or are under way; a sender has at most half as many.
const APPENDS: usize = 64;

/// With the promise that the log has room for it.
type Append = (AppendRequest, Reply, Admission);

/// The receiving end of one replica.
pub(crate) struct Door {
    replica: Arc<Replica>,
    lanes: Mutex<BTreeMap<NodeId, mpsc::Sender<Append>>>,
    /// Whether a snapshot is being received.
    receiving: AtomicBool,
    /// Whether this replica's state is being given to one that lost its own.
    giving: AtomicBool,
}

impl Door {
    pub(crate) fn new(replica: Arc<Replica>) -> Arc<Self> {
        Arc::new(Self {
            replica,
            lanes: Mutex::default(),
            receiving: AtomicBool::new(false),
            giving: AtomicBool::new(false),
        })
    }

    fn raft(&self) -> Raft {
        self.replica.parts.raft.clone()
    }

    /// Entries or a heartbeat.
    pub(crate) fn append(&self, request: Request, reply: Reply) {
        let bytes = request.body.len();
        let Ok(append) = message::decode_append(request.body) else {
            return reply.send(Err(RemoteError::code(kinds::BAD_MESSAGE)));
        };
        if request.lane == Lane::Control {
            // A heartbeat has no entries: its order among them does not matter.
            self.replica
                .parts
                .tasks
                .spawn(carry_out(Arc::clone(&self.replica), append, reply));
            return;
        }
        let Some(admission) = self.replica.parts.log.admit(bytes) else {
            return reply.send(Err(RemoteError::code(kinds::NO_ROOM)));
        };
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(request.from).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(APPENDS);
            self.replica
                .parts
                .tasks
                .spawn(feed(Arc::clone(&self.replica), receiver));
            sender
        });
        if let Err(full) = lane.try_send((append, reply, admission)) {
            let (_, reply, _) = match full {
                mpsc::error::TrySendError::Full(append) => append,
                mpsc::error::TrySendError::Closed(append) => append,
            };
            reply.send(Err(RemoteError::code(kinds::NOT_READY)));
        }
    }

    /// A candidate's question; `pre` if it only wants to know.
    pub(crate) fn vote(&self, request: Request, reply: Reply, pre: bool) {
        let Ok(vote) = message::decode_vote_request(request.body) else {
            return reply.send(Err(RemoteError::code(kinds::BAD_MESSAGE)));
        };
        if self.replica.parts.gate.is_closed() && !vote.leadership_transfer {
            metrics::vote_withheld();
            return reply.send(Err(RemoteError::code(kinds::GATED)));
        }
        let raft = self.raft();
        self.replica.parts.tasks.spawn(async move {
            let answer = if pre {
                raft.pre_vote(vote).await
            } else {
                raft.vote(vote).await
            };
            let answer = answer.map(|answer| message::encode_vote_response(&answer));
            reply.send(answer.map_err(|error| not_ready(&error)));
        });
    }

    /// A leader hands over, to this node or to another.
    pub(crate) fn transfer(&self, request: Request, reply: Reply) {
        let Ok(transfer) = message::decode_transfer(request.body) else {
            return reply.send(Err(RemoteError::code(kinds::BAD_MESSAGE)));
        };
        let raft = self.raft();
        self.replica.parts.tasks.spawn(async move {
            reply.send(match raft.handle_transfer_leader(transfer).await {
                Ok(Ok(())) => Ok(Bytes::new()),
                Ok(Err(_)) | Err(_) => Err(RemoteError::code(kinds::NOT_READY)),
            });
        });
    }

    /// A snapshot comes.
    pub(crate) fn snapshot(self: &Arc<Self>, header: Bytes, stream: ByteStream) {
        let Ok(offer) = Offer::decode(header) else {
            return;
        };
        if self.receiving.swap(true, Ordering::AcqRel) {
            // The leader tries again; the transfer under way goes on or ends by its own limit.
            return;
        }
        let door = Arc::clone(self);
        self.replica.parts.tasks.spawn(async move {
            let group = door.replica.parts.group;
            if let Err(error) = door.receive(offer, stream).await {
                tracing::warn!(%group, %error, "snapshot was not received");
            }
            door.receiving.store(false, Ordering::Release);
        });
    }

    /// A replica that lost its state asks for this one's.
    pub(crate) fn fetch(self: &Arc<Self>, header: Bytes, stream: ByteStream) {
        let Ok(ask) = Ask::decode(header) else {
            return;
        };
        if self.giving.swap(true, Ordering::AcqRel) {
            // It asks again, or somebody else.
            return;
        }
        let door = Arc::clone(self);
        self.replica.parts.tasks.spawn(async move {
            let group = door.replica.parts.group;
            let given = fetch::give(ask, door.replica.parts.store.clone(), stream).await;
            door.giving.store(false, Ordering::Release);
            match given {
                Ok(()) => tracing::info!(%group, "state was given to a replica that lost its own"),
                Err(error) => tracing::warn!(%group, %error, "state was not given"),
            }
        });
    }

    async fn receive(&self, offer: Offer, mut stream: ByteStream) -> std::io::Result<()> {
        let store = self.replica.parts.store.clone();
        let received = snapshot::receive(&offer, store.clone(), &mut stream).await?;
        // An install that fails ends the group: what the leader's disk has damaged must not come so far.
        received.clone().verify(store).await?;
        let snapshot = received.named()?;
        let installed = self
            .raft()
            .install_full_snapshot(offer.vote, snapshot)
            .await;
        let installed = installed.map_err(std::io::Error::other)?;
        snapshot::finish(&installed.vote, stream).await
    }
}

fn not_ready<E: std::error::Error>(error: &RaftError<crate::types::Types, E>) -> RemoteError {
    tracing::debug!(%error, "a replica's question was not answered");
    RemoteError::code(kinds::NOT_READY)
}

async fn carry_out(replica: Arc<Replica>, append: AppendRequest, reply: Reply) {
    let arrived = Instant::now();
    let previous = append.prev_log_id;
    let last = append.entries.last().map(RaftEntry::log_id).or(previous);
    reply.send(match replica.parts.raft.append_entries(append).await {
        Ok(answer) => {
            if matches!(answer, AppendEntriesResponse::Success) {
                replica.heard_leader(arrived);
            }
            Ok(message::encode_appended(
                &answer.into_stream_result(previous, last),
            ))
        }
        Err(error) => Err(not_ready(&error)),
    });
}

/// Hands appends to openraft in order: each future's first poll queues its append there.
async fn feed(replica: Arc<Replica>, mut appends: mpsc::Receiver<Append>) {
    let mut under_way: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>> =
        FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            append = appends.recv(), if under_way.len() < APPENDS => {
                let Some((append, reply, admission)) = append else { break };
                let done = carry_out(Arc::clone(&replica), append, reply);
                let mut done = done.map(move |()| drop(admission)).boxed();
                if futures::poll!(&mut done).is_pending() {
                    under_way.push(done);
                }
            }
        }
    }
    while under_way.next().await.is_some() {}
}
