//! A replica's state in memory: the same guarantees as RocksDB, for simulations and for tests of what lies above.
//!
//! Each key keeps the versions that some view, or the last flush, still shows. [`MemoryDisk`] is what outlives a process:
//! [`MemoryDisk::crash`] undoes every commit that was not flushed, as a crash would. A snapshot is one file, a sorted dump
//! of the stored form. Not for large states: a flush visits all keys.

mod damage;
mod dump;
mod versions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::state::Key;
use parking_lot::{Mutex, RwLock};

use crate::error::TabletError;
use crate::keys;
use crate::snapshot::place::{MemoryFiles, Place};
use crate::snapshot::receiver::staged;
use crate::snapshot::{FileEntry, Snapshot, SnapshotManifest, StoreKind};
use crate::state::flush::{Ledger, Odometer};
use crate::state::store::{Draft, Home};
use crate::state::{ScrubCursor, ScrubStep, Tablet, TabletStats, Txn, Unflushed, View};
use dump::{Contents, load};
use versions::{Versions, at, prune};
use view::MemoryView;

const DUMP: &str = "dump";
const COMMIT_BYTES: u64 = 64;

/// What outlives a process in memory. Cheap to clone; all clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    common: Common,
    full: AtomicBool,
    refused: AtomicU64,
    groups: Mutex<BTreeMap<u32, Arc<Group>>>,
}

/// What all tablets of a disk share.
#[derive(Clone, Debug, Default)]
struct Common {
    odometer: Odometer,
    /// Nothing is committed for now.
    stalled: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Group {
    number: u32,
    tablet: RwLock<Arc<MemoryTablet>>,
    snapshot: Mutex<Option<(SnapshotManifest, MemoryFiles)>>,
    staging: MemoryFiles,
    next: Mutex<u64>,
}

impl Group {
    /// What a crash leaves of it.
    fn durable_copy(&self, common: &Common) -> Self {
        let tablet = self.tablet.read().durable_copy(common);
        let snapshot = self.snapshot.lock().as_ref().map(|(manifest, files)| {
            let files = files.lock().clone();
            (manifest.clone(), Arc::new(Mutex::new(files)))
        });
        let staging = self.staging.lock().clone();
        let next = *self.next.lock();
        Self {
            number: self.number,
            tablet: RwLock::new(Arc::new(tablet)),
            snapshot: Mutex::new(snapshot),
            staging: Arc::new(Mutex::new(staging)),
            next: Mutex::new(next),
        }
    }
}

impl MemoryDisk {
    /// Undoes every commit that was not flushed. What was open before keeps what it shows, and whatever is committed,
    /// snapshotted or installed through it from now on is lost.
    pub fn crash(&self) {
        for group in self.0.groups.lock().values_mut() {
            let durable = group.durable_copy(&self.0.common);
            *group = Arc::new(durable);
        }
    }

    /// A disk of its own with what this one holds durably now, as an old backup of it would.
    #[must_use]
    pub fn image(&self) -> Self {
        let image = Self::default();
        for (number, group) in &*self.0.groups.lock() {
            let durable = group.durable_copy(&image.0.common);
            image.0.groups.lock().insert(*number, Arc::new(durable));
        }
        image
    }

    /// From now on there is no room for a snapshot, or there is again.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }

    /// From now on commits find the disk full, as when what is in memory cannot be written out, or they do so no more.
    pub fn set_stalled(&self, stalled: bool) {
        self.0.common.stalled.store(stalled, Ordering::Relaxed);
    }

    /// How often there was no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Whether the group has a snapshot.
    #[must_use]
    pub fn has_snapshot(&self, group: u32) -> bool {
        let groups = self.0.groups.lock();
        groups
            .get(&group)
            .is_some_and(|group| group.snapshot.lock().is_some())
    }

    /// Forgets a group: it is as if it never was.
    pub fn forget(&self, group: u32) {
        self.0.groups.lock().remove(&group);
    }

    fn room_for(&self, what: &str) -> Result<(), TabletError> {
        if self.0.full.load(Ordering::Relaxed) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            let what = what.to_owned();
            return Err(TabletError::DiskFull { what });
        }
        Ok(())
    }

    pub(crate) fn groups(&self) -> Vec<u32> {
        self.0.groups.lock().keys().copied().collect()
    }

    pub(crate) fn open(&self, number: u32) -> (MemoryHome, Option<(u64, Snapshot)>) {
        let mut groups = self.0.groups.lock();
        let group = groups.entry(number).or_insert_with(|| {
            let common = self.0.common.clone();
            let tablet = MemoryTablet::new(number, common, Contents::default());
            Arc::new(Group {
                number,
                tablet: RwLock::new(Arc::new(tablet)),
                snapshot: Mutex::new(None),
                staging: MemoryFiles::default(),
                next: Mutex::new(1),
            })
        });
        let snapshot = group.snapshot.lock().clone();
        let snapshot = snapshot
            .map(|(manifest, files)| (0, Snapshot::new(manifest, Place::Memory(files), None)));
        let home = MemoryHome {
            disk: self.clone(),
            group: Arc::clone(group),
        };
        (home, snapshot)
    }
}

