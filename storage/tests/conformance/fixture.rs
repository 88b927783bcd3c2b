//! A store of either kind, its crash, and small helpers to fill and read a tablet.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::id::ChunkId;
use model::state::{Key, StateRead, StateWrite};
use storage::db::StateConfig;
use storage::snapshot::{Snapshot, SnapshotReceiver};
use storage::state::{StateEngine, Tablet, TabletStore};
use tempfile::TempDir;

/// The group of all tests.
pub(crate) const GROUP: u32 = 0x8000_0001;

/// A node's disk, and the engine of the process that runs on it.
pub(crate) struct Fixture {
    pub(crate) engine: StateEngine,
    disk: RefCell<TempDir>,
    /// Disks of processes that crashed; tablets may still be open in them.
    crashed: RefCell<Vec<TempDir>>,
}

impl Fixture {
    pub(crate) fn rocksdb() -> Self {
        // A small memtable: RocksDB flushes by itself in the middle of a test.
        let config = StateConfig {
            memory_bytes: 8 * 1024 * 1024,
            memtable_bytes: 128 * 1024,
            ..StateConfig::default()
        };
        Self {
            engine: StateEngine::rocksdb(config).unwrap(),
            disk: RefCell::new(TempDir::new().unwrap()),
            crashed: RefCell::default(),
        }
    }

    pub(crate) fn memory() -> Self {
        Self {
            engine: StateEngine::memory(),
            disk: RefCell::new(TempDir::new().unwrap()),
            crashed: RefCell::default(),
        }
    }

    /// Another node with the same kind of store.
    pub(crate) fn another(&self) -> Self {
        match self.engine {
            StateEngine::RocksDb(_) => Self::rocksdb(),
            StateEngine::Memory(_) => Self::memory(),
        }
    }

    pub(crate) fn open(&self) -> TabletStore {
        self.engine.open(&self.path(), GROUP).unwrap()
    }

    /// What a kill of the process leaves on the disk, while the process that was killed is still looking on.
    pub(crate) fn crash(&self) {
        match &self.engine {
            StateEngine::RocksDb(_) => {
                let old = self.disk.replace(image(&self.path()));
                self.crashed.borrow_mut().push(old);
            }
            StateEngine::Memory(disk) => disk.crash(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.disk.borrow().path().to_owned()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.path().join(format!("{GROUP:08x}"))
    }
}

/// A copy of a directory as it was at one time: RocksDB works on meanwhile, and a copy during which a file came, went or
/// grew is none of any time.
fn image(path: &Path) -> TempDir {
    for _ in 0..100 {
        let (before, image) = (files(path), TempDir::new().unwrap());
        copy(path, image.path());
        if files(path) == before {
            return image;
        }
    }
    panic!("{} does not come to rest", path.display());
}

/// All files below a directory and their lengths, but for RocksDB's reports.
fn files(path: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else if path.file_name().is_some_and(|name| name != "LOG") {
            // One that vanished shows in the next look.
            let length = fs::metadata(&path).map_or(0, |about| about.len());
            found.insert(path, length);
        }
    }
    found
}

/// Copies a directory with all below it. A file that the store removes meanwhile is one that it no longer needs.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

pub(crate) fn chunk(number: u32) -> Key {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Key::Chunk(ChunkId(id))
}

/// A value that does not compress, the same for the same number.
pub(crate) fn value(number: u32, length: usize) -> Bytes {
    let mut out = vec![0; length];
    let mut reader = blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .finalize_xof();
    reader.fill(&mut out);
    Bytes::from(out)
}

/// Commits values of these numbers, all of this length; the mark is the last number.
pub(crate) fn commit(tablet: &Arc<dyn Tablet>, numbers: std::ops::Range<u32>, length: usize) {
    let mut txn = tablet.begin();
    let last = numbers.end - 1;
    for number in numbers {
        txn.put(chunk(number), value(number, length));
    }
    tablet.commit(&txn, &last.to_be_bytes()).unwrap();
}

/// Asserts that exactly the values below `end` are there.
pub(crate) fn assert_holds(view: &dyn StateRead, end: u32, length: usize) {
    for number in 0..end {
        assert_eq!(
            view.get(&chunk(number)).unwrap(),
            Some(value(number, length)),
            "{number}"
        );
    }
    let all = view.scan(&chunk(0), usize::MAX).unwrap();
    assert_eq!(all.len(), usize::try_from(end).unwrap());
}

/// Sends what is missing, in pieces; stops after `pieces`. Says how many bytes went.
pub(crate) fn send(from: &Snapshot, to: &mut SnapshotReceiver, pieces: usize) -> u64 {
    let mut sent = 0;
    let mut left = pieces;
    for missing in to.missing() {
        let mut offset = missing.offset;
        let end = missing.offset + missing.length;
        while offset < end {
            if left == 0 {
                return sent;
            }
            left -= 1;
            let piece = from.read_at(missing.file, offset, 16 * 1024).unwrap();
            to.write_at(missing.file, offset, &piece).unwrap();
            offset += u64::try_from(piece.len()).unwrap();
            sent += u64::try_from(piece.len()).unwrap();
        }
    }
    sent
}

/// Makes each function a test of both stores.
macro_rules! for_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod rocksdb {
            $(#[test] fn $name() { super::$name(&$crate::fixture::Fixture::rocksdb()); })+
        }
        mod memory {
            $(#[test] fn $name() { super::$name(&$crate::fixture::Fixture::memory()); })+
        }
    };
}
pub(crate) use for_both_stores;
