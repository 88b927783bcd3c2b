//! A replica's state in memory: the same guarantees as RocksDB, for simulations and for tests of what lies above.
//!
//! Each key keeps the versions that some view, or the last flush, still shows. [`MemoryDisk`] is what outlives a process:
//! [`MemoryDisk::crash`] undoes every commit that was not flushed, as a crash would. A snapshot is one file, a sorted dump
//! of the stored form. Not for large states: a flush visits all keys.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::state::{Key, StateError, StateRead};
use parking_lot::{Mutex, RwLock};

use crate::dump::{Contents, load, push};
use crate::error::TabletError;
use crate::keys;
use crate::snapshot::place::{MemoryFiles, Place};
use crate::snapshot::{Snapshot, SnapshotManifest, StoreKind};
use crate::state::flush::{Ledger, Odometer};
use crate::state::store::{Draft, Home};
use crate::state::{ScrubCursor, ScrubStep, Tablet, TabletStats, Txn, Unflushed, View};

const DUMP: &str = "dump";
const COMMIT_BYTES: u64 = 64;

/// What outlives a process in memory. Cheap to clone; all clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    odometer: Odometer,
    full: AtomicBool,
    refused: AtomicU64,
    groups: Mutex<BTreeMap<u32, Arc<Group>>>,
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
    fn durable_copy(&self, odometer: &Odometer) -> Self {
        let tablet = self.tablet.read().durable_copy(odometer);
        let (snapshot, staging) = (self.snapshot.lock().clone(), self.staging.lock().clone());
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
            let durable = group.durable_copy(&self.0.odometer);
            *group = Arc::new(durable);
        }
    }

    /// A disk of its own with what this one holds durably now, as an old backup of it would.
    #[must_use]
    pub fn image(&self) -> Self {
        let image = Self::default();
        for (number, group) in &*self.0.groups.lock() {
            let durable = group.durable_copy(&image.0.odometer);
            image.0.groups.lock().insert(*number, Arc::new(durable));
        }
        image
    }

    /// From now on there is no room for a snapshot, or there is again.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
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
            let odometer = self.0.odometer.clone();
            let tablet = MemoryTablet::new(number, odometer, Contents::default());
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

    fn install(
        &self,
        manifest: &SnapshotManifest,
        staging: &Place,
    ) -> Result<(u64, Snapshot), TabletError> {
        self.disk.room_for("an installation")?;
        let [file] = manifest.files.as_slice() else {
            return Err(TabletError::refused("it is not one dump"));
        };
        let Place::Memory(staging) = staging else {
            return Err(TabletError::refused("it did not arrive in memory"));
        };
        let name = crate::snapshot::receiver::staged(file);
        let dump = staging.lock().get(&name).cloned();
        let dump = dump.ok_or(TabletError::Incomplete { files: 1 })?;
        let contents = load(&dump, self.group.number)?;
        if contents.applied != manifest.applied {
            return Err(TabletError::damaged(
                "the snapshot holds another commit than it says",
            ));
        }
        let odometer = self.disk.0.odometer.clone();
        let tablet = MemoryTablet::new(self.group.number, odometer, contents);
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
        self.disk.0.groups.lock().remove(&self.group.number);
        Ok(())
    }
}

type Versions = Vec<(u64, Option<Bytes>)>;

/// A tablet in memory.
struct MemoryTablet {
    group: u32,
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    values: BTreeMap<Key, Versions>,
    /// Counts commits.
    now: u64,
    applied: Option<Bytes>,
    ledger: Ledger,
    flushed: Flushed,
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

fn at(versions: &Versions, moment: u64) -> Option<&Bytes> {
    let shown = versions.iter().rev().find(|(commit, _)| *commit <= moment);
    shown.and_then(|(_, value)| value.as_ref())
}

/// Drops versions that nobody sees; says whether any is left.
fn prune(versions: &mut Versions, horizon: u64) -> bool {
    let hidden = versions
        .iter()
        .rposition(|(commit, _)| *commit <= horizon)
        .unwrap_or(0);
    versions.drain(..hidden);
    !matches!(versions.as_slice(), [] | [(_, None)])
        || versions
            .first()
            .is_some_and(|(commit, _)| *commit > horizon)
}

impl std::fmt::Debug for MemoryTablet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryTablet({:08x})", self.group)
    }
}

impl MemoryTablet {
    fn new(group: u32, odometer: Odometer, contents: Contents) -> Self {
        let values = contents
            .values
            .into_iter()
            .map(|(key, value)| (key, vec![(0, Some(value))]));
        let shared = Shared {
            values: values.collect(),
            now: 0,
            applied: contents.applied.clone(),
            ledger: Ledger::new(odometer, 0),
            flushed: Flushed {
                applied: contents.applied,
                ..Flushed::default()
            },
            views: Mutex::default(),
        };
        Self {
            group,
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

    fn durable_copy(&self, odometer: &Odometer) -> Self {
        let shared = self.shared.read();
        let values = shared
            .values
            .iter()
            .filter_map(|(key, versions)| Some((*key, at(versions, shared.flushed.at)?.clone())));
        let contents = Contents {
            values: values.collect(),
            applied: shared.flushed.applied.clone(),
        };
        Self::new(self.group, odometer.clone(), contents)
    }

    fn dump(&self) -> (Option<Bytes>, Vec<u8>) {
        let shared = self.shared.read();
        let mut out = Vec::new();
        push(&mut out, &keys::IDENTITY, &self.group.to_be_bytes());
        if let Some(applied) = &shared.applied {
            push(&mut out, &keys::APPLIED, applied);
        }
        for (key, versions) in &shared.values {
            if let Some(value) = at(versions, shared.now) {
                push(&mut out, &keys::encode(key), value);
            }
        }
        (shared.applied.clone(), out)
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
        let horizon = shared.horizon();
        shared.now += 1;
        let mut bytes = COMMIT_BYTES + wide(applied.len());
        for (key, value) in txn.changes() {
            bytes += wide(keys::encode(key).len() + value.map_or(0, Bytes::len));
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

    fn scrub(&self, _from: &ScrubCursor, _max_bytes: u64) -> Result<ScrubStep, TabletError> {
        // Memory keeps no checksums: it is not a disk.
        let values = wide(self.shared.read().values.len());
        Ok(ScrubStep {
            values,
            ..ScrubStep::default()
        })
    }

    fn stats(&self) -> TabletStats {
        let shared = self.shared.read();
        TabletStats {
            keys: wide(shared.values.len()),
            ..TabletStats::default()
        }
    }
}

struct MemoryView {
    shared: Arc<RwLock<Shared>>,
    moment: u64,
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
        Ok(shown.take(limit).collect())
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
