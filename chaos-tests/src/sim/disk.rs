//! The simulated disk, with a note of everything that is written to it.
//!
//! What it keeps and loses is [`SimDisk`]'s business; this only tells the trace.

use std::io;
use std::sync::Arc;

use storage::disk::{Disk, DiskLock, File, SimDisk};

use super::trace::Trace;

/// A disk of one node in one life.
#[derive(Debug)]
pub(super) struct NotedDisk {
    disk: SimDisk,
    node: u64,
    trace: Trace,
}

#[derive(Debug)]
struct NotedFile {
    file: Arc<dyn File>,
    node: u64,
    trace: Trace,
}

impl NotedDisk {
    pub(super) fn make(disk: SimDisk, node: u64, trace: Trace) -> Arc<dyn Disk> {
        Arc::new(Self { disk, node, trace })
    }

    fn noted(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        let (node, trace) = (self.node, self.trace.clone());
        Arc::new(NotedFile { file, node, trace })
    }
}

impl Disk for NotedDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.disk.open(name).map(|file| self.noted(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.trace.note("create", [self.node, 0, 0, 0]);
        self.disk.create(name).map(|file| self.noted(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.trace.note("rename", [self.node, 0, 0, 0]);
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.trace.note("remove", [self.node, 0, 0, 0]);
        self.disk.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.trace.note("syncdir", [self.node, 0, 0, 0]);
        self.disk.sync_dir()
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        self.disk.lock(name)
    }
}

impl File for NotedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let result = self.file.write_at(bytes, offset);
        let fine = u64::from(result.is_ok());
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.trace.note("write", [self.node, offset, length, fine]);
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = self.file.sync_data();
        let fine = u64::from(result.is_ok());
        self.trace.note("sync", [self.node, fine, 0, 0]);
        result
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }
}
