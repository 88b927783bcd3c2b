//! When a leader may answer reads alone, and when a node may vote.
//!
//! **Reading.** A leader whose newest quorum answer was *sent for* less than two thirds of the lease ago reads its own state:
//! no other leader can exist yet, and every write that it acknowledged is applied here. The third is the margin
//! for clocks of different rates. Time that the machine slept does not show in the monotonic clock: [`SleepWatch`] finds
//! it, and answers from before do not count.
//!
//! **Voting.** A restarted node has forgotten to whom it promised its vote until when. So for one lease and a tenth after a start
//! with an old log it votes for nobody, unless the leader itself asks it to (a transfer), and does not campaign.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// A machine that slept for longer than this has lost its leases.
const SLEPT: i64 = 20_000_000;

/// Finds out whether the machine slept.
#[derive(Debug)]
pub(crate) struct SleepWatch {
    /// Nanoseconds by which the clock that counts sleep is ahead of the one that does not.
    ahead: AtomicI64,
    woke: Mutex<Option<Instant>>,
}

impl SleepWatch {
    pub(crate) fn new() -> Arc<Self> {
        let ahead = AtomicI64::new(ahead());
        let woke = Mutex::default();
        Arc::new(Self { ahead, woke })
    }

    /// Whether `at` is after the last sleep that was noticed.
    pub(crate) fn is_since(&self, at: Instant) -> bool {
        let now = ahead();
        let before = self.ahead.load(Ordering::Acquire);
        if now.saturating_sub(before) > SLEPT {
            *self.woke.lock() = Some(Instant::now());
            self.ahead.store(now, Ordering::Release);
            tracing::warn!(
                seconds = (now - before) / 1_000_000_000,
                "the machine slept"
            );
            return false;
        }
        self.woke.lock().is_none_or(|woke| at > woke)
    }
}

fn ahead() -> i64 {
    let nanos = |id| {
        let at = clock_gettime(id);
        at.tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(at.tv_nsec)
    };
    nanos(ClockId::Boottime).saturating_sub(nanos(ClockId::Monotonic))
}

/// Keeps a restarted node from voting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VoteGate(Option<Instant>);

impl VoteGate {
    /// For a node that has `anything` in its log or a vote, and this lease.
    pub(crate) fn at_start(anything: bool, lease: Duration) -> Self {
        Self(anything.then(|| Instant::now() + lease + lease / 10))
    }

    /// Until when it is closed.
    pub(crate) const fn until(self) -> Option<Instant> {
        self.0
    }

    /// Whether it is closed now.
    pub(crate) fn is_closed(self) -> bool {
        self.0.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_after_the_lease_and_a_tenth() {
        let gate = VoteGate::at_start(true, Duration::from_millis(180));
        assert!(gate.is_closed());
        tokio::time::advance(Duration::from_millis(197)).await;
        assert!(gate.is_closed());
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(!gate.is_closed());
        assert!(!VoteGate::at_start(false, Duration::from_secs(1)).is_closed());
    }

    #[test]
    fn a_machine_that_did_not_sleep_keeps_its_leases() {
        let watch = SleepWatch::new();
        assert!(watch.is_since(Instant::now()));
    }
}
