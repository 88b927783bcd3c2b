//! Where files of a snapshot lie: a directory, or memory with the same meaning.
//!
//! Names are plain file names (the manifest sees to that). On disk, `sync` makes a file's content durable; in memory it
//! does nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::TabletError;
use crate::snapshot::MAX_PIECE_BYTES;
use crate::snapshot::manifest::FileEntry;

/// Files in memory.
pub(crate) type MemoryFiles = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A directory of files.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// On disk.
    Disk(PathBuf),
    /// In memory.
    Memory(MemoryFiles),
}

impl Place {
    /// Up to `limit` bytes of a file.
    pub(crate) fn read_at(
        &self,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Bytes, TabletError> {
        match self {
            Self::Disk(directory) => {
                let path = directory.join(name);
                let read = || {
                    let file = File::open(&path)?;
                    let mut out = vec![0; limit];
                    let mut length = 0;
                    while length < limit {
                        let place = offset + wide(length);
                        match file.read_at(&mut out[length..], place) {
                            Ok(0) => break,
                            Ok(read) => length += read,
                            Err(error) if error.kind() == ErrorKind::Interrupted => {}
                            Err(error) => return Err(error),
                        }
                    }
                    out.truncate(length);
                    Ok(Bytes::from(out))
                };
                read().map_err(|error| TabletError::io("read", &path, &error))
            }
            Self::Memory(files) => {
                let files = files.lock();
                let content = files.get(name).ok_or_else(|| absent(name))?;
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(content.len());
                let end = start.saturating_add(limit).min(content.len());
                Ok(Bytes::copy_from_slice(&content[start..end]))
            }
        }
    }

    /// Appends to a file, which is made if need be; `offset` is its present length.
    pub(crate) fn append(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), TabletError> {
        match self {
            Self::Disk(directory) => {
                let path = directory.join(name);
                OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&path)
                    .and_then(|file| file.write_all_at(data, offset))
                    .map_err(|error| TabletError::io("write", &path, &error))
            }
            Self::Memory(files) => {
                let mut files = files.lock();
                let content = files.entry(name.to_owned()).or_default();
                content.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
                content.extend_from_slice(data);
                Ok(())
            }
        }
    }

    /// The length of a file, `None` when there is none.
    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>, TabletError> {
        match self {
            Self::Disk(directory) => {
                let path = directory.join(name);
                match fs::metadata(&path) {
                    Ok(metadata) => Ok(Some(metadata.len())),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(TabletError::io("look-up", &path, &error)),
                }
            }
            Self::Memory(files) => Ok(files.lock().get(name).map(|content| wide(content.len()))),
        }
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, TabletError> {
        match self {
            Self::Disk(directory) => {
                let list = || {
                    let mut names = Vec::new();
                    for entry in fs::read_dir(directory)? {
                        let entry = entry?;
                        if entry.file_type()?.is_file() {
                            names.push(entry.file_name().to_string_lossy().into_owned());
                        }
                    }
                    names.sort();
                    Ok(names)
                };
                list().map_err(|error: io::Error| TabletError::io("listing", directory, &error))
            }
            Self::Memory(files) => Ok(files.lock().keys().cloned().collect()),
        }
    }

    /// Makes a file's content durable.
    pub(crate) fn sync(&self, name: &str) -> Result<(), TabletError> {
        match self {
            Self::Disk(directory) => sync_path(&directory.join(name)),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Gives a file another name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), TabletError> {
        match self {
            Self::Disk(directory) => {
                let path = directory.join(from);
                fs::rename(&path, directory.join(to))
                    .map_err(|error| TabletError::io("rename", &path, &error))
            }
            Self::Memory(files) => {
                let mut files = files.lock();
                let content = files.remove(from).ok_or_else(|| absent(from))?;
                files.insert(to.to_owned(), content);
                Ok(())
            }
        }
    }

    /// Removes a file; nothing happens when there is none.
    pub(crate) fn remove(&self, name: &str) -> Result<(), TabletError> {
        match self {
            Self::Disk(directory) => {
                let path = directory.join(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        Err(TabletError::io("removal", &path, &error))
                    }
                    _ => Ok(()),
                }
            }
            Self::Memory(files) => {
                files.lock().remove(name);
                Ok(())
            }
        }
    }

    /// The hash of the first `length` bytes of a file, to be gone on with; fails when it is shorter.
    pub(crate) fn hash(&self, name: &str, length: u64) -> Result<blake3::Hasher, TabletError> {
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < length {
            let limit = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let piece = self.read_at(name, offset, limit.min(MAX_PIECE_BYTES))?;
            if piece.is_empty() {
                return Err(TabletError::damaged(format!(
                    "{name} is shorter than it was"
                )));
            }
            hasher.update(&piece);
            offset += wide(piece.len());
        }
        Ok(hasher)
    }

    /// All files with their lengths and hashes. Reads everything.
    pub(crate) fn describe(&self) -> Result<Vec<FileEntry>, TabletError> {
        let mut out = Vec::new();
        for name in self.names()? {
            let length = self.length(&name)?.ok_or_else(|| absent(&name))?;
            let hash = *self.hash(&name, length)?.finalize().as_bytes();
            out.push(FileEntry { name, length, hash });
        }
        Ok(out)
    }
}

/// Makes a file, or a directory's names, durable.
pub(crate) fn sync_path(path: &Path) -> Result<(), TabletError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| TabletError::io("sync", path, &error))
}

/// Makes a file with this content, or replaces it, so that a crash leaves the old one or the new one.
pub(crate) fn put_file(directory: &Path, name: &str, content: &[u8]) -> Result<(), TabletError> {
    let (path, draft) = (
        directory.join(name),
        directory.join(format!("{name}.draft")),
    );
    fs::write(&draft, content).map_err(|error| TabletError::io("write", &draft, &error))?;
    sync_path(&draft)?;
    fs::rename(&draft, &path).map_err(|error| TabletError::io("rename", &draft, &error))?;
    sync_path(directory)
}

fn absent(name: &str) -> TabletError {
    TabletError::damaged(format!("there is no file {name}"))
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
