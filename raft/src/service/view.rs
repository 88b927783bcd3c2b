//! A view of a group's state that can be kept, and opening documents from it.

use std::sync::Arc;

use bytes::Bytes;
use model::id::{SessionId, TenantId};
use model::shard::Live;
use model::state::{Key, StateError, StateRead};

use crate::service::Inner;
use crate::service::cache::Plain;
use crate::service::content::{self, ContentError};
use crate::service::error::{TryError, Why};
use crate::shard::ShardGroup;

/// A consistent view; cheap to clone.
#[derive(Clone)]
pub(super) struct View(Arc<dyn StateRead + Send + Sync>);

impl View {
    /// What the replica shows now; an error if it is closed, and another one is to be asked.
    pub(super) fn of(group: &Arc<dyn ShardGroup>) -> Result<Self, TryError> {
        let view = group.view();
        view.map(Self)
            .map_err(|_closed| TryError::NotReady(Why::Stale))
    }
}

impl StateRead for View {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        self.0.get(key)
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        self.0.scan(from, limit)
    }
}

impl Inner {
    /// The document of a session as this view has it, from the cache if it is there.
    pub(super) async fn open(
        &self,
        view: &View,
        who: (TenantId, SessionId),
        live: &Live,
    ) -> Result<Arc<Plain>, TryError> {
        if let Some(plain) = self.cache.get(&who, live.version) {
            self.metrics.cache_hits.increment(1);
            return Ok(plain);
        }
        self.metrics.cache_misses.increment(1);
        let (view, keys) = (view.clone(), Arc::clone(&self.keys));
        let job = move || -> Result<Plain, ContentError> {
            let key = content::load_key(&view, &keys, who)?;
            let body = content::load_body(&view, who)?;
            let sections = content::open_body(&view, &key, who, &body)?;
            Ok(Plain { key, sections })
        };
        let plain = Arc::new(self.work.run(weight(live.plain_bytes), job).await??);
        self.cache.insert(who, live.version, &plain);
        Ok(plain)
    }
}

/// A stored length as a measure of work.
pub(super) fn weight(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
