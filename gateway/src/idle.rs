//! A connection that may not be silent for ever.
//!
//! Guarantees: when no byte has moved in either direction for the idle time, reading and writing fail with `TimedOut`;
//! until the first byte has come, the time is the first one. It costs one timer, and the times are kept to about 3 %.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Setting a timer costs more than comparing two times: it is set anew after this part of the idle time.
const GRAINS: u32 = 32;

/// See the module's text.
pub(crate) struct Idle<T> {
    inner: T,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    /// When the timer was set for the idle time.
    set_at: Option<Instant>,
}

impl<T> Idle<T> {
    pub(crate) fn new(inner: T, first: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        Self {
            inner,
            idle,
            sleep: Box::pin(tokio::time::sleep_until(now + first)),
            set_at: None,
        }
    }

    fn moved(&mut self) {
        let now = Instant::now();
        let grain = self.idle / GRAINS;
        if self
            .set_at
            .is_none_or(|set_at| now.duration_since(set_at) >= grain)
        {
            self.set_at = Some(now);
            self.sleep.as_mut().reset(now + self.idle);
        }
    }

    /// After a poll that moved nothing.
    fn waited<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        self.sleep
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Idle<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.waited(cx),
            ready @ Poll::Ready(_) => {
                self.moved();
                ready
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Idle<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending => self.waited(cx),
            ready @ Poll::Ready(_) => {
                self.moved();
                ready
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.waited(cx),
            ready @ Poll::Ready(_) => {
                self.moved();
                ready
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(cx) {
            Poll::Pending => self.waited(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_connection_that_falls_silent_ends() {
        let (mut client, server) = tokio::io::duplex(64);
        let idle = Duration::from_millis(40);
        let mut server = Idle::new(server, Duration::from_hours(1), idle);
        client.write_all(b"x").await.expect("written");
        server.read_exact(&mut [0]).await.expect("read");
        let quiet = Instant::now();
        let error = server.read(&mut [0]).await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(quiet.elapsed() >= idle / 2);
    }

    #[tokio::test]
    async fn the_first_byte_must_come_soon() {
        let (_client, server) = tokio::io::duplex(64);
        let mut server = Idle::new(server, Duration::from_millis(20), Duration::from_hours(1));
        let error = server.read(&mut [0]).await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
