//! Who leads what: leaderships spread evenly, and handed over when a node goes.
//!
//! The preferred leader of a group is the voter at the group's own number, counted round; so all nodes agree without a word. A
//! leader that is not preferred hands over to the one that is, when that one is reachable, does not drain, and has
//! the log; one group at a time, so that the cluster is never busy with itself. A node whose clock, disk or processor is sick,
//! or whose disk is short of space, gives up everything at once, to whoever is well, and is given nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use model::id::{GroupId, NodeId};
use tokio::time::{Instant, timeout, timeout_at};

use super::inner::{Inner, Opened};
use super::probe;
use crate::replica::Replica;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(700);
/// How long a leadership rests before it is handed over for balance.
const REST: Duration = Duration::from_secs(3);
/// How long a hand-over may take before another target is tried.
const TRY: Duration = Duration::from_millis(700);

/// The voter that should lead a group.
#[must_use]
pub(crate) fn preferred(group: GroupId, voters: &[NodeId]) -> Option<NodeId> {
    let mut voters = voters.to_vec();
    voters.sort_unstable();
    let number = match group {
        GroupId::Meta => 0,
        GroupId::Shard(_, shard) => usize::from(shard.0),
    };
    voters.get(number.checked_rem(voters.len())?).copied()
}

/// Balances, for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut since: std::collections::BTreeMap<GroupId, Instant> = std::collections::BTreeMap::new();
    while inner.pause(EVERY).await {
        if inner.is_draining() {
            continue;
        }
        if probe::clock_is_sick(&inner) {
            tracing::error!(
                "this node's wall clock is far from the others'; it gives up leadership"
            );
        }
        let sick = probe::is_unfit(&inner);
        let mut leaving = Vec::new();
        for opened in inner.all_opened() {
            let group = opened.replica.parts.group;
            if !opened.replica.role().ready {
                since.remove(&group);
                continue;
            }
            let rested = since.entry(group).or_insert_with(Instant::now).elapsed() > REST;
            if let Some(to) = target(&inner, &opened.replica, sick).filter(|_| rested || sick) {
                leaving.push((opened, to));
            }
        }
        // One at a time for balance; a sick node should lead nothing, and soon.
        leaving.truncate(if sick { usize::MAX } else { 1 });
        join_all(leaving.iter().map(|(opened, to)| {
            let group = opened.replica.parts.group;
            tracing::info!(%group, %to, sick, "hands leadership over");
            hand_over(&opened.replica, *to)
        }))
        .await;
    }
}

fn target(inner: &Inner, replica: &Replica, sick: bool) -> Option<NodeId> {
    let ready: Vec<NodeId> = replica
        .caught_up()
        .into_iter()
        .filter(|node| may_lead(inner, *node))
        .collect();
    if sick {
        return ready.first().copied();
    }
    let preferred = preferred(replica.parts.group, &replica.voters())?;
    ready.contains(&preferred).then_some(preferred)
}

/// Hands a group's leadership to one of `to`, if one of them may lead; says whether one does then.
pub(crate) async fn pass_on(inner: &Inner, replica: &Replica, to: &BTreeSet<NodeId>) -> bool {
    let ready = replica.caught_up().into_iter();
    let ready = ready.filter(|node| to.contains(node));
    for node in ready.filter(|node| may_lead(inner, *node)) {
        if hand_over(replica, node).await {
            return true;
        }
    }
    false
}

fn may_lead(inner: &Inner, node: NodeId) -> bool {
    let peers = inner.peers.lock();
    peers
        .get(&node)
        .is_some_and(|peer| peer.reachable && !peer.draining)
}

/// Hands leadership to `to`; says whether another node leads then.
async fn hand_over(replica: &Replica, to: NodeId) -> bool {
    let me = replica.parts.me;
    let mut roles = replica.roles();
    // The group itself may wait for a disk that does not answer.
    if !matches!(timeout(TRY, replica.hand_over(to)).await, Ok(true)) {
        return false;
    }
    let gone = roles.wait_for(|role| !role.ready && role.leader.is_some_and(|leader| leader != me));
    let done = timeout_at(Instant::now() + TRY, gone).await;
    matches!(done, Ok(Ok(_)))
}

/// Hands all leaderships to replicas that have the log, all at once; returns how many are left when there is no
/// target or no time any more. This node does not campaign from then on.
pub(crate) async fn drain(inner: &Arc<Inner>, limit: Duration) -> usize {
    inner.draining.store(true, Ordering::Release);
    let opened = inner.all_opened();
    for opened in &opened {
        opened.replica.parts.raft.runtime_config().elect(false);
    }
    let deadline = Instant::now() + limit;
    let left = join_all(opened.iter().map(|opened| leave(opened, deadline))).await;
    left.into_iter().filter(|left| *left).count()
}

/// Hands one group's leadership over, to one after the other. Whether this node still leads the group in the end.
pub(super) async fn leave(opened: &Opened, deadline: Instant) -> bool {
    let replica = &opened.replica;
    let mut tries = 0_usize;
    while leads(replica) && Instant::now() < deadline {
        let targets = replica.caught_up();
        let Some(to) = targets
            .get(tries.checked_rem(targets.len()).unwrap_or(0))
            .copied()
        else {
            if replica.voters().len() <= 1 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        tries += 1;
        hand_over(replica, to).await;
    }
    leads(replica)
}

fn leads(replica: &Replica) -> bool {
    replica.role().leader == Some(replica.parts.me)
}

/// Takes part in elections again.
pub(crate) fn undrain(inner: &Inner) {
    inner.draining.store(false, Ordering::Release);
    for opened in inner.all_opened() {
        if !opened.replica.parts.gate.is_closed() {
            opened.replica.parts.raft.runtime_config().elect(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{RegionId, ShardId};

    #[test]
    fn six_shards_are_led_by_three_nodes_evenly() {
        let region = RegionId::new(1).unwrap();
        let voters = [NodeId(3), NodeId(1), NodeId(2)];
        let leaders: Vec<u64> = (0..6)
            .filter_map(|shard| preferred(GroupId::Shard(region, ShardId(shard)), &voters))
            .map(|node| node.0)
            .collect();
        assert_eq!(leaders, [1, 2, 3, 1, 2, 3]);
        assert_eq!(preferred(GroupId::Meta, &[]), None);
    }
}
