//! A connection between two nodes, whatever carries it.
//!
//! Above this file nothing knows whether calls travel over QUIC or within the process of a test: streams, closing and
//! its reasons are the same.

use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, VarInt};

use super::api::{CallError, Refusal};
use super::codes;
use super::stream::ByteStream;
#[cfg(any(test, feature = "testing"))]
use super::testing::MemoryConnection;

/// A connection; clones are the same one. QUIC closes it when the last clone and stream are gone.
#[derive(Clone, Debug)]
pub(super) enum Connection {
    Quic(quinn::Connection),
    #[cfg(any(test, feature = "testing"))]
    Memory(MemoryConnection),
}

/// What is known of a connection's path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    pub(super) rtt: Duration,
    pub(super) lost_packets: u64,
    pub(super) mtu: u16,
}

impl Connection {
    /// Opens a stream. Waits while the peer allows no more.
    pub(super) async fn open(&self) -> Result<ByteStream, CallError> {
        match self {
            Self::Quic(connection) => match connection.open_bi().await {
                Ok((send, recv)) => Ok(ByteStream::quic(send, recv)),
                Err(error) => Err(meaning(&error)),
            },
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(connection) => connection.open().await,
        }
    }

    /// The next stream that the peer opened.
    pub(super) async fn accept(&self) -> Result<ByteStream, CallError> {
        match self {
            Self::Quic(connection) => match connection.accept_bi().await {
                Ok((send, recv)) => Ok(ByteStream::quic(send, recv)),
                Err(error) => Err(meaning(&error)),
            },
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(connection) => connection.accept().await,
        }
    }

    /// Ends it; streams break on both sides, and the peer hears why.
    pub(super) fn close(&self, code: VarInt, reason: &[u8]) {
        match self {
            Self::Quic(connection) => connection.close(code, reason),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(connection) => connection.close(code, reason),
        }
    }

    /// Ends it because the two nodes do not talk.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        self.close(codes::REFUSED, &refusal.encode());
    }

    /// Waits for its end; what that means for calls that were not sent over it.
    pub(super) async fn closed(&self) -> CallError {
        match self {
            Self::Quic(connection) => meaning(&connection.closed().await),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(connection) => connection.closed().await,
        }
    }

    /// Its end, if it has ended.
    pub(super) fn end(&self) -> Option<CallError> {
        match self {
            Self::Quic(connection) => connection.close_reason().as_ref().map(meaning),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(connection) => connection.end(),
        }
    }

    /// Bounds what this side has under way.
    pub(super) fn set_send_window(&self, bytes: u64) {
        match self {
            Self::Quic(connection) => connection.set_send_window(bytes),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => {}
        }
    }

    /// Its path's figures.
    pub(super) fn path(&self) -> Path {
        match self {
            Self::Quic(connection) => {
                let path = connection.stats().path;
                Path { rtt: path.rtt, lost_packets: path.lost_packets, mtu: path.current_mtu }
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(connection) => connection.path(),
        }
    }
}

/// What the peer's close means.
pub(super) fn peer_closed(code: VarInt, reason: &Bytes) -> CallError {
    if code == codes::REFUSED {
        return CallError::Refused(Refusal::decode(reason));
    }
    CallError::Unreachable(match code {
        codes::NO_CERTIFICATE => "the peer does not know this node's certificate",
        codes::FULL => "the peer has no room for connections",
        codes::MALFORMED => "the peer did not understand this node",
        codes::REPLACED => "a newer connection of this node replaced it",
        _ => "the peer closed the connection",
    })
}

/// What a connection's end means.
pub(super) fn meaning(error: &ConnectionError) -> CallError {
    CallError::Unreachable(match error {
        ConnectionError::ApplicationClosed(close) => {
            return peer_closed(close.error_code, &close.reason);
        }
        ConnectionError::TransportError(_) => "the handshake or the protocol failed",
        ConnectionError::ConnectionClosed(_) => "the peer ended the handshake or the protocol",
        ConnectionError::VersionMismatch => "no common QUIC version",
        ConnectionError::Reset => "the peer has restarted",
        ConnectionError::TimedOut => "the peer is silent",
        ConnectionError::LocallyClosed => "this node closed the connection",
        ConnectionError::CidsExhausted => "too many connections",
    })
}
