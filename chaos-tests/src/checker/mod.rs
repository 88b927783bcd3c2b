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
//! [`events`] makes the search's input from a history. [`applied_once`] is for the writers that have a session each.

pub mod coverage;
pub mod events;
pub mod expiry;
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
/// (microseconds).
#[must_use]
pub fn longest_gap<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    from: u64,
    to: u64,
) -> Duration {
    let mut ends: Vec<u64> = operations
        .into_iter()
        .filter(|operation| operation.is_acknowledged() && operation.end <= to)
        .map(|operation| operation.end)
        .collect();
    ends.sort_unstable();
    let first = ends.iter().rfind(|end| **end <= from).copied();
    ends.retain(|end| *end > from);
    ends.insert(0, first.unwrap_or(from));
    ends.push(to);
    let gap = ends.windows(2).map(|pair| pair[1] - pair[0]).max();
    Duration::from_micros(gap.unwrap_or(0))
}

/// The longest gap of each shard, over all of its sessions: a shard of few writes has long ones.
#[must_use]
pub fn gaps(
    operations: &[Operation],
    shards: u16,
    from: u64,
    to: u64,
) -> BTreeMap<String, Duration> {
    let mut by_shard: BTreeMap<String, Vec<&Operation>> = BTreeMap::new();
    for operation in operations.iter().filter(|it| it.is_acknowledged()) {
        if let Ok(id) = operation.session.parse() {
            let group = placement::group_of(id, shards).to_string();
            by_shard.entry(group).or_default().push(operation);
        }
    }
    let gap = |(shard, own): (String, Vec<&Operation>)| (shard, longest_gap(own, from, to));
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
    fn the_longest_gap_is_between_successes() {
        let history = [1, 2, 3, 9, 10].map(|number| operation(number, End::Ok, Some(number)));
        assert_eq!(longest_gap(&history, 0, 1000), Duration::from_micros(600));
        // It began before the time that is asked about, or has not ended by then.
        assert_eq!(longest_gap(&history, 500, 1000), Duration::from_micros(600));
        assert_eq!(
            longest_gap(&history, 950, 3000),
            Duration::from_micros(2000)
        );
    }
}
