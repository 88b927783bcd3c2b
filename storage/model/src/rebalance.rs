//! From wanted to actual replicas, one safe step at a time: a pure decision.
//!
//! What comes in: what the meta group wants, and what each group's leader reports. What goes out: at most one step for each
//! group. A step never takes a voter away before its successor has caught up, never leaves a group without a live quorum,
//! and is not made while another change of the same group is under way, unless it ends one whose leader is gone. Whoever
//! carries the steps out may fail at any of them: the next decision starts from what is.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{GroupId, NodeId};
use crate::meta::{MetaState, NodePhase};

/// Voters that a group should have, where there are nodes enough.
pub const REPLICAS: usize = 3;

/// A group, as its leader reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Which group.
    pub group: GroupId,
    /// Its voters.
    pub voters: BTreeSet<NodeId>,
    /// Its learners.
    pub learners: BTreeSet<NodeId>,
    /// Those of both that answer and are near the end of the leader's log.
    pub caught_up: BTreeSet<NodeId>,
    /// Whether no change of its membership is under way.
    pub stable: bool,
    /// The voters to which a committed joint membership leads, if the group has one: who began the change may be gone, and
    /// nobody else would end it.
    pub unfinished: Option<BTreeSet<NodeId>>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node begins to follow a group.
    AddLearner {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// The group's voters become these; all of them have caught up.
    ChangeVoters {
        /// The group.
        group: GroupId,
        /// The voters from now on.
        voters: BTreeSet<NodeId>,
    },
    /// A learner that nobody wants is let go.
    DropLearner {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// The meta group's record is brought up to what is.
    Record {
        /// The group.
        group: GroupId,
        /// Its replicas.
        replicas: Vec<NodeId>,
    },
    /// A node that has nothing left is gone.
    Remove {
        /// The node.
        node: NodeId,
    },
}

/// The steps that may be made now.
#[must_use]
pub fn next_steps(meta: &MetaState, views: &[GroupView]) -> Vec<Step> {
    let active: BTreeSet<NodeId> = meta
        .nodes
        .iter()
        .filter(|(_, record)| record.phase == NodePhase::Active)
        .map(|(node, _)| *node)
        .collect();
    let mut load: BTreeMap<NodeId, usize> = active.iter().map(|node| (*node, 0)).collect();
    for node in views
        .iter()
        .flat_map(|view| view.voters.union(&view.learners))
    {
        if let Some(count) = load.get_mut(node) {
            *count = count.saturating_add(1);
        }
    }
    let mut steps: Vec<Step> = views
        .iter()
        .filter(|view| view.stable || view.unfinished.is_some())
        .filter_map(|view| step_of(meta, view, &active, &mut load))
        .collect();
    // A node goes only when every group has been heard of: silence is no proof that it has no replica.
    if steps.is_empty()
        && meta
            .replicas
            .keys()
            .all(|group| views.iter().any(|view| view.group == *group))
    {
        steps.extend(gone(meta, views));
    }
    steps
}

fn step_of(
    meta: &MetaState,
    view: &GroupView,
    active: &BTreeSet<NodeId>,
    load: &mut BTreeMap<NodeId, usize>,
) -> Option<Step> {
    let group = view.group;
    if let Some(voters) = view.unfinished.clone() {
        return Some(Step::ChangeVoters { group, voters });
    }
    let good: BTreeSet<NodeId> = view.voters.intersection(active).copied().collect();
    let surplus: BTreeSet<NodeId> = view.voters.difference(active).copied().collect();
    let wanted = REPLICAS.min(active.len());
    if good.len() < wanted {
        let ready = view
            .learners
            .iter()
            .find(|node| active.contains(node) && view.caught_up.contains(node));
        if let Some(&node) = ready {
            // One in, one out, in one joint change: the old quorum and the new one both agree.
            let mut voters = view.voters.clone();
            voters.insert(node);
            if let Some(old) = surplus.first() {
                voters.remove(old);
            }
            return quorum_lives(&voters, view).then_some(Step::ChangeVoters { group, voters });
        }
        if view.learners.is_disjoint(active) {
            let node = candidate(meta, view, active, load)?;
            return Some(Step::AddLearner { group, node });
        }
        return None;
    }
    let voters = odd(&good, wanted, view);
    if voters != view.voters {
        return quorum_lives(&voters, view).then_some(Step::ChangeVoters { group, voters });
    }
    if let Some(&node) = view.learners.first() {
        return Some(Step::DropLearner { group, node });
    }
    let replicas: Vec<NodeId> = view.voters.iter().copied().collect();
    let recorded: BTreeSet<NodeId> = meta
        .replicas
        .get(&group)
        .into_iter()
        .flatten()
        .copied()
        .collect();
    (recorded != view.voters).then_some(Step::Record { group, replicas })
}

/// More voters than are wanted are an odd number: one less than an even number survives as many losses with a smaller quorum.
fn odd(good: &BTreeSet<NodeId>, wanted: usize, view: &GroupView) -> BTreeSet<NodeId> {
    let mut voters = good.clone();
    if voters.len() > wanted && voters.len().is_multiple_of(2) {
        let behind = voters.difference(&view.caught_up).next().copied();
        if let Some(node) = behind.or_else(|| voters.last().copied()) {
            voters.remove(&node);
        }
    }
    voters
}

/// Whether a majority of these voters has caught up.
fn quorum_lives(voters: &BTreeSet<NodeId>, view: &GroupView) -> bool {
    let live = voters.intersection(&view.caught_up).count();
    live.saturating_mul(2) > voters.len()
}

/// The node that takes a replica: in a zone that the group is not in if there is one, then the one with the fewest.
fn candidate(
    meta: &MetaState,
    view: &GroupView,
    active: &BTreeSet<NodeId>,
    load: &mut BTreeMap<NodeId, usize>,
) -> Option<NodeId> {
    let zone = |node: &NodeId| {
        meta.nodes
            .get(node)
            .map(|record| record.address.zone.as_str())
    };
    let taken: BTreeSet<Option<&str>> = view.voters.intersection(active).map(zone).collect();
    let node = active
        .iter()
        .filter(|node| !view.voters.contains(node))
        .min_by_key(|node| (taken.contains(&zone(node)), load.get(node).copied(), **node))
        .copied()?;
    if let Some(count) = load.get_mut(&node) {
        *count = count.saturating_add(1);
    }
    Some(node)
}

/// Leaving nodes that neither a group nor the record names.
fn gone(meta: &MetaState, views: &[GroupView]) -> Vec<Step> {
    meta.nodes
        .iter()
        .filter(|(_, record)| record.phase == NodePhase::Leaving)
        .map(|(node, _)| *node)
        .filter(|node| {
            !meta
                .replicas
                .values()
                .any(|replicas| replicas.contains(node))
                && !views
                    .iter()
                    .any(|view| view.voters.contains(node) || view.learners.contains(node))
        })
        .map(|node| Step::Remove { node })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RegionId;
    use crate::meta::{NodeAddress, NodeRecord};

    fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().map(|&number| NodeId(number)).collect()
    }

    fn meta(active: &[u64], leaving: &[u64], recorded: &[u64]) -> MetaState {
        let region = RegionId::new(1).expect("in range");
        let mut meta = MetaState::default();
        for (numbers, phase) in [(active, NodePhase::Active), (leaving, NodePhase::Leaving)] {
            for &number in numbers {
                let address = NodeAddress {
                    zone: format!("z{number}"),
                    ..NodeAddress::default()
                };
                meta.nodes.insert(
                    NodeId(number),
                    NodeRecord {
                        region,
                        address,
                        phase,
                    },
                );
            }
        }
        let replicas = recorded.iter().map(|&number| NodeId(number)).collect();
        meta.replicas.insert(GroupId::Meta, replicas);
        meta
    }

    fn view(voters: &[u64], learners: &[u64], caught_up: &[u64]) -> GroupView {
        GroupView {
            group: GroupId::Meta,
            voters: ids(voters),
            learners: ids(learners),
            caught_up: ids(caught_up),
            stable: true,
            unfinished: None,
        }
    }

    #[test]
    fn a_lost_node_is_replaced_step_by_step_and_then_gone() {
        let group = GroupId::Meta;
        let wanted = meta(&[1, 2, 4], &[3], &[1, 2, 3]);
        let steps = next_steps(&wanted, &[view(&[1, 2, 3], &[], &[1, 2])]);
        assert_eq!(
            steps,
            [Step::AddLearner {
                group,
                node: NodeId(4)
            }]
        );
        assert_eq!(next_steps(&wanted, &[view(&[1, 2, 3], &[4], &[1, 2])]), []);
        let steps = next_steps(&wanted, &[view(&[1, 2, 3], &[4], &[1, 2, 4])]);
        assert_eq!(
            steps,
            [Step::ChangeVoters {
                group,
                voters: ids(&[1, 2, 4])
            }]
        );
        let steps = next_steps(&wanted, &[view(&[1, 2, 4], &[], &[1, 2, 4])]);
        assert_eq!(
            steps,
            [Step::Record {
                group,
                replicas: vec![NodeId(1), NodeId(2), NodeId(4)]
            }]
        );
        let recorded = meta(&[1, 2, 4], &[3], &[1, 2, 4]);
        let steps = next_steps(&recorded, &[view(&[1, 2, 4], &[], &[1, 2, 4])]);
        assert_eq!(steps, [Step::Remove { node: NodeId(3) }]);
        let done = meta(&[1, 2, 4], &[], &[1, 2, 4]);
        assert_eq!(next_steps(&done, &[view(&[1, 2, 4], &[], &[1, 2, 4])]), []);
    }

    #[test]
    fn no_step_is_made_while_another_is_under_way_or_without_a_live_quorum() {
        let wanted = meta(&[1, 2, 4], &[3], &[1, 2, 3]);
        let mut moving = view(&[1, 2, 3], &[4], &[1, 2, 4]);
        moving.stable = false;
        assert_eq!(next_steps(&wanted, std::slice::from_ref(&moving)), []);
        // Its leader went after the first half: whoever leads now makes the other one.
        moving.unfinished = Some(ids(&[1, 2, 4]));
        let step = Step::ChangeVoters {
            group: GroupId::Meta,
            voters: ids(&[1, 2, 4]),
        };
        assert_eq!(next_steps(&wanted, &[moving]), [step]);
        assert_eq!(next_steps(&wanted, &[view(&[1, 2, 3], &[4], &[4])]), []);
    }

    #[test]
    fn a_node_is_not_gone_while_a_group_is_silent() {
        let mut recorded = meta(&[1, 2, 4], &[3], &[1, 2, 4]);
        let region = RegionId::new(1).expect("in range");
        let silent = GroupId::Shard(region, crate::id::ShardId(0));
        recorded
            .replicas
            .insert(silent, vec![NodeId(1), NodeId(2), NodeId(4)]);
        assert_eq!(
            next_steps(&recorded, &[view(&[1, 2, 4], &[], &[1, 2, 4])]),
            []
        );
    }

    #[test]
    fn of_four_good_voters_one_is_let_go() {
        let wanted = meta(&[1, 2, 3, 4], &[5], &[1, 2, 3, 4, 5]);
        let step = |view: &GroupView| next_steps(&wanted, std::slice::from_ref(view));
        let to = |voters: &[u64]| {
            let (group, voters) = (GroupId::Meta, ids(voters));
            vec![Step::ChangeVoters { group, voters }]
        };
        let all = &[1, 2, 3, 4, 5];
        assert_eq!(step(&view(all, &[], all)), to(&[1, 2, 3]));
        assert_eq!(step(&view(all, &[], &[1, 3, 4])), to(&[1, 3, 4]));
        assert_eq!(step(&view(&all[..4], &[], &all[..4])), to(&[1, 2, 3]));
        let five = meta(&[1, 2, 3, 4, 6], &[], &[1, 2, 3, 4, 6]);
        let stays = view(&[1, 2, 3, 4, 6], &[], &[1, 2, 3, 4, 6]);
        assert_eq!(next_steps(&five, &[stays]), []);
    }

    #[test]
    fn a_fourth_node_does_not_change_a_group_that_has_three() {
        let four = meta(&[1, 2, 3, 4], &[], &[1, 2, 3]);
        assert_eq!(next_steps(&four, &[view(&[1, 2, 3], &[], &[1, 2, 3])]), []);
    }
}
