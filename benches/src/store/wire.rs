//! A connection of one client: what was read and not yet understood, and a limit on how much that may be.
//!
//! What a protocol's bytes mean is for pure functions from a buffer to a message; this only moves bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest message that is taken from a server.
pub(super) const LARGEST: usize = 64 << 20;
/// The longest line that is taken from a server.
pub(super) const LONGEST_LINE: usize = 64 << 10;

/// A TCP connection and what came over it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    inbox: BytesMut,
}

impl Wire {
    pub(super) async fn dial(address: SocketAddr) -> Result<Self, String> {
        Ok(Self {
            stream: dial(address).await?,
            inbox: BytesMut::with_capacity(16 << 10),
        })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.stream.write_all(bytes).await;
        sent.map_err(|error| error.to_string())
    }

    /// The next message, for a `parse` that takes one off the buffer once it is there whole.
    pub(super) async fn next<T>(
        &mut self,
        parse: impl Fn(&mut BytesMut) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        loop {
            if let Some(message) = parse(&mut self.inbox)? {
                return Ok(message);
            }
            let read = self.stream.read_buf(&mut self.inbox).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the server closed the connection".to_owned());
            }
        }
    }
}

/// Connects; what is written goes out at once.
pub(super) async fn dial(address: SocketAddr) -> Result<TcpStream, String> {
    let fails = |error: std::io::Error| format!("{address}: {error}");
    let stream = TcpStream::connect(address).await.map_err(fails)?;
    stream.set_nodelay(true).map_err(fails)?;
    Ok(stream)
}

/// A length, within what is taken.
pub(super) fn length(text: &[u8]) -> Result<usize, String> {
    let number = std::str::from_utf8(text).ok();
    let number = number.and_then(|text| text.parse::<usize>().ok());
    number
        .filter(|number| *number <= LARGEST)
        .ok_or_else(|| format!("{}: no length", String::from_utf8_lossy(text)))
}

/// An outcome, or that it took too long.
pub(super) async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let done = timeout(limit, work).await;
    done.unwrap_or_else(|_elapsed| Err(format!("no answer in {limit:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_bounds() {
        assert_eq!(length(b"17"), Ok(17));
        for bad in [&b"-1"[..], b"", b"x", b"99999999999999999999", b"67108865"] {
            assert!(length(bad).is_err());
        }
    }
}
