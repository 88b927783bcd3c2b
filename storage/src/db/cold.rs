//! A copy of a tablet that is read from the disk and from nowhere else.
//!
//! What RocksDB has in memory was checked when it came from the disk; the disk may have rotted since, and that would be found when
//! the memory is needed for something else, or at the next start, when other replicas may have rotted too. So a scrub reads a
//! checkpoint (links to the same files) through a database of its own, without a cache. Damage that it meets counts as the
//! tablet's. The links go with the copy; until then files that a compaction replaces keep their place on the disk.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{DB, Error};

use super::options::RocksEngine;
use super::tablet::{Handle, RocksTablet};
use crate::error::TabletError;

impl RocksTablet {
    /// Makes the copy, in a directory that does not exist.
    pub(crate) fn cold(&self, engine: &RocksEngine, path: &Path) -> Result<Self, TabletError> {
        self.checkpoint(path)?;
        let opened = open(engine, path)
            .map_err(|error| TabletError::rocksdb_read("open of a cold copy", &error))
            .and_then(|db| {
                let handle = Handle::new(db, path, Arc::clone(&self.handle.damaged));
                Self::of(engine, handle, self.group)
            });
        if let Err(TabletError::Damaged { what }) = &opened {
            self.handle.damage(&[], what);
        }
        if let Ok(copy) = &opened {
            copy.doom();
        }
        opened
    }
}

/// Past the operating system's cache where the file system can do that.
fn open(engine: &RocksEngine, path: &Path) -> Result<DB, Error> {
    let open = |direct| DB::open_for_read_only(&engine.cold_options(direct), path, false);
    open(true).or_else(|_cannot| open(false))
}
