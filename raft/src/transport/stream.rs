//! Streams of raw bytes between two nodes, for snapshots.
//!
//! Each direction ends either cleanly ([`ByteStreamWriter::finish`]) or with an error: a writer that is dropped
//! unfinished resets its stream, so that half a snapshot never looks like a whole one. Flow control bounds what
//! is in flight. There is no timeout here: callers watch for progress.

use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::codes;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// Up to this many bytes are sent without a rest.
const FREE_BYTES: usize = 1 << 20;
/// Sent between two rests of a large body; less than half a millisecond's work at either end.
const SLICE_BYTES: usize = 256 << 10;
/// A rest; the timer's granularity makes it up to twice as long.
const REST: Duration = Duration::from_millis(1);

/// The stream broke: the connection is gone, or the other side gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the byte stream broke")]
pub struct StreamBroken;

/// A stream, both ways.
#[derive(Debug)]
pub struct ByteStream {
    /// To the other node.
    pub writer: ByteStreamWriter,
    /// From the other node.
    pub reader: ByteStreamReader,
}

impl ByteStream {
    pub(super) const fn quic(send: SendStream, recv: RecvStream) -> Self {
        Self {
            writer: ByteStreamWriter {
                to: WriteEnd::Quic(send),
                finished: false,
            },
            reader: ByteStreamReader {
                from: ReadEnd::Quic(recv),
                first: Bytes::new(),
            },
        }
    }

    /// A stream over two queues. `None` in a queue is the clean end; the time is when it was written.
    pub(super) const fn memory(to: mpsc::Sender<Piece>, from: mpsc::Receiver<Piece>) -> Self {
        Self {
            writer: ByteStreamWriter {
                to: WriteEnd::Memory(to),
                finished: false,
            },
            reader: ByteStreamReader {
                from: ReadEnd::Memory(from),
                first: Bytes::new(),
            },
        }
    }

    /// Two ends of a stream within one process, with at most `depth` pieces on the way.
    #[must_use]
    pub fn pair(depth: usize) -> (Self, Self) {
        let (one, other) = (mpsc::channel(depth), mpsc::channel(depth));
        (Self::memory(one.0, other.1), Self::memory(other.0, one.1))
    }
}

/// What travels in a stream within the process.
pub(super) type Piece = (Instant, Option<Bytes>);

#[derive(Debug)]
enum WriteEnd {
    Quic(SendStream),
    Memory(mpsc::Sender<Piece>),
}

/// The sending half.
#[derive(Debug)]
pub struct ByteStreamWriter {
    to: WriteEnd,
    finished: bool,
}

impl ByteStreamWriter {
    /// Sends these bytes after all earlier ones; waits while the window is full. Not cancel-safe: a dropped
    /// write may have sent a part.
    ///
    /// # Errors
    ///
    /// [`StreamBroken`] when nobody will read them.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StreamBroken> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write_all(&mut [bytes]).await
    }

    /// Sends all of these bytes in one go, as far as the window allows. What was sent is taken out of `chunks`.
    pub(super) async fn write_all(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamBroken> {
        match &mut self.to {
            WriteEnd::Quic(send) => send.write_all_chunks(chunks).await.map_err(|error| {
                tracing::trace!(%error, "stream broke while writing");
                StreamBroken
            }),
            WriteEnd::Memory(sender) => {
                for chunk in chunks {
                    let piece = (Instant::now(), Some(std::mem::take(chunk)));
                    sender.send(piece).await.map_err(|_closed| StreamBroken)?;
                }
                Ok(())
            }
        }
    }

    /// Sends all of these bytes so that they give way: after each slice of what is large both ends' workers are free for
    /// everyone else for a while. Encrypting and decrypting 50 MiB at one stretch would keep each for 80 ms.
    pub(super) async fn write_gently(&mut self, chunks: Vec<Bytes>) -> Result<(), StreamBroken> {
        let mut free = FREE_BYTES;
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let room = if free > 0 { free } else { SLICE_BYTES };
                let slice = chunk.split_to(chunk.len().min(room));
                if free == 0 {
                    sleep(REST).await;
                }
                free = free.saturating_sub(slice.len());
                self.write_all(&mut [slice]).await?;
            }
        }
        Ok(())
    }

    /// Sends one stream's bytes before those of others with less. Says whether the stream still stands.
    pub(super) fn set_priority(&self, priority: i32) -> bool {
        match &self.to {
            WriteEnd::Quic(send) => send.set_priority(priority).is_ok(),
            WriteEnd::Memory(sender) => !sender.is_closed(),
        }
    }

    /// Ends the stream cleanly. That the other side has read it all is its own message to send.
    ///
    /// # Errors
    ///
    /// [`StreamBroken`] when nobody will read the end.
    pub async fn finish(mut self) -> Result<(), StreamBroken> {
        self.finished = true;
        let done = match &mut self.to {
            WriteEnd::Quic(send) => send.finish().is_ok(),
            WriteEnd::Memory(sender) => sender.send((Instant::now(), None)).await.is_ok(),
        };
        if done { Ok(()) } else { Err(StreamBroken) }
    }
}

impl Drop for ByteStreamWriter {
    fn drop(&mut self) {
        if let (WriteEnd::Quic(send), false) = (&mut self.to, self.finished) {
            // A stream that is already closed needs no reset.
            drop(send.reset(codes::GAVE_UP));
        }
    }
}

#[derive(Debug)]
enum ReadEnd {
    Quic(RecvStream),
    Memory(mpsc::Receiver<Piece>),
}

/// The receiving half. Dropping it tells the writer to stop.
#[derive(Debug)]
pub struct ByteStreamReader {
    from: ReadEnd,
    /// Bytes that were read and given back.
    first: Bytes,
}

impl ByteStreamReader {
    /// The next bytes, at most 256 KiB of a network stream, or `None` at the clean end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`StreamBroken`] when the stream ended without its writer's [`ByteStreamWriter::finish`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamBroken> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        match &mut self.from {
            ReadEnd::Quic(recv) => match recv.read_chunk(READ_BYTES, true).await {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(error) => {
                    tracing::trace!(%error, "stream broke while reading");
                    Err(StreamBroken)
                }
            },
            ReadEnd::Memory(receiver) => match receiver.recv().await {
                Some((_, bytes)) => Ok(bytes),
                None => Err(StreamBroken),
            },
        }
    }

    /// Gives back the last bytes that were read.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.first = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_large_is_sent_gently_whole_and_in_order() {
        let text: Bytes = (0..=250_u8).cycle().take(3_000_000).collect();
        let (mut near, mut far) = ByteStream::pair(64);
        let began = Instant::now();
        let chunks = vec![text.slice(..20), text.slice(20..)];
        near.writer.write_gently(chunks).await.unwrap();
        near.writer.finish().await.unwrap();
        let rests = (text.len() - FREE_BYTES).div_ceil(SLICE_BYTES);
        assert!(began.elapsed() >= REST * u32::try_from(rests).unwrap());
        let mut whole = Vec::new();
        while let Some(piece) = far.reader.next().await.unwrap() {
            let limit = if whole.len() < FREE_BYTES {
                FREE_BYTES
            } else {
                SLICE_BYTES
            };
            assert!(piece.len() <= limit);
            whole.extend_from_slice(&piece);
        }
        assert!(text == whole);
    }
}
