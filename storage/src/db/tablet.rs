//! One open RocksDB as a tablet.
//!
//! Guarantees: those of [`Tablet`]. A view is a RocksDB snapshot that owns its database, so it stays valid after the tablet
//! was replaced or removed; a replaced tablet's files go when its last view has gone. What is durable is read back
//! past the memtables, because RocksDB also flushes by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::state::{Key, StateError, StateRead};
use parking_lot::{Mutex, RwLock};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties::{
    ESTIMATE_NUM_KEYS, ESTIMATE_PENDING_COMPACTION_BYTES, LIVE_SST_FILES_SIZE, SIZE_ALL_MEM_TABLES,
};
use rocksdb::{CStrLike, DB, ReadOptions, ReadTier, Snapshot, WriteBatch};

use crate::db::options::{RocksEngine, without_log};
use crate::db::recent::Recent;
use crate::error::TabletError;
use crate::state::flush::Ledger;
use crate::state::{ScrubCursor, ScrubStep, Tablet, TabletStats, Txn, Unflushed, View};
use crate::{format, keys};

/// The bytes that a commit counts for itself, besides its keys and values.
const COMMIT_BYTES: u64 = 64;
/// How much damage of one tablet is logged; all of it is counted.
const LOGGED_DAMAGE: u64 = 16;
/// The binding has no constant for it.
const LIVE_BLOB_FILE_SIZE: &str = "rocksdb.live-blob-file-size";

/// An open database and its directory.
pub(super) struct Handle {
    db: Option<DB>,
    path: PathBuf,
    doomed: AtomicBool,
    /// Shared with the copies that are made to read cold data.
    pub(super) damaged: Arc<AtomicU64>,
}

impl Handle {
    pub(super) fn new(db: DB, path: &Path, damaged: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            db: Some(db),
            path: path.to_owned(),
            doomed: AtomicBool::new(false),
            damaged,
        })
    }

    fn db(&self) -> &DB {
        self.db
            .as_ref()
            .expect("a database is open until its handle is dropped")
    }

    /// Opens a stored value; counts damage.
    fn open<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], StateError> {
        format::open(key, stored).map_err(|bad| self.damage(key, &bad.to_string()))
    }

    fn failed(&self, key: &[u8], error: &rocksdb::Error) -> StateError {
        match TabletError::rocksdb_read("read of state", error) {
            TabletError::Damaged { what } => self.damage(key, &what),
            other => other.into(),
        }
    }

    pub(super) fn damage(&self, key: &[u8], what: &str) -> StateError {
        let before = self.damaged.fetch_add(1, Ordering::Relaxed);
        let kind = key.first().copied().unwrap_or(keys::OWN);
        if before < LOGGED_DAMAGE {
            tracing::error!(tablet = %self.path.display(), kind, what, "stored value is damaged");
        }
        StateError::Damaged(format!("key of kind {kind}: {what}"))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.db.take());
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // The next start removes what is not pointed to.
            tracing::warn!(tablet = %self.path.display(), %error, "replaced tablet not removed");
        }
    }
}

self_cell::self_cell!(
    struct OwnedSnapshot {
        owner: Arc<Handle>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// A RocksDB snapshot that owns its database.
struct RocksView {
    snapshot: OwnedSnapshot,
    recent: Arc<Recent>,
    generation: u64,
}

impl RocksView {
    fn new(handle: Arc<Handle>, recent: Arc<Recent>) -> Self {
        // Before the snapshot is taken.
        let generation = recent.generation();
        Self {
            snapshot: OwnedSnapshot::new(handle, |handle| handle.db().snapshot()),
            recent,
            generation,
        }
    }
}

impl StateRead for RocksView {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        if let Some(value) = self.recent.get(key, self.generation) {
            return Ok(value);
        }
        let handle = self.snapshot.borrow_owner();
        let key = keys::encode(key);
        let stored = self
            .snapshot
            .borrow_dependent()
            .get_pinned(key)
            .map_err(|error| handle.failed(&key, &error))?;
        stored
            .map(|stored| handle.open(&key, &stored).map(Bytes::copy_from_slice))
            .transpose()
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        let handle = self.snapshot.borrow_owner();
        let start = keys::encode(from);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(keys::end_of_kind(from));
        let mut iterator = self.snapshot.borrow_dependent().raw_iterator_opt(options);
        iterator.seek(start);
        let mut out = Vec::new();
        while out.len() < limit {
            let Some((key, stored)) = iterator.item() else {
                iterator
                    .status()
                    .map_err(|error| handle.failed(&start, &error))?;
                break;
            };
            let value = Bytes::copy_from_slice(handle.open(key, stored)?);
            let key = keys::decode(key).map_err(|bad| handle.damage(key, &bad.to_string()))?;
            out.push((key, value));
            iterator.next();
        }
        Ok(out)
    }
}

/// What the writer knows of the last commit.
struct Head {
    generation: u64,
    applied: Option<Bytes>,
    ledger: Ledger,
}

/// A tablet in RocksDB.
pub(crate) struct RocksTablet {
    pub(super) group: u32,
    pub(super) handle: Arc<Handle>,
    head: Mutex<Head>,
    recent: Arc<Recent>,
    /// The view of the last commit, made at the first use after it.
    latest: RwLock<Option<View>>,
}

impl std::fmt::Debug for RocksTablet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksTablet({:08x})", self.group)
    }
}

