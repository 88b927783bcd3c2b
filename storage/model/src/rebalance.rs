//! Which replica goes where: decisions, one safe step at a time, from what is wanted and what is.
//!
//! Two loops use this. The meta group's leader decides the wanted replicas ([`next_meta`]); each group's leader brings its
//! membership there ([`next_change`]). So a replacement is: want the new node too, learn it, let it catch up, change the
//! voters in one joint step, want the old one no more, and remove a node once nobody wants it.
//!
//! Never decided here: a change while another is under way, one that counts on a replica that has not caught up, and one that leaves
//! a group with fewer voters than before, unless no other node is there to take the place.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{GroupId, NodeId};
use crate::meta::{MetaCommand, MetaState, NodePhase};

/// Voters of a shard's group, when there are as many nodes.
pub const SHARD_REPLICAS: usize = 3;
/// Voters of the meta group at the most; other nodes learn.
pub const META_VOTERS: usize = 5;

/// The next change of the meta group's state, if one is due.
#[must_use]
pub fn next_meta(meta: &MetaState) -> Option<MetaCommand> {
    let active = nodes_in(meta, NodePhase::Active);
    let leaving = nodes_in(meta, NodePhase::Leaving);
    let known = meta.replicas.iter();
    for (group, replicas) in known {
        if let Some(replicas) = wanted(meta, *group, replicas, &active, &leaving) {
            let group = *group;
            return Some(MetaCommand::Place { group, replicas });
        }
    }
    let held: BTreeSet<NodeId> = meta.replicas.values().flatten().copied().collect();
    let gone = leaving.iter().find(|node| !held.contains(node));
    gone.map(|node| MetaCommand::Remove { node: *node })
}

/// Adds a node where one is missing. Who leaves is taken out by the group's leader, after the change ([`settled`]).
fn wanted(
    meta: &MetaState,
    group: GroupId,
    replicas: &[NodeId],
    active: &BTreeSet<NodeId>,
    leaving: &BTreeSet<NodeId>,
) -> Option<Vec<NodeId>> {
    let staying = replicas.iter().filter(|node| !leaving.contains(node)).count();
    let candidates: Vec<NodeId> = match group {
        GroupId::Meta => active.iter().copied().collect(),
        GroupId::Shard(region, _) => active
            .iter()
            .copied()
            .filter(|node| meta.nodes.get(node).is_some_and(|record| record.region == region))
            .collect(),
    };
    let missing = match group {
        // Every node has the meta group's state.
        GroupId::Meta => candidates.iter().any(|node| !replicas.contains(node)),
        GroupId::Shard(..) => staying < SHARD_REPLICAS,
    };
    if !missing {
        return None;
    }
    let new = candidates
        .into_iter()
        .filter(|node| !replicas.contains(node))
        .min_by_key(|node| (shares_zone(meta, *node, replicas, leaving), load(meta, *node), *node))?;
    let mut wanted = replicas.to_vec();
    wanted.push(new);
    Some(wanted)
}

/// Whether a staying replica is in the same zone.
fn shares_zone(
    meta: &MetaState,
    node: NodeId,
    replicas: &[NodeId],
    leaving: &BTreeSet<NodeId>,
) -> bool {
    let zone = |node: &NodeId| meta.nodes.get(node).map(|record| record.address.zone.as_str());
    let own = zone(&node).filter(|zone| !zone.is_empty());
    let mut staying = replicas.iter().filter(|other| !leaving.contains(other));
    own.is_some() && staying.any(|other| zone(other) == own)
}

fn load(meta: &MetaState, node: NodeId) -> usize {
    meta.replicas.values().filter(|replicas| replicas.contains(&node)).count()
}

fn nodes_in(meta: &MetaState, phase: NodePhase) -> BTreeSet<NodeId> {
    let nodes = meta.nodes.iter().filter(|(_, record)| record.phase == phase);
    nodes.map(|(node, _)| *node).collect()
}

/// A group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupView {
    /// Voters, when no change is under way.
    pub voters: BTreeSet<NodeId>,
    /// Learners.
    pub learners: BTreeSet<NodeId>,
    /// Members that have (nearly) the whole log; the leader is one.
    pub caught_up: BTreeSet<NodeId>,
    /// Whether a change of membership is not finished.
    pub changing: bool,
}

/// A change of a group's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node that is to hold a replica begins to learn.
    AddLearner(NodeId),
    /// These are the voters from now on; those of before that are not among them are out.
    Voters(BTreeSet<NodeId>),
    /// A learner that is not wanted.
    RemoveLearner(NodeId),
}

/// The next change of a group's membership, if one is due.
#[must_use]
pub fn next_change(meta: &MetaState, group: GroupId, view: &GroupView) -> Option<Change> {
    if view.changing {
        return None;
    }
    let leaving = nodes_in(meta, NodePhase::Leaving);
    let wanted: Vec<NodeId> = meta.replicas.get(&group)?.clone();
    let member = |node: &NodeId| view.voters.contains(node) || view.learners.contains(node);
    if let Some(new) = wanted.iter().find(|node| !leaving.contains(node) && !member(node)) {
        return Some(Change::AddLearner(*new));
    }
    let most = match group {
        GroupId::Meta => META_VOTERS,
        GroupId::Shard(..) => SHARD_REPLICAS,
    };
    // Those that vote already come first; then those that can.
    let mut staying: Vec<NodeId> =
        wanted.iter().copied().filter(|node| !leaving.contains(node)).collect();
    staying.retain(|node| view.voters.contains(node) || view.caught_up.contains(node));
    staying.sort_by_key(|node| (!view.voters.contains(node), *node));
    staying.truncate(most);
    let voters: BTreeSet<NodeId> = staying.into_iter().collect();
    // An even number of voters bears no more than one fewer, but a node in transit is worth it.
    let smaller = voters.len() < view.voters.len();
    let nobody_else = wanted.iter().all(|node| leaving.contains(node) || voters.contains(node));
    if !voters.is_empty()
        && voters != view.voters
        && (!smaller || nobody_else)
        && has_quorum(&voters, view)
    {
        return Some(Change::Voters(voters));
    }
    let surplus = view.learners.iter().find(|node| {
        let unwanted = !wanted.contains(node) || leaving.contains(node);
        unwanted && !view.voters.contains(node)
    });
    surplus.map(|node| Change::RemoveLearner(*node))
}

/// Whether a majority of the voters to be has the log, so that the joint step can be committed.
fn has_quorum(voters: &BTreeSet<NodeId>, view: &GroupView) -> bool {
    let ready = voters.intersection(&view.caught_up).count();
    ready.saturating_mul(2) > voters.len()
}

/// What the group's leader reports once nodes that leave are out of its membership: the replicas without them.
#[must_use]
pub fn settled(meta: &MetaState, group: GroupId, view: &GroupView) -> Option<MetaCommand> {
    if view.changing {
        return None;
    }
    let leaving = nodes_in(meta, NodePhase::Leaving);
    let wanted = meta.replicas.get(&group)?;
    let out = |node: &NodeId| {
        leaving.contains(node) && !view.voters.contains(node) && !view.learners.contains(node)
    };
    if !wanted.iter().any(out) {
        return None;
    }
    let replicas = wanted.iter().copied().filter(|node| !out(node)).collect();
    Some(MetaCommand::Place { group, replicas })
}

/// How many groups want each node, for those who look.
#[must_use]
pub fn loads(meta: &MetaState) -> BTreeMap<NodeId, usize> {
    meta.nodes.keys().map(|node| (*node, load(meta, *node))).collect()
}
