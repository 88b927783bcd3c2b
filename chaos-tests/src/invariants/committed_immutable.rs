//! I-5, committed is immutable: an entry that any node knew as committed is the only one that is ever committed at its index, and
//! a running node that has it does not lose it but by a purge.
//!
//! Source: openraft's `tests-turmoil`, "Committed Immutable"; R-1.

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId};
use storage::log::LogId;

use super::{Invariant, Moment, Violation};

const ID: &str = "I-5 committed is immutable";

/// What was committed at each index, and up to where each replica was looked at.
#[derive(Debug, Default)]
pub struct CommittedImmutable {
    committed: BTreeMap<(GroupId, u64), (LogId, u64)>,
    looked: BTreeMap<(GroupId, NodeId, u64), u64>,
}

impl Invariant for CommittedImmutable {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            for seen in replicas {
                let Some(upto) = seen.replica.committed else {
                    continue;
                };
                let looked = self
                    .looked
                    .entry((*group, seen.node, seen.life))
                    .or_default();
                // What changed in the log is looked at again: it may have been committed already.
                let from = seen
                    .changed
                    .map_or(*looked + 1, |changed| changed.min(*looked + 1));
                let known = seen
                    .entries
                    .range(from..)
                    .take_while(|(index, _)| **index <= upto.index);
                for (index, entry) in known {
                    let first = *self.committed.entry((*group, *index)).or_insert(*entry);
                    if first != *entry {
                        let text = format!(
                            "{} has {} of {group} as committed where {} was committed",
                            seen.node, entry.0, first.0
                        );
                        return Err(Violation { id: ID, text });
                    }
                }
                let last = seen.replica.log.last;
                if last.is_none_or(|last| last.index < (*looked).min(upto.index)) {
                    let text = format!(
                        "{} knew {looked} of {group} as committed, and its log ends at {last:?}",
                        seen.node
                    );
                    return Err(Violation { id: ID, text });
                }
                *looked = upto.index;
            }
        }
        Ok(())
    }
}
