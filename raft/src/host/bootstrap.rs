//! Making a region: once, by the lowest of its first nodes, and only when nothing exists anywhere.
//!
//! The lowest node asks all others what they have before it makes a group; a group that any of them has used is not made
//! again, so a wiped disk never starts a second cluster. Whoever then leads the meta group gives the cluster
//! its id. All steps can be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use model::id::{GroupId, NodeId};
use model::meta::{MetaCommand, MetaOutcome, RegionRecord};
use tokio::time::Instant;

use super::inner::Inner;
use crate::kinds;
use crate::reads;
use crate::transport::{Call, Lane};

const EVERY: Duration = Duration::from_millis(100);
const ASK: Duration = Duration::from_secs(1);

/// Makes what is missing, until the cluster exists.
pub(crate) async fn run(inner: Arc<Inner>) {
    let lowest = inner.seed.iter().map(|(node, _)| *node).min();
    let mut made = false;
    while !inner.map().is_bootstrapped() {
        if lowest == Some(inner.me) && !made {
            made = make_groups(&inner).await;
        }
        name_cluster(&inner).await;
        if !inner.pause(EVERY).await {
            return;
        }
    }
}

/// Makes the groups that nobody has used; false when somebody did not answer.
async fn make_groups(inner: &Arc<Inner>) -> bool {
    let empty: Vec<GroupId> = inner
        .all_opened()
        .iter()
        .filter(|opened| {
            let log = &opened.replica.parts.log;
            log.vote().is_none() && log.state().last.is_none()
        })
        .map(|opened| opened.replica.parts.group)
        .collect();
    if empty.is_empty() {
        return true;
    }
    let answers = join_all(inner.others().into_iter().map(|node| ask(inner, node))).await;
    let Some(used) = answers.into_iter().collect::<Option<Vec<_>>>() else {
        return false;
    };
    let used: Vec<GroupId> = used.into_iter().flatten().collect();
    let members: BTreeMap<u64, ()> = inner.seed.iter().map(|(node, _)| (node.0, ())).collect();
    for group in empty {
        let Some(opened) = inner.opened(group) else {
            continue;
        };
        if used.contains(&group) {
            tracing::warn!(%group, "another node has used it: it is not made again");
            continue;
        }
        if let Err(error) = opened.replica.parts.raft.initialize(members.clone()).await {
            tracing::warn!(%group, %error, "group cannot be made");
        }
    }
    true
}

async fn ask(inner: &Arc<Inner>, node: NodeId) -> Option<Vec<GroupId>> {
    let call = Call {
        lane: Lane::Control,
        kind: kinds::CENSUS,
        group: GroupId::Meta,
        body: bytes::Bytes::new(),
        timeout: ASK,
    };
    let answer = inner.transport().peer(node).call(call).await.ok()?;
    reads::decode_groups(answer).ok()
}

/// Gives the cluster its id, first region and nodes, if this node leads the meta group.
async fn name_cluster(inner: &Arc<Inner>) {
    let Some(meta) = inner.meta() else { return };
    if !meta.replica.role().ready || meta.state().borrow().is_bootstrapped() {
        return;
    }
    let command = MetaCommand::Bootstrap {
        cluster: rand::random(),
        region: inner.region,
        record: RegionRecord {
            name: inner.region_name.clone(),
            shards: inner.shards,
        },
        nodes: inner.seed.clone(),
    };
    match meta.propose(command, Instant::now() + ASK).await {
        Ok(MetaOutcome::Refused(reason)) => {
            tracing::debug!(reason, "the cluster was made by another");
        }
        Ok(_) => tracing::info!("the cluster is made"),
        Err(error) => tracing::debug!(%error, "the cluster is not made yet"),
    }
}