/// A group's place in memory.
#[derive(Debug)]
pub(crate) struct MemoryHome {
    disk: MemoryDisk,
    group: Arc<Group>,
}

impl MemoryHome {
    /// What has arrived, and what it holds.
    fn arrived<'a>(
        &self,
        manifest: &'a SnapshotManifest,
        staging: &Place,
    ) -> Result<(&'a FileEntry, Vec<u8>, Contents), TabletError> {
        let [file] = manifest.files.as_slice() else {
            return Err(TabletError::refused("it is not one dump"));
        };
        let Place::Memory(staging) = staging else {
            return Err(TabletError::refused("it did not arrive in memory"));
        };
        let dump = staging.lock().get(&staged(file)).cloned();
        let dump = dump.ok_or(TabletError::Incomplete { files: 1 })?;
        let contents = load(&dump, self.group.number)?;
        if contents.applied != manifest.applied {
            return Err(TabletError::damaged(
                "the snapshot holds another commit than it says",
            ));
        }
        Ok((file, dump, contents))
    }

    fn number(&self) -> u64 {
        let mut next = self.group.next.lock();
        *next += 1;
        *next
    }
}

impl Home for MemoryHome {
    fn kind(&self) -> StoreKind {
        StoreKind::Memory
    }

    fn tablet(&self) -> Arc<dyn Tablet> {
        Arc::<MemoryTablet>::clone(&self.group.tablet.read())
    }

    fn checkpoint(&self) -> Result<Draft, TabletError> {
        self.disk.room_for("a checkpoint")?;
        let tablet = Arc::clone(&self.group.tablet.read());
        let (applied, dump) = tablet.dump();
        let files = MemoryFiles::default();
        files.lock().insert(DUMP.to_owned(), dump);
        Ok(Draft {
            number: self.number(),
            applied,
            files: Place::Memory(files),
            directory: None,
        })
    }

    fn keep(&self, draft: &Draft, manifest: &SnapshotManifest) -> Result<(), TabletError> {
        self.disk.room_for("a manifest")?;
        if let Place::Memory(files) = &draft.files {
            *self.group.snapshot.lock() = Some((manifest.clone(), Arc::clone(files)));
        }
        Ok(())
    }

    fn staging(&self) -> Result<Place, TabletError> {
        Ok(Place::Memory(Arc::clone(&self.group.staging)))
    }

    fn verify(&self, manifest: &SnapshotManifest, staging: &Place) -> Result<(), TabletError> {
        self.arrived(manifest, staging).map(drop)
    }

    fn install(
        &self,
        manifest: &SnapshotManifest,
        staging: &Place,
        _verified: bool,
    ) -> Result<(u64, Snapshot), TabletError> {
        self.disk.room_for("an installation")?;
        let (file, dump, contents) = self.arrived(manifest, staging)?;
        let common = self.disk.0.common.clone();
        let tablet = MemoryTablet::new(self.group.number, common, contents);
        let files = MemoryFiles::default();
        files.lock().insert(file.name.clone(), dump);
        *self.group.snapshot.lock() = Some((manifest.clone(), Arc::clone(&files)));
        *self.group.tablet.write() = Arc::new(tablet);
        Ok((
            self.number(),
            Snapshot::new(manifest.clone(), Place::Memory(files), None),
        ))
    }

    fn remove(&self) -> Result<(), TabletError> {
        self.disk.forget(self.group.number);
        Ok(())
    }
}

/// A tablet in memory.
struct MemoryTablet {
    group: u32,
    stalled: Arc<AtomicBool>,
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    values: BTreeMap<Key, Versions>,
    /// Counts commits.
    now: u64,
    applied: Option<Bytes>,
    ledger: Ledger,
    flushed: Flushed,
    /// Values that are not what was written, and how often one was met.
    bad: BTreeSet<Key>,
    met: AtomicU64,
    /// Views by the commit that they show.
    views: Mutex<BTreeMap<u64, usize>>,
}

#[derive(Clone, Default)]
struct Flushed {
    at: u64,
    applied: Option<Bytes>,
    written: u64,
}

impl Shared {
    /// The oldest commit that is still shown to somebody.
    fn horizon(&self) -> u64 {
        let views = self.views.lock();
        let oldest = views.keys().next().copied().unwrap_or(self.now);
        oldest.min(self.flushed.at)
    }
}

impl std::fmt::Debug for MemoryTablet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryTablet({:08x})", self.group)
    }
}

