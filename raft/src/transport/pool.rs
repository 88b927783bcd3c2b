//! The way to one peer: its main connection with a stream for each lane, and the connections for large things.
//!
//! A peer is dialed when something is to be sent. While the dial runs, calls wait; when it fails, they and all that
//! come during the pause after it fail at once, so that nobody waits for a dead node twice. A lost main connection
//! closes the peer's other connections too: they have no keep-alive of their own.
//!
//! One task for each peer waits for demand and dials; each lane of a connection is one task that writes calls and
//! reads replies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::id::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Call, CallError, Lane, PeerStats, StreamOpen};
use super::backoff::Backoff;
use super::bulk::{BulkCalls, Link};
use super::codes;
use super::connection::Connection;
use super::dial::{dial, one_frame};
use super::node::Shared;
use super::queue::{CallQueue, Counts};
use super::quic::Purpose;
use super::reply::{Cancel, ReplyFuture};
use super::stream::{ByteStream, ByteStreamReader, ByteStreamWriter};
use super::wire::{Batch, Decoder, FrameType, Header, WireError};

/// How long a connection must have stood for the next failure to count as the first.
const STABLE: Duration = Duration::from_secs(1);
/// The control stream goes before all others of its connection.
pub(super) const CONTROL_PRIORITY: i32 = 10;

const STOPPED: CallError = CallError::Unreachable("the way to the peer is closed");

/// The way to one peer.
pub(super) struct PeerWay {
    pub(super) node: NodeId,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    address: Mutex<Option<SocketAddr>>,
    readdressed: Notify,
    demand: Notify,
    control: Arc<CallQueue>,
    data: Arc<CallQueue>,
    main: Mutex<Option<Connection>>,
    bulk_calls: BulkCalls,
    bulk: Link,
    streams: Link,
    pub(super) connects: AtomicU64,
    pub(super) dial_failures: AtomicU64,
}

impl PeerWay {
    pub(super) fn new(node: NodeId, shared: Arc<Shared>) -> Arc<Self> {
        let limits = shared.limits;
        let stop = shared.stop.child_token();
        Arc::new(Self {
            node,
            shared,
            stop,
            address: Mutex::new(None),
            readdressed: Notify::new(),
            demand: Notify::new(),
            control: Arc::new(CallQueue::new(limits.control)),
            data: Arc::new(CallQueue::new(limits.data)),
            main: Mutex::new(None),
            bulk_calls: BulkCalls::new(limits.bulk),
            bulk: Link::new(Purpose::Bulk),
            streams: Link::new(Purpose::Streams),
            connects: AtomicU64::new(0),
            dial_failures: AtomicU64::new(0),
        })
    }

    /// Where the peer is. A new address is tried at once, even within a pause.
    pub(super) fn set_address(&self, address: SocketAddr) {
        let before = self.address.lock().replace(address);
        if before != Some(address) {
            self.bulk.forgive();
            self.streams.forgive();
            self.readdressed.notify_one();
            // A connection to the old place would hide the new one.
            if let (Some(_), Some(connection)) = (before, self.main.lock().take()) {
                connection.close(codes::DONE, b"moved");
            }
        }
    }

