//! A group's directory on disk.
//!
//! ```text
//! groups/<group, 8 hex digits>/CURRENT        names the tablet; replaced at one moment
//!                              tablet-N/      a RocksDB
//!                              snapshot-N/    files/ of a checkpoint, and SNAPSHOT, its manifest, written last
//!                              staging/       files of an arriving snapshot
//!                              arriving/      all of them as a tablet, while it is read for the first time
//!                              cold/          a checkpoint of the tablet, while it is scrubbed
//!        <group>.removed, <group>.damaged     on its way out; what did not open, until it is rebuilt
//! ```
//! Guarantees: whatever CURRENT does not name, and every snapshot without its manifest, is what a crash left, and goes at
//! the next open. A directory with state but without a readable CURRENT is damage, never an empty group.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::db::options::RocksEngine;
use crate::db::tablet::RocksTablet;
use crate::error::TabletError;
use crate::snapshot::place::{Place, put_file, sync_path};
use crate::snapshot::receiver::staged;
use crate::snapshot::{Snapshot, SnapshotManifest, StoreKind};
use crate::state::store::{Draft, Home};
use crate::state::{Tablet, verify};

const CURRENT: &str = "CURRENT";
const SNAPSHOT: &str = "SNAPSHOT";
const FILES: &str = "files";
const STAGING: &str = "staging";
const ARRIVING: &str = "arriving";
const COLD: &str = "cold";
const TABLET: &str = "tablet-";
const SNAPSHOT_DIR: &str = "snapshot-";
const DRAFT: &str = ".draft";
const REMOVED: &str = ".removed";
const ASIDE: &str = ".damaged";

/// One group's directory, with its tablet open.
#[derive(Debug)]
pub(crate) struct DiskHome {
    engine: Arc<RocksEngine>,
    group: u32,
    directory: PathBuf,
    tablet: RwLock<Arc<RocksTablet>>,
    next: AtomicU64,
}

/// The groups below a directory.
pub(crate) fn list(groups: &Path) -> Result<Vec<u32>, TabletError> {
    let mut out: Vec<u32> = names(groups)?
        .iter()
        .filter(|name| name.len() == 8)
        .filter_map(|name| u32::from_str_radix(name, 16).ok())
        .collect();
    out.sort_unstable();
    Ok(out)
}

/// Moves a group's directory out of the way, so that the next open makes an empty one. What was moved away before goes.
pub(crate) fn set_aside(groups: &Path, group: u32) -> Result<(), TabletError> {
    forget_aside(groups, group)?;
    let directory = groups.join(format!("{group:08x}"));
    let aside = groups.join(format!("{group:08x}{ASIDE}"));
    match fs::rename(&directory, &aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(TabletError::io("setting aside", &directory, &error))
        }
        _ => sync_path(groups),
    }
}

/// Removes what [`set_aside`] moved away.
pub(crate) fn forget_aside(groups: &Path, group: u32) -> Result<(), TabletError> {
    remove_dir(&groups.join(format!("{group:08x}{ASIDE}")))
}

impl DiskHome {
    /// Opens a group's directory, or makes one; gives its newest whole snapshot and that snapshot's number.
    pub(crate) fn open(
        engine: Arc<RocksEngine>,
        groups: &Path,
        group: u32,
    ) -> Result<(Self, Option<(u64, Snapshot)>), TabletError> {
        let name = format!("{group:08x}");
        remove_dir(&groups.join(format!("{name}{REMOVED}")))?;
        let directory = groups.join(name);
        make_dir(&directory)?;
        let entries = names(&directory)?;
        let (number, tablet) = match read_pointer(&directory)? {
            Some(number) => {
                let path = directory.join(format!("{TABLET}{number}"));
                (number, RocksTablet::open(&engine, &path, group)?)
            }
            None => (1, first_tablet(&engine, &directory, &entries, group)?),
        };
        let mut newest = number;
        let mut snapshot = None;
        let mut numbered: Vec<(u64, &String)> = entries
            .iter()
            .filter_map(|name| Some((number_of(name, SNAPSHOT_DIR)?, name)))
            .collect();
        numbered.sort_unstable();
        for (number, name) in numbered.into_iter().rev() {
            newest = newest.max(number);
            let path = directory.join(name);
            match snapshot {
                None => match read_snapshot(&path, group)? {
                    Some(whole) => snapshot = Some((number, whole)),
                    None => remove_dir(&path)?,
                },
                Some(_) => remove_dir(&path)?,
            }
        }
        for name in &entries {
            let replaced = number_of(name, TABLET).is_some_and(|other| other != number);
            if replaced || name == ARRIVING || name == COLD {
                remove_dir(&directory.join(name))?;
            } else if name.ends_with(DRAFT) {
                Place::Disk(directory.clone()).remove(name)?;
            }
        }
        let home = Self {
            engine,
            group,
            directory,
            tablet: RwLock::new(Arc::new(tablet)),
            next: AtomicU64::new(newest + 1),
        };
        Ok((home, snapshot))
    }

