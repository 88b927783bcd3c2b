//! The cluster, as this node sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::id::NodeId;
use model::meta::{NodePhase, NodeRecord};
use model::status::{ClusterStatus, GroupStatus, NodeStatus, ReplicaStatus};
use openraft::async_runtime::watch::WatchReceiver;

use super::inner::{Inner, Opened};
use crate::types::LogId;

/// Fills in the published schema.
pub(crate) fn status(inner: &Arc<Inner>) -> ClusterStatus {
    let map = inner.map();
    let opened = inner.all_opened();
    let mut leads: BTreeMap<NodeId, u64> = BTreeMap::new();
    for leader in opened
        .iter()
        .filter_map(|opened| opened.replica.role().leader)
    {
        *leads.entry(leader).or_default() += 1;
    }
    let node = |(id, record): (&NodeId, &NodeRecord)| {
        let leads = leads.get(id).copied().unwrap_or(0);
        node_status(inner, *id, record, leads)
    };
    ClusterStatus {
        cluster: hex::encode(map.cluster),
        node: inner.me.0,
        region: inner.region.get(),
        shards: inner.shards_of_region(),
        nodes: map.nodes.iter().map(node).collect(),
        groups: opened.iter().map(|opened| group_status(opened)).collect(),
    }
}

fn node_status(inner: &Inner, id: NodeId, record: &NodeRecord, leads: u64) -> NodeStatus {
    let me = id == inner.me;
    let reachable = me
        || inner
            .peers
            .lock()
            .get(&id)
            .is_some_and(|peer| peer.reachable);
    let rtt = if me { None } else { inner.transport().rtt(id) };
    let phase = match record.phase {
        NodePhase::Active => "active",
        NodePhase::Leaving => "leaving",
    };
    NodeStatus {
        id: id.0,
        peer: record.address.peer.clone(),
        http: record.address.http.clone(),
        admin: record.address.admin.clone(),
        zone: record.address.zone.clone(),
        phase: phase.to_owned(),
        reachable,
        rtt_micros: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        leads,
    }
}

fn group_status(opened: &Opened) -> GroupStatus {
    let replica = &opened.replica;
    let metrics = replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched().clone();
    let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
    let last = metrics.last_log_index.unwrap_or(0);
    let membership = metrics.membership_config.membership();
    let matched = |node: u64| {
        if metrics.replication.is_some() && node == replica.parts.me.0 {
            return Some(last);
        }
        let matched = metrics.replication.as_ref()?.get(&node)?;
        Some(index(*matched))
    };
    let one = |node: u64, role: &str| ReplicaStatus {
        node,
        role: role.to_owned(),
        matched_index: matched(node),
        lag: matched(node).map(|matched| last.saturating_sub(matched)),
    };
    let voters = membership.voter_ids().map(|node| one(node, "voter"));
    let learners = membership.learner_ids().map(|node| one(node, "learner"));
    GroupStatus {
        group: replica.parts.group.to_string(),
        leader: metrics.current_leader,
        term: metrics.current_term,
        last_index: last,
        committed_index: index(metrics.local_committed),
        applied_index: index(metrics.last_applied),
        snapshot_index: index(metrics.snapshot),
        log_bytes: replica.parts.log.bytes(),
        replicas: voters.chain(learners).collect(),
    }
}