impl RocksTablet {
    /// Makes an empty tablet in a directory that does not exist.
    pub(crate) fn create(
        engine: &RocksEngine,
        path: &Path,
        group: u32,
    ) -> Result<Self, TabletError> {
        let db = DB::open(&engine.options(true), path)
            .map_err(|error| TabletError::rocksdb("creation of a tablet", &error))?;
        let identity = format::seal(&keys::IDENTITY, &group.to_be_bytes());
        db.put_opt(keys::IDENTITY, identity, &without_log())
            .and_then(|()| db.flush())
            .map_err(|error| TabletError::rocksdb("creation of a tablet", &error))?;
        drop(db);
        Self::open(engine, path, group)
    }

    /// Opens a tablet that [`Self::create`] or an install made.
    pub(crate) fn open(engine: &RocksEngine, path: &Path, group: u32) -> Result<Self, TabletError> {
        let db = DB::open(&engine.options(false), path)
            .map_err(|error| TabletError::rocksdb_read("open of a tablet", &error))?;
        let handle = Handle::new(db, path, Arc::default());
        Self::of(engine, handle, group)
    }

    /// A tablet of an open database.
    pub(super) fn of(
        engine: &RocksEngine,
        handle: Arc<Handle>,
        group: u32,
    ) -> Result<Self, TabletError> {
        let identity = own(&handle, &keys::IDENTITY, ReadTier::All)?
            .ok_or_else(|| TabletError::damaged("the tablet does not say whose it is"))?;
        if identity[..] != group.to_be_bytes() {
            return Err(TabletError::refused(format!(
                "it is not of group {group:08x}"
            )));
        }
        let (written, applied) = match own(&handle, &keys::APPLIED, ReadTier::All)? {
            Some(mark) => split_mark(&mark).map(|(written, mark)| (written, Some(mark)))?,
            None => (0, None),
        };
        Ok(Self {
            group,
            handle,
            head: Mutex::new(Head {
                generation: 0,
                applied,
                ledger: Ledger::new(engine.odometer.clone(), written),
            }),
            recent: Arc::default(),
            latest: RwLock::new(None),
        })
    }

    /// Makes a checkpoint in a directory that does not exist, and says which commit it holds: files are linked, not copied.
    /// No commit happens meanwhile.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<Option<Bytes>, TabletError> {
        // Most of the work is done before commits are held up.
        self.flush()?;
        let head = self.head.lock();
        Checkpoint::new(self.handle.db())
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .map_err(|error| TabletError::rocksdb("checkpoint", &error))?;
        Ok(head.applied.clone())
    }

    /// Has the directory removed when the last view has gone.
    pub(crate) fn doom(&self) {
        self.handle.doomed.store(true, Ordering::Release);
        self.handle.db().cancel_all_background_work(false);
    }

    fn property(&self, name: impl CStrLike) -> u64 {
        let value = self.handle.db().property_int_value(name);
        value.ok().flatten().unwrap_or(0)
    }

    fn durable(&self) -> Result<(u64, Option<Bytes>), TabletError> {
        match own(&self.handle, &keys::APPLIED, ReadTier::Persisted)? {
            Some(mark) => split_mark(&mark).map(|(written, mark)| (written, Some(mark))),
            None => Ok((0, None)),
        }
    }
}

impl Tablet for RocksTablet {
    fn group(&self) -> u32 {
        self.group
    }

    fn view(&self) -> View {
        if let Some(view) = &*self.latest.read() {
            return Arc::clone(view);
        }
        // The snapshot is taken under the lock that a commit takes to forget it: an older one is never kept.
        let mut latest = self.latest.write();
        let make = || {
            let (handle, recent) = (Arc::clone(&self.handle), Arc::clone(&self.recent));
            Arc::new(RocksView::new(handle, recent)) as View
        };
        Arc::clone(latest.get_or_insert_with(make))
    }

    fn begin(&self) -> Txn {
        let head = self.head.lock();
        Txn::new(self.view(), head.generation)
    }