    /// The new tablet, checked from end to end unless that was done, not yet pointed to.
    fn build(
        &self,
        tablet: &Path,
        manifest: &SnapshotManifest,
        staging: &Path,
        verified: bool,
    ) -> Result<RocksTablet, TabletError> {
        lay_out(tablet, manifest, staging)?;
        let opened = RocksTablet::open(&self.engine, tablet, self.group)?;
        if !verified {
            verify(&opened)?;
        }
        if opened.applied() != manifest.applied {
            return Err(TabletError::damaged(
                "the snapshot holds another commit than it says",
            ));
        }
        Ok(opened)
    }
}

impl Home for DiskHome {
    fn kind(&self) -> StoreKind {
        StoreKind::RocksDb
    }

    fn tablet(&self) -> Arc<dyn Tablet> {
        Arc::<RocksTablet>::clone(&self.tablet.read())
    }

    fn checkpoint(&self) -> Result<Draft, TabletError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(format!("{SNAPSHOT_DIR}{number}"));
        make_dir(&directory)?;
        let files = directory.join(FILES);
        let tablet = Arc::clone(&self.tablet.read());
        match tablet.checkpoint(&files) {
            Ok(applied) => Ok(Draft {
                number,
                applied,
                files: Place::Disk(files),
                directory: Some(directory),
            }),
            Err(error) => {
                remove_dir(&directory)?;
                Err(error)
            }
        }
    }

    fn cold(&self) -> Result<Arc<dyn Tablet>, TabletError> {
        let path = self.directory.join(COLD);
        remove_dir(&path)?;
        let tablet = Arc::clone(&self.tablet.read());
        let copy = tablet.cold(&self.engine, &path);
        if copy.is_err() {
            remove_dir(&path)?;
        }
        Ok(Arc::new(copy?))
    }

    fn keep(&self, draft: &Draft, manifest: &SnapshotManifest) -> Result<(), TabletError> {
        match &draft.directory {
            Some(directory) => put_file(directory, SNAPSHOT, &manifest.encode()),
            None => Ok(()),
        }
    }

    fn staging(&self) -> Result<Place, TabletError> {
        let staging = self.directory.join(STAGING);
        make_dir(&staging)?;
        Ok(Place::Disk(staging))
    }

    fn verify(&self, manifest: &SnapshotManifest, staging: &Place) -> Result<(), TabletError> {
        let Place::Disk(staging) = staging else {
            return Err(TabletError::refused("it did not arrive on disk"));
        };
        let arriving = self.directory.join(ARRIVING);
        remove_dir(&arriving)?;
        let read = self.build(&arriving, manifest, staging, false).map(drop);
        remove_dir(&arriving)?;
        read
    }

    fn install(
        &self,
        manifest: &SnapshotManifest,
        staging: &Place,
        verified: bool,
    ) -> Result<(u64, Snapshot), TabletError> {
        let Place::Disk(staging) = staging else {
            return Err(TabletError::refused("it did not arrive on disk"));
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let tablet_dir = self.directory.join(format!("{TABLET}{number}"));
        let snapshot_dir = self.directory.join(format!("{SNAPSHOT_DIR}{number}"));
        let files = snapshot_dir.join(FILES);
        let prepared = self
            .build(&tablet_dir, manifest, staging, verified)
            .and_then(|tablet| {
                make_dir(&snapshot_dir)?;
                lay_out(&files, manifest, staging)?;
                put_file(&snapshot_dir, SNAPSHOT, &manifest.encode())?;
                sync_path(&self.directory)?;
                write_pointer(&self.directory, number)?;
                Ok(tablet)
            });
        match prepared {
            Ok(tablet) => {
                let old = std::mem::replace(&mut *self.tablet.write(), Arc::new(tablet));
                old.doom();
                let files = Place::Disk(files);
                Ok((
                    number,
                    Snapshot::new(manifest.clone(), files, Some(snapshot_dir)),
                ))
            }
            Err(error) => {
                // A pointer whose write failed late may name the new tablet after a crash: then it must still be there.
                if read_pointer(&self.directory)? != Some(number) {
                    remove_dir(&tablet_dir)?;
                    remove_dir(&snapshot_dir)?;
                }
                Err(error)
            }
        }
    }

    fn remove(&self) -> Result<(), TabletError> {
        let name = format!("{:08x}{REMOVED}", self.group);
        let grave = self.directory.with_file_name(name);
        self.tablet.read().doom();
        remove_dir(&grave)?;
        match fs::rename(&self.directory, &grave) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TabletError::io("removal", &self.directory, &error));
            }
            _ => {}
        }
        if let Some(groups) = self.directory.parent() {
            sync_path(groups)?;
        }
        remove_dir(&grave)
    }
}

