//! Whom this node talks to: peers of its cluster whose disks are as new as they were.

use std::sync::Arc;

use bytes::Bytes;
use model::codec;
use model::id::NodeId;
use openraft::async_runtime::watch::WatchReceiver;

use super::inner::{Inner, Opened};
use crate::life::{self, Hello};
use crate::transport::Refusal;

/// What this node says of itself.
pub(crate) fn ours(inner: &Arc<Inner>) -> Bytes {
    // From the log itself: the groups may not be open yet.
    let logs = inner.log.lock().as_ref().map(|log| {
        let last = |raw: u32| (raw, log.group(raw).state().last.map_or(0, |id| id.index));
        log.groups().into_iter().map(last).collect()
    });
    codec::encode(&Hello {
        cluster: inner.map().cluster,
        life: inner.memory.life(),
        incarnation: inner.memory.incarnation(),
        logs: logs.unwrap_or_default(),
    })
}

/// Whether to talk to `from`, which says `hello`.
pub(crate) fn check(inner: &Arc<Inner>, from: NodeId, hello: &[u8]) -> Result<(), Refusal> {
    let Ok(hello) = codec::decode::<Hello>(hello) else {
        return Err(life::refusal(
            from,
            life::BAD_HELLO,
            "its greeting does not decode",
        ));
    };
    let map = inner.map();
    if map.removed.contains(&from) {
        return Err(life::refusal(
            from,
            life::REMOVED,
            "it was removed from the cluster",
        ));
    }
    let known = |cluster: [u8; 16]| cluster != [0; 16];
    if known(map.cluster) && known(hello.cluster) && map.cluster != hello.cluster {
        return Err(life::refusal(
            from,
            life::OTHER_CLUSTER,
            "it belongs to another cluster",
        ));
    }
    if inner.memory.is_let_in(from, hello.incarnation) {
        // This greeting may be older than what the same process has shown since.
        return Ok(());
    }
    for opened in inner.all_opened() {
        let group = opened.replica.parts.group;
        let shown = hello.logs.iter().find(|(raw, _)| *raw == group.to_raw());
        let last = shown.map_or(0, |(_, last)| *last);
        let acknowledged = acknowledged(&opened, from);
        if last < acknowledged {
            tracing::error!(node = %from, %group, last, acknowledged, "a peer lost a part of its log");
            return Err(life::refusal(
                from,
                life::LOST_LOG,
                "it has less log than it acknowledged",
            ));
        }
    }
    inner.memory.let_in(from, hello.life, hello.incarnation)
}

/// The last committed entry that `node` acknowledged to this node as the leader. Such an entry is never truncated.
fn acknowledged(opened: &Opened, node: NodeId) -> u64 {
    let metrics = opened.replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|peers| peers.get(&node.0).copied().flatten());
    let committed = metrics.local_committed.map_or(0, |id| id.index);
    matched.map_or(0, |id| id.index.min(committed))
}
