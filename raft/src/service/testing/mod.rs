//! Nodes, groups and links in memory, to test the service against: real `apply`, faults on demand.
//!
//! | file | what |
//! |---|---|
//! | `group.rs` | a log whose replicas apply at once, and the faults of proposals |
//! | `region.rs` | nodes with their services, and the faults of calls between them |
//!
//! What it does not have: elections, terms, disks. Faults are consumed in the order in which they were added.

mod group;
mod region;

pub use group::{FakeGroup, Fault};
pub use region::{CallFault, FakeRegion};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::time::{Clock, UnixMillis};

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    const fn new() -> Self {
        Self(AtomicU64::new(1_800_000_000_000))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}
