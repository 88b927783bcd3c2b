//! I-1, election safety: a leadership (term and node) has one leader, and at no moment may two nodes answer reads alone.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 3; with openraft's leader ids a term
//! may have several leaders, told apart by the node. The lease: `raft::lease`, R-2.

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId};

use super::{Invariant, Moment, Violation};

const ID: &str = "I-1 election safety";

/// Who led.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(GroupId, u64, u64), NodeId>,
}

impl Invariant for ElectionSafety {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            let mut leased = None;
            for seen in replicas {
                if let Some((term, node)) = seen.replica.leads {
                    let first = *self
                        .leaders
                        .entry((*group, term, node))
                        .or_insert(seen.node);
                    if first != seen.node {
                        let text = format!(
                            "{first} and {} led {group} in term {term} for {node}",
                            seen.node
                        );
                        return Err(Violation { id: ID, text });
                    }
                }
                if seen.replica.leased {
                    if let Some(other) = leased {
                        let text = format!("{other} and {} hold the lease of {group}", seen.node);
                        return Err(Violation { id: ID, text });
                    }
                    leased = Some(seen.node);
                }
            }
        }
        Ok(())
    }
}
