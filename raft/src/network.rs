//! openraft's network over the transport: what this node asks of other replicas.
//!
//! Appends of one (peer, group) are sent ahead of their answers, in order, at most [`WINDOW`] at a time. Small ones share the
//! data lane's stream; one above [`BULK_BYTES`] goes by itself over the bulk connection, and those that follow it wait for its
//! answer, since nothing keeps their order. Heartbeats and votes have the control lane. Failures are never
//! turned into answers: what was not sent is `Unreachable` (openraft backs off), what was sent and lost is `Network`.
//!
//! openraft sends each commit twice: by itself as soon as it is known, and with the next entries. By itself it waits for [`HELD`], so that
//! under load it is sent once; if somebody elsewhere waits for it ([`Progress::ask`]), it goes at once.
//!
//! What a leader says to be committed, a follower applies and shows: so it is noted before it is sent ([`Progress::show`]).
//!
//! No retries here: openraft makes them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use model::id::{GroupId, NodeId};
use openraft::error::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::{Instant, sleep_until};

use crate::kinds;
use crate::machine::Progress;
use crate::message;
use crate::snapshot::{self, Offer, SnapshotData};
use crate::transport::{Call, CallError, Kind, Lane, Peer, ReplyFuture, StreamOpen, Transport};
use crate::types::{AppendRequest, AppendResult, RpcError, Snapshot, Types, Vote};

/// Appends under way to one follower of one group.
const WINDOW: usize = 32;
/// Above this, in bytes, an append would hold up the others on its stream.
const BULK_BYTES: usize = 64 << 10;
/// How long a follower may take for an append: its disk may be slow, its process paused.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a large one.
const BULK_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an append that only tells what is committed waits for one with entries, which tells it too.
const HELD: Duration = Duration::from_millis(2);

/// Makes the ways to the other replicas of one group.
#[derive(Clone)]
pub(crate) struct Network {
    transport: Transport,
    group: GroupId,
    progress: Arc<Progress>,
}

impl Network {
    pub(crate) const fn new(transport: Transport, group: GroupId, progress: Arc<Progress>) -> Self {
        Self {
            transport,
            group,
            progress,
        }
    }

