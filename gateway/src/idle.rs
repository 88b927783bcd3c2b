//! A connection that may not be silent for ever.
//!
//! Guarantees: when no byte has moved in either direction for the idle time, reading and writing fail with `TimedOut`;
//! until the first byte has come, the time is the shorter first one. It costs one timer, set anew at most once a second.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Setting a timer costs more than comparing two times.
const GRAIN: Duration = Duration::from_secs(1);

/// See the module's text.
pub(crate) struct Idle<T> {
    inner: T,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    set_at: Instant,
}

impl<T> Idle<T> {
    pub(crate) fn new(inner: T, first: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        Self {
            inner,
            idle,
            sleep: Box::pin(tokio::time::sleep_until(now + first)),
            set_at: now - GRAIN,
        }
    }

    fn moved(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.set_at) >= GRAIN {
            self.set_at = now;
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

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_and_a_busy_one_stays() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Idle::new(server, Duration::from_secs(10), Duration::from_secs(60));
        let began = Instant::now();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(9)).await;
            client.write_all(b"x").await.expect("written");
            let mut byte = [0];
            server.read_exact(&mut byte).await.expect("read");
        }
        let quiet = Instant::now();
        let error = server.read(&mut [0]).await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(quiet.elapsed() >= Duration::from_secs(60));
        assert!(began.elapsed() >= Duration::from_secs(105));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_must_come_soon() {
        let (_client, server) = tokio::io::duplex(64);
        let mut server = Idle::new(server, Duration::from_secs(10), Duration::from_secs(60));
        let began = Instant::now();
        let error = server.read(&mut [0]).await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(11));
    }
}
