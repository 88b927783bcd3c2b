//! A group's place: its current tablet, its newest snapshot, and the ways between the two.
//!
//! Guarantees: an install takes effect at one moment, before which a crash leaves the old tablet and after which it leaves the
//! new one; only content whose hashes and checksums hold is installed. The newest snapshot stays readable until a newer one
//! takes its place, and longer for whoever holds it. One group has one store at a time: the caller sees to that (RocksDB's
//! own lock file backs it).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::db::home::{self, DiskHome};
use crate::db::{EngineStats, RocksEngine, StateConfig};
use crate::error::TabletError;
use crate::memory::MemoryDisk;
use crate::snapshot::place::Place;
use crate::snapshot::{Snapshot, SnapshotManifest, SnapshotReceiver, StoreKind};
use crate::state::Tablet;

/// What keeps the state of all replicas of a process.
#[derive(Clone, Debug)]
pub enum StateEngine {
    /// On disk.
    RocksDb(Arc<RocksEngine>),
    /// In memory, for simulations: what was flushed survives [`MemoryDisk::crash`].
    Memory(MemoryDisk),
}

impl StateEngine {
    /// State on disk.
    ///
    /// # Errors
    /// When RocksDB cannot start its threads.
    pub fn rocksdb(config: StateConfig) -> Result<Self, TabletError> {
        Ok(Self::RocksDb(Arc::new(RocksEngine::new(config)?)))
    }

    /// State in memory, empty.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(MemoryDisk::default())
    }

    /// Opens a group's store below the directory `groups`; makes an empty one when there is none. What an interrupted
    /// install or checkpoint left is removed, except what has arrived of a snapshot.
    ///
    /// # Errors
    /// [`TabletError::Damaged`] when what is there is not whole; then nothing is changed or removed.
    pub fn open(&self, groups: &Path, group: u32) -> Result<TabletStore, TabletError> {
        let (home, snapshot): (Box<dyn Home>, _) = match self {
            Self::RocksDb(engine) => {
                let (home, snapshot) = DiskHome::open(Arc::clone(engine), groups, group)?;
                (Box::new(home), snapshot)
            }
            Self::Memory(disk) => {
                let (home, snapshot) = disk.open(group);
                (Box::new(home), snapshot)
            }
        };
        Ok(TabletStore(Arc::new(Inner {
            group,
            home,
            state: Mutex::new(State {
                snapshot: snapshot.map(|(number, snapshot)| (number, Arc::new(snapshot))),
                removed: false,
            }),
            installing: Mutex::new(()),
            replacing: Mutex::new(()),
        })))
    }

    /// Moves a group's store out of the way that does not open because it is damaged: the next open makes an empty one. It is
    /// kept until [`Self::forget_aside`], and is not opened again.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, groups: &Path, group: u32) -> Result<(), TabletError> {
        match self {
            Self::RocksDb(_) => home::set_aside(groups, group),
            Self::Memory(disk) => {
                disk.forget(group);
                Ok(())
            }
        }
    }

    /// Removes what [`Self::set_aside`] kept.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_aside(&self, groups: &Path, group: u32) -> Result<(), TabletError> {
        match self {
            Self::RocksDb(_) => home::forget_aside(groups, group),
            Self::Memory(_) => Ok(()),
        }
    }

    /// The groups that have a store below the directory `groups`.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn groups(&self, groups: &Path) -> Result<Vec<u32>, TabletError> {
        match self {
            Self::RocksDb(_) => home::list(groups),
            Self::Memory(disk) => Ok(disk.groups()),
        }
    }

    /// Figures for operators; zero in memory.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        match self {
            Self::RocksDb(engine) => engine.stats(),
            Self::Memory(_) => EngineStats::default(),
        }
    }
}

/// A checkpoint that is being made: its files, and what it holds.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) number: u64,
    pub(crate) applied: Option<Bytes>,
    pub(crate) files: Place,
    pub(crate) directory: Option<PathBuf>,
}

