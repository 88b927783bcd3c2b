//! How long to leave an unreachable peer alone: 10 ms, doubling to 1 s, with jitter.
//!
//! Knows no clock: callers sleep.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// The pauses of one peer.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST }
    }
}

impl Backoff {
    /// The next pause: between half and all of it as `jitter` goes from 0 to 1, so that peers which failed together
    /// do not return together.
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// After a success, the first pause is short again.
    pub(super) fn reset(&mut self) {
        self.pause = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_start_again() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|turn| backoff.next(f64::from(turn) / 12.0)).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[11] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next(1.0) <= FIRST);
    }
}
