//! I-4, state machine safety: no two replicas apply different entries at one index, in any of their lives.
//!
//! Source: Ongaro and Ousterhout, figure 3; R-3 (`raft::machine`). Of what was applied, the part that is still in the log is looked at.

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId};
use storage::log::LogId;

use super::{Invariant, Moment, Violation};

const ID: &str = "I-4 state machine safety";

/// What was applied at each index, and up to where each replica was looked at.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    applied: BTreeMap<(GroupId, u64), (LogId, u64)>,
    looked: BTreeMap<(GroupId, NodeId, u64), u64>,
}

impl Invariant for StateMachineSafety {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            for seen in replicas {
                let Some(upto) = seen.replica.applied else {
                    continue;
                };
                let looked = self
                    .looked
                    .entry((*group, seen.node, seen.life))
                    .or_default();
                if *looked >= upto.index {
                    continue;
                }
                for (index, entry) in seen.entries.range(*looked + 1..=upto.index) {
                    let first = *self.applied.entry((*group, *index)).or_insert(*entry);
                    if first != *entry {
                        let text = format!(
                            "{} applied {} of {group} where {} was applied",
                            seen.node, entry.0, first.0
                        );
                        return Err(Violation { id: ID, text });
                    }
                }
                *looked = upto.index;
            }
        }
        Ok(())
    }
}
