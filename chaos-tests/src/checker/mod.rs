//! What a history must show, whatever was done to the cluster meanwhile.
//!
//! | module | checks |
//! |---|---|
//! | [`register`], [`linearizable`] | some order of a session's operations explains all answers |
//! | [`versions`] | versions name one content, in an order that agrees with real time, and replaying them gives every answer |
//! | [`ledger`] | each acknowledged request is there once |
//! | [`expiry`] | nothing is served after its end or ended before it |
//! | [`replicas`] | equal state at equal index |
//! | [`secrets`] | no planted secret in a file, a metric or an error |
//! | [`coverage`] | whether the run showed anything: a verdict of its own |
//!
//! [`events`] makes the search's input from a history, `known` what it says before the search. [`applied_once`] is for the writers that have a session each.

pub mod coverage;
pub mod events;
pub mod expiry;
mod known;
pub mod ledger;
pub mod linearizable;
pub mod register;
pub mod replicas;
pub mod secrets;
pub mod versions;

#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod search_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use model::placement;
use serde::Serialize;

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
            .version
            .ok_or("an acknowledgement without a version")?
            .revision;
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

/// The longest time between two successful writes, or from the last of them to `to`, that reaches beyond `from`
/// (microseconds). It counts from when a write was due: where nobody wants to write, nobody waits.
#[must_use]
pub fn longest_gap<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    from: u64,
    to: u64,
) -> Duration {
    let writes: Vec<&Operation> = operations
        .into_iter()
        .filter(|operation| operation.action.writes())
        .collect();
    let mut ends: Vec<u64> = writes
        .iter()
        .filter(|operation| operation.is_acknowledged() && operation.end <= to)
        .map(|operation| operation.end)
        .collect();
    ends.sort_unstable();
    let first = ends.iter().rfind(|end| **end <= from).copied();
    ends.retain(|end| *end > from);
    ends.insert(0, first.unwrap_or(from));
    ends.push(to);
    let mut longest = 0;
    for pair in ends.windows(2) {
        if pair[1] - pair[0] <= longest {
            continue;
        }
        let waits = |write: &&&Operation| write.end > pair[0] && write.due < pair[1];
        let first = writes.iter().filter(waits).map(|write| write.due).min();
        if let Some(due) = first {
            longest = longest.max(pair[1] - due.max(pair[0]));
        }
    }
    Duration::from_micros(longest)
}

/// The longest gap of each shard, over all of its sessions.
#[must_use]
pub fn gaps(
    operations: &[Operation],
    shards: u16,
    from: u64,
    to: u64,
) -> BTreeMap<String, Duration> {
    let mut by_shard: BTreeMap<String, Vec<&Operation>> = BTreeMap::new();
    for operation in operations.iter().filter(|it| it.action.writes()) {
        if let Ok(id) = operation.session.parse() {
            let group = placement::group_of(id, shards).to_string();
            by_shard.entry(group).or_default().push(operation);
        }
    }
    let gap = |(shard, own): (String, Vec<&Operation>)| {
        // Before its first write nobody can say whether it would have taken one.
        let first = own.iter().map(|it| it.end).min().unwrap_or(from);
        let gap = longest_gap(own, from.max(first), to);
        (shard, gap)
    };
    by_shard.into_iter().map(gap).collect()
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which checker.
    pub checker: &'static str,
    /// The session, if it is of one.
    pub session: Option<String>,
    /// What is wrong, in a sentence.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.checker)?;
        if let Some(session) = &self.session {
            write!(f, "session {session}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// What the checkers that need only the history find; and the sessions whose search took too long, which is no pass either.
#[must_use]
pub fn check(operations: &[Operation], tolerance: Duration) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut undecided) = (Vec::new(), Vec::new());
    for operation in operations {
        if let Some(text) = &operation.broken {
            findings.push(Finding {
                checker: "answers",
                session: Some(operation.session.clone()),
                text: format!("{}: {text}", versions::name(operation)),
            });
        }
    }
    for (session, own) in by_session(operations) {
        if session.is_empty() {
            continue;
        }
        let mut found = |checker, texts: Vec<String>| {
            findings.extend(texts.into_iter().map(|text| Finding {
                checker,
                session: Some(session.to_owned()),
                text,
            }));
        };
        found("versions", versions::check(&own));
        found("ledger", ledger::check(&own));
        found("expiry", expiry::check(&own, tolerance));
        let (events, initial) = events::of(&own);
        match linearizable::check(&events, initial) {
            Ok(()) => {}
            Err(linearizable::Problem::Violated(text)) => found("linearizable", vec![text]),
            Err(linearizable::Problem::Undecided) => undecided.push(session.to_owned()),
        }
    }
    (findings, undecided)
}

#[cfg(test)]
mod tests {
    use model::id::Version;

    use super::*;
    use crate::history::{Action, Shown};

    fn operation(number: u64, outcome: End, revision: Option<u64>) -> Operation {
        Operation {
            number,
            action: Action::Put,
            session: "s".to_owned(),
            due: number * 100,
            start: number * 100,
            end: number * 100,
            outcome,
            shown: (outcome == End::Ok).then_some(Shown::Done),
            version: revision.map(|revision| Version { epoch: 1, revision }),
            ..Operation::default()
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
    fn the_longest_gap_is_between_successes_while_a_write_is_due() {
        let acknowledged = |(due, end): (u64, u64)| Operation {
            due: due * 100,
            ..operation(end, End::Ok, Some(end))
        };
        let mut history = vec![(0, 1), (1, 2), (2, 3), (3, 9), (9, 10)];
        let gap = |history: &[(u64, u64)], from, to| {
            let operations: Vec<Operation> = history.iter().copied().map(acknowledged).collect();
            longest_gap(&operations, from, to)
        };
        assert_eq!(gap(&history, 0, 1000), Duration::from_micros(600));
        // It began before the time that is asked about.
        assert_eq!(gap(&history, 500, 1000), Duration::from_micros(600));
        // Nobody wanted to write after the last.
        assert_eq!(gap(&history, 950, 3000), Duration::from_micros(100));
        // Somebody did, and it has not ended by then.
        history.push((12, 40));
        assert_eq!(gap(&history, 950, 3000), Duration::from_micros(1800));
        // What came late is no gap for the shard when it was not due before.
        assert_eq!(gap(&[(0, 1), (8, 9)], 0, 900), Duration::from_micros(100));
    }

    #[test]
    fn a_shard_has_no_gap_before_its_first_write_and_one_that_ends_with_silence() {
        let region = model::id::RegionId::new(1).unwrap();
        let id = model::id::SessionId::new(region, model::id::Slot::wrapping(0), [7; 16]);
        let mut history = [20, 21, 22, 23].map(|number| operation(number, End::Ok, Some(number)));
        // The last one was due and had no answer until long after.
        (history[3].outcome, history[3].end) = (End::Unknown, 9000);
        for operation in &mut history {
            operation.session = id.to_string();
        }
        let gap = |to| gaps(&history, 6, 0, to)["r1-s0"];
        assert_eq!(gap(2200), Duration::ZERO, "nobody waited");
        assert_eq!(gap(3000), Duration::from_micros(700));
    }
}
