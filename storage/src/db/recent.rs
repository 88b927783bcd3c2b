//! What was committed last of what nearly every command and read asks for: session records, and the head of a shard.
//!
//! A lookup in a memtable costs some microseconds, most of them waiting for memory; here it costs a hash.
//!
//! Invariant: an entry of generation `n` is what the commit of that generation wrote under its key, and no commit since has changed
//! the key. So it is what a view of generation `n` or later sees; an older one asks RocksDB. A commit holds to it in this order: it
//! [forgets](Recent::forget) the keys that it changes, writes, [remembers](Recent::remember) them with its generation, and then
//! publishes that; a view reads the generation before it takes its snapshot, which may then be newer, never older.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::state::Key;
use parking_lot::Mutex;

/// Bytes of keys and values after which the older half is forgotten.
const HALF_BYTES: usize = 256 * 1024;
/// What an entry costs besides its value, about.
const ENTRY_BYTES: usize = 128;

struct Entry {
    generation: u64,
    /// `None`: it was deleted.
    value: Option<Bytes>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    young_bytes: usize,
}

/// The values committed last; bounded.
#[derive(Default)]
pub(super) struct Recent {
    halves: Mutex<Halves>,
    generation: AtomicU64,
}

impl Recent {
    /// The generation of the last commit that is published.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What a view of this generation sees under the key: a value or that there is none. `None` if it is not known here.
    pub(super) fn get(&self, key: &Key, generation: u64) -> Option<Option<Bytes>> {
        if !is_kept(key) {
            return None;
        }
        let halves = self.halves.lock();
        let entry = halves.young.get(key).or_else(|| halves.old.get(key))?;
        (entry.generation <= generation).then(|| entry.value.clone())
    }

    /// Before a commit writes these.
    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut halves = self.halves.lock();
        for key in keys.filter(|key| is_kept(key)) {
            if let Some(entry) = halves.young.remove(key) {
                halves.young_bytes -= bytes(&entry);
            }
            halves.old.remove(key);
        }
    }

    /// After they are written by the commit of this generation, which is published with it.
    pub(super) fn remember<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Key, Option<&'a Bytes>)>,
        generation: u64,
    ) {
        let mut halves = self.halves.lock();
        for (key, value) in changes.filter(|(key, _)| is_kept(key)) {
            let value = value.cloned();
            let entry = Entry { generation, value };
            halves.young_bytes += bytes(&entry);
            halves.young.insert(*key, entry);
            if halves.young_bytes > HALF_BYTES {
                halves.old = std::mem::take(&mut halves.young);
                halves.young_bytes = 0;
            }
        }
        drop(halves);
        self.generation.store(generation, Ordering::Release);
    }
}

const fn is_kept(key: &Key) -> bool {
    matches!(key, Key::Session(..) | Key::Head)
}

fn bytes(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.value.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use model::id::{RegionId, SessionId, Slot, TenantId};

    use super::*;

    fn key(number: u16) -> Key {
        let [high, low] = number.to_be_bytes();
        let mut random = [0; 16];
        (random[14], random[15]) = (high, low);
        let region = RegionId::new(0).expect("in range");
        Key::Session(
            TenantId::DEFAULT,
            SessionId::new(region, Slot::wrapping(1), random),
        )
    }

    fn commit(recent: &Recent, key: &Key, value: Option<&'static [u8]>, generation: u64) {
        let value = value.map(Bytes::from_static);
        recent.forget([key].into_iter());
        recent.remember([(key, value.as_ref())].into_iter(), generation);
    }

    #[test]
    fn a_view_sees_what_was_committed_before_it_and_an_older_one_asks() {
        let recent = Recent::default();
        assert_eq!(recent.get(&key(1), 9), None);
        commit(&recent, &key(1), Some(b"one"), 1);
        commit(&recent, &key(2), None, 2);
        assert_eq!(recent.generation(), 2);
        assert_eq!(recent.get(&key(1), 0), None);
        assert_eq!(
            recent.get(&key(1), 1),
            Some(Some(Bytes::from_static(b"one")))
        );
        assert_eq!(recent.get(&key(2), 1), None);
        assert_eq!(recent.get(&key(2), 2), Some(None));
        commit(&recent, &key(1), Some(b"three"), 3);
        assert_eq!(recent.get(&key(1), 2), None);
        // What fails after it was forgotten is asked for.
        recent.forget([&key(1)].into_iter());
        assert_eq!(recent.get(&key(1), 3), None);
    }

    #[test]
    fn only_records_and_heads_are_kept() {
        let recent = Recent::default();
        let Key::Session(tenant, session) = key(1) else {
            unreachable!("it is a session's");
        };
        let body = Key::Body(tenant, session);
        commit(&recent, &body, Some(b"body"), 1);
        commit(&recent, &Key::Head, Some(b"head"), 2);
        assert_eq!(recent.get(&body, 2), None);
        assert_eq!(
            recent.get(&Key::Head, 2),
            Some(Some(Bytes::from_static(b"head")))
        );
    }

    #[test]
    fn it_is_bounded_and_what_goes_first_is_old() {
        static VALUE: [u8; 1024] = [7; 1024];
        let recent = Recent::default();
        for number in 0..2000_u16 {
            commit(&recent, &key(number), Some(&VALUE), u64::from(number) + 1);
            let halves = recent.halves.lock();
            let kept = halves.young.len() + halves.old.len();
            assert!(kept * (VALUE.len() + ENTRY_BYTES) <= 2 * HALF_BYTES + 2048);
        }
        assert_eq!(recent.get(&key(0), 9999), None);
        assert!(recent.get(&key(1999), 9999).is_some());
        // A value that is in the older half is replaced, not found again.
        let old = recent
            .halves
            .lock()
            .old
            .keys()
            .next()
            .copied()
            .expect("some");
        commit(&recent, &old, None, 3000);
        assert_eq!(recent.get(&old, 3000), Some(None));
        assert_eq!(recent.get(&old, 2999), None);
    }
}
