//! How a process without a certificate asks a node for one.
//!
//! The asker trusts whoever proves a certificate of the authority with the fingerprint that its join token carries; the
//! node trusts nothing but what the request itself proves, and the certificate of a node that shows one. One request and one reply for each connection, both small,
//! within a few seconds. What they say is the node's and the asker's own affair.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::NodeId;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};

use super::api::{Inbound, RemoteError};
use super::ca::{Fingerprint, Identity};
use super::connection::Connection;
use super::dial::{one_frame, read_frame};
use super::reply::Reply;
use super::stream::ByteStream;
use super::tls::{self, TlsError};
use super::wire::{FrameType, Header};
use super::{codes, quic};

/// The largest request and reply, in bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// How long the node gives a joiner for its request, and the handlers for their reply.
const SERVE_TIME: Duration = Duration::from_secs(10);
/// The name that joiners ask for; nobody checks it.
const SERVER_NAME: &str = "join.psp.internal";

/// Why a process did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No socket for the asking.
    #[error("no UDP socket")]
    Socket(#[source] std::io::Error),
    /// No node answered, or one that has no certificate of the expected authority.
    #[error("no node of the expected cluster answers there: {0}")]
    Unreachable(String),
    /// The request is larger than [`MAX_BYTES`].
    #[error("the join request is too large")]
    TooLarge,
    /// The node said no.
    #[error(transparent)]
    Remote(RemoteError),
}

/// Asks the node at `address`, which must belong to the cluster whose authority has this fingerprint.
///
/// # Errors
///
/// [`JoinError`]. Whether a request without answer was carried out is not known.
pub async fn ask(
    address: SocketAddr,
    authority: Fingerprint,
    request: Bytes,
    timeout: Duration,
) -> Result<Bytes, JoinError> {
    ask_with(address, tls::joiner(authority, None)?, request, timeout).await
}

/// The same, of a node that has a certificate, and shows it, but not its disk any more.
///
/// # Errors
///
/// As [`ask`].
pub async fn ask_as(
    address: SocketAddr,
    identity: &Identity,
    request: Bytes,
    timeout: Duration,
) -> Result<Bytes, JoinError> {
    let tls = tls::joiner(identity.authority_fingerprint(), Some(identity))?;
    ask_with(address, tls, request, timeout).await
}

async fn ask_with(
    address: SocketAddr,
    tls: QuicClientConfig,
    request: Bytes,
    timeout: Duration,
) -> Result<Bytes, JoinError> {
    if request.len() > MAX_BYTES {
        return Err(JoinError::TooLarge);
    }
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(quic::joining()));
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local).map_err(JoinError::Socket)?;
    let asked = tokio::time::timeout(timeout, exchange(&endpoint, config, address, request)).await;
    endpoint.close(codes::DONE, b"");
    asked.unwrap_or_else(|_elapsed| Err(JoinError::Unreachable("no answer in time".to_owned())))
}

async fn exchange(
    endpoint: &Endpoint,
    config: ClientConfig,
    address: SocketAddr,
    request: Bytes,
) -> Result<Bytes, JoinError> {
    let unreachable = |error: &dyn std::error::Error| JoinError::Unreachable(error.to_string());
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| unreachable(&error))?;
    let connection = connecting.await.map_err(|error| unreachable(&error))?;
    let connection = Connection::Quic(connection);
    let ByteStream {
        mut writer,
        mut reader,
    } = connection
        .open()
        .await
        .map_err(|error| unreachable(&error))?;
    let mut chunks = one_frame(&Header::bare(FrameType::Call, 0), request);
    writer
        .write_all(&mut chunks)
        .await
        .map_err(|error| unreachable(&error))?;
    writer.finish().await.map_err(|error| unreachable(&error))?;
    let frame = read_frame(&mut reader, MAX_BYTES)
        .await
        .map_err(|error| unreachable(&error))?;
    let Some(frame) = frame.filter(|frame| frame.header.frame == FrameType::Reply) else {
        let reason = connection.end().map_or_else(
            || "the node ended the exchange".to_owned(),
            |error| error.to_string(),
        );
        return Err(JoinError::Unreachable(reason));
    };
    match frame.header.status {
        0 => Ok(frame.body),
        code => Err(JoinError::Remote(RemoteError {
            code,
            detail: frame.body,
        })),
    }
}

/// Serves one joiner; `from` is the node whose certificate it showed, if it did.
pub(super) async fn serve(inbound: &dyn Inbound, connection: &Connection, from: Option<NodeId>) {
    match tokio::time::timeout(SERVE_TIME, answer(inbound, connection, from)).await {
        Ok(Some(())) => {
            // The joiner closes once it has read the reply; a silent one is closed by time.
            drop(tokio::time::timeout(SERVE_TIME, connection.closed()).await);
        }
        Ok(None) => connection.close(codes::MALFORMED, b"not a join request"),
        Err(_elapsed) => connection.close(codes::DONE, b"too slow"),
    }
}

async fn answer(
    inbound: &dyn Inbound,
    connection: &Connection,
    from: Option<NodeId>,
) -> Option<()> {
    let ByteStream {
        mut writer,
        mut reader,
    } = connection.accept().await.ok()?;
    let frame = read_frame(&mut reader, MAX_BYTES).await.ok()??;
    if frame.header.frame != FrameType::Call {
        return None;
    }
    let (reply, outcome) = Reply::channel();
    inbound.join(from, frame.body, reply);
    let (status, body) = match outcome
        .await
        .unwrap_or(Err(RemoteError::code(RemoteError::DROPPED)))
    {
        Ok(body) if body.len() > MAX_BYTES => (RemoteError::OVERLOADED, Bytes::new()),
        Ok(body) => (0, body),
        Err(error) => (error.code.max(1), error.detail),
    };
    let header = Header {
        frame: FrameType::Reply,
        kind: 0,
        id: frame.header.id,
        group: 0,
        status,
    };
    writer.write_all(&mut one_frame(&header, body)).await.ok()?;
    writer.finish().await.ok()
}
