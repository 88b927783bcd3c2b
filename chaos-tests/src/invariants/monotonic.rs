//! I-6, monotonic: within one life of a node, its term, what it knows as committed, what it applied, what it purged and its log time never go
//! back; and at every moment purged <= applied or committed <= last.
//!
//! Source: openraft's `tests-turmoil`, "Monotonic Term/Commit/Applied/Vote" and "State Ordering"; R-6, S-4. A crash may take what was
//! not durable, so lives are compared only with themselves.

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId};
use model::time::UnixMillis;
use raft::host::Facts;

use super::{Invariant, Moment, Violation};

const ID: &str = "I-6 monotonic";

type Numbers = [(&'static str, u64); 5];

/// The newest numbers of each life of each replica.
#[derive(Debug, Default)]
pub struct Monotonic {
    newest: BTreeMap<(GroupId, NodeId, u64), Numbers>,
}

fn numbers(replica: &Facts) -> Numbers {
    let index = |id: Option<storage::log::LogId>| id.map_or(0, |id| id.index);
    let UnixMillis(log_time) = replica.log_time;
    [
        ("term", replica.vote.map_or(0, |vote| vote.term)),
        ("committed", index(replica.committed)),
        ("applied", index(replica.applied)),
        ("purged", index(replica.log.purged)),
        ("log time", log_time),
    ]
}

impl Invariant for Monotonic {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            for seen in replicas {
                let now = numbers(seen.replica);
                let key = (*group, seen.node, seen.life);
                let before = self.newest.insert(key, now).unwrap_or_default();
                let back = before.iter().zip(&now).find(|(old, new)| new.1 < old.1);
                if let Some(((_, old), (what, new))) = back {
                    let text = format!(
                        "the {what} of {group} at {} went from {old} to {new}",
                        seen.node
                    );
                    return Err(Violation { id: ID, text });
                }
                let [_, _, (_, applied), (_, purged), _] = now;
                let last = seen.replica.log.last.map_or(0, |id| id.index);
                if purged > applied || applied > last {
                    let text = format!(
                        "{group} at {} purged {purged}, applied {applied}, and ends at {last}",
                        seen.node
                    );
                    return Err(Violation { id: ID, text });
                }
            }
        }
        Ok(())
    }
}
