//! Making a connection: handshake with the expected node, then the greeting of both sides.
//!
//! Guarantees: a connection that comes out of [`dial`] leads to the node that was asked for, and both nodes agreed to
//! talk. The whole takes at most the dial timeout.

use std::net::SocketAddr;

use bytes::Bytes;
use model::id::NodeId;
use quinn::{ClientConfig, ConnectError, Connection, ConnectionError, RecvStream};

use super::api::{CallError, Refusal};
use super::codes;
use super::endpoint::Shared;
use super::quic::Purpose;
use super::stream::{ByteStream, ByteStreamReader};
use super::wire::{Batch, Decoder, Frame, FrameType, Header, WireError};

/// The largest greeting, in bytes.
pub(super) const HELLO_BYTES: usize = 64 << 10;

/// Connects to `node` at `address`.
pub(super) async fn dial(
    shared: &Shared,
    node: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Connection, CallError> {
    let attempt = attempt(shared, node, address, purpose);
    match tokio::time::timeout(shared.timing.dial, attempt).await {
        Ok(Ok(connection)) => {
            tracing::debug!(%node, %address, ?purpose, "connected");
            Ok(connection)
        }
        Ok(Err(error)) => {
            tracing::debug!(%node, %address, ?purpose, %error, "connection failed");
            Err(error)
        }
        Err(_elapsed) => Err(CallError::Unreachable("no answer to the dial")),
    }
}

async fn attempt(
    shared: &Shared,
    node: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Connection, CallError> {
    let mut config = ClientConfig::new(shared.tls().client);
    config.transport_config(shared.profiles.dial(purpose, address));
    let endpoint = shared
        .endpoint()
        .ok_or(CallError::Unreachable("this node is stopping"))?;
    let connecting = endpoint
        .connect_with(config, address, &shared.cluster.node_name(node))
        .map_err(|error| CallError::Unreachable(undialable(&error)))?;
    let connection = connecting.await.map_err(|error| closed(&error))?;
    match greet(shared, node, &connection, purpose).await {
        Ok(()) => Ok(connection),
        Err(error) => {
            if let CallError::Refused(refusal) = &error {
                connection.close(codes::REFUSED, &refusal.encode());
            }
            Err(error)
        }
    }
}

async fn greet(
    shared: &Shared,
    node: NodeId,
    connection: &Connection,
    purpose: Purpose,
) -> Result<(), CallError> {
    let lost = || {
        connection
            .close_reason()
            .map_or(CallError::Unreachable("no greeting"), |e| closed(&e))
    };
    let hello = shared.inbound.hello_out(node);
    if hello.len() > HELLO_BYTES {
        return Err(CallError::TooLarge);
    }
    let (send, recv) = connection.open_bi().await.map_err(|error| closed(&error))?;
    let ByteStream {
        mut writer,
        mut reader,
    } = ByteStream::quic(send, recv, Bytes::new());
    let header = Header {
        frame: FrameType::Hello,
        kind: purpose.number(),
        id: 0,
        group: 0,
        status: 0,
    };
    for chunk in one_frame(&header, hello) {
        writer.write(chunk).await.map_err(|_broken| lost())?;
    }
    writer.finish().await.map_err(|_broken| lost())?;
    let frame = read_frame(&mut reader, HELLO_BYTES)
        .await
        .map_err(|error| {
            tracing::warn!(%node, %error, "greeting was not understood");
            lost()
        })?;
    let frame = frame.ok_or_else(lost)?;
    if frame.header.frame != FrameType::Welcome {
        return Err(CallError::Unreachable("the greeting was not answered"));
    }
    shared
        .inbound
        .welcome(node, frame.body)
        .map_err(CallError::Refused)
}

/// The bytes of one frame.
pub(super) fn one_frame(header: &Header, body: Bytes) -> Vec<Bytes> {
    let mut batch = Batch::default();
    batch.push(header, body);
    batch.take()
}

/// Reads the one frame of a stream; `None` if the stream ends or breaks first.
pub(super) async fn read_frame(
    reader: &mut ByteStreamReader,
    limit: usize,
) -> Result<Option<Frame>, WireError> {
    let mut decoder = Decoder::new(limit);
    while let Ok(Some(chunk)) = reader.next().await {
        decoder.push(chunk);
        if let Some(frame) = decoder.next()? {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// Reads a stream's first frame; what follows it stays in the decoder.
pub(super) async fn read_open(
    recv: &mut RecvStream,
    limit: usize,
) -> Result<Option<(Frame, Decoder)>, WireError> {
    let mut decoder = Decoder::new(limit);
    while let Ok(Some(chunk)) = recv.read_chunk(limit, true).await {
        decoder.push(chunk.bytes);
        if let Some(frame) = decoder.next()? {
            return Ok(Some((frame, decoder)));
        }
    }
    Ok(None)
}

/// What a connection's end means for calls that were not sent over it.
pub(super) fn closed(error: &ConnectionError) -> CallError {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == codes::REFUSED => {
            CallError::Refused(Refusal::decode(&close.reason))
        }
        ConnectionError::ApplicationClosed(close) if close.error_code == codes::NO_CERTIFICATE => {
            CallError::Unreachable("the peer does not know this node's certificate")
        }
        ConnectionError::ApplicationClosed(close) if close.error_code == codes::FULL => {
            CallError::Unreachable("the peer has no room for connections")
        }
        ConnectionError::ApplicationClosed(_) => {
            CallError::Unreachable("the peer closed the connection")
        }
        ConnectionError::TransportError(_) => {
            CallError::Unreachable("the handshake or the protocol failed")
        }
        ConnectionError::ConnectionClosed(_) => {
            CallError::Unreachable("the peer's QUIC closed the connection")
        }
        ConnectionError::VersionMismatch => CallError::Unreachable("no common QUIC version"),
        ConnectionError::Reset => CallError::Unreachable("the peer has restarted"),
        ConnectionError::TimedOut => CallError::Unreachable("the peer is silent"),
        ConnectionError::LocallyClosed => CallError::Unreachable("this node closed the connection"),
        ConnectionError::CidsExhausted => CallError::Unreachable("too many connections"),
    }
}

const fn undialable(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::EndpointStopping => "this node is stopping",
        ConnectError::CidsExhausted => "too many connections",
        ConnectError::InvalidServerName(_) => "the peer's name is not valid",
        ConnectError::InvalidRemoteAddress(_) => "the peer's address is not valid",
        ConnectError::NoDefaultClientConfig | ConnectError::UnsupportedVersion => {
            "QUIC is not set up"
        }
    }
}
