//! [`RealDisk`]: a folder of the operating system.
//!
//! Writes go through the page cache (`pwrite`) and become durable with `fdatasync`, which also writes a changed length.
//! It does no direct I/O, keeps no state but the folder's path and descriptor, and retries nothing but `EINTR`.

use std::fs::{File as OsFile, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock, fsync};

use super::{Disk, DiskLock, File};

/// A folder of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    folder: OsFile,
}

#[derive(Debug)]
struct RealFile(OsFile);

impl RealDisk {
    /// Opens the folder `path`, making it and its parents if they are missing, readable by the owner alone.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;

        if !path.is_dir() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)?;
            if let Some(parent) = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                fsync(OsFile::open(parent)?)?;
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            folder: OsFile::open(path)?,
        })
    }

    fn options() -> OpenOptions {
        use std::os::unix::fs::OpenOptionsExt;

        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options
    }
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(
            Self::options().open(self.path.join(name))?,
        )))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(
            Self::options()
                .create_new(true)
                .open(self.path.join(name))?,
        )))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (
                entry.file_type()?.is_file(),
                entry.file_name().into_string(),
            ) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(fsync(&self.folder)?)
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        let file = Self::options()
            .create(true)
            .truncate(false)
            .open(self.path.join(name))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated on any error: after a failed sync the kernel may have dropped the pages.
        Ok(fdatasync(&self.0)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // Some file systems cannot reserve; then the length alone is set and a full disk shows at the write.
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    if self.size()? < len {
                        self.0.set_len(len)?;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
