//! What a reader sees of a tablet in memory: one moment, whatever is committed later.

use std::mem::discriminant;
use std::sync::Arc;

use bytes::Bytes;
use model::state::{Key, StateError, StateRead};
use parking_lot::RwLock;

use super::Shared;
use super::versions::at;

/// A tablet as it was at one commit, which is kept for as long as the view is.
pub(super) struct MemoryView {
    pub(super) shared: Arc<RwLock<Shared>>,
    pub(super) moment: u64,
}

impl Drop for MemoryView {
    fn drop(&mut self) {
        let shared = self.shared.read();
        let mut views = shared.views.lock();
        if let Some(count) = views.get_mut(&self.moment) {
            *count -= 1;
            if *count == 0 {
                views.remove(&self.moment);
            }
        }
    }
}

impl StateRead for MemoryView {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        let shared = self.shared.read();
        if shared.bad.contains(key) {
            return Err(shared.damaged());
        }
        let versions = shared.values.get(key);
        Ok(versions
            .and_then(|versions| at(versions, self.moment))
            .cloned())
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        let kind = discriminant(from);
        let shared = self.shared.read();
        let range = shared.values.range(*from..);
        let same = range.take_while(|(key, _)| discriminant(*key) == kind);
        let shown =
            same.filter_map(|(key, versions)| Some((*key, at(versions, self.moment)?.clone())));
        let found: Vec<_> = shown.take(limit).collect();
        match found.iter().any(|(key, _)| shared.bad.contains(key)) {
            true => Err(shared.damaged()),
            false => Ok(found),
        }
    }
}
