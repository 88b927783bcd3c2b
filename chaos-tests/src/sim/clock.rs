//! A node's wall clock: virtual time, and as much off as a fault wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use model::time::{Clock, UnixMillis};
use tokio::time::Instant;

/// Wall time at which every run begins.
pub(super) const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);

/// The time that a perfect clock shows.
#[must_use]
pub(super) fn true_time(began: Instant) -> UnixMillis {
    BEGIN.plus(began.elapsed())
}

/// The wall clock of one node.
#[derive(Debug)]
pub(super) struct WallClock {
    began: Instant,
    /// Milliseconds by which it is ahead.
    ahead: AtomicI64,
}

impl WallClock {
    /// A clock that is right.
    #[must_use]
    pub(super) fn new(began: Instant) -> Arc<Self> {
        let ahead = AtomicI64::new(0);
        Arc::new(Self { began, ahead })
    }

    /// From now on it is this many milliseconds ahead.
    pub(super) fn set_ahead(&self, millis: i64) {
        self.ahead.store(millis, Ordering::Relaxed);
    }

    /// By how many milliseconds it is ahead.
    #[must_use]
    pub(super) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

impl Clock for WallClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(true_time(self.began).0.saturating_add_signed(self.ahead()))
    }
}