/// Where one group's state lies; what differs between disk and memory.
pub(crate) trait Home: Send + Sync + std::fmt::Debug {
    /// What kind of snapshots it makes and takes.
    fn kind(&self) -> StoreKind;
    /// The current tablet.
    fn tablet(&self) -> Arc<dyn Tablet>;
    /// A point-in-time copy that costs little.
    fn checkpoint(&self) -> Result<Draft, TabletError>;
    /// The current tablet as the disk has it. One at a time. Where there is no cache, it is the tablet itself.
    fn cold(&self) -> Result<Arc<dyn Tablet>, TabletError> {
        Ok(self.tablet())
    }
    /// Makes a described checkpoint durable.
    fn keep(&self, draft: &Draft, manifest: &SnapshotManifest) -> Result<(), TabletError>;
    /// Where arriving files lie.
    fn staging(&self) -> Result<Place, TabletError>;
    /// Reads every value of what has arrived.
    fn verify(&self, manifest: &SnapshotManifest, staging: &Place) -> Result<(), TabletError>;
    /// Makes what has arrived the current tablet and a snapshot; reads every value of it unless that was done.
    fn install(
        &self,
        manifest: &SnapshotManifest,
        staging: &Place,
        verified: bool,
    ) -> Result<(u64, Snapshot), TabletError>;
    /// Removes everything.
    fn remove(&self) -> Result<(), TabletError>;
}

#[derive(Debug)]
struct Inner {
    group: u32,
    home: Box<dyn Home>,
    state: Mutex<State>,
    installing: Mutex<()>,
    /// Held while a tablet is replaced by another one, and while a checkpoint is made.
    replacing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    snapshot: Option<(u64, Arc<Snapshot>)>,
    removed: bool,
}

impl Inner {
    fn check(&self) -> Result<(), TabletError> {
        match self.state.lock().removed {
            true => Err(TabletError::Removed),
            false => Ok(()),
        }
    }

    /// Makes a snapshot the newest, unless there is a newer one.
    fn adopt(&self, number: u64, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        let mut state = self.state.lock();
        if state
            .snapshot
            .as_ref()
            .is_some_and(|(newest, _)| *newest > number)
        {
            snapshot.doom();
            return snapshot;
        }
        if let Some((_, old)) = state.snapshot.replace((number, Arc::clone(&snapshot))) {
            old.doom();
        }
        snapshot
    }
}

/// The state of one group on this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TabletStore(Arc<Inner>);

