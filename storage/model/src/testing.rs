//! A state in memory, for tests of `apply` and of what builds on it.

use std::collections::BTreeMap;
use std::mem::discriminant;

use bytes::Bytes;

use crate::state::{Key, StateError, StateRead, StateWrite};

/// A group's state in a sorted map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState(pub BTreeMap<Key, Bytes>);

impl StateRead for MemoryState {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        let same = |key: &Key| discriminant(key) == discriminant(from);
        let range = self
            .0
            .range(from..)
            .take_while(|(key, _)| same(key))
            .take(limit);
        Ok(range.map(|(key, value)| (*key, value.clone())).collect())
    }
}

impl StateWrite for MemoryState {
    fn put(&mut self, key: Key, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Key) {
        self.0.remove(&key);
    }
}
