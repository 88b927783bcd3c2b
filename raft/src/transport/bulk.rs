//! Large calls and byte streams to one peer, over connections that are made on demand.
//!
//! Each large call has a stream of its own, so none waits for another; their connection's window keeps what they have
//! under way small. Calls and bytes in flight have a bound, past which a call is [`CallError::TooBusy`] at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::api::{Call, CallError, Lane, StreamOpen};
use super::backoff::Backoff;
use super::connection::Connection;
use super::dial::{one_frame, read_frame};
use super::pool::PeerWay;
use super::queue::{Counts, LaneLimits, outcome};
use super::quic::Purpose;
use super::reply::{Cancel, ReplyFuture};
use super::stream::ByteStream;
use super::wire::{FrameType, HEADER_BYTES, Header};

/// How long to wait for a stream while the peer allows no more.
const STREAM_WAIT: Duration = Duration::from_secs(2);

struct LinkState {
    backoff: Backoff,
    down: Option<(Instant, CallError)>,
}

/// A connection that is made when it is needed.
pub(super) struct Link {
    purpose: Purpose,
    /// Held while dialing, so that one dial serves all who wait.
    dialing: tokio::sync::Mutex<()>,
    state: Mutex<LinkState>,
    current: Mutex<Option<Connection>>,
}

impl Link {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            dialing: tokio::sync::Mutex::new(()),
            state: Mutex::new(LinkState {
                backoff: Backoff::default(),
                down: None,
            }),
            current: Mutex::new(None),
        }
    }

    fn standing(&self) -> Option<Connection> {
        self.current
            .lock()
            .clone()
            .filter(|connection| connection.end().is_none())
    }

    fn pause(&self) -> Option<CallError> {
        let state = self.state.lock();
        let (until, error) = state.down.as_ref()?;
        (Instant::now() < *until).then(|| error.clone())
    }

    /// The connection, made if there is none.
    async fn get(&self, peer: &PeerWay) -> Result<Connection, CallError> {
        if let Some(connection) = self.standing() {
            return Ok(connection);
        }
        let _dialing = self.dialing.lock().await;
        if let Some(connection) = self.standing() {
            return Ok(connection);
        }
        if let Some(error) = self.pause() {
            return Err(error);
        }
        match peer.dial(self.purpose).await {
            Ok(connection) => {
                self.forgive();
                *self.current.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let mut state = self.state.lock();
                let until = Instant::now() + state.backoff.next(peer.shared.carrier.jitter());
                state.down = Some((until, error.clone()));
                Err(error)
            }
        }
    }

    /// Ends a pause.
    pub(super) fn forgive(&self) {
        *self.state.lock() = LinkState {
            backoff: Backoff::default(),
            down: None,
        };
    }

    pub(super) fn close(&self, code: VarInt, reason: &[u8]) {
        if let Some(connection) = self.current.lock().take() {
            connection.close(code, reason);
        }
    }

    async fn stream(&self, peer: &PeerWay) -> Result<ByteStream, CallError> {
        let connection = self.get(peer).await?;
        let opened = tokio::time::timeout(STREAM_WAIT, connection.open()).await;
        opened.unwrap_or(Err(CallError::TooBusy))
    }

    /// Opens a stream of raw bytes. The peer may refuse it later by ending it.
    pub(super) async fn open_stream(
        &self,
        peer: &PeerWay,
        open: StreamOpen,
    ) -> Result<ByteStream, CallError> {
        if open.header.len() > Lane::Control.max_body() {
            return Err(CallError::TooLarge);
        }
        let mut stream = self.stream(peer).await?;
        let header = Header {
            frame: FrameType::Open,
            kind: open.kind.0,
            id: 0,
            group: open.group.to_raw(),
            status: 0,
        };
        let mut chunks = one_frame(&header, open.header);
        stream
            .writer
            .write_all(&mut chunks)
            .await
            .map_err(|_broken| CallError::Closed)?;
        Ok(stream)
    }
}

