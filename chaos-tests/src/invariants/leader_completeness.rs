//! I-3, leader completeness: a leader's log has every entry that was committed in an earlier leadership.
//!
//! Source: Ongaro and Ousterhout, figure 3. The newest committed entry of each earlier leadership is looked for; with log matching
//! (I-2) that is all of them.

use std::collections::BTreeMap;

use model::id::GroupId;
use storage::log::LogId;

use super::{Invariant, Moment, Violation};

const ID: &str = "I-3 leader completeness";

/// The newest committed entry of each leadership.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    committed: BTreeMap<GroupId, BTreeMap<(u64, u64), LogId>>,
}

impl Invariant for LeaderCompleteness {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            let committed = self.committed.entry(*group).or_default();
            for seen in replicas {
                let upto = seen.replica.committed.max(seen.replica.applied);
                if let Some(id) = upto {
                    let newest = committed.entry((id.term, id.node)).or_insert(id);
                    *newest = (*newest).max(id);
                }
            }
            for seen in replicas {
                let Some(leadership) = seen.replica.leads else {
                    continue;
                };
                let purged = seen.replica.log.purged.map_or(0, |id| id.index);
                let has = |id: &LogId| {
                    let found = seen.entries.get(&id.index);
                    found.is_some_and(|(found, _)| found == id)
                };
                let missing = committed
                    .range(..leadership)
                    .map(|(_, id)| id)
                    .find(|id| id.index > purged && !has(id));
                if let Some(missing) = missing {
                    let text = format!(
                        "{} leads {group} as {leadership:?} without the committed entry {missing}",
                        seen.node
                    );
                    return Err(Violation { id: ID, text });
                }
            }
        }
        Ok(())
    }
}
