//! What a history must show, whatever was done to the cluster meanwhile.
//!
//! Each session has one writer here, so its revisions tell everything: an acknowledged write has a revision of its
//! own (applied once, S-1), and the session's final revision is between the number of acknowledged writes and that
//! plus those whose outcome is unknown (none lost, none twice).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{End, Operation};

/// How many operations ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged.
    pub ok: u64,
    /// Refused.
    pub fail: u64,
    /// Without a known outcome.
    pub unknown: u64,
}

/// Counts a session's or a whole history's operations.
pub fn tally<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Tally {
    let mut tally = Tally::default();
    for operation in operations {
        match operation.outcome {
            End::Ok => tally.ok += 1,
            End::Fail => tally.fail += 1,
            End::Unknown => tally.unknown += 1,
        }
    }
    tally
}

/// Checks one session: `last` is its revision now, `first` the one that it had before the history.
///
/// # Errors
/// With a sentence that says what is wrong.
pub fn applied_once(operations: &[&Operation], first: u64, last: u64) -> Result<Tally, String> {
    let tally = tally(operations.iter().copied());
    let mut seen = BTreeSet::new();
    for operation in operations
        .iter()
        .filter(|operation| operation.outcome == End::Ok)
    {
        let revision = operation
            .revision
            .ok_or("an acknowledgement without a revision")?;
        if !seen.insert(revision) {
            return Err(format!(
                "revision {revision} was acknowledged to two writes"
            ));
        }
        if revision <= first || revision > last {
            return Err(format!(
                "revision {revision} was acknowledged, the session has {last}"
            ));
        }
    }
    let applied = last - first;
    if applied < tally.ok {
        return Err(format!(
            "{} writes acknowledged, {applied} are there",
            tally.ok
        ));
    }
    if applied > tally.ok + tally.unknown {
        let most = tally.ok + tally.unknown;
        return Err(format!(
            "{applied} writes applied, at most {most} were made"
        ));
    }
    Ok(tally)
}

/// The operations of each session.
#[must_use]
pub fn by_session(operations: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut sessions: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        sessions
            .entry(&operation.session)
            .or_default()
            .push(operation);
    }
    sessions
}

/// The longest time between two successful writes, one of which ended after `from` (microseconds).
#[must_use]
pub fn longest_gap<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    from: u64,
    to: u64,
) -> Duration {
    let mut ends: Vec<u64> = operations
        .into_iter()
        .filter(|operation| operation.outcome == End::Ok && operation.end <= to)
        .map(|operation| operation.end)
        .collect();
    ends.sort_unstable();
    let gap = ends
        .windows(2)
        .filter(|pair| pair[1] >= from)
        .map(|pair| pair[1] - pair[0])
        .max();
    Duration::from_micros(gap.unwrap_or_else(|| to.saturating_sub(from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(number: u64, outcome: End, revision: Option<u64>) -> Operation {
        Operation {
            client: 0,
            number,
            session: "s".to_owned(),
            value: number.to_string(),
            due: number * 100,
            end: number * 100,
            outcome,
            status: None,
            code: None,
            revision,
        }
    }

    #[test]
    fn a_lost_write_a_doubled_write_and_a_shared_revision_are_found() {
        let two = [
            operation(1, End::Ok, Some(2)),
            operation(2, End::Ok, Some(3)),
        ];
        let refs: Vec<&Operation> = two.iter().collect();
        assert!(applied_once(&refs, 1, 3).is_ok());
        assert!(applied_once(&refs, 1, 2).is_err());
        assert!(applied_once(&refs, 1, 4).is_err());
        let shared = [
            operation(1, End::Ok, Some(2)),
            operation(2, End::Ok, Some(2)),
        ];
        assert!(applied_once(&shared.iter().collect::<Vec<_>>(), 1, 3).is_err());
    }

    #[test]
    fn an_unknown_write_may_or_may_not_be_there() {
        let history = [
            operation(1, End::Ok, Some(2)),
            operation(2, End::Unknown, None),
        ];
        let refs: Vec<&Operation> = history.iter().collect();
        assert!(applied_once(&refs, 1, 2).is_ok());
        assert!(applied_once(&refs, 1, 3).is_ok());
        assert!(applied_once(&refs, 1, 4).is_err());
    }

    #[test]
    fn the_longest_gap_is_between_successes() {
        let history = [1, 2, 3, 9, 10].map(|number| operation(number, End::Ok, Some(number)));
        assert_eq!(longest_gap(&history, 0, 2000), Duration::from_micros(600));
    }
}