#[derive(Debug, Default)]
struct InFlight {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place among the large calls, given back when dropped.
struct Place {
    flight: Arc<InFlight>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flight.calls.fetch_sub(1, Ordering::Relaxed);
        self.flight.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whether a large call's first byte was handed to the connection.
#[derive(Debug, Default)]
struct Sent(AtomicBool);

impl Cancel for Sent {
    fn cancel(&self, _id: u64) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The large calls to one peer.
pub(super) struct BulkCalls {
    limits: LaneLimits,
    flight: Arc<InFlight>,
    next: AtomicU64,
    pub(super) counts: Arc<Counts>,
}

impl BulkCalls {
    pub(super) fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            flight: Arc::default(),
            next: AtomicU64::new(0),
            counts: Arc::default(),
        }
    }

    pub(super) fn load(&self) -> (usize, usize) {
        (
            self.flight.calls.load(Ordering::Relaxed),
            self.flight.bytes.load(Ordering::Relaxed),
        )
    }

    fn place(&self, bytes: usize) -> Result<Place, CallError> {
        let calls = self.flight.calls.fetch_add(1, Ordering::Relaxed);
        let before = self.flight.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place {
            flight: Arc::clone(&self.flight),
            bytes,
        };
        if calls >= self.limits.calls || before + bytes > self.limits.waiting_bytes {
            self.counts.turned_away();
            return Err(CallError::TooBusy);
        }
        Ok(place)
    }

    /// Starts a large call in a task of its own; dropping the future ends it.
    pub(super) fn start(
        &self,
        peer: &Arc<PeerWay>,
        link: &Link,
        call: Call,
    ) -> Result<ReplyFuture, CallError> {
        let place = self.place(call.body.len())?;
        if let (None, Some(error)) = (link.standing(), link.pause()) {
            return Err(error);
        }
        let deadline = Instant::now() + call.timeout;
        let sent = Arc::new(Sent::default());
        let header = Header {
            frame: FrameType::Call,
            kind: call.kind.0,
            id: self.next.fetch_add(1, Ordering::Relaxed),
            group: call.group.to_raw(),
            status: 0,
        };
        let (mut sender, receiver) = oneshot::channel();
        let exchange = Exchange {
            peer: Arc::clone(peer),
            sent: Arc::clone(&sent),
            counts: Arc::clone(&self.counts),
        };
        peer.shared.spawn(async move {
            let stop = exchange.peer.stop.clone();
            tokio::select! {
                biased;
                () = sender.closed() => {}
                () = stop.cancelled() => {}
                outcome = exchange.run(&header, call.body) => {
                    drop(place);
                    // A caller that no longer waits needs no answer.
                    drop(sender.send(outcome));
                }
            }
        });
        Ok(ReplyFuture::new(receiver, deadline, (sent, header.id)))
    }
}

struct Exchange {
    peer: Arc<PeerWay>,
    sent: Arc<Sent>,
    counts: Arc<Counts>,
}

impl Exchange {
    async fn run(&self, header: &Header, body: Bytes) -> Result<Bytes, CallError> {
        let ByteStream {
            mut writer,
            mut reader,
        } = self.peer.bulk_link().stream(&self.peer).await?;
        self.counts.sent(1, HEADER_BYTES + body.len());
        self.sent.0.store(true, Ordering::Release);
        let whole = writer.write_gently(one_frame(header, body)).await.is_ok();
        // The peer may answer, and stop reading, before it has everything.
        if !whole || writer.finish().await.is_err() {
            tracing::debug!(node = %self.peer.node, "a large call was not read to its end");
        }
        match read_frame(&mut reader, Lane::Bulk.max_body()).await {
            Ok(Some(frame)) if frame.header.frame == FrameType::Reply => {
                self.counts.received(HEADER_BYTES + frame.body.len());
                outcome(frame)
            }
            Ok(_) | Err(_) => Err(CallError::Closed),
        }
    }
}
