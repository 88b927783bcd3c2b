//! A view of a group's state that can be kept, and opening documents from it.
//!
//! Large documents are worked on by threads that may block, a bounded number at a time; small ones where the request is,
//! because handing them over would cost more than the work.

use std::sync::Arc;

use bytes::Bytes;
use model::id::{SessionId, TenantId};
use model::shard::Live;
use model::state::{Key, StateError, StateRead};
use tokio::sync::Semaphore;

use crate::service::Inner;
use crate::service::cache::Plain;
use crate::service::content::{self, ContentError};
use crate::service::error::{TryError, Why};
use crate::shard::ShardGroup;

/// Documents above this many bytes are worked on by threads that may block.
const LARGE_BYTES: usize = 256 * 1024;

/// A consistent view; cheap to clone.
#[derive(Clone)]
pub(super) struct View(Arc<dyn StateRead + Send + Sync>);

impl View {
    pub(super) fn of(group: &Arc<dyn ShardGroup>) -> Self {
        Self(group.view())
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

/// Where work on documents is done.
pub(super) struct Work {
    large: Semaphore,
}

impl Work {
    pub(super) fn new(max_large: usize) -> Self {
        Self {
            large: Semaphore::new(max_large.max(1)),
        }
    }

    /// Does work on about this many bytes.
    ///
    /// # Errors
    /// When the runtime is stopping.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TryError> {
        if bytes <= LARGE_BYTES {
            return Ok(job());
        }
        let _permit = self
            .large
            .acquire()
            .await
            .expect("the semaphore is never closed");
        match tokio::task::spawn_blocking(job).await {
            Ok(done) => Ok(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(TryError::NotReady(Why::Starting)),
            },
        }
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