    fn commit(&self, txn: &Txn, applied: &[u8]) -> Result<(), TabletError> {
        let mut head = self.head.lock();
        if txn.generation() != head.generation {
            return Err(TabletError::Conflict);
        }
        let mut batch = WriteBatch::default();
        for (key, value) in txn.changes() {
            let key = keys::encode(key);
            match value {
                Some(value) => batch.put(key, format::seal(&key, value)),
                None => batch.delete(key),
            }
        }
        let size = u64::try_from(batch.size_in_bytes() + applied.len()).unwrap_or(u64::MAX);
        let size = size.saturating_add(COMMIT_BYTES);
        let mark = join_mark(head.ledger.after(size), applied);
        batch.put(keys::APPLIED, format::seal(&keys::APPLIED, &mark));
        self.recent.forget(txn.changes().map(|(key, _)| key));
        self.handle
            .db()
            .write_opt(batch, &without_log())
            .map_err(|error| TabletError::rocksdb("commit", &error))?;
        head.generation += 1;
        self.recent.remember(txn.changes(), head.generation);
        *self.latest.write() = None;
        head.applied = Some(Bytes::copy_from_slice(applied));
        head.ledger.committed(size);
        Ok(())
    }

    fn applied(&self) -> Option<Bytes> {
        self.head.lock().applied.clone()
    }

    fn durable_applied(&self) -> Result<Option<Bytes>, TabletError> {
        self.durable().map(|(_, applied)| applied)
    }

    fn flush(&self) -> Result<(), TabletError> {
        let flushed = self.handle.db().flush();
        flushed.map_err(|error| TabletError::rocksdb("flush", &error))
    }

    fn unflushed(&self) -> Result<Unflushed, TabletError> {
        let (durable, _) = self.durable()?;
        Ok(self.head.lock().ledger.unflushed(durable))
    }

    fn scrub(&self, from: &ScrubCursor, max_bytes: u64) -> Result<ScrubStep, TabletError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(1024 * 1024);
        let mut iterator = self.handle.db().raw_iterator_opt(options);
        iterator.seek(&from.0);
        let mut step = ScrubStep::default();
        while let Some((key, stored)) = iterator.item() {
            if step.bytes >= max_bytes {
                step.next = Some(ScrubCursor(key.to_vec()));
                return Ok(step);
            }
            let ours = key.first() == Some(&keys::OWN) || keys::decode(key).is_ok();
            if self.handle.open(key, stored).is_err() || !ours {
                step.damaged += 1;
            }
            step.values += 1;
            step.bytes += u64::try_from(key.len() + stored.len()).unwrap_or(u64::MAX);
            iterator.next();
        }
        match iterator.status() {
            Ok(()) => {}
            // A block that cannot be read ends the iteration: what lies after it is unknown, so the tablet is damaged.
            Err(error) => match TabletError::rocksdb_read("scrub", &error) {
                TabletError::Damaged { .. } => {
                    self.handle.failed(&[], &error);
                    step.damaged += 1;
                }
                other => return Err(other),
            },
        }
        Ok(step)
    }

    fn damaged_reads(&self) -> u64 {
        self.handle.damaged.load(Ordering::Relaxed)
    }

    fn stats(&self) -> TabletStats {
        TabletStats {
            disk_bytes: self.property(LIVE_SST_FILES_SIZE) + self.property(LIVE_BLOB_FILE_SIZE),
            keys: self.property(ESTIMATE_NUM_KEYS),
            memtable_bytes: self.property(SIZE_ALL_MEM_TABLES),
            compaction_debt_bytes: self.property(ESTIMATE_PENDING_COMPACTION_BYTES),
            damaged_reads: self.handle.damaged.load(Ordering::Relaxed),
        }
    }
}

/// One of the tablet's own entries.
fn own(handle: &Handle, key: &[u8], tier: ReadTier) -> Result<Option<Bytes>, TabletError> {
    let mut options = ReadOptions::default();
    options.set_read_tier(tier);
    let stored = handle
        .db()
        .get_pinned_opt(key, &options)
        .map_err(|error| TabletError::from(handle.failed(key, &error)))?;
    stored
        .map(|stored| Ok(Bytes::copy_from_slice(handle.open(key, &stored)?)))
        .transpose()
}

/// The applied entry: how many bytes were committed in the tablet's life, then the mark.
fn join_mark(written: u64, applied: &[u8]) -> Vec<u8> {
    [&written.to_be_bytes(), applied].concat()
}

fn split_mark(entry: &Bytes) -> Result<(u64, Bytes), TabletError> {
    let (written, _) = entry
        .split_first_chunk::<8>()
        .ok_or_else(|| TabletError::damaged("the applied mark is too short"))?;
    Ok((u64::from_be_bytes(*written), entry.slice(8..)))
}