    /// Dials for one use, and counts.
    pub(super) async fn dial(&self, purpose: Purpose) -> Result<Connection, CallError> {
        let address = *self.address.lock();
        let outcome = dial(&self.shared, self.node, address, purpose).await;
        let counter = if outcome.is_ok() {
            &self.connects
        } else {
            &self.dial_failures
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// Keeps the main connection, until the peer is forgotten or the transport closes.
    pub(super) async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = self.demand.notified() => {}
            }
            let error = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                error = self.connect_and_serve(&mut backoff) => error,
            };
            if let CallError::Refused(refusal) = &error {
                self.shared.inbound.refused(self.node, refusal);
            }
            self.shut(&error);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(backoff.next(self.shared.carrier.jitter())) => {}
                () = self.readdressed.notified() => backoff.reset(),
            }
            self.control.reopen();
            self.data.reopen();
        }
        self.shut(&STOPPED);
        self.close_connections(codes::DONE, b"stopped");
    }

    async fn connect_and_serve(&self, backoff: &mut Backoff) -> CallError {
        let connection = match self.dial(Purpose::Main).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        *self.main.lock() = Some(connection.clone());
        let since = Instant::now();
        let error = self.serve(&connection).await;
        tracing::info!(node = %self.node, %error, "connection ended");
        if since.elapsed() >= STABLE {
            backoff.reset();
        }
        self.close_connections(codes::LOST, b"the main connection ended");
        error
    }

    async fn serve(&self, connection: &Connection) -> CallError {
        let mut lanes = JoinSet::new();
        for (lane, queue) in [(Lane::Control, &self.control), (Lane::Data, &self.data)] {
            let stream = match connection.open().await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            if lane == Lane::Control && !stream.writer.set_priority(CONTROL_PRIORITY) {
                return CallError::Unreachable("the control stream was closed");
            }
            lanes.spawn(run_lane(lane, Arc::clone(queue), stream));
        }
        tokio::select! {
            biased;
            error = connection.closed() => error,
            Some(ended) = lanes.join_next() => {
                let wire = ended.ok().flatten();
                let error = connection.end();
                if let Some(wire) = wire {
                    tracing::warn!(node = %self.node, error = %wire, "the peer's replies are not understood");
                    connection.close(codes::MALFORMED, wire.to_string().as_bytes());
                }
                error.unwrap_or(CallError::Unreachable("a lane of the connection ended"))
            }
        }
    }

    pub(super) const fn bulk_link(&self) -> &Link {
        &self.bulk
    }

    fn shut(&self, error: &CallError) {
        self.control.shut(error);
        self.data.shut(error);
    }

    pub(super) fn close_connections(&self, code: quinn::VarInt, reason: &[u8]) {
        if let Some(connection) = self.main.lock().take() {
            connection.close(code, reason);
        }
        self.bulk.close(code, reason);
        self.streams.close(code, reason);
    }

    fn queued_call(&self, call: Call, queue: &Arc<CallQueue>) -> Result<ReplyFuture, CallError> {
        let deadline = Instant::now() + call.timeout;
        let (id, receiver) = queue.push(call)?;
        if self.main.lock().is_none() {
            self.demand.notify_one();
        }
        let queue: Arc<dyn Cancel> = Arc::clone(queue) as Arc<dyn Cancel>;
        Ok(ReplyFuture::new(receiver, deadline, (queue, id)))
    }

    /// As [`super::Peer::send_call`].
    pub(super) fn send_call(self: &Arc<Self>, call: Call) -> Result<ReplyFuture, CallError> {
        if self.stop.is_cancelled() {
            return Err(STOPPED);
        }
        if call.body.len() > call.lane.max_body() {
            return Err(CallError::TooLarge);
        }
        match call.lane {
            Lane::Control => self.queued_call(call, &self.control),
            Lane::Data => self.queued_call(call, &self.data),
            Lane::Bulk => self.bulk_calls.start(self, &self.bulk, call),
        }
    }

    /// As [`super::Peer::open_stream`].
    pub(super) async fn open_stream(&self, open: StreamOpen) -> Result<ByteStream, CallError> {
        if self.stop.is_cancelled() {
            return Err(STOPPED);
        }
        self.streams.open_stream(self, open).await
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.main
            .lock()
            .as_ref()
            .map(|connection| connection.path().rtt)
    }

    pub(super) fn stats(&self) -> PeerStats {
        let main = self.main.lock().clone();
        let path = main.as_ref().map(Connection::path).unwrap_or_default();
        let lanes = [
            &self.control.counts,
            &self.data.counts,
            &self.bulk_calls.counts,
        ];
        let sum = |counter: fn(&Counts) -> &AtomicU64| {
            lanes
                .iter()
                .map(|counts| counter(counts).load(Ordering::Relaxed))
                .sum()
        };
        let loads = [
            self.control.load(),
            self.data.load(),
            self.bulk_calls.load(),
        ];
        PeerStats {
            connected: main.is_some(),
            rtt: main.is_some().then_some(path.rtt),
            calls: sum(|counts| &counts.calls),
            bytes_out: sum(|counts| &counts.bytes_out),
            bytes_in: sum(|counts| &counts.bytes_in),
            in_flight: loads.iter().map(|(calls, _)| *calls as u64).sum(),
            queued_bytes: loads.iter().map(|(_, bytes)| *bytes as u64).sum(),
            connects: self.connects.load(Ordering::Relaxed),
            dial_failures: self.dial_failures.load(Ordering::Relaxed),
            too_busy: sum(|counts| &counts.too_busy),
            lost_packets: path.lost_packets,
            mtu: path.mtu,
        }
    }
}

/// Writes the calls of a lane and reads their replies until the stream ends; gives what was wrong, if it was the bytes.
async fn run_lane(lane: Lane, queue: Arc<CallQueue>, stream: ByteStream) -> Option<WireError> {
    let ByteStream {
        mut writer,
        mut reader,
    } = stream;
    tokio::select! {
        biased;
        outcome = read_replies(lane, &queue, &mut reader) => outcome.err(),
        () = write_calls(lane, &queue, &mut writer) => None,
    }
}

async fn write_calls(lane: Lane, queue: &CallQueue, writer: &mut ByteStreamWriter) {
    let mut chunks = one_frame(&Header::bare(FrameType::Open, lane.number()), Bytes::new());
    let mut batch = Batch::default();
    while writer.write_all(&mut chunks).await.is_ok() {
        queue.fill(&mut batch).await;
        chunks = batch.take();
    }
}

async fn read_replies(
    lane: Lane,
    queue: &CallQueue,
    reader: &mut ByteStreamReader,
) -> Result<(), WireError> {
    let mut decoder = Decoder::new(lane.max_body());
    while let Ok(Some(chunk)) = reader.next().await {
        decoder.push(chunk);
        while let Some(frame) = decoder.next_frame()? {
            if frame.header.frame != FrameType::Reply {
                return Err(WireError::Unexpected);
            }
            queue.complete(frame);
        }
        tokio::task::consume_budget().await;
    }
    Ok(())
}
