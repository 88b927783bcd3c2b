//! Wall time: the only reader of the machine's clock.
//!
//! Everything else gets time as an argument or through [`model::time::Clock`].

use std::time::{SystemTime, UNIX_EPOCH};

use model::time::{Clock, UnixMillis};

/// The machine's wall clock. It may jump in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "here wall time enters; through the C library, where a test can put another clock in its place"
    )]
    fn now(&self) -> UnixMillis {
        // A clock before 1970 is as wrong as one that shows it.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = now.map_or(0, |since| since.as_millis());
        UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
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
