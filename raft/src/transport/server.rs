//! The accepting side: who dialed, its greeting, and its streams handed to the handlers.
//!
//! Guarantees: no frame of a dialer reaches a handler before its certificate and its greeting were accepted; the calls
//! of one lane reach the handler in the order in which they were sent; a node's newest main connection replaces its
//! older one. Connections, streams, calls and bytes have bounds. Bytes that are no frames close the connection, with
//! the reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::id::{GroupId, NodeId};
use parking_lot::Mutex;
use quinn::{Endpoint, Incoming, VarInt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answers::Answers;
use super::api::{CallError, Kind, Lane, RemoteError, Request, StreamOpen};
use super::connection::Connection;
use super::dial::{HELLO_BYTES, LATE_REASON, one_frame, read_frame};
use super::node::Shared;
use super::pool::CONTROL_PRIORITY;
use super::quic::{BULK_WINDOW, Purpose, is_loopback};
use super::reply::{Reply, ReplySink as _};
use super::stream::{ByteStream, ByteStreamReader, ByteStreamWriter};
use super::tls::Dialer;
use super::wire::{Batch, Decoder, Frame, FrameType, Header, WireError};
use super::{codes, join};

/// How long a dialer may take for the handshake, and then for its greeting.
const GREETING_TIME: Duration = Duration::from_secs(3);
/// The unit in which bytes of large calls are counted.
const BULK_UNIT: usize = 4 << 10;

/// The accepted connections.
#[derive(Default)]
pub(super) struct Accepted {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, (NodeId, Purpose, Connection)>>,
}

impl Accepted {
    /// Enters a connection until the entry is dropped; a new main one replaces the same node's older one.
    fn enter(&self, node: NodeId, purpose: Purpose, connection: &Connection) -> Entry<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if purpose == Purpose::Main {
            for (_, _, older) in open
                .values()
                .filter(|(n, p, _)| (*n, *p) == (node, purpose))
            {
                older.close(codes::REPLACED, b"replaced by a newer connection");
            }
        }
        open.insert(number, (node, purpose, connection.clone()));
        Entry {
            accepted: self,
            number,
        }
    }

    pub(super) fn close_all(&self, node: NodeId, code: VarInt, reason: &[u8]) {
        for (_, _, connection) in self.open.lock().values().filter(|(n, _, _)| *n == node) {
            connection.close(code, reason);
        }
    }
}

/// A connection's place in the list.
struct Entry<'a> {
    accepted: &'a Accepted,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.accepted.open.lock().remove(&self.number);
    }
}

/// Accepts dialers over QUIC until the endpoint closes.
pub(super) async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    let door = Door::new(&shared);
    while let Some(incoming) = endpoint.accept().await {
        // Under pressure, a dialer first shows that it is where it says.
        let pressed = door.connections.available_permits() < shared.limits.connections / 2;
        if pressed && incoming.may_retry() {
            drop(incoming.retry());
            continue;
        }
        let Ok(place) = Arc::clone(&door.connections).try_acquire_owned() else {
            tracing::warn!("too many connections: one more was refused");
            incoming.refuse();
            continue;
        };
        let door = Arc::clone(&door);
        shared.spawn(async move {
            let _place = place;
            tokio::select! {
                biased;
                () = door.shared.stop.cancelled() => {}
                () = door.meet(incoming) => {}
            }
        });
    }
}

