//! What a run really did: which faults happened, how many operations met them, how they ended.
//!
//! A campaign in which a fault never happened has not tested it: `tests/simulation.rs` and `simulate` compare the counts with
//! [`missing_faults`](super::missing_faults).

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Counts by name.
#[derive(Debug, Default)]
pub(super) struct Coverage(Mutex<BTreeMap<String, u64>>);

impl Coverage {
    /// It happened once more.
    pub(super) fn count(&self, what: &str) {
        self.add(what, 1);
    }

    /// It happened this often.
    pub(super) fn add(&self, what: &str, times: u64) {
        *self.0.lock().entry(what.to_owned()).or_default() += times;
    }

    /// Whether it happened.
    pub(super) fn has(&self, what: &str) -> bool {
        self.0.lock().contains_key(what)
    }

    /// All counts.
    #[must_use]
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}
