//! Changes that are collected before they are committed, over a view of the tablet.
//!
//! Guarantees: reads show the transaction's own changes, then the view; nothing is visible to others before
//! `Tablet::commit`; dropping a transaction leaves no trace. Holds its changes in memory: callers bound what one entry does.

use std::collections::BTreeMap;
use std::mem::discriminant;

use bytes::Bytes;
use model::state::{Key, StateError, StateRead, StateWrite};

use crate::state::View;

/// A transaction on a tablet.
pub struct Txn {
    base: View,
    generation: u64,
    changes: BTreeMap<Key, Option<Bytes>>,
}

impl Txn {
    pub(crate) const fn new(base: View, generation: u64) -> Self {
        Self {
            base,
            generation,
            changes: BTreeMap::new(),
        }
    }

    /// Which commit it was begun upon.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// What changes, in key order; `None` removes.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&Key, Option<&Bytes>)> {
        self.changes
            .iter()
            .map(|(key, value)| (key, value.as_ref()))
    }

    /// How many keys change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn own(&self, from: &Key) -> impl Iterator<Item = (&Key, Option<&Bytes>)> + Clone {
        let kind = discriminant(from);
        self.changes
            .range(*from..)
            .take_while(move |(key, _)| discriminant(*key) == kind)
            .map(|(key, value)| (key, value.as_ref()))
    }
}

impl std::fmt::Debug for Txn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Txn({} changes on {})", self.len(), self.generation)
    }
}

impl StateRead for Txn {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        match self.changes.get(key) {
            Some(own) => Ok(own.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        overlaid(self.own(from), limit, |limit| self.base.scan(from, limit))
    }
}

/// Up to `limit` values of one kind from a place on, as they are when `changes`, which are in key order, are made to what `base`
/// gives.
pub(crate) fn overlaid<'a>(
    changes: impl Iterator<Item = (&'a Key, Option<&'a Bytes>)> + Clone,
    limit: usize,
    base: impl FnOnce(usize) -> Result<Vec<(Key, Bytes)>, StateError>,
) -> Result<Vec<(Key, Bytes)>, StateError> {
    // Each removal can take at most one value out of what the base gives.
    let removals = changes.clone().filter(|(_, value)| value.is_none()).count();
    let mut base = base(limit.saturating_add(removals))?.into_iter().peekable();
    let mut changes = changes.peekable();
    let mut out = Vec::with_capacity(base.len().min(limit));
    while out.len() < limit {
        let change_first = match (changes.peek(), base.peek()) {
            (Some((ours, _)), Some((theirs, _))) => *ours <= theirs,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        if !change_first {
            out.extend(base.next());
            continue;
        }
        if let Some((key, value)) = changes.next() {
            base.next_if(|(theirs, _)| theirs == key);
            out.extend(value.map(|value| (*key, value.clone())));
        }
    }
    Ok(out)
}

impl StateWrite for Txn {
    fn put(&mut self, key: Key, value: Bytes) {
        self.changes.insert(key, Some(value));
    }

    fn delete(&mut self, key: Key) {
        self.changes.insert(key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{ChunkId, TenantId};
    use proptest::prelude::*;
    use std::sync::Arc;

    #[derive(Debug, Default, Clone)]
    struct Map(BTreeMap<Key, Bytes>);

    impl StateRead for Map {
        fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
            let same = |key: &Key| discriminant(key) == discriminant(from);
            let range = self.0.range(from..).take_while(|(key, _)| same(key));
            Ok(range.take(limit).map(|(k, v)| (*k, v.clone())).collect())
        }
    }

    fn key(number: u8) -> Key {
        match number % 3 {
            0 => Key::Chunk(ChunkId([number; 16])),
            1 => Key::ChunkInfo(ChunkId([number; 16])),
            _ => Key::SessionCount(TenantId(u32::from(number))),
        }
    }

    proptest! {
        #[test]
        fn a_transaction_reads_as_if_its_changes_were_made(
            before in prop::collection::vec(any::<u8>(), 0..30),
            changes in prop::collection::vec((any::<u8>(), any::<Option<u8>>()), 0..30),
            from: u8,
            limit in 0..40_usize,
        ) {
            let value = |byte: u8| Bytes::from(vec![byte; 3]);
            let base = Map(before.iter().map(|n| (key(*n), value(*n))).collect());
            let mut expected = base.clone();
            let mut txn = Txn::new(Arc::new(base), 0);
            for (number, change) in changes {
                match change {
                    Some(byte) => {
                        txn.put(key(number), value(byte));
                        expected.0.insert(key(number), value(byte));
                    }
                    None => {
                        txn.delete(key(number));
                        expected.0.remove(&key(number));
                    }
                }
            }
            prop_assert_eq!(txn.scan(&key(from), limit).unwrap(), expected.scan(&key(from), limit).unwrap());
            prop_assert_eq!(txn.get(&key(from)).unwrap(), expected.get(&key(from)).unwrap());
        }
    }
}
