//! I-7, equal state: replicas that have applied up to the same index have the same state, key for key.
//!
//! Source: S-7 (the same state and entry give the same state on every replica); R-3.

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId};
use storage::log::LogId;

use super::{Invariant, Moment, Violation};

const ID: &str = "I-7 equal state";

/// The state at each applied entry, by whoever had it first.
#[derive(Debug, Default)]
pub struct EqualState {
    states: BTreeMap<(GroupId, LogId), (u64, NodeId)>,
}

impl Invariant for EqualState {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            for seen in replicas {
                let Some(state) = &seen.state else { continue };
                let Some(applied) = state.applied else {
                    continue;
                };
                let first = *self
                    .states
                    .entry((*group, applied))
                    .or_insert((state.hash, seen.node));
                if first.0 != state.hash {
                    let text = format!(
                        "{} and {} applied {group} up to {applied} and have different states",
                        first.1, seen.node
                    );
                    return Err(Violation { id: ID, text });
                }
            }
        }
        Ok(())
    }
}