impl MemoryTablet {
    fn new(group: u32, common: Common, contents: Contents) -> Self {
        let values = contents
            .values
            .into_iter()
            .map(|(key, value)| (key, vec![(0, Some(value))]));
        let shared = Shared {
            values: values.collect(),
            now: 0,
            applied: contents.applied.clone(),
            ledger: Ledger::new(common.odometer, 0),
            flushed: Flushed {
                applied: contents.applied,
                ..Flushed::default()
            },
            bad: BTreeSet::new(),
            met: AtomicU64::new(0),
            views: Mutex::default(),
        };
        Self {
            group,
            stalled: common.stalled,
            shared: Arc::new(RwLock::new(shared)),
        }
    }

    /// A view, and the commit that it shows.
    fn look(&self) -> (View, u64) {
        let moment = {
            let shared = self.shared.read();
            *shared.views.lock().entry(shared.now).or_default() += 1;
            shared.now
        };
        let view = MemoryView {
            shared: Arc::clone(&self.shared),
            moment,
        };
        (Arc::new(view), moment)
    }

    fn durable_copy(&self, common: &Common) -> Self {
        let shared = self.shared.read();
        let values = shared
            .values
            .iter()
            .filter_map(|(key, versions)| Some((*key, at(versions, shared.flushed.at)?.clone())));
        let contents = Contents {
            values: values.collect(),
            applied: shared.flushed.applied.clone(),
        };
        // What was not durable is not damaged any more: it is gone.
        let bad = shared.bad.iter().copied();
        let bad = bad
            .filter(|key| contents.values.contains_key(key))
            .collect();
        let copy = Self::new(self.group, common.clone(), contents);
        copy.shared.write().bad = bad;
        copy
    }
}

impl Tablet for MemoryTablet {
    fn group(&self) -> u32 {
        self.group
    }

    fn view(&self) -> View {
        self.look().0
    }

    fn begin(&self) -> Txn {
        let (view, generation) = self.look();
        Txn::new(view, generation)
    }

    fn commit(&self, txn: &Txn, applied: &[u8]) -> Result<(), TabletError> {
        let shared = &mut *self.shared.write();
        if txn.generation() != shared.now {
            return Err(TabletError::Conflict);
        }
        if self.stalled.load(Ordering::Relaxed) {
            let what = "a commit".to_owned();
            return Err(TabletError::DiskFull { what });
        }
        let horizon = shared.horizon();
        shared.now += 1;
        let mut bytes = COMMIT_BYTES + wide(applied.len());
        for (key, value) in txn.changes() {
            bytes += wide(keys::encode(key).len() + value.map_or(0, Bytes::len));
            // What is written anew is whole.
            shared.bad.remove(key);
            let versions = shared.values.entry(*key).or_default();
            versions.push((shared.now, value.cloned()));
            if !prune(versions, horizon) {
                shared.values.remove(key);
            }
        }
        shared.applied = Some(Bytes::copy_from_slice(applied));
        shared.ledger.committed(bytes);
        Ok(())
    }

    fn applied(&self) -> Option<Bytes> {
        self.shared.read().applied.clone()
    }

    fn durable_applied(&self) -> Result<Option<Bytes>, TabletError> {
        Ok(self.shared.read().flushed.applied.clone())
    }

    fn flush(&self) -> Result<(), TabletError> {
        let shared = &mut *self.shared.write();
        shared.flushed = Flushed {
            at: shared.now,
            applied: shared.applied.clone(),
            written: shared.ledger.after(0),
        };
        let horizon = shared.horizon();
        shared.values.retain(|_, versions| prune(versions, horizon));
        Ok(())
    }

    fn unflushed(&self) -> Result<Unflushed, TabletError> {
        let shared = &mut *self.shared.write();
        Ok(shared.ledger.unflushed(shared.flushed.written))
    }

    fn scrub(&self, from: &ScrubCursor, max_bytes: u64) -> Result<ScrubStep, TabletError> {
        let shared = self.shared.read();
        let mut step = ScrubStep::default();
        for (key, versions) in &shared.values {
            let encoded = keys::encode(key);
            if encoded.as_ref() < from.0.as_slice() {
                continue;
            }
            if step.bytes >= max_bytes {
                step.next = Some(ScrubCursor(encoded.to_vec()));
                return Ok(step);
            }
            if shared.bad.contains(key) {
                shared.damaged();
                step.damaged += 1;
            }
            let value = versions.last().and_then(|(_, value)| value.as_ref());
            step.values += 1;
            step.bytes += wide(encoded.len() + value.map_or(0, Bytes::len));
        }
        Ok(step)
    }

    fn damaged_reads(&self) -> u64 {
        self.shared.read().met.load(Ordering::Relaxed)
    }

    fn stats(&self) -> TabletStats {
        let shared = self.shared.read();
        TabletStats {
            keys: wide(shared.values.len()),
            damaged_reads: shared.met.load(Ordering::Relaxed),
            ..TabletStats::default()
        }
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
