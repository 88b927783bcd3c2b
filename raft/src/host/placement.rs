//! Brings replicas where the meta group wants them, one step in a round; the decisions are `model::rebalance`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use model::rebalance::{self, Change, GroupView};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use super::admit;
use super::inner::Inner;
use crate::replica::Replica;

/// Between two rounds.
const EVERY: Duration = Duration::from_millis(500);
/// How long one change may take before the round goes on without it.
const CHANGE: Duration = Duration::from_secs(5);
/// Entries that a replica may lack and still count as caught up.
const NEAR: u64 = 64;

/// Reconciles, for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    while inner.pause(EVERY).await {
        let map = inner.map();
        if !map.is_bootstrapped() {
            continue;
        }
        let leads_meta = inner.meta().is_some_and(|meta| meta.replica.role().ready);
        if leads_meta && let Some(command) = rebalance::next_meta(&map) {
            tracing::info!(?command, "placement changes");
            report(&inner, command).await;
            continue;
        }
        for opened in inner.all_opened() {
            let replica = &opened.replica;
            if !replica.role().ready {
                continue;
            }
            let group = replica.parts.group;
            let view = view(replica);
            if let Some(change) = rebalance::next_change(&map, group, &view) {
                tracing::info!(%group, ?change, "membership changes");
                carry_out(replica, change).await;
            } else if let Some(command) = rebalance::settled(&map, group, &view) {
                report(&inner, command).await;
            }
        }
    }
}

async fn report(inner: &Arc<Inner>, command: model::meta::MetaCommand) {
    if let Err(error) = admit::propose(inner, command).await {
        tracing::warn!(%error, "placement was not changed");
    }
}

fn view(replica: &Replica) -> GroupView {
    let metrics = replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let uncommitted = metrics.committed_membership_config.log_id() != metrics.membership_config.log_id();
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
    GroupView {
        voters: membership.voter_ids().map(NodeId).collect(),
        learners: membership.learner_ids().map(NodeId).collect(),
        caught_up,
        changing: uncommitted || membership.get_joint_config().len() > 1,
    }
}

async fn carry_out(replica: &Replica, change: Change) {
    let raft = &replica.parts.raft;
    let group = replica.parts.group;
    let done = match change {
        Change::AddLearner(node) => {
            let added = raft.add_learner(node.0, (), false);
            timeout(CHANGE, added).await.map(|result| result.map(drop))
        }
        Change::Voters(voters) => {
            let voters: BTreeMap<u64, ()> = voters.iter().map(|node| (node.0, ())).collect();
            let changed = raft.change_membership(voters.into_keys(), false);
            timeout(CHANGE, changed).await.map(|result| result.map(drop))
        }
        Change::RemoveLearner(node) => {
            let remove = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
            let changed = raft.change_membership(remove, false);
            timeout(CHANGE, changed).await.map(|result| result.map(drop))
        }
    };
    match done {
        Ok(Ok(())) => {}
        // The next round looks at what became of it.
        Ok(Err(error)) => tracing::warn!(%group, %error, "membership was not changed"),
        Err(_late) => tracing::warn!(%group, "membership takes long to change"),
    }
}
