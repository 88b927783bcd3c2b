//! What must hold of the replicas of a group at every moment, whatever breaks: one property in each file.
//!
//! | id | file | property |
//! |---|---|---|
//! | I-1 | [`election_safety`] | one leader for each leadership, one lease at a time |
//! | I-2 | [`log_matching`] | logs that agree in one entry agree in all before it |
//! | I-3 | [`leader_completeness`] | a leader has every entry that was committed before it led |
//! | I-4 | [`state_machine_safety`] | no two replicas apply different entries at one index |
//! | I-5 | [`committed_immutable`] | what was committed stays as it was |
//! | I-6 | [`monotonic`] | terms, commits, purges, applied entries and log time never go back in one life |
//! | I-7 | [`equal_state`] | equal applied index, equal state |
//! | I-8 | [`one_home`] | a session is in one shard |
//! | I-9 | [`ledger_exact`] | a request is applied once at most, and revisions go up by one |
//! | I-10 | [`no_expired_read`] | nothing expired is served, nothing expires early, and what has expired stays so |
//!
//! An invariant of replicas (I-1 to I-8) is shown a [`Moment`] and keeps what it needs of earlier ones. It reads only: what a replica
//! exposes of its log and its state (`raft::host::Inspected`). I-9 is told of every event that a replica applies, I-10 of what clients
//! saw, for only they can tell; the oracle (`sim::oracle`) asks both at the end of a run. `tests` shows of each that it can fail.

pub mod committed_immutable;
pub mod election_safety;
pub mod equal_state;
pub mod leader_completeness;
pub mod ledger_exact;
pub mod log_matching;
pub mod monotonic;
pub mod no_expired_read;
pub mod one_home;
pub mod state_machine_safety;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId};
use raft::host::{Facts, StateHash};
use storage::log::LogId;

/// One replica at one moment.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Where.
    pub node: NodeId,
    /// How often the node was started.
    pub life: u64,
    /// What it exposes.
    pub replica: &'a Facts,
    /// The entries of its log, by index: id and hash of the payload.
    pub entries: &'a BTreeMap<u64, (LogId, u64)>,
    /// The first of them that is new or changed since the last moment.
    pub changed: Option<u64>,
    /// A hash of its state, at moments at which that is looked at.
    pub state: Option<StateHash>,
}

/// All replicas that run, at one moment.
#[derive(Debug, Default)]
pub struct Moment<'a> {
    /// Shards of the region.
    pub shards: u16,
    /// By group, then by node.
    pub replicas: BTreeMap<GroupId, Vec<Seen<'a>>>,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's id.
    pub id: &'static str,
    /// What was seen.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.id, self.text)
    }
}

/// A property of all moments.
pub trait Invariant: Send {
    /// Looks at a moment.
    ///
    /// # Errors
    /// When the property does not hold.
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), Violation>;
}

/// All invariants, at the beginning of a run.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(election_safety::ElectionSafety),
        Box::<log_matching::LogMatching>::default(),
        Box::<leader_completeness::LeaderCompleteness>::default(),
        Box::<state_machine_safety::StateMachineSafety>::default(),
        Box::<committed_immutable::CommittedImmutable>::default(),
        Box::<monotonic::Monotonic>::default(),
        Box::<equal_state::EqualState>::default(),
        Box::new(one_home::OneHome),
    ]
}
