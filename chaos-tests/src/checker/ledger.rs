//! The ledger of one session: each acknowledged write is there once, a refused one never, an unknown one once or never.
//!
//! Revisions are counted: between the first and the last that anybody saw, those that no acknowledgement claims must be
//! unknown writes. Creations are looked up by their unique names. Meters do not exist yet (they come with the billing): when
//! they do, each must agree with the same counts.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Action, End, Operation, Shown};

/// What is wrong with a session's ledger, in sentences. The history must end with a read of the session, or its last
/// writes are not looked at.
#[must_use]
pub fn check(operations: &[&Operation]) -> Vec<String> {
    let mut wrong = Vec::new();
    let shown = operations
        .iter()
        .filter(|it| it.outcome == End::Ok && it.action != Action::ReadLocal)
        .filter_map(|it| it.version);
    let (Some(first), Some(last)) = (shown.clone().min(), shown.max()) else {
        return wrong;
    };
    if first.epoch != last.epoch {
        // Regions will raise epochs; until then nothing does.
        wrong.push(format!("the epoch changed from {first} to {last}"));
        return wrong;
    }
    let created = operations.iter().any(|it| it.action == Action::Create);
    let first = if created { 0 } else { first.revision };
    let acknowledged = operations
        .iter()
        .filter(|it| it.is_acknowledged())
        .filter(|it| it.version.is_some_and(|version| version.revision > first))
        .count() as u64;
    let unknown = operations
        .iter()
        .filter(|it| {
            it.outcome == End::Unknown && it.action.writes() && it.action != Action::Delete
        })
        .count() as u64;
    let made = last.revision - first;
    if made < acknowledged {
        wrong.push(format!(
            "{acknowledged} writes were acknowledged, {made} are there"
        ));
    }
    if made > acknowledged + unknown {
        wrong.push(format!(
            "{made} writes were applied, but {acknowledged} acknowledged and {unknown} unknown ones made"
        ));
    }
    for operation in operations.iter().filter(|it| it.is_acknowledged()) {
        if operation.version.is_none() && operation.action != Action::Delete {
            wrong.push(format!(
                "{} has no version",
                super::versions::name(operation)
            ));
        }
    }
    wrong
}

/// Checks creations against the names that a list of all sessions has now: once for each acknowledged creation whose session
/// was not deleted, at most once for an unknown one.
#[must_use]
pub fn creations(operations: &[Operation], listed: &[String]) -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    for name in listed {
        *count.entry(name).or_default() += 1;
    }
    let mut deleted: BTreeMap<&str, bool> = BTreeMap::new();
    for operation in operations {
        let gone = operation.action == Action::Delete && operation.outcome != End::Fail
            || operation.shown == Some(Shown::Absent);
        *deleted.entry(&operation.session).or_default() |= gone;
    }
    let mut wrong = Vec::new();
    for create in operations.iter().filter(|it| it.action == Action::Create) {
        let Some(name) = create.wrote.body.as_deref() else {
            continue;
        };
        let there = count.get(name).copied().unwrap_or(0);
        let gone = deleted
            .get(create.session.as_str())
            .copied()
            .unwrap_or(false);
        let fits = match create.outcome {
            End::Ok if gone => there <= 1,
            End::Ok => there == 1,
            End::Unknown => there <= 1,
            End::Fail => there == 0,
        };
        if !fits {
            wrong.push(format!(
                "the creation of {name} ended as {:?} and is there {there} times",
                create.outcome
            ));
        }
    }
    wrong
}
