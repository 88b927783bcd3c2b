//! Counts calls: for the daily limits of plans, and for the meter that is not billed.
//!
//! Guarantees: a call counts once, when it is answered; answers above 499 and refused credentials do not count. Counts
//! are of this process since its start; whoever reports them takes differences.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Calls of the one tenant there is.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    counted: AtomicU64,
}

impl Calls {
    /// One call was answered so.
    pub(crate) fn answered(&self, status: StatusCode) {
        if !status.is_server_error() && status != StatusCode::UNAUTHORIZED {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many counted.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
}
