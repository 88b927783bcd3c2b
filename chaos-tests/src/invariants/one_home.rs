//! I-8, one home: a session is in the shard of its slot, and in no other.
//!
//! Source: `model::placement`. Regions, and with them homes that move, are not built yet: within one region a home is a shard.

use model::placement;

use super::{Invariant, Moment, Violation};

const ID: &str = "I-8 one home";

/// Keeps nothing.
#[derive(Debug, Default)]
pub struct OneHome;

impl Invariant for OneHome {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            for seen in replicas {
                let Some(state) = &seen.state else { continue };
                let stray = state
                    .sessions
                    .iter()
                    .find(|session| placement::group_of(**session, moment.shards) != *group);
                if let Some(stray) = stray {
                    let text = format!("{group} at {} holds {stray}", seen.node);
                    return Err(Violation { id: ID, text });
                }
            }
        }
        Ok(())
    }
}
