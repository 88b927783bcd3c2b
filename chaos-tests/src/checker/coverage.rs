//! Did the run show anything? A verdict of its own, apart from the properties: a run without it is not a pass.
//!
//! Claims are made by the scenario (the victim was leader, packets were dropped); some hold for every run: each fault was
//! installed, and enough operations succeeded, before it, and during or after it.

use std::ops::RangeInclusive;

use serde::Serialize;

use crate::history::Operation;

/// Something that a run must have had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// What, in words.
    pub what: String,
    /// Whether it did.
    pub held: bool,
}

/// The claims of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage(Vec<Claim>);

impl Coverage {
    /// Adds a claim.
    pub fn claim(&mut self, what: impl Into<String>, held: bool) {
        self.0.push(Claim {
            what: what.into(),
            held,
        });
    }

    /// All claims.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.0
    }

    /// Those that did not hold. A run without any claim has shown nothing.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        if self.0.is_empty() {
            return vec!["the run claims nothing".to_owned()];
        }
        let missing = self.0.iter().filter(|claim| !claim.held);
        missing.map(|claim| claim.what.clone()).collect()
    }
}

/// How many writes ended well within these times, in microseconds of the history.
#[must_use]
pub fn written(load: &[Operation], spans: &[RangeInclusive<u64>]) -> usize {
    load.iter()
        .filter(|it| it.is_acknowledged())
        .filter(|it| spans.iter().any(|span| span.contains(&it.end)))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_claims_or_with_a_false_one_is_no_pass() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.missing().len(), 1);
        coverage.claim("the victim was leader", true);
        assert!(coverage.missing().is_empty());
        coverage.claim("packets were dropped", false);
        assert_eq!(coverage.missing(), ["packets were dropped"]);
    }
}
