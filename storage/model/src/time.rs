//! Points in time and their arithmetic. There is no `now` here: time comes in as an argument.
//!
//! [`Clock`] is the one door by which wall time enters; only `node` implements it on the machine's clock.

use std::time::Duration;

use bincode::{Decode, Encode};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This time and `span` more.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// This time and `span` less, not before 1970.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Wall time. The only implementation that reads a machine's clock is `node::clock`.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time now. May jump in either direction.
    fn now(&self) -> UnixMillis;
}
