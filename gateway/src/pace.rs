//! A large body gives way: after each slice of it the worker that moves it rests, and serves everyone else.
//!
//! Without the rests a body of 50 MiB keeps its worker for 70 ms at a stretch, and each small request that crosses several
//! nodes meets it at every hop. With them a body moves at about 1 Gbit/s at most, and nobody waits for more than a slice.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

/// Bodies up to this many bytes are not held back.
const FREE: usize = 1 << 20;
/// Moved between two rests, in bytes: less than half a millisecond's work.
pub(crate) const SLICE: usize = 256 << 10;
/// A rest; the timer's granularity makes it up to twice as long.
const REST: Duration = Duration::from_millis(1);

/// The pace of one body.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    moved: usize,
    since_rest: usize,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// This many bytes were moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes);
        self.since_rest = self.since_rest.saturating_add(bytes);
        if self.moved > FREE && self.since_rest >= SLICE {
            self.since_rest = 0;
            self.rest = Some(Box::pin(tokio::time::sleep(REST)));
        }
    }

    /// Ready when no rest is due.
    pub(crate) fn poll_rested(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(context));
            self.rest = None;
        }
        Poll::Ready(())
    }

    /// Waits until no rest is due. Cancel-safe.
    pub(crate) async fn rested(&mut self) {
        std::future::poll_fn(|context| self.poll_rested(context)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn time_of(bytes: usize) -> Duration {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for _ in 0..bytes / SLICE {
            pace.moved(SLICE);
            pace.rested().await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_is_not_held_back_and_a_large_one_rests_after_each_slice() {
        assert_eq!(time_of(FREE).await, Duration::ZERO);
        let rests = u32::try_from((50 * FREE - FREE) / SLICE).unwrap();
        let took = time_of(50 * FREE).await;
        assert!(
            (REST * rests..=REST * rests * 2).contains(&took),
            "{took:?}"
        );
    }
}
