//! Whom this node talks to: peers of its cluster whose disks are as new as they were.

use std::sync::Arc;

use bytes::Bytes;
use model::codec;
use model::id::{GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;

use super::inner::Inner;
use crate::life::{self, Hello};
use crate::transport::Refusal;

/// What this node says of itself.
pub(crate) fn ours(inner: &Arc<Inner>) -> Bytes {
    let logs = inner.all_opened();
    let logs = logs.iter().map(|opened| {
        let last = opened.replica.parts.log.state().last;
        (opened.replica.parts.group.to_raw(), last.map_or(0, |id| id.index))
    });
    codec::encode(&Hello {
        cluster: inner.map().cluster,
        life: inner.memory.life(),
        logs: logs.collect(),
    })
}

/// Whether to talk to `from`, which says `hello`.
pub(crate) fn check(inner: &Arc<Inner>, from: NodeId, hello: &[u8]) -> Result<(), Refusal> {
    let Ok(hello) = codec::decode::<Hello>(hello) else {
        return Err(life::refusal(from, life::BAD_HELLO, "its greeting does not decode"));
    };
    let map = inner.map();
    if map.removed.contains(&from) {
        return Err(life::refusal(from, life::REMOVED, "it was removed from the cluster"));
    }
    let known = |cluster: [u8; 16]| cluster != [0; 16];
    if known(map.cluster) && known(hello.cluster) && map.cluster != hello.cluster {
        return Err(life::refusal(from, life::OTHER_CLUSTER, "it belongs to another cluster"));
    }
    for (raw, last) in &hello.logs {
        let acknowledged = GroupId::from_raw(*raw).map_or(0, |group| acknowledged(inner, group, from));
        if *last < acknowledged {
            tracing::error!(node = %from, group = raw, last, acknowledged, "a peer lost a part of its log");
            return Err(life::refusal(from, life::LOST_LOG, "it has less log than it acknowledged"));
        }
    }
    inner.memory.meet(from, hello.life)
}

/// The last committed entry that `node` acknowledged to this node as the leader. Such an entry is never truncated.
fn acknowledged(inner: &Arc<Inner>, group: GroupId, node: NodeId) -> u64 {
    let Some(opened) = inner.opened(group) else { return 0 };
    let metrics = opened.replica.parts.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref().and_then(|peers| peers.get(&node.0).copied().flatten());
    let committed = metrics.local_committed.map_or(0, |id| id.index);
    matched.map_or(0, |id| id.index.min(committed))
}
