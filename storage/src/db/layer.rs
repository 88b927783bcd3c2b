//! Commits that RocksDB does not have yet, and what it has of those before them that nearly every command asks for.
//!
//! A commit of a few sessions costs RocksDB some microseconds for each key, most of them waiting for memory on the way through a
//! memtable. So commits are collected in a [`Layer`], a sorted map, and written out together, in key order, each key once. Nothing is lost
//! by that: no commit is durable before a flush, and a flush writes the layer out first.
//!
//! Invariant of a layer: the newest value of generation `n` or earlier under a key is what a view of generation `n` sees; a key
//! that has none is as in the database. It only grows, so a view may keep it as long as it likes. Invariant of [`Known`]: what
//! it says of a key is what the database has, as it was when the last layer was written out.

use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;

use bytes::Bytes;
use model::state::Key;
use parking_lot::RwLock;

/// What an entry costs besides its value, about.
const ENTRY_BYTES: usize = 128;

/// A value, or that there is none, since a commit.
struct Version {
    generation: u64,
    value: Option<Bytes>,
    older: Option<Box<Self>>,
}

impl Version {
    /// What a view of this generation sees, if it is not older than all.
    fn at(&self, generation: u64) -> Option<&Self> {
        let mut version = Some(self);
        while let Some(newer) = version.filter(|version| version.generation > generation) {
            version = newer.older.as_deref();
        }
        version
    }
}

impl Drop for Version {
    /// One after another: a key may have been changed very often.
    fn drop(&mut self) {
        let mut older = self.older.take();
        while let Some(mut version) = older {
            older = version.older.take();
        }
    }
}

#[derive(Default)]
struct Entries {
    newest: BTreeMap<Key, Version>,
    bytes: usize,
}

/// Commits since the last that was written out.
#[derive(Default)]
pub(super) struct Layer(RwLock<Entries>);

impl Layer {
    /// Adds what a commit changes, which views up to now do not see.
    pub(super) fn add<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Key, Option<&'a Bytes>)>,
        generation: u64,
    ) {
        let mut entries = self.0.write();
        for (key, value) in changes {
            entries.bytes += ENTRY_BYTES + value.map_or(0, Bytes::len);
            let version = Version {
                generation,
                value: value.cloned(),
                older: None,
            };
            match entries.newest.entry(*key) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(version);
                }
                std::collections::btree_map::Entry::Occupied(mut place) => {
                    let older = std::mem::replace(place.get_mut(), version);
                    place.get_mut().older = Some(Box::new(older));
                }
            }
        }
    }

    /// What it takes, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        self.0.read().bytes
    }

    /// What a view of this generation sees under the key: a value or that there is none. `None`: what the database has.
    pub(super) fn get(&self, key: &Key, generation: u64) -> Option<Option<Bytes>> {
        let entries = self.0.read();
        let version = entries.newest.get(key)?.at(generation)?;
        Some(version.value.clone())
    }

    /// What a view of this generation sees here of the kind of `from`, from there on.
    pub(super) fn range(&self, from: &Key, generation: u64) -> Vec<(Key, Option<Bytes>)> {
        let kind = discriminant(from);
        let entries = self.0.read();
        entries
            .newest
            .range(*from..)
            .take_while(|(key, _)| discriminant(*key) == kind)
            .filter_map(|(key, newest)| Some((*key, newest.at(generation)?.value.clone())))
            .collect()
    }

    /// Shows all that was changed, as it is now, in key order.
    pub(super) fn each(&self, mut show: impl FnMut(&Key, Option<&Bytes>)) {
        let entries = self.0.read();
        for (key, version) in &entries.newest {
            show(key, version.value.as_ref());
        }
    }
}

/// What the database has of session records and the shard's head: a bounded part.
#[derive(Clone, Default)]
pub(super) struct Known {
    values: HashMap<Key, Option<Bytes>>,
    bytes: usize,
}

impl Known {
    /// What is known when a layer is in the database too. Past so many bytes, what was known before is forgotten.
    pub(super) fn with(&self, layer: &Layer, most: usize) -> Self {
        let fits = self.bytes + layer.bytes() <= most;
        let mut known = if fits { self.clone() } else { Self::default() };
        layer.each(|key, value| {
            let size = |value: Option<&Bytes>| ENTRY_BYTES + value.map_or(0, Bytes::len);
            if matches!(key, Key::Session(..) | Key::Head) {
                known.bytes += size(value);
                if let Some(old) = known.values.insert(*key, value.cloned()) {
                    known.bytes -= size(old.as_ref());
                }
            }
        });
        known
    }