    fn link(&self, target: u64, lane: Lane) -> Link {
        Link {
            peer: self.transport.peer(NodeId(target)),
            group: self.group,
            progress: Arc::clone(&self.progress),
            lane,
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, (): &()) -> Link {
        self.link(target, Lane::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, (): &()) -> Link {
        self.link(target, Lane::Control)
    }
}

/// The way to one replica.
pub(crate) struct Link {
    peer: Peer,
    group: GroupId,
    progress: Arc<Progress>,
    /// Of appends; votes always go over the control lane.
    lane: Lane,
}

impl Link {
    fn call(&self, lane: Lane, kind: Kind, body: Bytes, timeout: Duration) -> Call {
        Call {
            lane,
            kind,
            group: self.group,
            body,
            timeout,
        }
    }

    /// Sends an append behind all that were sent before.
    fn send(
        &self,
        request: &AppendRequest,
        bulk: bool,
        option: &RPCOption,
    ) -> Result<Sent, RpcError> {
        if let Some(committed) = request.leader_commit {
            self.progress.show(committed.index);
        }
        let body = message::encode_append(request);
        let (lane, timeout) = match self.lane {
            // A heartbeat that is late is worth nothing.
            Lane::Control => (Lane::Control, option.hard_ttl()),
            Lane::Data | Lane::Bulk if bulk => (Lane::Bulk, BULK_TIMEOUT),
            Lane::Data | Lane::Bulk => (Lane::Data, APPEND_TIMEOUT),
        };
        let call = self.call(lane, kinds::APPEND, body, timeout);
        let reply = self
            .peer
            .send_call(call)
            .map_err(|error| rpc_error(&error))?;
        Ok(Sent { reply, bulk })
    }

    async fn ask(&self, kind: Kind, body: Bytes, option: &RPCOption) -> Result<Bytes, RpcError> {
        let call = self.call(Lane::Control, kind, body, option.hard_ttl());
        self.peer
            .call(call)
            .await
            .map_err(|error| rpc_error(&error))
    }
}

/// An append that is under way.
struct Sent {
    reply: ReplyFuture,
    bulk: bool,
}

impl Sent {
    async fn result(&mut self) -> Result<AppendResult, RpcError> {
        let body = (&mut self.reply).await.map_err(|error| rpc_error(&error))?;
        message::decode_appended(body).map_err(|error| bad(&error))
    }
}

/// A stream of appends that is being carried out.
struct Pipeline<'a, S> {
    link: &'a Link,
    option: RPCOption,
    input: Option<S>,
    sent: VecDeque<Sent>,
    /// A large one that waits until all before it are answered.
    waiting: Option<AppendRequest>,
    /// One that only tells what is committed, and until when it waits for another one.
    held: Option<(AppendRequest, Instant)>,
    /// Whether any was sent: the first of a stream is never held.
    begun: bool,
}

impl<S: Stream<Item = AppendRequest> + Unpin> Pipeline<'_, S> {
    /// The answer to the oldest append, sending more meanwhile. `None` at the end. Cancel-safe.
    async fn next(&mut self) -> Option<Result<AppendResult, RpcError>> {
        loop {
            // A large append travels apart: it overtakes nothing, and nothing overtakes it.
            if self.sent.is_empty()
                && let Some(request) = self.waiting.take()
                && let Err(error) = self.send(&request)
            {
                return Some(Err(error));
            }
            if self.input.is_none()
                && self.waiting.is_none()
                && let Some((request, _)) = self.held.take()
                && let Err(error) = self.send(&request)
            {
                return Some(Err(error));
            }
            if self.sent.is_empty() && self.input.is_none() {
                return None;
            }
            let blocked = self.waiting.is_some() || self.sent.back().is_some_and(|sent| sent.bulk);
            let room = !blocked && self.sent.len() < WINDOW && self.input.is_some();
            tokio::select! {
                biased;
                result = front(&mut self.sent) => {
                    self.sent.pop_front();
                    return Some(result);
                }
                request = next_of(&mut self.input), if room => match request {
                    None => self.input = None,
                    Some(request) if self.may_wait(&request) => {
                        let until = self.held.take().map(|(_, until)| until);
                        self.held = Some((request, until.unwrap_or_else(|| Instant::now() + HELD)));
                    }
                    Some(request) if self.is_large(&request) && !self.sent.is_empty() => {
                        self.waiting = Some(request);
                    }
                    Some(request) => {
                        if let Err(error) = self.send(&request) {
                            return Some(Err(error));
                        }
                    }
                },
                () = due(self.held.as_ref(), &self.link.progress), if room => {
                    if let Some((request, _)) = self.held.take()
                        && let Err(error) = self.send(&request) {
                            return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Whether all that it tells is what is committed.
    fn may_wait(&self, request: &AppendRequest) -> bool {
        self.begun && self.link.lane == Lane::Data && request.entries.is_empty()
    }

    fn is_large(&self, request: &AppendRequest) -> bool {
        self.link.lane == Lane::Data
            && request.entries.iter().map(weight).sum::<usize>() > BULK_BYTES
    }

    fn send(&mut self, request: &AppendRequest) -> Result<(), RpcError> {
        // It tells what one that is held would.
        self.held = None;
        self.begun = true;
        let large = self.is_large(request);
        let sent = self.link.send(request, large, &self.option)?;
        self.sent.push_back(sent);
        Ok(())
    }
}

fn weight(entry: &crate::types::Entry) -> usize {
    match &entry.payload {
        crate::types::Payload::Normal(data) => data.0.len() + 28,
        crate::types::Payload::Blank | crate::types::Payload::Membership(_) => 128,
    }
}

/// Waits until one that is held is to be sent; for ever when there is none.
async fn due(held: Option<&(AppendRequest, Instant)>, progress: &Progress) {
    match held {
        Some((_, until)) => tokio::select! {
            biased;
            () = progress.asked() => {}
            () = sleep_until(*until) => {}
        },
        None => std::future::pending().await,
    }
}

/// Waits for ever when nothing is under way, so that `select` takes another branch.
async fn front(sent: &mut VecDeque<Sent>) -> Result<AppendResult, RpcError> {
    match sent.front_mut() {
        Some(first) => first.result().await,
        None => std::future::pending().await,
    }
}

async fn next_of<S: Stream<Item = AppendRequest> + Unpin>(
    input: &mut Option<S>,
) -> Option<AppendRequest> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let result = self.send(&request, false, &option)?.result().await?;
        Ok(match result {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + openraft::OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline {
            link: self,
            option,
            input: Some(input),
            sent: VecDeque::new(),
            waiting: None,
            held: None,
            begun: false,
        };
        let results = stream::unfold(Some(pipeline), |pipeline| async move {
            let mut pipeline = pipeline?;
            let result = pipeline.next().await?;
            // After an error nothing is known of what follows.
            let more = matches!(result, Ok(Ok(_)));
            Some((result, more.then_some(pipeline)))
        });
        Box::pin(std::future::ready(Ok(results.boxed())))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let body = message::encode_vote_request(&request);
        let answer = self.ask(kinds::VOTE, body, &option).await?;
        message::decode_vote_response(answer).map_err(|error| bad(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let body = message::encode_vote_request(&request);
        let answer = self.ask(kinds::PRE_VOTE, body, &option).await?;
        message::decode_vote_response(answer).map_err(|error| bad(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let transfer = self.transfer(vote, &snapshot.snapshot);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            result = transfer => {
                let vote = result.map_err(StreamingError::from)?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let body = message::encode_transfer(&request);
        self.ask(kinds::TRANSFER, body, &option).await?;
        Ok(Ok(()))
    }
}

impl Link {
    async fn transfer(&self, vote: Vote, data: &SnapshotData) -> Result<Vote, RpcError> {
        let open = StreamOpen {
            kind: kinds::SNAPSHOT,
            group: self.group,
            header: Offer::new(vote, data).encode(),
        };
        let stream = self
            .peer
            .open_stream(open)
            .await
            .map_err(|error| rpc_error(&error))?;
        let sent = snapshot::send(data, stream).await;
        sent.map_err(|error| {
            tracing::warn!(group = %self.group, peer = %self.peer.node(), %error, "snapshot was not sent");
            // As unreachable: openraft then waits before it tries again.
            RpcError::Unreachable(Unreachable::new(&error))
        })
    }
}

fn network(error: &(impl std::error::Error + 'static)) -> RpcError {
    RpcError::Network(NetworkError::new(error))
}

fn bad(error: &message::BadMessage) -> RpcError {
    network(error)
}

/// What was not sent will not be sent soon; what was sent may have arrived.
fn rpc_error(error: &CallError) -> RpcError {
    match error {
        CallError::Unreachable(_) | CallError::Refused(_) | CallError::TooLarge => {
            RpcError::Unreachable(Unreachable::new(error))
        }
        CallError::Remote(remote) if remote.code == kinds::NO_ROOM => {
            RpcError::Unreachable(Unreachable::new(error))
        }
        CallError::Timeout | CallError::Closed | CallError::TooBusy | CallError::Remote(_) => {
            network(error)
        }
    }
}
