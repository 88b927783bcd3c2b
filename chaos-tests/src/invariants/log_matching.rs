//! I-2, log matching: an id names one entry, and two logs that have an entry of the same id agree in all entries before it.
//!
//! Source: Ongaro and Ousterhout, figure 3.

use std::collections::BTreeMap;

use model::id::GroupId;
use storage::log::LogId;

use super::{Invariant, Moment, Seen, Violation};

const ID: &str = "I-2 log matching";

/// The entries that were seen, in any log.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(GroupId, LogId), u64>,
}

impl Invariant for LogMatching {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            for seen in replicas {
                self.new_entries(*group, seen)?;
            }
            for (number, one) in replicas.iter().enumerate() {
                for other in &replicas[number + 1..] {
                    if one.changed.is_some() || other.changed.is_some() {
                        compare(*group, one, other)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl LogMatching {
    fn new_entries(&mut self, group: GroupId, seen: &Seen<'_>) -> Result<(), Violation> {
        let Some(changed) = seen.changed else {
            return Ok(());
        };
        for (id, hash) in seen.entries.range(changed..).map(|(_, entry)| entry) {
            let first = *self.entries.entry((group, *id)).or_insert(*hash);
            if first != *hash {
                let text = format!("{} has another entry {id} of {group}", seen.node);
                return Err(Violation { id: ID, text });
            }
        }
        Ok(())
    }
}

fn compare(group: GroupId, one: &Seen<'_>, other: &Seen<'_>) -> Result<(), Violation> {
    let mut agreed = None;
    let last = |seen: &Seen<'_>| seen.entries.keys().next_back().copied().unwrap_or(0);
    let last = last(one).min(last(other));
    for (index, (id, _)) in one.entries.range(..=last).rev() {
        let Some((theirs, _)) = other.entries.get(index) else {
            break;
        };
        if id == theirs {
            agreed.get_or_insert(*id);
        } else if let Some(agreed) = agreed {
            let text = format!(
                "{} and {} agree in {agreed} of {group} and not before it: {id} and {theirs}",
                one.node, other.node
            );
            return Err(Violation { id: ID, text });
        }
    }
    Ok(())
}