/// The tablet of a group that has no pointer: a new one, or one whose making was interrupted before anything was committed.
fn first_tablet(
    engine: &RocksEngine,
    directory: &Path,
    entries: &[String],
    group: u32,
) -> Result<RocksTablet, TabletError> {
    let first = format!("{TABLET}1");
    let state = |name: &&String| name.starts_with(TABLET) || name.starts_with(SNAPSHOT_DIR);
    let lost =
        || TabletError::damaged(format!("{} is missing in {}", CURRENT, directory.display()));
    if entries.iter().filter(state).any(|name| *name != first) {
        return Err(lost());
    }
    let path = directory.join(&first);
    if entries.contains(&first) {
        // Nothing is committed before the pointer is there. What is half-made does not open, and has no tables.
        let empty = match RocksTablet::open(engine, &path, group) {
            Ok(tablet) => tablet.applied().is_none(),
            Err(_) => !names(&path)?.iter().any(|name| name.ends_with(".sst")),
        };
        if !empty {
            return Err(lost());
        }
        remove_dir(&path)?;
    }
    let tablet = RocksTablet::create(engine, &path, group)?;
    sync_path(&path)?;
    write_pointer(directory, 1)?;
    Ok(tablet)
}

/// Makes a directory with a snapshot's files: tables and blobs are linked (nobody changes them), others copied.
fn lay_out(
    directory: &Path,
    manifest: &SnapshotManifest,
    staging: &Path,
) -> Result<(), TabletError> {
    make_dir(directory)?;
    for file in &manifest.files {
        let (from, to) = (staging.join(staged(file)), directory.join(&file.name));
        let immutable = file.name.ends_with(".sst") || file.name.ends_with(".blob");
        if immutable {
            fs::hard_link(&from, &to).map_err(|error| TabletError::io("link", &to, &error))?;
        } else {
            fs::copy(&from, &to).map_err(|error| TabletError::io("copy", &to, &error))?;
            sync_path(&to)?;
        }
    }
    sync_path(directory)
}

/// The pointer's number; `None` when there is no pointer.
fn read_pointer(directory: &Path) -> Result<Option<u64>, TabletError> {
    let path = directory.join(CURRENT);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(TabletError::io("read", &path, &error)),
    };
    let number = text
        .split(' ')
        .next()
        .and_then(|name| number_of(name, TABLET))
        .filter(|number| pointer_text(*number) == text);
    number
        .map(Some)
        .ok_or_else(|| TabletError::damaged(path.display().to_string()))
}

fn write_pointer(directory: &Path, number: u64) -> Result<(), TabletError> {
    put_file(directory, CURRENT, pointer_text(number).as_bytes())
}

fn pointer_text(number: u64) -> String {
    let name = format!("{TABLET}{number}");
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

/// A snapshot of an earlier run, if it is whole.
fn read_snapshot(directory: &Path, group: u32) -> Result<Option<Snapshot>, TabletError> {
    let path = directory.join(SNAPSHOT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TabletError::io("read", &path, &error)),
    };
    let Ok(manifest) = SnapshotManifest::decode(&bytes) else {
        tracing::warn!(snapshot = %directory.display(), "snapshot with a damaged manifest removed");
        return Ok(None);
    };
    let files = Place::Disk(directory.join(FILES));
    for file in &manifest.files {
        if files.length(&file.name)? != Some(file.length) {
            tracing::warn!(snapshot = %directory.display(), file = file.name, "snapshot with a missing file removed");
            return Ok(None);
        }
    }
    Ok((manifest.group == group)
        .then(|| Snapshot::new(manifest, files, Some(directory.to_owned()))))
}

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

fn names(directory: &Path) -> Result<Vec<String>, TabletError> {
    let list = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    match list() {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TabletError::io("listing", directory, &error)),
    }
}

/// Makes a directory and its parents, durably.
fn make_dir(path: &Path) -> Result<(), TabletError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        if !parent.as_os_str().is_empty() {
            make_dir(parent)?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(TabletError::io("creation", path, &error));
            }
            _ => {}
        }
        if !parent.as_os_str().is_empty() {
            sync_path(parent)?;
        }
    }
    Ok(())
}

fn remove_dir(path: &Path) -> Result<(), TabletError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(TabletError::io("removal", path, &error))
        }
        _ => Ok(()),
    }
}
