//! Rewriting a tablet, so that nothing but what is current takes place on the disk.
//!
//! RocksDB drops what was overwritten or deleted when it happens to compact it, so a tablet at rest keeps some of it for ever. Here all of it
//! is rewritten: tables, and bodies that lie apart are moved out of the files that they share with dead ones. Reads and commits go on. While it
//! lasts all is there twice, and longer if a snapshot holds the old files.
//!
//! RocksDB's binding says neither whether a compaction failed nor can it end one alone: failures are seen by its counter of background errors,
//! and an end is put to all background work of the tablet, as when it is closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rocksdb::properties::BACKGROUND_ERRORS;
use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::tablet::RocksTablet;
use crate::db::options::BLOB_GC_AGE;
use crate::error::TabletError;
use crate::state::Tablet as _;

/// Between two questions whether to go on.
const ASK: Duration = Duration::from_millis(100);
/// Which of the files of bodies, of oldest to newest, are moved out of.
const GC_AGE: &str = "blob_garbage_collection_age_cutoff";

impl RocksTablet {
    /// Rewrites all of it, until `goes_on` says no; says whether it came to the end.
    pub(super) fn rewrite(&self, goes_on: &(dyn Fn() -> bool + Sync)) -> Result<bool, TabletError> {
        if !goes_on() {
            return Ok(false);
        }
        self.flush()?;
        let failures = self.property(BACKGROUND_ERRORS);
        self.move_out_of("1.0");
        let mut options = CompactOptions::default();
        // What RocksDB does by itself goes on beside it.
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        let (db, ended, stopped) = (
            self.handle.db(),
            AtomicBool::new(false),
            AtomicBool::new(false),
        );
        thread::scope(|scope| {
            let asks = scope.spawn(|| {
                while !ended.load(Ordering::Acquire) {
                    if !goes_on() {
                        stopped.store(true, Ordering::Release);
                        db.cancel_all_background_work(false);
                        return;
                    }
                    thread::park_timeout(ASK);
                }
            });
            db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
            ended.store(true, Ordering::Release);
            asks.thread().unpark();
        });
        self.move_out_of(&BLOB_GC_AGE.to_string());
        if stopped.load(Ordering::Acquire) {
            return Ok(false);
        }
        if self.property(BACKGROUND_ERRORS) > failures {
            let why = "RocksDB ended the compaction with an error, which its own log has";
            return Err(TabletError::refused(why));
        }
        Ok(true)
    }

    /// From which of the files of bodies a compaction moves what is current; the options that a tablet is opened with are others.
    fn move_out_of(&self, age: &str) {
        if let Err(error) = self.handle.db().set_options(&[(GC_AGE, age)]) {
            // It counts all the same: what failed is to write it down.
            tracing::warn!(group = self.group, %error, "an option of the tablet was not written down");
        }
    }
}
