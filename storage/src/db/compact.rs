//! Rewriting a tablet, so that nothing but what is current takes place on the disk.
//!
//! RocksDB drops what was overwritten or deleted when it happens to compact it, so a tablet at rest keeps some of it for ever. Here all of it
//! is rewritten: table after table, and bodies that lie apart are moved out of the files that they share with dead ones. It goes piece by piece,
//! so that whoever asked can stop it; reads and commits go on. While it lasts, a piece is there twice, and as long as a snapshot holds the old
//! files, all is.

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::tablet::RocksTablet;
use crate::db::options::BLOB_GC_AGE;
use crate::error::TabletError;
use crate::state::Tablet as _;

/// About so many bytes of tables and bodies are rewritten before the next question whether to go on.
const PIECE_BYTES: u64 = 64 * 1024 * 1024;
/// Which of the files of bodies, of oldest to newest, are moved out of.
const GC_AGE: &str = "blob_garbage_collection_age_cutoff";

/// From and to which key, both included; nothing is open.
type Piece = (Option<Vec<u8>>, Option<Vec<u8>>);

impl RocksTablet {
    /// Rewrites all of it, unless `goes_on` says no; says whether it came to the end.
    pub(super) fn rewrite(&self, goes_on: &dyn Fn() -> bool) -> Result<bool, TabletError> {
        self.flush()?;
        let pieces = self.pieces()?;
        let set = |age: &str| {
            let set = self.handle.db().set_options(&[(GC_AGE, age)]);
            set.map_err(|error| self.handle.refused("compaction", &error))
        };
        set("1.0")?;
        let mut options = CompactOptions::default();
        // What RocksDB does by itself goes on beside it.
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        let mut left = pieces.into_iter();
        let done = left.all(|(from, to)| {
            let on = goes_on();
            if on {
                let db = self.handle.db();
                db.compact_range_opt(from.as_deref(), to.as_deref(), &options);
            }
            on
        });
        set(&BLOB_GC_AGE.to_string())?;
        Ok(done)
    }

    /// The pieces of all of it; the first and the last one are open.
    fn pieces(&self) -> Result<Vec<Piece>, TabletError> {
        let files = self.handle.db().live_files();
        let mut files = files.map_err(|error| self.handle.refused("compaction", &error))?;
        let stats = self.stats();
        let tables: usize = files.iter().map(|file| file.size).sum();
        // Bodies that lie apart belong to tables about evenly.
        let tables = u64::try_from(tables).unwrap_or(u64::MAX).max(1);
        let apart = stats.disk_bytes.saturating_sub(tables);
        let most = PIECE_BYTES.saturating_mul(tables) / tables.saturating_add(apart);
        let lowest = files.iter().map(|file| file.level).max().unwrap_or(0);
        if lowest == 0 {
            return Ok(vec![(None, None)]);
        }
        // Nearly everything is in the last level, and its files do not overlap.
        files.retain(|file| file.level == lowest);
        files.sort_unstable_by(|one, other| one.start_key.cmp(&other.start_key));
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = u64::MAX;
        for file in files {
            if bytes >= most {
                pieces.push((file.start_key, None));
                bytes = 0;
            }
            if let Some((_, to)) = pieces.last_mut() {
                *to = file.end_key;
            }
            bytes = bytes.saturating_add(u64::try_from(file.size).unwrap_or(u64::MAX));
        }
        if let Some((from, _)) = pieces.first_mut() {
            *from = None;
        }
        if let Some((_, to)) = pieces.last_mut() {
            *to = None;
        }
        Ok(pieces)
    }
}
