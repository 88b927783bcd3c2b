//! A replica's state on its way to another node: a manifest, files, and their arrival.
//!
//! - [`manifest`]: what a snapshot consists of; each file's length and hash.
//! - `place`: where its files lie, on disk or in memory.
//! - [`receiver`]: the arriving side; goes on where it was interrupted.
//!
//! Guarantees: a snapshot is one commit of the tablet, whatever is written later; what arrives is used only when each
//! file's hash and, at the install, each value's checksum holds. How pieces travel is the caller's business.

pub mod manifest;
pub mod receiver;

pub(crate) mod place;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::error::TabletError;

pub use manifest::{FileEntry, SnapshotManifest, StoreKind};
pub use receiver::{Missing, SnapshotReceiver};

use place::Place;

/// The largest piece of a file that is read or taken at once, in bytes.
pub const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// A snapshot that can be read, for as long as it is held. A superseded one is removed when nobody holds it.
pub struct Snapshot {
    manifest: SnapshotManifest,
    files: Place,
    doomed: Option<(AtomicBool, PathBuf)>,
    suspect: AtomicBool,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Snapshot").field(&self.manifest).finish()
    }
}

impl Snapshot {
    pub(crate) fn new(
        manifest: SnapshotManifest,
        files: Place,
        directory: Option<PathBuf>,
    ) -> Self {
        let doomed = directory.map(|path| (AtomicBool::new(false), path));
        Self {
            manifest,
            files,
            doomed,
            suspect: AtomicBool::new(false),
        }
    }

    /// What it consists of.
    #[must_use]
    pub const fn manifest(&self) -> &SnapshotManifest {
        &self.manifest
    }

    /// A piece of the file with this number in the manifest: at most `limit` and [`MAX_PIECE_BYTES`] bytes, empty only at
    /// the end of the file.
    ///
    /// # Errors
    /// When the file cannot be read, or there is none with this number.
    pub fn read_at(&self, file: usize, offset: u64, limit: usize) -> Result<Bytes, TabletError> {
        let entry = self.manifest.files.get(file);
        let entry = entry.ok_or_else(|| TabletError::refused(format!("it has no file {file}")))?;
        let left = entry.length.saturating_sub(offset);
        let limit = limit
            .min(MAX_PIECE_BYTES)
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        self.files.read_at(&entry.name, offset, limit)
    }

    /// Reads the file with this number in the manifest from end to end: says how many bytes it has, or that it is damaged.
    /// Blocks.
    ///
    /// # Errors
    /// [`TabletError::Damaged`] when its content is not what the manifest says; when it cannot be read.
    pub fn check(&self, file: usize) -> Result<u64, TabletError> {
        let entry = self.manifest.files.get(file);
        let entry = entry.ok_or_else(|| TabletError::refused(format!("it has no file {file}")))?;
        let damaged = || TabletError::damaged(format!("{} of a snapshot", entry.name));
        if self.files.length(&entry.name)? != Some(entry.length) {
            return Err(damaged());
        }
        let hasher = self.files.hash(&entry.name, entry.length)?;
        match *hasher.finalize().as_bytes() == entry.hash {
            true => Ok(entry.length),
            false => Err(damaged()),
        }
    }

    /// A transfer of it failed: its files may be to blame, so they are to be checked soon.
    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Takes the suspicion back, and says whether there was one.
    #[must_use]
    pub fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn doom(&self) {
        if let Some((doomed, _)) = &self.doomed {
            doomed.store(true, Ordering::Release);
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some((doomed, path)) = &self.doomed
            && doomed.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_dir_all(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // The next start removes it.
            tracing::warn!(snapshot = %path.display(), %error, "superseded snapshot not removed");
        }
    }
}
