//! One open RocksDB as a tablet.
//!
//! Guarantees: those of [`Tablet`]. A view is a RocksDB snapshot that owns its database, and the commits since ([`Layer`]): so it stays
//! valid after the tablet was replaced or removed; a replaced tablet's files go when its last view has gone. What is durable is read back
//! past the memtables, because RocksDB also flushes by itself.
//!
//! Commits go to the layer; when that has [`LAYER_BYTES`], before a flush and before a checkpoint it is written to RocksDB, in one
//! batch with the mark of its last commit: so RocksDB is always at some commit, never between two. A layer has at most one commit more
//! than that; it and what is known of records are beside the memory that all tablets share.

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

use crate::db::layer::{Known, Layer};
use crate::db::options::{RocksEngine, without_log};
use crate::error::TabletError;
use crate::state::flush::Ledger;
use crate::state::txn::overlaid;
use crate::state::{ScrubCursor, ScrubStep, Tablet, TabletStats, Txn, Unflushed, View};
use crate::{format, keys};

/// The bytes that a commit counts for itself, besides its keys and values.
const COMMIT_BYTES: u64 = 64;
/// From this many bytes of commits on, they are written to RocksDB.
const LAYER_BYTES: usize = 512 * 1024;
/// What is kept of what was written there last.
const KNOWN_BYTES: usize = 1024 * 1024;
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

    pub(super) fn db(&self) -> &DB {
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

    /// What RocksDB did not write. It also says so of damage that a compaction met.
    pub(super) fn refused(&self, what: &str, error: &rocksdb::Error) -> TabletError {
        let error = TabletError::rocksdb(what, error);
        if let TabletError::Damaged { what } = &error {
            self.damage(&[], what);
        }
        error
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

/// What views have in common until the next layer is written out: RocksDB as it was then, and the commits since.
struct Layers {
    snapshot: OwnedSnapshot,
    known: Known,
    layer: Layer,
}

impl Layers {
    fn new(handle: Arc<Handle>, known: Known) -> Arc<Self> {
        Arc::new(Self {
            snapshot: OwnedSnapshot::new(handle, |handle| handle.db().snapshot()),
            known,
            layer: Layer::default(),
        })
    }
}

/// The tablet as a commit left it.
struct RocksView {
    layers: Arc<Layers>,
    generation: u64,
}

impl RocksView {
    fn of(layers: &Arc<Layers>, generation: u64) -> View {
        Arc::new(Self {
            layers: Arc::clone(layers),
            generation,
        })
    }

    fn handle(&self) -> &Arc<Handle> {
        self.layers.snapshot.borrow_owner()
    }

    /// What RocksDB has.
    fn scan_base(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        let handle = self.handle();
        let start = keys::encode(from);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(keys::end_of_kind(from));
        let snapshot = self.layers.snapshot.borrow_dependent();
        let mut iterator = snapshot.raw_iterator_opt(options);
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

impl StateRead for RocksView {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        let layers = &self.layers;
        let recent = layers.layer.get(key, self.generation);
        if let Some(value) = recent.or_else(|| layers.known.get(key)) {
            return Ok(value);
        }
        let handle = self.handle();
        let key = keys::encode(key);
        let stored = layers
            .snapshot
            .borrow_dependent()
            .get_pinned(key)
            .map_err(|error| handle.failed(&key, &error))?;
        stored
            .map(|stored| handle.open(&key, &stored).map(Bytes::copy_from_slice))
            .transpose()
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        let recent = self.layers.layer.range(from, self.generation);
        let recent = recent.iter().map(|(key, value)| (key, value.as_ref()));
        overlaid(recent, limit, |limit| self.scan_base(from, limit))
    }
}

/// What the writer knows of the last commit.
struct Head {
    generation: u64,
    /// The last commit that RocksDB has.
    written: u64,
    applied: Option<Bytes>,
    ledger: Ledger,
    layers: Arc<Layers>,
}

/// A tablet in RocksDB.
pub(crate) struct RocksTablet {
    pub(super) group: u32,
    pub(super) handle: Arc<Handle>,
    head: Mutex<Head>,
    /// The view of the last commit.
    latest: RwLock<View>,
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
        let layers = Layers::new(Arc::clone(&handle), Known::default());
        Ok(Self {
            group,
            handle,
            latest: RwLock::new(RocksView::of(&layers, 0)),
            head: Mutex::new(Head {
                generation: 0,
                written: 0,
                applied,
                ledger: Ledger::new(engine.odometer.clone(), written),
                layers,
            }),
        })
    }

    /// Makes a checkpoint in a directory that does not exist, and says which commit it holds: files are linked, not copied.
    /// No commit happens meanwhile.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<Option<Bytes>, TabletError> {
        // Most of the work is done before commits are held up.
        self.flush()?;
        let mut head = self.head.lock();
        self.write_out(&mut head)?;
        Checkpoint::new(self.handle.db())
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .map_err(|error| self.handle.refused("checkpoint", &error))?;
        Ok(head.applied.clone())
    }

    /// Gives RocksDB the commits that it does not have. After an error it has none of them, and they stay visible.
    fn write_out(&self, head: &mut Head) -> Result<(), TabletError> {
        if head.written == head.generation {
            return Ok(());
        }
        let layers = &head.layers;
        let mut batch = WriteBatch::default();
        layers.layer.each(|key, value| {
            let key = keys::encode(key);
            match value {
                Some(value) => batch.put(key, format::seal(&key, value)),
                None => batch.delete(key),
            }
        });
        let mark = join_mark(head.ledger.after(0), head.applied.as_deref().unwrap_or(&[]));
        batch.put(keys::APPLIED, format::seal(&keys::APPLIED, &mark));
        self.handle
            .db()
            .write_opt(batch, &without_log())
            .map_err(|error| self.handle.refused("commit", &error))?;
        let known = layers.known.with(&layers.layer, KNOWN_BYTES);
        head.layers = Layers::new(Arc::clone(&self.handle), known);
        head.written = head.generation;
        *self.latest.write() = RocksView::of(&head.layers, head.generation);
        Ok(())
    }

    /// Has the directory removed when the last view has gone.
    pub(crate) fn doom(&self) {
        self.handle.doomed.store(true, Ordering::Release);
        self.handle.db().cancel_all_background_work(false);
    }

    pub(super) fn property(&self, name: impl CStrLike) -> u64 {
        let value = self.handle.db().property_int_value(name);
        value.ok().flatten().unwrap_or(0)
    }

    fn layer_bytes(&self) -> u64 {
        let bytes = self.head.lock().layers.layer.bytes();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn durable(&self) -> Result<(u64, Option<Bytes>), TabletError> {
        match own(&self.handle, &keys::APPLIED, ReadTier::Persisted)? {
            Some(mark) => split_mark(&mark).map(|(written, mark)| (written, Some(mark))),
            None => Ok((0, None)),
        }
    }
}

impl Drop for RocksTablet {
    /// RocksDB flushes what it has when it is closed; what it is not given is in the log.
    fn drop(&mut self) {
        if !self.handle.doomed.load(Ordering::Acquire)
            && let Err(error) = self.write_out(&mut self.head.lock())
        {
            tracing::warn!(tablet = %self.handle.path.display(), %error, "last commits not written");
        }
    }
}

impl Tablet for RocksTablet {
    fn group(&self) -> u32 {
        self.group
    }

    fn view(&self) -> View {
        Arc::clone(&self.latest.read())
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
        // Before anything of this one is in the layer: if it cannot be written out, nothing of this one is seen.
        if head.layers.layer.bytes() >= LAYER_BYTES {
            self.write_out(&mut head)?;
        }
        let size = |key: &Key, value: Option<&Bytes>| {
            keys::encode(key).len() + value.map_or(0, |value| value.len() + format::OVERHEAD)
        };
        let bytes: usize = txn.changes().map(|(key, value)| size(key, value)).sum();
        let bytes = u64::try_from(bytes + applied.len()).unwrap_or(u64::MAX);
        head.generation += 1;
        head.layers.layer.add(txn.changes(), head.generation);
        *self.latest.write() = RocksView::of(&head.layers, head.generation);
        head.applied = Some(Bytes::copy_from_slice(applied));
        head.ledger.committed(bytes.saturating_add(COMMIT_BYTES));
        Ok(())
    }

    fn applied(&self) -> Option<Bytes> {
        self.head.lock().applied.clone()
    }

    fn durable_applied(&self) -> Result<Option<Bytes>, TabletError> {
        self.durable().map(|(_, applied)| applied)
    }

    fn flush(&self) -> Result<(), TabletError> {
        self.write_out(&mut self.head.lock())?;
        let flushed = self.handle.db().flush();
        flushed.map_err(|error| self.handle.refused("flush", &error))
    }

    fn unflushed(&self) -> Result<Unflushed, TabletError> {
        let (durable, _) = self.durable()?;
        Ok(self.head.lock().ledger.unflushed(durable))
    }

    fn compact(&self, goes_on: &(dyn Fn() -> bool + Sync)) -> Result<bool, TabletError> {
        self.rewrite(goes_on)
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
            memtable_bytes: self.property(SIZE_ALL_MEM_TABLES) + self.layer_bytes(),
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
