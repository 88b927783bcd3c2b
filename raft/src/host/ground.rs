//! What a host's service stands on: the groups that are here, and the ways to other nodes' services.
//!
//! The host knows its service, to hand it what is committed and what others ask; so the service must not keep the host alive. What
//! comes when the host is gone finds no group and no peer.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::id::{GroupId, NodeId, RegionId};

use super::config::Ground;
use super::inner::{Inner, OpenedKind};
use crate::group::ShardReplica;
use crate::kinds;
use crate::shard::{Directory, PeerError, Peers, ShardGroup};
use crate::transport::{Call, CallError, Lane, RemoteError};

/// Above this, in bytes, a service's call goes over the bulk connection.
const BULK_BYTES: usize = 64 << 10;

/// A host that may be gone.
struct Footing {
    me: NodeId,
    region: RegionId,
    shards: u16,
    host: Weak<Inner>,
}

/// Of a host.
pub(crate) fn of(inner: &Arc<Inner>) -> Ground {
    let footing = Arc::new(Footing {
        me: inner.me,
        region: inner.region,
        shards: inner.shards,
        host: Arc::downgrade(inner),
    });
    Ground {
        directory: Arc::<Footing>::clone(&footing),
        peers: footing,
    }
}

impl Directory for Footing {
    fn me(&self) -> NodeId {
        self.me
    }

    fn region(&self) -> (RegionId, u16) {
        let host = self.host.upgrade();
        let shards = host.map_or(self.shards, |host| host.shards_of_region());
        (self.region, shards)
    }

    fn local(&self, group: GroupId) -> Option<Arc<dyn ShardGroup>> {
        let host = self.host.upgrade()?;
        let groups = host.groups.read();
        match &groups.get(&group)?.kind {
            OpenedKind::Shard(shard) => {
                let shard: Arc<dyn ShardGroup> = Arc::<ShardReplica>::clone(shard);
                Some(shard)
            }
            OpenedKind::Meta(_) => None,
        }
    }

    fn replicas(&self, group: GroupId) -> Vec<NodeId> {
        let Some(host) = self.host.upgrade() else {
            return Vec::new();
        };
        if let Some(opened) = host.opened(group) {
            let members = opened.replica.members();
            if !members.is_empty() {
                return members;
            }
        }
        let map = host.map();
        map.replicas.get(&group).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Peers for Footing {
    async fn call(
        &self,
        to: NodeId,
        group: GroupId,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let lane = if body.len() > BULK_BYTES {
            Lane::Bulk
        } else {
            Lane::Data
        };
        let call = Call {
            lane,
            kind: kinds::SERVICE,
            group,
            body,
            timeout,
        };
        let host = self.host.upgrade().ok_or(PeerError::NotSent)?;
        host.transport()
            .peer(to)
            .call(call)
            .await
            .map_err(|error| match error {
                CallError::Timeout | CallError::Closed => PeerError::Lost,
                // The handler was there and went away.
                CallError::Remote(RemoteError { code, .. }) if code == RemoteError::DROPPED => {
                    PeerError::Lost
                }
                CallError::Remote(_)
                | CallError::Unreachable(_)
                | CallError::Refused(_)
                | CallError::TooBusy
                | CallError::TooLarge => PeerError::NotSent,
            })
    }
}
