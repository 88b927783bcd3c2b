//! I-1, election safety: a leadership is a term and the node that it names, and nobody else leads by it; and at no moment may two nodes
//! answer reads alone.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 3; with openraft's leader ids a term
//! may have several leaders, told apart by the node. The lease: `raft::lease`, R-2.

use super::{Invariant, Moment, Violation};

const ID: &str = "I-1 election safety";

/// Keeps nothing.
#[derive(Debug, Default)]
pub struct ElectionSafety;

impl Invariant for ElectionSafety {
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation> {
        for (group, replicas) in &moment.replicas {
            let mut leased = None;
            for seen in replicas {
                if let Some((term, node)) = seen.replica.leads
                    && node != seen.node.0
                {
                    let text = format!(
                        "{} leads {group} by the leadership of {node} in term {term}",
                        seen.node
                    );
                    return Err(Violation { id: ID, text });
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