impl TabletStore {
    /// The group's number.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.0.group
    }

    /// The current tablet. An install replaces it: ask again afterwards.
    #[must_use]
    pub fn current(&self) -> Arc<dyn Tablet> {
        self.0.home.tablet()
    }

    /// The newest snapshot, also of an earlier run.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let state = self.0.state.lock();
        state
            .snapshot
            .as_ref()
            .map(|(_, snapshot)| Arc::clone(snapshot))
    }

    /// A point-in-time copy of the current tablet, for the cost of a flush: the files are linked. It holds the last commit.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn checkpoint(&self) -> Result<Checkpoint, TabletError> {
        self.0.check()?;
        // One of the old tablet must not be numbered after the new one's.
        let _not_while_it_is_replaced = self.0.replacing.lock();
        Ok(Checkpoint {
            store: Arc::clone(&self.0),
            draft: Some(self.0.home.checkpoint()?),
        })
    }

    /// Rewrites the current tablet ([`Tablet::compact`]), and takes another snapshot if there is one, which would keep what was replaced. Says
    /// whether it came to the end. It needs as much room as the tablet takes, and gives it back.
    ///
    /// # Errors
    /// When it cannot be written or is damaged, or another tablet took its place meanwhile. Nothing is lost then; the next snapshot gives the
    /// room back.
    pub fn compact(&self, goes_on: &(dyn Fn() -> bool + Sync)) -> Result<bool, TabletError> {
        self.0.check()?;
        let tablet = self.current();
        let done = tablet.compact(goes_on)?;
        if !Arc::ptr_eq(&tablet, &self.current()) {
            return Err(TabletError::refused("another state took its place"));
        }
        if tablet.damaged_reads() > 0 {
            return Err(TabletError::damaged("it met damage"));
        }
        if done && self.snapshot().is_some() {
            self.checkpoint()?.seal()?;
        }
        Ok(done)
    }

    /// The current tablet's last commit as the disk has it, to be scrubbed: nothing is read from a cache. Damage that is met in it counts
    /// as the tablet's. It costs a flush, and as long as it is there, the place of files that are replaced meanwhile. One at a time;
    /// dropping it blocks.
    ///
    /// # Errors
    /// [`TabletError::Damaged`] when it does not open, which counts too; else when it cannot be written.
    pub fn cold(&self) -> Result<Arc<dyn Tablet>, TabletError> {
        self.0.check()?;
        self.0.home.cold()
    }

    /// Begins, or goes on with, the arrival of a snapshot. One at a time.
    ///
    /// # Errors
    /// [`TabletError::Refused`] when it is of another group or another kind of store.
    pub fn receive(&self, manifest: SnapshotManifest) -> Result<SnapshotReceiver, TabletError> {
        self.0.check()?;
        if manifest.group != self.0.group || manifest.store != self.0.home.kind() {
            return Err(TabletError::refused(
                "it is of another group or kind of store",
            ));
        }
        SnapshotReceiver::new(manifest, self.0.home.staging()?)
    }

    /// Reads all of a snapshot that has arrived, so that its install need not, and fails only for reasons of this disk.
    ///
    /// # Errors
    /// [`TabletError::Incomplete`] while files are missing; [`TabletError::Damaged`] when a value is not what was written:
    /// then what has arrived is dropped.
    pub fn verify(&self, receiver: &SnapshotReceiver) -> Result<(), TabletError> {
        let _one_at_a_time = self.0.installing.lock();
        self.0.check()?;
        let (manifest, staging) = receiver.complete()?;
        match self.0.home.verify(manifest, staging) {
            Ok(()) => {
                receiver.set_verified();
                Ok(())
            }
            Err(error) => {
                if error.is_damage() {
                    clear(staging)?;
                }
                Err(error)
            }
        }
    }

    /// Makes a snapshot that has arrived the current tablet, after reading all of it. Nothing may commit meanwhile:
    /// what is committed to the old tablet is lost with it. Views of the old tablet stay valid.
    ///
    /// # Errors
    /// [`TabletError::Incomplete`] while files are missing; [`TabletError::Damaged`] when a value is not what was written:
    /// then what has arrived is dropped. After any error the old tablet stays.
    pub fn install(&self, receiver: &SnapshotReceiver) -> Result<Arc<dyn Tablet>, TabletError> {
        let _one_at_a_time = self.0.installing.lock();
        self.0.check()?;
        let (manifest, staging) = receiver.complete()?;
        let _no_checkpoint = self.0.replacing.lock();
        match self
            .0
            .home
            .install(manifest, staging, receiver.is_verified())
        {
            Ok((number, snapshot)) => {
                self.0.adopt(number, snapshot);
                clear(staging)?;
                Ok(self.current())
            }
            Err(error) => {
                if error.is_damage() {
                    clear(staging)?;
                }
                Err(error)
            }
        }
    }

    /// Removes the group's state from this node, for good. Views fail from then on, but for what they
    /// have in memory.
    ///
    /// # Errors
    /// When it cannot be removed; the next open finishes what was begun.
    pub fn remove(&self) -> Result<(), TabletError> {
        let _one_at_a_time = self.0.installing.lock();
        {
            let mut state = self.0.state.lock();
            state.removed = true;
            state.snapshot = None;
        }
        self.0.home.remove()
    }
}

/// A point-in-time copy that is not yet a snapshot. Dropping it removes it.
#[derive(Debug)]
pub struct Checkpoint {
    store: Arc<Inner>,
    draft: Option<Draft>,
}

impl Checkpoint {
    /// The applied mark of the commit that it holds.
    #[must_use]
    pub fn applied(&self) -> Option<Bytes> {
        self.draft.as_ref().and_then(|draft| draft.applied.clone())
    }

    /// Reads all of it for the manifest, and makes it the group's newest snapshot.
    ///
    /// # Errors
    /// When it cannot be read, or the manifest not be written: on a full disk it may be tried again.
    ///
    /// # Panics
    /// When it was sealed before.
    pub fn seal(&mut self) -> Result<Arc<Snapshot>, TabletError> {
        let draft = self
            .draft
            .as_ref()
            .expect("a checkpoint has its files until it is sealed");
        let manifest = SnapshotManifest {
            store: self.store.home.kind(),
            group: self.store.group,
            applied: draft.applied.clone(),
            files: draft.files.describe()?,
        };
        self.store.check()?;
        self.store.home.keep(draft, &manifest)?;
        let Draft {
            number,
            files,
            directory,
            ..
        } = self
            .draft
            .take()
            .expect("a checkpoint has its files until it is sealed");
        Ok(self
            .store
            .adopt(number, Snapshot::new(manifest, files, directory)))
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if let Some(Draft {
            directory: Some(directory),
            ..
        }) = self.draft.take()
            && let Err(error) = std::fs::remove_dir_all(&directory)
        {
            // The next start removes it.
            tracing::warn!(checkpoint = %directory.display(), %error, "abandoned checkpoint not removed");
        }
    }
}

fn clear(staging: &Place) -> Result<(), TabletError> {
    for name in staging.names()? {
        staging.remove(&name)?;
    }
    Ok(())
}
