//! A hash of everything that the replicas of a group must have in common.
//!
//! It covers every key and value of a view, in key order: two replicas at the same applied index have the same hash, however
//! their files differ. What a tablet keeps for itself (whose it is, the applied mark with its count of bytes) is not a
//! [`Key`] and is left out; nothing else in the state is local. It reads all of the state, so it belongs on a thread that
//! may block, and ends at a deadline.

use bytes::Bytes;
use model::state::{Key, StateRead};
use tokio::time::Instant;

use crate::error::TabletError;
use crate::keys;
use crate::state::{Tablet, View};

/// Values read at a time: at most so many chunks are in memory.
const PAGE: usize = 32;
/// Tries to find a moment without a commit between two looks at the mark.
const LOOKS: usize = 1000;

/// The hash of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// BLAKE3 of all keys and values.
    pub hash: [u8; 32],
    /// How many there are.
    pub keys: u64,
}

/// A view, and the applied mark of the commit that it shows; `None` when commits come so densely that no moment was found.
#[must_use]
pub fn marked_view(tablet: &dyn Tablet) -> Option<(View, Option<Bytes>)> {
    for _ in 0..LOOKS {
        let before = tablet.applied();
        let view = tablet.view();
        // The mark changes with each commit, and is read under the writer's lock: nothing was committed between.
        if tablet.applied() == before {
            return Some((view, before));
        }
    }
    None
}

/// The hash of all that a view shows; `None` when it takes longer than `until`.
///
/// # Errors
/// When a value cannot be read or is damaged.
pub fn digest(view: &dyn StateRead, until: Instant) -> Result<Option<Digest>, TabletError> {
    let mut hasher = blake3::Hasher::new_derive_key("psp-edge storage 2026 state digest");
    let mut count = 0_u64;
    for first in keys::first_of_kinds() {
        let mut from = first;
        let mut skip = 0;
        loop {
            if Instant::now() >= until {
                return Ok(None);
            }
            let page = view.scan(&from, PAGE)?;
            for (key, value) in page.iter().skip(skip) {
                add(&mut hasher, key, value);
                count += 1;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => from = *last,
                Some(_) | None => break,
            }
            // A page begins with the last key of the one before.
            skip = 1;
        }
    }
    Ok(Some(Digest {
        hash: *hasher.finalize().as_bytes(),
        keys: count,
    }))
}

fn add(hasher: &mut blake3::Hasher, key: &Key, value: &Bytes) {
    for part in [&keys::encode(key)[..], &value[..]] {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.update(&length.to_be_bytes());
        hasher.update(part);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use model::id::{SessionId, TenantId};
    use model::state::StateWrite as _;

    use super::*;
    use crate::db::StateConfig;
    use crate::state::StateEngine;

    fn until() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn session(number: u8) -> Key {
        Key::Session(TenantId(1), SessionId::from_bytes([number; 16]))
    }

    fn filled(engine: &StateEngine, path: &Path, changed: Option<u8>) -> Digest {
        let store = engine.open(path, 7).unwrap();
        let tablet = store.current();
        for number in 0..100 {
            let mut txn = tablet.begin();
            let value = if changed == Some(number) { 1 } else { 0 };
            txn.put(session(number), Bytes::copy_from_slice(&[number, value]));
            txn.put(Key::Head, Bytes::from_static(b"head"));
            tablet.commit(&txn, &[number]).unwrap();
        }
        let (view, mark) = marked_view(&*tablet).unwrap();
        assert_eq!(mark.unwrap()[..], [99]);
        digest(&*view, until()).unwrap().unwrap()
    }

    #[test]
    fn equal_states_have_one_hash_in_both_stores_and_a_changed_value_another() {
        let dir = tempfile::tempdir().unwrap();
        let rocks = StateEngine::rocksdb(StateConfig::default()).unwrap();
        let on_disk = filled(&rocks, dir.path(), None);
        assert_eq!(on_disk.keys, 101);
        assert_eq!(filled(&StateEngine::memory(), dir.path(), None), on_disk);
        let changed = filled(&StateEngine::memory(), dir.path(), Some(64));
        assert_eq!(changed.keys, on_disk.keys);
        assert_ne!(changed.hash, on_disk.hash);
    }

    #[test]
    fn it_ends_at_its_deadline() {
        let store = StateEngine::memory().open(Path::new(""), 7).unwrap();
        let view = store.current().view();
        assert_eq!(digest(&*view, Instant::now()).unwrap(), None);
    }
}
