//! A node's wall clock: virtual time, a little fast or slow in some runs, and as much off as a fault wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Wall time at which every run begins.
pub(super) const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);

/// How long a clock that is right again counts as wrong: others remember for three seconds what it showed.
const REMEMBERED: Duration = Duration::from_secs(4);

/// The time that a perfect clock shows.
#[must_use]
pub(super) fn true_time(began: Instant) -> UnixMillis {
    BEGIN.plus(began.elapsed())
}

/// The wall clock of one node.
#[derive(Debug)]
pub(super) struct WallClock {
    began: Instant,
    /// Milliseconds that it gains in a thousand seconds.
    drift: i64,
    /// Milliseconds by which it is ahead.
    ahead: AtomicI64,
    /// When it was set last.
    set: Mutex<Option<Instant>>,
}

impl WallClock {
    /// A clock that is right, but for what it gains in a thousand seconds, in milliseconds.
    #[must_use]
    pub(super) fn new(began: Instant, drift: i64) -> Arc<Self> {
        Arc::new(Self {
            began,
            drift,
            ahead: AtomicI64::new(0),
            set: Mutex::default(),
        })
    }

    /// From now on it is this many milliseconds ahead.
    pub(super) fn set_ahead(&self, millis: i64) {
        self.ahead.store(millis, Ordering::Relaxed);
        *self.set.lock() = Some(Instant::now());
    }

    /// Whether it is wrong, or was so recently that others may count on what it showed.
    #[must_use]
    pub(super) fn is_wrong(&self) -> bool {
        let recently = |set: Instant| set.elapsed() < REMEMBERED;
        self.ahead() != 0 || self.set.lock().is_some_and(recently)
    }

    /// By how many milliseconds it is ahead.
    #[must_use]
    pub(super) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

impl Clock for WallClock {
    fn now(&self) -> UnixMillis {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let gained = passed.saturating_mul(self.drift) / 1_000_000;
        let off = self.ahead().saturating_add(gained);
        UnixMillis(true_time(self.began).0.saturating_add_signed(off))
    }
}
