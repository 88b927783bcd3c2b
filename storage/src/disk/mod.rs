//! The small part of a file system that the log and the checked files need.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the traits: [`Disk`] is one flat folder, [`File`] one open file in it |
//! | `real.rs` | [`RealDisk`]: a folder of the operating system, by `fallocate`, `pwrite` and `fdatasync` |
//! | `sim.rs` | `SimDisk`: the same in memory, with a volatile and a durable image, crashes and faults |
//! | `sim_state.rs` | the images of `SimDisk` and the rules of what a crash keeps |
//!
//! What callers may rely on, on both disks: bytes are durable when [`File::sync_data`] returned `Ok` after they were
//! written; a name is durable when [`Disk::sync_dir`] returned `Ok` after it was made or removed. Nothing else is: an
//! unsynced write may be there after a crash, or not, or in part, by sectors and in any order.
//!
//! What this does not do: no folders below the one, no buffering, no retry. An error of the operating system is
//! handed on as it came; [`is_full`] tells the one kind that may be waited out.

mod real;
#[cfg(any(test, feature = "testing"))]
mod sim;
#[cfg(any(test, feature = "testing"))]
mod sim_state;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use real::RealDisk;
#[cfg(any(test, feature = "testing"))]
pub use sim::{SimDisk, SimImage};
#[cfg(any(test, feature = "testing"))]
pub use sim_state::CrashKeeps;

/// Held while one process uses a folder for itself; dropping it gives the folder back.
pub type DiskLock = Box<dyn Any + Send + Sync>;

/// One flat folder of files.
pub trait Disk: Send + Sync + Debug {
    /// Opens the existing file `name` for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise what the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates the file `name`, empty. The name is durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `AlreadyExists` if there is one; otherwise what the operating system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives the file `from` the name `to`, replacing what had it. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name `name`. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, sorted.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes all names made, changed and removed so far durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the lock `name`, which one process at a time may hold.
    ///
    /// # Errors
    /// `WouldBlock` if it is held; otherwise what the operating system says.
    fn lock(&self, name: &str) -> io::Result<DiskLock>;
}

/// One open file. Offsets and lengths are bytes.
pub trait File: Send + Sync + Debug {
    /// Fills `buf` from `offset` as far as the file goes; returns how many bytes were read.
    ///
    /// # Errors
    /// What the operating system says; an interrupted call is repeated.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file if needed.
    ///
    /// # Errors
    /// What the operating system says; a part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all bytes written so far durable, and the length if it changed.
    ///
    /// # Errors
    /// What the operating system says. After an error nothing is known about the bytes written since the last success.
    fn sync_data(&self) -> io::Result<()>;

    /// The length of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn size(&self) -> io::Result<u64>;

    /// Reserves room for the first `len` bytes; new ones read as zero. Never shrinks the file.
    ///
    /// # Errors
    /// What the operating system says; see [`is_full`].
    fn preallocate(&self, len: u64) -> io::Result<()>;
}

/// Whether `error` says that there is no room: the one kind of write error that goes away by itself.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Fills `buf` from `offset`.
///
/// # Errors
/// `UnexpectedEof` if the file ends before; otherwise what [`File::read_at`] says.
pub(crate) fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_at(buf, offset)? == buf.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests;
