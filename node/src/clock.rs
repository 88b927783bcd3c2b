//! Wall time: the only reader of the machine's clock.
//!
//! Everything else gets time as an argument or through [`model::time::Clock`].

use model::time::{Clock, UnixMillis};
use rustix::time::{ClockId, clock_gettime};

/// The machine's wall clock. It may jump in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let now = clock_gettime(ClockId::Realtime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        UnixMillis(
            seconds
                .saturating_mul(1000)
                .saturating_add(nanos / 1_000_000),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_past_the_day_of_this_line() {
        assert!(SystemClock.now() > UnixMillis(1_760_000_000_000));
    }
}
