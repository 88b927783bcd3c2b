//! Damage to a disk in memory, for tests: values and snapshots that are not what was written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::state::{Key, StateError};

use super::dump::load;
use super::versions::{Versions, at};
use super::{MemoryDisk, Shared};
use crate::snapshot::SnapshotManifest;

impl MemoryDisk {
    /// Damages a value of the group's tablet: reads of it fail from now on, and a dump of it does not load. Says whether the
    /// value is there.
    pub fn damage(&self, group: u32, key: &Key) -> bool {
        let Some(group) = self.0.groups.lock().get(&group).cloned() else {
            return false;
        };
        let tablet = Arc::clone(&group.tablet.read());
        let mut shared = tablet.shared.write();
        let found = shared.values.contains_key(key);
        shared.bad.insert(*key);
        found
    }

    /// Damages one of the values of the group's tablet, by its number. Says which; none if there is none.
    pub fn damage_one_of(&self, group: u32, number: u64) -> Option<Key> {
        let tablet = {
            let group = self.0.groups.lock().get(&group).cloned()?;
            Arc::clone(&group.tablet.read())
        };
        let mut shared = tablet.shared.write();
        let there =
            |(key, versions): (&Key, &Versions)| at(versions, shared.now).is_some().then_some(*key);
        let keys: Vec<Key> = shared.values.iter().filter_map(there).collect();
        let count = u64::try_from(keys.len()).ok()?;
        let place = usize::try_from(number.checked_rem(count)?).ok()?;
        let key = *keys.get(place)?;
        shared.bad.insert(key);
        Some(key)
    }

    /// Whether a value of the group's tablet, or its snapshot, is damaged.
    #[must_use]
    pub fn is_damaged(&self, group: u32) -> bool {
        let Some(group) = self.0.groups.lock().get(&group).cloned() else {
            return false;
        };
        let tablet = Arc::clone(&group.tablet.read());
        if !tablet.shared.read().bad.is_empty() {
            return true;
        }
        let snapshot = group.snapshot.lock();
        let mut files = snapshot.iter().flat_map(|(_, files)| files.lock().clone());
        files.any(|(_, dump)| load(&dump, group.number).is_err())
    }

    /// Flips a bit in the middle of the group's snapshot. Says whether there is one.
    pub fn damage_snapshot(&self, group: u32) -> bool {
        let Some(group) = self.0.groups.lock().get(&group).cloned() else {
            return false;
        };
        let snapshot = group.snapshot.lock();
        let Some((_, files)) = &*snapshot else {
            return false;
        };
        for content in files.lock().values_mut() {
            let middle = content.len() / 2;
            if let Some(byte) = content.get_mut(middle) {
                *byte ^= 1;
            }
        }
        true
    }

    /// What the group's snapshot is to consist of.
    #[must_use]
    pub fn snapshot(&self, group: u32) -> Option<SnapshotManifest> {
        let group = self.0.groups.lock().get(&group).cloned()?;
        let snapshot = group.snapshot.lock();
        snapshot.as_ref().map(|(manifest, _)| manifest.clone())
    }
}

impl Shared {
    /// Counts damage.
    pub(super) fn damaged(&self) -> StateError {
        self.met.fetch_add(1, Ordering::Relaxed);
        StateError::Damaged("a value in memory was damaged by a test".to_owned())
    }
}