    /// What the database has under the key: a value or that there is none. `None`: it must be asked.
    pub(super) fn get(&self, key: &Key) -> Option<Option<Bytes>> {
        self.values.get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use model::id::{ChunkId, SessionId, TenantId};
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Key {
        match number % 3 {
            0 => Key::Head,
            1 => Key::Session(TenantId(1), SessionId::from_bytes([number; 16])),
            _ => Key::Chunk(ChunkId([number; 16])),
        }
    }

    fn commit(layer: &Layer, changes: &[(u8, Option<u8>)], generation: u64) {
        let changes: BTreeMap<Key, Option<Bytes>> = changes
            .iter()
            .map(|(number, value)| (key(*number), value.map(|value| Bytes::from(vec![value; 9]))))
            .collect();
        layer.add(
            changes.iter().map(|(key, value)| (key, value.as_ref())),
            generation,
        );
    }

    proptest! {
        #[test]
        fn each_generation_sees_what_was_committed_until_then(
            commits in prop::collection::vec(
                prop::collection::vec((0..12_u8, any::<Option<u8>>()), 0..5), 0..20),
            from in 0..12_u8,
        ) {
            let layer = Layer::default();
            let mut shown = vec![BTreeMap::new()];
            for (generation, changes) in (1..).zip(&commits) {
                commit(&layer, changes, generation);
                let mut now: BTreeMap<Key, Option<u8>> = shown.last().cloned().unwrap();
                now.extend(changes.iter().map(|(number, value)| (key(*number), *value)));
                shown.push(now);
            }
            let plain = |value: Option<Bytes>| value.map(|bytes| bytes[0]);
            for (generation, expected) in (0..).zip(&shown) {
                for number in 0..12 {
                    let seen = layer.get(&key(number), generation).map(plain);
                    prop_assert_eq!(seen, expected.get(&key(number)).copied());
                }
                let first = key(from);
                let seen: Vec<_> = layer
                    .range(&first, generation)
                    .into_iter()
                    .map(|(key, value)| (key, plain(value)))
                    .collect();
                let range: Vec<_> = expected
                    .range(first..)
                    .filter(|(key, _)| discriminant(*key) == discriminant(&first))
                    .map(|(key, value)| (*key, *value))
                    .collect();
                prop_assert_eq!(seen, range);
            }
            let mut newest = BTreeMap::new();
            layer.each(|key, value| {
                newest.insert(*key, plain(value.cloned()));
            });
            prop_assert_eq!(&newest, shown.last().unwrap());
        }
    }

    #[test]
    fn only_records_and_heads_are_known_and_the_newest() {
        let layer = Layer::default();
        commit(&layer, &[(0, Some(1)), (1, Some(1)), (2, Some(1))], 1);
        commit(&layer, &[(1, None), (4, Some(2))], 2);
        let known = Known::default().with(&layer, 9999);
        assert_eq!(known.get(&key(0)).unwrap().unwrap()[0], 1);
        assert_eq!(known.get(&key(1)), Some(None));
        assert_eq!(known.get(&key(2)), None, "a chunk");
        assert_eq!(known.get(&key(7)), None, "never seen");
        let next = Layer::default();
        commit(&next, &[(1, Some(3))], 3);
        let more = known.with(&next, 9999);
        assert_eq!(more.get(&key(1)).unwrap().unwrap()[0], 3);
        assert_eq!(more.get(&key(4)).unwrap().unwrap()[0], 2);
        let bounded = known.with(&next, known.bytes);
        assert_eq!(bounded.get(&key(4)), None);
        assert!(bounded.get(&key(1)).is_some());
    }

    #[test]
    fn a_key_that_is_changed_very_often_is_dropped_without_a_deep_stack() {
        let layer = Layer::default();
        for generation in 0..200_000 {
            commit(&layer, &[(0, None)], generation);
        }
        assert_eq!(layer.get(&key(0), 5), Some(None));
        assert!(layer.bytes() >= 200_000 * ENTRY_BYTES);
    }
}
