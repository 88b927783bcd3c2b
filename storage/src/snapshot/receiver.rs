//! The arriving side of a snapshot.
//!
//! Files are staged under their content's hash: `<hash>.part` while they arrive, `<hash>` when the hash holds and the content
//! is synced. So a transfer goes on where it was interrupted, also after a restart, and also with a newer snapshot, of which
//! only files that are not staged yet are missing. Pieces of one file arrive in order; files in any order.
//! Installs nothing: `TabletStore::install` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::TabletError;
use crate::snapshot::manifest::{FileEntry, SnapshotManifest};
use crate::snapshot::place::Place;

/// A file that has to be sent, or the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its number in the manifest.
    pub file: usize,
    /// Where to begin.
    pub offset: u64,
    /// How many bytes are missing.
    pub length: u64,
}

/// A snapshot that is arriving.
pub struct SnapshotReceiver {
    manifest: SnapshotManifest,
    staging: Place,
    arriving: BTreeMap<usize, Arriving>,
    /// Every value of it was read.
    verified: AtomicBool,
}

struct Arriving {
    length: u64,
    hasher: blake3::Hasher,
}

impl std::fmt::Debug for SnapshotReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SnapshotReceiver")
            .field(&self.manifest)
            .finish()
    }
}

impl SnapshotReceiver {
    /// Goes on with what is staged; what this snapshot does not need is removed.
    pub(crate) fn new(manifest: SnapshotManifest, staging: Place) -> Result<Self, TabletError> {
        let wanted: BTreeSet<String> = manifest
            .files
            .iter()
            .flat_map(|file| [staged(file), partial(file)])
            .collect();
        for name in staging.names()? {
            if !wanted.contains(&name) {
                staging.remove(&name)?;
            }
        }
        let mut receiver = Self {
            manifest,
            staging,
            arriving: BTreeMap::new(),
            verified: AtomicBool::new(false),
        };
        // Two files with the same content are one staged file, and one transfer.
        let mut seen = BTreeSet::new();
        for file in 0..receiver.manifest.files.len() {
            if receiver
                .manifest
                .files
                .get(file)
                .is_some_and(|entry| seen.insert(entry.hash))
            {
                receiver.resume(file)?;
            }
        }
        Ok(receiver)
    }

    /// What is arriving.
    #[must_use]
    pub const fn manifest(&self) -> &SnapshotManifest {
        &self.manifest
    }

    /// What has to be sent. Empty when all has arrived.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        self.arriving
            .iter()
            .filter_map(|(&file, arriving)| {
                let entry = self.manifest.files.get(file)?;
                Some(Missing {
                    file,
                    offset: arriving.length,
                    length: entry.length.saturating_sub(arriving.length),
                })
            })
            .collect()
    }

    /// Takes the next piece of a file. When it was the last, the file is verified and made durable.
    ///
    /// # Errors
    /// [`TabletError::Refused`] when the piece is not the next one. [`TabletError::Damaged`] when the whole file is not what
    /// the manifest says: it is dropped, and missing from its beginning.
    pub fn write_at(&mut self, file: usize, offset: u64, data: &[u8]) -> Result<(), TabletError> {
        let entry = self.manifest.files.get(file);
        let entry = entry.ok_or_else(|| TabletError::refused(format!("it has no file {file}")))?;
        let Some(arriving) = self.arriving.get_mut(&file) else {
            return Err(TabletError::refused(format!("{} is complete", entry.name)));
        };
        let end = offset.checked_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        let end = end.filter(|end| offset == arriving.length && *end <= entry.length);
        let end = end.ok_or_else(|| {
            TabletError::refused(format!("a piece of {} is not the next one", entry.name))
        })?;
        self.staging.append(&partial(entry), offset, data)?;
        arriving.hasher.update(data);
        arriving.length = end;
        if end == entry.length {
            self.finish(file)?;
        }
        Ok(())
    }

    /// Where the files lie, when all have arrived.
    pub(crate) fn complete(&self) -> Result<(&SnapshotManifest, &Place), TabletError> {
        match self.arriving.len() {
            0 => Ok((&self.manifest, &self.staging)),
            files => Err(TabletError::Incomplete { files }),
        }
    }

    pub(crate) fn set_verified(&self) {
        self.verified.store(true, Ordering::Release);
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    fn resume(&mut self, file: usize) -> Result<(), TabletError> {
        let Some(entry) = self.manifest.files.get(file) else {
            return Ok(());
        };
        if self.staging.length(&staged(entry))? == Some(entry.length) {
            return Ok(());
        }
        let part = partial(entry);
        let length = match self.staging.length(&part)? {
            Some(length) if length <= entry.length => length,
            Some(_) => {
                self.staging.remove(&part)?;
                0
            }
            None => 0,
        };
        let hasher = self.staging.hash(&part, length)?;
        let whole = length == entry.length;
        self.arriving.insert(file, Arriving { length, hasher });
        if whole {
            self.staging.append(&part, length, &[])?;
            match self.finish(file) {
                // What a crash left of it is not what was sent: it is asked for again.
                Err(TabletError::Damaged { .. }) => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn finish(&mut self, file: usize) -> Result<(), TabletError> {
        let (Some(entry), Some(arriving)) =
            (self.manifest.files.get(file), self.arriving.get_mut(&file))
        else {
            return Ok(());
        };
        let part = partial(entry);
        if *arriving.hasher.finalize().as_bytes() != entry.hash {
            *arriving = Arriving {
                length: 0,
                hasher: blake3::Hasher::new(),
            };
            self.staging.remove(&part)?;
            return Err(TabletError::damaged(format!(
                "{} as it arrived",
                entry.name
            )));
        }
        self.staging.sync(&part)?;
        self.staging.rename(&part, &staged(entry))?;
        self.arriving.remove(&file);
        Ok(())
    }
}

/// The name of a file that has arrived.
pub(crate) fn staged(file: &FileEntry) -> String {
    file.hash.iter().fold(String::new(), |mut name, byte| {
        write!(name, "{byte:02x}").expect("a string takes what is written");
        name
    })
}

fn partial(file: &FileEntry) -> String {
    format!("{}.part", staged(file))
}
