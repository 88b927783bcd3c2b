//! Documents that were opened a short while ago, for the next merge or read of the same session.
//!
//! Bounded by bytes; the entry not used for longest goes first. An entry is of one version of a session, and an answer
//! is only given for the version asked for, so nothing stale is ever served. Holds plaintext: it is never written
//! anywhere, and [`Cache::clear`] empties it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use metrics::Gauge;
use model::document::Sections;
use model::id::{SessionId, TenantId, Version};
use parking_lot::Mutex;

use crate::service::keys::SessionKey;

/// A session's document and key, opened.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) key: SessionKey,
    pub(super) sections: Sections,
}

type Who = (TenantId, SessionId);

struct Entry {
    version: Version,
    plain: Arc<Plain>,
    stamp: u64,
    bytes: usize,
}

#[derive(Default)]
struct Part {
    entries: HashMap<Who, Entry>,
    /// Oldest first.
    by_stamp: BTreeMap<u64, Who>,
    bytes: usize,
    next_stamp: u64,
}

impl Part {
    fn remove(&mut self, who: &Who) {
        if let Some(old) = self.entries.remove(who) {
            self.by_stamp.remove(&old.stamp);
            self.bytes -= old.bytes;
        }
    }

    fn stamp(&mut self) -> u64 {
        self.next_stamp += 1;
        self.next_stamp
    }
}

/// The bounded cache.
pub(super) struct Cache {
    parts: Vec<Mutex<Part>>,
    part_bytes: usize,
    held: Gauge,
}

/// What an entry costs beside its document, about.
const ENTRY_BYTES: usize = 1024;

impl Cache {
    /// Few enough that one part holds a large document, many enough that threads seldom meet.
    const PARTS: usize = 8;

    /// `held` shows the bytes of all entries.
    pub(super) fn new(bytes: usize, held: Gauge) -> Self {
        Self {
            parts: (0..Self::PARTS).map(|_| Mutex::default()).collect(),
            part_bytes: bytes / Self::PARTS,
            held,
        }
    }

    fn part(&self, who: &Who) -> &Mutex<Part> {
        let random = who.1.as_bytes()[15];
        &self.parts[usize::from(random) % Self::PARTS]
    }

    /// Changes a part, and shows what that did to its bytes.
    fn change(&self, part: &Mutex<Part>, change: impl FnOnce(&mut Part)) {
        let mut part = part.lock();
        let before = part.bytes;
        change(&mut part);
        let after = part.bytes;
        drop(part);
        let wide = |bytes: usize| f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.held.increment(wide(after) - wide(before));
    }

    /// The document of this version, if it is here.
    pub(super) fn get(&self, who: &Who, version: Version) -> Option<Arc<Plain>> {
        let mut part = self.part(who).lock();
        let stamp = part.stamp();
        let entry = part.entries.get_mut(who)?;
        if entry.version != version {
            return None;
        }
        let old = std::mem::replace(&mut entry.stamp, stamp);
        let plain = Arc::clone(&entry.plain);
        part.by_stamp.remove(&old);
        part.by_stamp.insert(stamp, *who);
        drop(part);
        Some(plain)
    }

    /// Keeps a document, unless a newer version of it is here or it is too large.
    pub(super) fn insert(&self, who: Who, version: Version, plain: &Arc<Plain>) {
        let bytes = plain.sections.len() + ENTRY_BYTES;
        if bytes > self.part_bytes {
            return;
        }
        self.change(self.part(&who), |part| {
            let newer = |old: &Entry| old.version > version;
            if part.entries.get(&who).is_some_and(newer) {
                return;
            }
            part.remove(&who);
            let stamp = part.stamp();
            let entry = Entry {
                version,
                plain: Arc::clone(plain),
                stamp,
                bytes,
            };
            part.entries.insert(who, entry);
            part.by_stamp.insert(stamp, who);
            part.bytes += bytes;
            while part.bytes > self.part_bytes
                && let Some((_, oldest)) = part.by_stamp.first_key_value()
            {
                let oldest = *oldest;
                part.remove(&oldest);
            }
        });
    }

    /// Forgets a session.
    pub(super) fn remove(&self, who: &Who) {
        self.change(self.part(who), |part| part.remove(who));
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for part in &self.parts {
            self.change(part, |part| *part = Part::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::keys::{KeyRing, MasterKey};
    use bytes::Bytes;

    fn plain(bytes: usize) -> Arc<Plain> {
        let ring = KeyRing::new(MasterKey::new(1, [1; 32]), Vec::new());
        let who = who(0);
        let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(bytes));
        let input = model::document::create(&Bytes::from(body)).unwrap();
        Arc::new(Plain {
            key: ring.create(who.0, who.1).0,
            sections: input.sections,
        })
    }

    fn who(number: u8) -> Who {
        let mut id = [0; 16];
        id[0] = number;
        (TenantId(1), SessionId::from_bytes(id))
    }

    fn version(revision: u64) -> Version {
        Version { epoch: 1, revision }
    }

    #[test]
    fn only_the_version_asked_for_is_given_and_newer_stays() {
        let cache = Cache::new(1024 * 1024, Gauge::noop());
        cache.insert(who(1), version(2), &plain(10));
        assert!(cache.get(&who(1), version(2)).is_some());
        assert!(cache.get(&who(1), version(1)).is_none());
        cache.insert(who(1), version(1), &plain(10));
        assert!(cache.get(&who(1), version(2)).is_some());
        cache.insert(who(1), version(3), &plain(10));
        assert!(cache.get(&who(1), version(2)).is_none());
        cache.remove(&who(1));
        assert!(cache.get(&who(1), version(3)).is_none());
    }

    #[test]
    fn bytes_are_bounded_and_the_least_used_goes_first() {
        let cache = Cache::new(Cache::PARTS * 3 * (ENTRY_BYTES + 200), Gauge::noop());
        for number in 0..3 {
            cache.insert(who(number), version(1), &plain(100));
        }
        assert!(cache.get(&who(0), version(1)).is_some());
        cache.insert(who(3), version(1), &plain(100));
        assert!(cache.get(&who(0), version(1)).is_some());
        assert!(cache.get(&who(1), version(1)).is_none());
        cache.insert(who(4), version(1), &plain(100_000));
        assert!(cache.get(&who(4), version(1)).is_none());
        cache.clear();
        assert!(cache.get(&who(0), version(1)).is_none());
    }
}
