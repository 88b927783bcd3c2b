//! Brings replicas from where they are to where they should be, one step in a round; the decisions are `model::rebalance`'s.
//!
//! Each group's leader decides and carries out the steps of its own group; it reports what is to the meta group, whose leader
//! removes a node once no group has it on record. Every active node learns the meta group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::id::{GroupId, NodeId};
use model::meta::{MetaCommand, MetaState, NodePhase};
use model::rebalance::{GroupView, Step, next_steps};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use super::inner::Inner;
use super::{admit, balance};
use crate::replica::Replica;

/// Between two rounds.
const EVERY: Duration = Duration::from_millis(500);
/// How long one change may take before the round goes on without it.
const CHANGE: Duration = Duration::from_secs(5);
/// Voters of the meta group, beyond which nodes only learn.
const VOTERS: usize = model::rebalance::REPLICAS;
/// Entries that a replica may lack and still count as caught up.
const NEAR: u64 = 64;

/// Reconciles, for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    while inner.pause(EVERY).await {
        let map = inner.map();
        if !map.is_bootstrapped() {
            continue;
        }
        for opened in inner.all_opened() {
            let replica = &opened.replica;
            if replica.role().ready
                && let Some(step) = step(&map, &view(replica))
            {
                tracing::info!(?step, "placement changes");
                carry_out(&inner, replica, step).await;
            }
        }
        let leads_meta = inner.meta().is_some_and(|meta| meta.replica.role().ready);
        if let Some(node) = gone(&map).filter(|_| leads_meta) {
            report(&inner, MetaCommand::Remove { node }).await;
        }
    }
}

/// The next step of one group.
fn step(map: &MetaState, view: &GroupView) -> Option<Step> {
    let active = |node: &NodeId| {
        map.nodes
            .get(node)
            .is_some_and(|record| record.phase == NodePhase::Active)
    };
    let group = view.group;
    if group == GroupId::Meta && view.stable {
        let member = |node: &NodeId| view.voters.contains(node) || view.learners.contains(node);
        if let Some(node) = map.nodes.keys().find(|node| active(node) && !member(node)) {
            return Some(Step::AddLearner { group, node: *node });
        }
    }
    let mut kept = view.clone();
    if group == GroupId::Meta && view.voters.iter().filter(|node| active(node)).count() >= VOTERS {
        // They are no surplus: every node learns the meta group.
        kept.learners.retain(|node| !active(node));
    }
    next_steps(map, std::slice::from_ref(&kept))
        .into_iter()
        .find(|step| !matches!(step, Step::Remove { .. }))
}

/// A node that leaves and that no group has on record.
fn gone(map: &MetaState) -> Option<NodeId> {
    let held = |node: &NodeId| {
        map.replicas
            .values()
            .any(|replicas| replicas.contains(node))
    };
    let mut leaving = map
        .nodes
        .iter()
        .filter(|(_, record)| record.phase == NodePhase::Leaving);
    leaving.find(|(node, _)| !held(node)).map(|(node, _)| *node)
}

async fn report(inner: &Arc<Inner>, command: MetaCommand) {
    if let Err(error) = admit::propose(inner, command).await {
        tracing::warn!(%error, "placement was not reported");
    }
}

fn view(replica: &Replica) -> GroupView {
    let metrics = replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let committed =
        metrics.committed_membership_config.log_id() == metrics.membership_config.log_id();
    let last = metrics.last_log_index.unwrap_or(0);
    let near = |matched: u64| matched.saturating_add(NEAR) >= last;
    let mut caught_up: BTreeSet<NodeId> = metrics
        .replication
        .iter()
        .flatten()
        .filter(|(_, matched)| matched.is_some_and(|id| near(id.index)))
        .map(|(node, _)| NodeId(*node))
        .collect();
    caught_up.insert(replica.parts.me);
    let configs = membership.get_joint_config();
    let target = configs.last().filter(|_| committed && configs.len() > 1);
    GroupView {
        group: replica.parts.group,
        voters: membership.voter_ids().map(NodeId).collect(),
        learners: membership.learner_ids().map(NodeId).collect(),
        caught_up,
        stable: committed && configs.len() == 1,
        unfinished: target.map(|voters| voters.iter().copied().map(NodeId).collect()),
    }
}

async fn carry_out(inner: &Arc<Inner>, replica: &Replica, step: Step) {
    let raft = &replica.parts.raft;
    let group = replica.parts.group;
    let done = match step {
        Step::AddLearner { node, .. } => {
            let added = raft.add_learner(node.0, (), false);
            timeout(CHANGE, added).await.map(said)
        }
        Step::ChangeVoters { voters, .. } if !voters.contains(&inner.me) => {
            // The next leader makes the change: a leader that is taken out leaves a gap.
            if !balance::pass_on(inner, replica, &voters).await {
                tracing::warn!(%group, "nobody takes the leadership that is to go");
            }
            return;
        }
        Step::ChangeVoters { voters, .. } => {
            let voters: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
            let changed = raft.change_membership(voters, false);
            timeout(CHANGE, changed).await.map(said)
        }
        Step::DropLearner { node, .. } => {
            let remove = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
            let changed = raft.change_membership(remove, false);
            timeout(CHANGE, changed).await.map(said)
        }
        Step::Record { group, replicas } => {
            return report(inner, MetaCommand::Place { group, replicas }).await;
        }
        Step::Remove { node } => return report(inner, MetaCommand::Remove { node }).await,
    };
    match done {
        Ok(None) => {}
        // The next round looks at what became of it.
        Ok(Some(error)) => tracing::warn!(%group, error, "membership was not changed"),
        Err(_late) => tracing::warn!(%group, "membership takes long to change"),
    }
}

/// What openraft says against a change.
fn said<T, E: std::error::Error>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| error.to_string())
}
