//! Expiry of one session: nothing is served after its end, nothing is said to have ended before it, but for a tolerance.
//!
//! The tolerance is that of log time against the clock of the test: the order of answers ("expired" stays so until a renewal)
//! is the search's to check, and exact. An end that a person did not set is never seen.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use model::id::Version;

use super::versions::name;
use crate::history::{Action, End, Operation, Shown};

/// What is wrong with a session's expiry, in sentences.
#[must_use]
pub fn check(operations: &[&Operation], tolerance: Duration) -> Vec<String> {
    let tolerance = u64::try_from(tolerance.as_micros()).unwrap_or(u64::MAX);
    let set: HashSet<u64> = operations
        .iter()
        .filter(|it| it.action.writes() && it.outcome != End::Fail)
        .filter_map(|it| it.expires)
        .collect();
    let ends = ends(operations);
    let mut wrong = Vec::new();
    for operation in operations.iter().filter(|it| it.outcome == End::Ok) {
        match operation.shown {
            Some(Shown::Expired) => {
                let Some(at) = operation.expires else {
                    continue;
                };
                if !set.contains(&at) {
                    wrong.push(format!(
                        "{} says it ended at {at} us, which nobody set",
                        name(operation)
                    ));
                }
                if operation.end.saturating_add(tolerance) < at {
                    wrong.push(format!(
                        "{} says expired {} us too early",
                        name(operation),
                        at - operation.end
                    ));
                }
            }
            Some(Shown::Done) if operation.action == Action::Read => {
                let end = operation.version.and_then(|version| ends.get(&version));
                if let Some(Some(at)) = end
                    && operation.start > at.saturating_add(tolerance)
                {
                    wrong.push(format!(
                        "{} was served {} us after its end",
                        name(operation),
                        operation.start - at
                    ));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// The end of each version whose whole past is acknowledged: there nobody has to guess.
fn ends(operations: &[&Operation]) -> BTreeMap<Version, Option<u64>> {
    let writes: BTreeMap<Version, &Operation> = operations
        .iter()
        .filter(|it| it.is_acknowledged())
        .filter_map(|it| Some((it.version?, *it)))
        .collect();
    let mut ends: BTreeMap<Version, Option<u64>> = BTreeMap::new();
    for (version, write) in writes {
        let before = ends
            .last_key_value()
            .filter(|(last, _)| last.next() == version);
        let end = match (write.action, write.expires, before) {
            (_, Some(at), _) => Some(at),
            (Action::Create, None, _) => None,
            (_, None, Some((_, end))) => *end,
            (_, None, None) => continue,
        };
        ends.insert(version, end);
    }
    ends
}