/// What all accepted connections share.
pub(super) struct Door {
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    joiners: Semaphore,
    bulk: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let limits = shared.limits;
        Arc::new(Self {
            shared: Arc::clone(shared),
            connections: Arc::new(Semaphore::new(limits.connections)),
            joiners: Semaphore::new(limits.joiners),
            bulk: Arc::new(Semaphore::new(limits.bulk_arriving_bytes / BULK_UNIT)),
        })
    }

    /// Finishes the handshake, finds out who it is, and serves them.
    async fn meet(self: &Arc<Self>, incoming: Incoming) {
        let shared = &self.shared;
        let Some(carrier) = shared.carrier.quic() else {
            return;
        };
        let config = carrier.server_config(is_loopback(incoming.remote_address()));
        let Ok(connecting) = incoming.accept_with(config) else {
            return;
        };
        let connection = match tokio::time::timeout(GREETING_TIME, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a handshake failed");
                return;
            }
            Err(_elapsed) => return,
        };
        let dialer = Dialer::of(&connection, carrier.cluster());
        let address = connection.remote_address();
        let connection = Connection::Quic(connection);
        match dialer {
            Dialer::Node(node) => self.serve_node(node, &connection).await,
            Dialer::Joiner(from) => match self.joiners.try_acquire() {
                Ok(_place) => join::serve(shared.inbound.as_ref(), &connection, from).await,
                Err(_full) => connection.close(codes::FULL, b"too many joiners"),
            },
            Dialer::Stranger => {
                tracing::warn!(%address, "a dialer without a node's certificate");
                connection.close(codes::NO_CERTIFICATE, b"no certificate of this cluster");
            }
        }
    }

    /// Greets a node whose certificate was checked, and serves its streams until the connection ends.
    pub(super) async fn serve_node(self: &Arc<Self>, node: NodeId, connection: &Connection) {
        let greeting = greet(&self.shared, node, connection);
        let purpose = match tokio::time::timeout(GREETING_TIME, greeting).await {
            Ok(Ok(purpose)) => purpose,
            Ok(Err(End::Malformed(error))) => return malformed(node, connection, &error),
            // A dialer that does not like the answer may be gone before all of it is sent.
            Ok(Err(End::Gone)) => return self.tell_refused(node, connection).await,
            Err(_elapsed) => return connection.close(codes::MALFORMED, b"no greeting"),
        };
        if purpose != Purpose::Main {
            connection.set_send_window(BULK_WINDOW);
        }
        let _entry = self.shared.accepted.enter(node, purpose, connection);
        let side = Side {
            door: Arc::clone(self),
            node,
        };
        if let End::Malformed(error) = side.streams(purpose, connection).await {
            malformed(node, connection, &error);
        }
        self.tell_refused(node, connection).await;
    }

    /// Tells this node if the connection ended because its peer refuses it.
    async fn tell_refused(&self, node: NodeId, connection: &Connection) {
        // The end of a stream may be known before the reason for which the connection was closed.
        let closed = tokio::time::timeout(LATE_REASON, connection.closed()).await;
        if let Ok(CallError::Refused(refusal)) = closed {
            self.shared.inbound.refused(node, &refusal);
        }
    }
}

fn malformed(node: NodeId, connection: &Connection, error: &WireError) {
    tracing::warn!(%node, %error, "the peer sent what is not understood");
    connection.close(codes::MALFORMED, error.to_string().as_bytes());
}

/// Why a stream or connection is no longer served.
enum End {
    Gone,
    Malformed(WireError),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}

async fn greet(shared: &Shared, node: NodeId, connection: &Connection) -> Result<Purpose, End> {
    let stream = connection.accept().await.map_err(|_closed| End::Gone)?;
    let ByteStream { writer, mut reader } = stream;
    let frame = read_frame(&mut reader, HELLO_BYTES)
        .await?
        .ok_or(End::Gone)?;
    let (FrameType::Hello, Some(purpose)) =
        (frame.header.frame, Purpose::from_number(frame.header.kind))
    else {
        return Err(End::Malformed(WireError::Unexpected));
    };
    let welcome = match shared.inbound.hello(node, frame.body) {
        Ok(welcome) => welcome,
        Err(refusal) => {
            tracing::warn!(%node, %refusal, "a peer was refused");
            connection.refuse(&refusal);
            return Err(End::Gone);
        }
    };
    let header = Header::bare(FrameType::Welcome, 0);
    send_last(&mut one_frame(&header, welcome), writer).await?;
    Ok(purpose)
}

/// Writes the last bytes of a stream.
async fn send_last(chunks: &mut [Bytes], mut writer: ByteStreamWriter) -> Result<(), End> {
    writer
        .write_all(chunks)
        .await
        .map_err(|_broken| End::Gone)?;
    writer.finish().await.map_err(|_broken| End::Gone)
}

/// One node's side of an accepted connection.
#[derive(Clone)]
struct Side {
    door: Arc<Door>,
    node: NodeId,
}

impl Side {
    /// Serves the connection's streams until it ends.
    async fn streams(&self, purpose: Purpose, connection: &Connection) -> End {
        let mut streams = JoinSet::new();
        let mut lanes = 0;
        loop {
            let stream = tokio::select! {
                biased;
                Some(ended) = streams.join_next() => match ended {
                    Ok(Err(End::Malformed(error))) => return End::Malformed(error),
                    Ok(_) | Err(_) => continue,
                },
                stream = connection.accept() => match stream {
                    Ok(stream) => stream,
                    Err(_closed) => return End::Gone,
                },
            };
            let side = self.clone();
            match purpose {
                Purpose::Main => {
                    lanes += 1;
                    if lanes > 2 {
                        return End::Malformed(WireError::Unexpected);
                    }
                    streams.spawn(async move { side.lane(stream).await });
                }
                Purpose::Bulk => drop(streams.spawn(async move { side.large(stream).await })),
                Purpose::Streams => drop(streams.spawn(async move { side.raw(stream).await })),
            }
        }
    }

    async fn lane(&self, stream: ByteStream) -> Result<(), End> {
        let ByteStream { writer, mut reader } = stream;
        let open = read_frame(&mut reader, 0).await?.ok_or(End::Gone)?;
        let lane = match (open.header.frame, open.header.kind) {
            (FrameType::Open, 1) => Lane::Control,
            (FrameType::Open, 2) => Lane::Data,
            _ => return Err(End::Malformed(WireError::Unexpected)),
        };
        if lane == Lane::Control && !writer.set_priority(CONTROL_PRIORITY) {
            return Err(End::Gone);
        }
        let answers = Answers::new(lane, self.door.shared.limits.answers);
        let outcome = tokio::select! {
            biased;
            outcome = self.read_calls(lane, &answers, reader) => outcome,
            () = write_answers(&answers, writer) => Err(End::Gone),
        };
        answers.close();
        outcome
    }

