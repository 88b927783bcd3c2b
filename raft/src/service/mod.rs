//! The replicated session service: [`model::service::Sessions`] over the groups of this node and of others.
//!
//! It knows groups and nodes only by the traits of [`crate::shard`]. What it guarantees is said where it is kept:
//!
//! | file | what |
//! |---|---|
//! | `client.rs` | a write until it has an end: here or at the leader's node, tried again under one request id |
//! | `leader.rs` | the write itself: read, modify, seal |
//! | `propose.rs` | its way through the group, and what it came to |
//! | `queue.rs` | a short queue for each session |
//! | `read.rs` | linearizable and local reads |
//! | `list.rs` | a page over all shards |
//! | `watch/` | changes in order, from a version |
//! | `content.rs`, `pack.rs`, `seal.rs`, `keys.rs` | compression, sealing, chunks, keys |
//! | `cache.rs`, `view.rs` | opened documents |
//! | `work.rs` | threads for large documents |
//! | `route.rs`, `wire.rs`, `inbound.rs` | other nodes |
//! | `error.rs`, `metrics.rs`, `config.rs` | how a try ends, what is counted, what can be set |
//!
//! No body, name or key of a session is ever logged; what is stored or proposed is sealed.

mod cache;
mod client;
mod config;
mod content;
mod error;
mod inbound;
mod keys;
mod leader;
mod list;
mod metrics;
mod pack;
mod propose;
mod queue;
mod read;
mod route;
mod seal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod wire;
mod work;

pub use config::ServiceConfig;
pub use keys::{KEY_BYTES, KeyRing, MasterKey};

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::id::{GroupId, NodeId, RegionId, SessionId, TenantId, Version};
use model::placement;
use model::service::{
    Changes, Failure, ListReply, ListRequest, ReadReply, ReadRequest, Sessions, WriteReply,
    WriteRequest,
};
use model::shard::Event;
use model::time::Clock;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::shard::{Directory, EventSink, Peers, ServiceInbound};

/// Questions of watches without a local replica that are under way at a time.
const MAX_POLLS: usize = 64;

struct Inner {
    config: ServiceConfig,
    region: RegionId,
    keys: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    links: RwLock<Option<route::Links>>,
    hints: RwLock<HashMap<GroupId, NodeId>>,
    clients: client::Admission,
    others: client::Admission,
    queues: Arc<queue::Queues>,
    cache: cache::Cache,
    work: work::Work,
    hub: watch::Hub,
    watchers: Arc<Semaphore>,
    polls: Semaphore,
    metrics: metrics::Metrics,
    closed: CancellationToken,
}

/// The session service of one node.
///
/// Made before the groups are opened, because they tell it what they commit ([`EventSink`]); attached to them
/// ([`Service::attach`]) when they are there. Until then, and after [`Service::close`], requests are answered
/// "unavailable".
pub struct Service {
    inner: Arc<Inner>,
}

impl Service {
    /// A service that is not attached yet, for a node of this region.
    #[must_use]
    pub fn new(
        config: ServiceConfig,
        region: RegionId,
        keys: KeyRing,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let metrics = metrics::Metrics::new();
        let watchers = config.max_watchers.min(Semaphore::MAX_PERMITS);
        let inner = Inner {
            region,
            keys: Arc::new(keys),
            clock,
            links: RwLock::default(),
            hints: RwLock::default(),
            clients: client::Admission::new(config.max_requests, config.max_request_bytes),
            others: client::Admission::new(config.max_inbound, config.max_inbound_bytes),
            queues: queue::Queues::new(config.max_waiters),
            cache: cache::Cache::new(config.cache_bytes, metrics.cache_bytes.clone()),
            work: work::Work::new(config.max_large),
            hub: watch::Hub::new(config.history_bytes, config.watcher_queue),
            watchers: Arc::new(Semaphore::new(watchers)),
            polls: Semaphore::new(MAX_POLLS),
            metrics,
            closed: CancellationToken::new(),
            config,
        };
        Arc::new(Self {
            inner: Arc::new(inner),
        })
    }

    /// Begins to serve. The service holds both until it is closed.
    pub fn attach(&self, directory: Arc<dyn Directory>, peers: Arc<dyn Peers>) {
        *self.inner.links.write() = Some(route::Links { directory, peers });
    }

    /// Ends all watches, forgets opened documents, lets go of what was attached, and refuses what comes later. Requests
    /// under way end on their own.
    pub fn close(&self) {
        self.inner.closed.cancel();
        *self.inner.links.write() = None;
        self.inner.cache.clear();
    }
}

#[async_trait]
impl Sessions for Service {
    fn birth_region(&self) -> RegionId {
        self.inner.region
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteReply, Failure> {
        self.inner.write(request).await
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadReply, Failure> {
        self.inner.read(&request).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListReply, Failure> {
        self.inner.list(&request).await
    }

    async fn watch(
        &self,
        tenant: TenantId,
        session: SessionId,
        from: Option<Version>,
    ) -> Result<Changes, Failure> {
        self.inner.watch(tenant, session, from).await
    }

    fn leaderless(&self) -> Vec<GroupId> {
        let Ok(links) = self.inner.links() else {
            return Vec::new();
        };
        let (region, shards) = links.directory.region();
        placement::groups(region, shards)
            .filter(|group| {
                let local = links.directory.local(*group);
                local.is_some_and(|local| local.leader().is_none())
            })
            .collect()
    }
}

#[async_trait]
impl ServiceInbound for Service {
    async fn handle(&self, _from: NodeId, group: GroupId, body: Bytes) -> Bytes {
        self.inner.handle(group, &body).await
    }
}

impl EventSink for Service {
    fn committed(&self, group: GroupId, events: Vec<Event>) {
        self.inner.hub.committed(group, events);
    }

    fn replaced(&self, group: GroupId) {
        self.inner.hub.replaced(group);
    }
}
