//! Making a connection: handshake with the expected node, then the greeting of both sides.
//!
//! Guarantees: a connection that comes out of [`dial`] leads to the node that was asked for, and both nodes agreed to
//! talk. The whole takes at most the dial timeout.

use std::net::SocketAddr;

use bytes::Bytes;
use model::id::NodeId;

use super::api::CallError;
use super::codes;
use super::connection::Connection;
use super::node::Shared;
use super::quic::Purpose;
use super::stream::{ByteStream, ByteStreamReader};
use super::wire::{Batch, Decoder, Frame, FrameType, Header, WireError};

/// The largest greeting, in bytes.
pub(super) const HELLO_BYTES: usize = 64 << 10;

/// Connects to `node`, and greets it.
pub(super) async fn dial(
    shared: &Shared,
    node: NodeId,
    address: Option<SocketAddr>,
    purpose: Purpose,
) -> Result<Connection, CallError> {
    let attempt = async {
        let connection = shared.carrier.connect(node, address, purpose).await?;
        greet(shared, node, &connection, purpose).await?;
        Ok(connection)
    };
    let outcome = tokio::time::timeout(shared.timing.dial, attempt).await;
    let outcome = outcome.unwrap_or(Err(CallError::Unreachable("no answer to the dial")));
    match &outcome {
        Ok(_) => tracing::debug!(%node, ?purpose, "connected"),
        Err(error) => tracing::debug!(%node, ?purpose, %error, "not connected"),
    }
    outcome
}

/// How long the reason of a close may come after the end of the stream.
pub(super) const LATE_REASON: std::time::Duration = std::time::Duration::from_millis(100);

async fn greet(
    shared: &Shared,
    node: NodeId,
    connection: &Connection,
    purpose: Purpose,
) -> Result<(), CallError> {
    let lost = || {
        connection
            .end()
            .unwrap_or(CallError::Unreachable("no greeting"))
    };
    let hello = shared.inbound.hello_out(node);
    if hello.len() > HELLO_BYTES {
        return Err(CallError::TooLarge);
    }
    let ByteStream {
        mut writer,
        mut reader,
    } = connection.open().await?;
    let header = Header::bare(FrameType::Hello, purpose.number());
    writer
        .write_all(&mut one_frame(&header, hello))
        .await
        .map_err(|_broken| lost())?;
    writer.finish().await.map_err(|_broken| lost())?;
    let welcome = match read_frame(&mut reader, HELLO_BYTES).await {
        Ok(Some(frame)) if frame.header.frame == FrameType::Welcome => frame.body,
        Ok(None) => {
            // The end of the stream may come before the reason for which the connection was closed.
            let closed = tokio::time::timeout(LATE_REASON, connection.closed()).await;
            return Err(closed.unwrap_or_else(|_none| lost()));
        }
        Ok(Some(_)) | Err(_) => {
            connection.close(codes::MALFORMED, b"not a greeting");
            return Err(CallError::Unreachable("the greeting was not understood"));
        }
    };
    shared.inbound.welcome(node, welcome).map_err(|refusal| {
        connection.refuse(&refusal);
        CallError::Refused(refusal)
    })
}

/// The bytes of one frame.
pub(super) fn one_frame(header: &Header, body: Bytes) -> Vec<Bytes> {
    let mut batch = Batch::default();
    batch.push(header, body);
    batch.take()
}

/// Reads a stream's first frame; `None` if the stream ends or breaks first. What follows it stays in the stream.
pub(super) async fn read_frame(
    reader: &mut ByteStreamReader,
    limit: usize,
) -> Result<Option<Frame>, WireError> {
    let mut decoder = Decoder::new(limit);
    while let Ok(Some(chunk)) = reader.next().await {
        decoder.push(chunk);
        if let Some(frame) = decoder.next_frame()? {
            reader.unread(decoder.into_rest());
            return Ok(Some(frame));
        }
    }
    Ok(None)
}