    async fn read_calls(
        &self,
        lane: Lane,
        answers: &Arc<Answers>,
        mut reader: ByteStreamReader,
    ) -> Result<(), End> {
        let mut decoder = Decoder::new(lane.max_body());
        loop {
            while let Some(frame) = decoder.next_frame()? {
                answers.admit().await;
                self.dispatch(lane, answers, frame)?;
            }
            match reader.next().await {
                Ok(Some(chunk)) => decoder.push(chunk),
                Ok(None) | Err(_) => return Err(End::Gone),
            }
            tokio::task::consume_budget().await;
        }
    }

    fn dispatch(&self, lane: Lane, answers: &Arc<Answers>, frame: Frame) -> Result<(), End> {
        if frame.header.frame != FrameType::Call {
            return Err(End::Malformed(WireError::Unexpected));
        }
        match self.request(lane, frame) {
            (id, Some(request)) => {
                let reply = Reply::to_sink(Arc::clone(answers) as _, id);
                self.door.shared.inbound.call(request, reply);
            }
            (id, None) => answers.reply(id, Err(RemoteError::code(RemoteError::NO_GROUP))),
        }
        Ok(())
    }

    fn request(&self, lane: Lane, frame: Frame) -> (u64, Option<Request>) {
        let request = GroupId::from_raw(frame.header.group).map(|group| Request {
            from: self.node,
            lane,
            kind: Kind(frame.header.kind),
            group,
            body: frame.body,
        });
        (frame.header.id, request)
    }

    /// A large call: its memory is reserved before its body is read.
    async fn large(&self, stream: ByteStream) -> Result<(), End> {
        let ByteStream { writer, mut reader } = stream;
        let mut decoder = Decoder::new(Lane::Bulk.max_body());
        let mut place = None;
        let frame = loop {
            let Ok(Some(chunk)) = reader.next().await else {
                return Err(End::Gone);
            };
            decoder.push(chunk);
            if let Some(frame) = decoder.next_frame()? {
                break frame;
            }
            if let (None, Some(bytes)) = (&place, decoder.expected()) {
                let units = bytes.min(self.door.shared.limits.bulk_arriving_bytes) / BULK_UNIT;
                let units = u32::try_from(units).unwrap_or(u32::MAX);
                let room = Arc::clone(&self.door.bulk);
                place = room.acquire_many_owned(units).await.ok();
            }
        };
        if frame.header.frame != FrameType::Call {
            return Err(End::Malformed(WireError::Unexpected));
        }
        let (id, request) = self.request(Lane::Bulk, frame);
        let outcome = match request {
            Some(request) => {
                let (reply, outcome) = Reply::channel();
                self.door.shared.inbound.call(request, reply);
                outcome
                    .await
                    .unwrap_or(Err(RemoteError::code(RemoteError::DROPPED)))
            }
            None => Err(RemoteError::code(RemoteError::NO_GROUP)),
        };
        drop(place);
        let (status, body) = match outcome {
            Ok(body) if body.len() > Lane::Bulk.max_body() => {
                (RemoteError::OVERLOADED, Bytes::new())
            }
            Ok(body) => (0, body),
            Err(error) => (error.code.max(1), error.detail),
        };
        let header = Header {
            frame: FrameType::Reply,
            kind: 0,
            id,
            group: 0,
            status,
        };
        let mut writer = writer;
        let sent = writer.write_gently(one_frame(&header, body)).await;
        sent.map_err(|_broken| End::Gone)?;
        writer.finish().await.map_err(|_broken| End::Gone)
    }

    async fn raw(&self, mut stream: ByteStream) -> Result<(), End> {
        let first = read_frame(&mut stream.reader, Lane::Control.max_body());
        let first = tokio::time::timeout(GREETING_TIME, first).await;
        let open = first.map_err(|_elapsed| End::Gone)??.ok_or(End::Gone)?;
        let Some(group) = GroupId::from_raw(open.header.group) else {
            return Err(End::Gone);
        };
        if open.header.frame != FrameType::Open {
            return Err(End::Malformed(WireError::Unexpected));
        }
        let open = StreamOpen {
            kind: Kind(open.header.kind),
            group,
            header: open.body,
        };
        self.door.shared.inbound.stream(self.node, open, stream);
        Ok(())
    }
}

async fn write_answers(answers: &Answers, mut writer: ByteStreamWriter) {
    let mut batch = Batch::default();
    loop {
        answers.fill(&mut batch).await;
        if writer.write_all(&mut batch.take()).await.is_err() {
            return;
        }
    }
}
