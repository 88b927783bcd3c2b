//! [`SimDisk`]: a disk in memory that forgets what was not synced, and fails when told to.
//!
//! In: the calls of [`Disk`] and [`File`], and the faults a test asks for. A crash ends the life of every handle
//! made before it: they answer with an error, so that a writer of the dead process can no longer change anything.
//! The same seed and the same calls give the same bytes. A sync takes no time, unless it is held or made slow.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::sim_state::{Dice, Images};
use super::{CrashKeeps, Disk, DiskLock, File};

/// A handle on the simulated disk, for one life of the process that uses it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
    life: u64,
}

/// All bytes of a simulated disk at one moment, as an old backup of it would hold them.
#[derive(Debug, Clone)]
pub struct SimImage(Images);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug)]
struct State {
    life: u64,
    images: Images,
    dice: Dice,
    locks: BTreeSet<String>,
    faults: Faults,
    syncs: u64,
    writes: u64,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Faults {
    sync_error: Option<(u64, io::ErrorKind)>,
    sync_cut: Option<(u64, io::ErrorKind)>,
    write_error: Option<(u64, io::ErrorKind)>,
    unreadable: BTreeMap<String, io::ErrorKind>,
    misdirect: Option<u64>,
    capacity: Option<usize>,
    full: bool,
    lying: bool,
    holding: bool,
    slow: Option<Duration>,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
    inode: u64,
}

struct SimLock {
    disk: SimDisk,
    name: String,
}

impl SimDisk {
    /// An empty disk whose chances come from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            life: 0,
            images: Images::default(),
            dice: Dice(seed),
            locks: BTreeSet::new(),
            faults: Faults::default(),
            syncs: 0,
            writes: 0,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                released: Condvar::new(),
            }),
            life: 0,
        }
    }

    /// The power fails: what was not synced is lost as far as `keeps` says, all faults and locks end, and this and
    /// every other handle is dead. The handle returned is the disk of the next life.
    #[must_use = "the old handle is dead"]
    pub fn crash(&self, keeps: CrashKeeps) -> Self {
        self.next_life(|state| {
            let State { images, dice, .. } = state;
            images.crash(keeps, dice);
        })
    }

    /// The process dies and the power stays: the next life sees all that was written, and a later crash can still
    /// lose what was not synced. The handles change as in [`SimDisk::crash`].
    #[must_use = "the old handle is dead"]
    pub fn kill(&self) -> Self {
        self.next_life(|_| ())
    }

    /// The durable bytes of this moment.
    pub fn image(&self) -> SimImage {
        let mut images = self.shared.state.lock().images.clone();
        images.crash(CrashKeeps::Nothing, &mut Dice(0));
        SimImage(images)
    }

    /// Puts an old image back; the handles change as in [`SimDisk::crash`].
    #[must_use = "the old handle is dead"]
    pub fn restore(&self, image: &SimImage) -> Self {
        self.next_life(|state| state.images = image.0.clone())
    }

    /// The sync after `skip` more fails, once, with `kind`. What it should have made durable is still read, but
    /// not written by any later sync, as operating systems do.
    pub fn fail_sync(&self, skip: u64, kind: io::ErrorKind) {
        self.shared.state.lock().faults.sync_error = Some((skip, kind));
    }

    /// The sync after `skip` more is never reached: it fails, once, and a crash decides what of its bytes is kept.
    pub fn cut_sync(&self, skip: u64) {
        self.shared.state.lock().faults.sync_cut = Some((skip, io::ErrorKind::Other));
    }

    /// The write after `skip` more fails, once, with `kind`, after half of its bytes.
    pub fn fail_write(&self, skip: u64, kind: io::ErrorKind) {
        self.shared.state.lock().faults.write_error = Some((skip, kind));
    }

    /// Every read of the file `name` fails with `kind`.
    pub fn fail_reads(&self, name: &str, kind: io::ErrorKind) {
        self.shared
            .state
            .lock()
            .faults
            .unreadable
            .insert(name.to_owned(), kind);
    }

    /// The next write lands `by` bytes behind where it should.
    pub fn misdirect_write(&self, by: u64) {
        self.shared.state.lock().faults.misdirect = Some(by);
    }

    /// The disk holds at most `bytes`; growing a file beyond is refused as full.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.shared.state.lock().faults.capacity = bytes;
    }

    /// While true, every write and every growth is refused as full.
    pub fn set_full(&self, full: bool) {
        self.shared.state.lock().faults.full = full;
    }

    /// Ends all faults that are set.
    pub fn end_faults(&self) {
        self.shared.state.lock().faults = Faults::default();
        self.shared.released.notify_all();
    }

    /// While true, a sync says `Ok` and does nothing.
    pub fn set_lying(&self, lying: bool) {
        self.shared.state.lock().faults.lying = lying;
    }

    /// While true, a sync of a file does not return. A crash ends it with an error.
    pub fn hold_syncs(&self, holding: bool) {
        self.shared.state.lock().faults.holding = holding;
        self.shared.released.notify_all();
    }

    /// From now on a sync of a file takes so long.
    pub fn slow_syncs(&self, slow: Option<Duration>) {
        self.shared.state.lock().faults.slow = slow;
    }

    /// Flips the bits of `mask` in one byte, durably.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let inode = state.inode_of(name)?;
        state
            .images
            .inodes
            .get_mut(&inode)
            .ok_or(io::ErrorKind::NotFound)?
            .rot(offset, mask);
        Ok(())
    }

    /// Loses a whole file, durably.
    pub fn lose(&self, name: &str) {
        self.shared.state.lock().images.lose(name);
    }

    /// The bytes of a file as a running process sees them.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn content(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.shared.state.lock();
        let inode = state.inode_of(name)?;
        Ok(state
            .images
            .inodes
            .get(&inode)
            .ok_or(io::ErrorKind::NotFound)?
            .seen
            .clone())
    }

    /// How many syncs of files were asked for so far.
    pub fn syncs(&self) -> u64 {
        self.shared.state.lock().syncs
    }

    /// How many writes were asked for so far.
    pub fn writes(&self) -> u64 {
        self.shared.state.lock().writes
    }

    fn next_life(&self, change: impl FnOnce(&mut State)) -> Self {
        let mut state = self.shared.state.lock();
        change(&mut state);
        state.life += 1;
        state.locks.clear();
        state.faults = Faults::default();
        self.shared.released.notify_all();
        Self {
            shared: Arc::clone(&self.shared),
            life: state.life,
        }
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_life(self.life)?;
        Ok(state)
    }

    fn file(&self, name: &str, inode: u64) -> Arc<dyn File> {
        Arc::new(SimFile {
            disk: self.clone(),
            name: name.to_owned(),
            inode,
        })
    }
}

impl State {
    fn check_life(&self, life: u64) -> io::Result<()> {
        if self.life == life {
            Ok(())
        } else {
            Err(io::Error::other("the simulated process is dead"))
        }
    }

    fn inode_of(&self, name: &str) -> io::Result<u64> {
        self.images
            .names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check_room(&self, inode: u64, len: usize) -> io::Result<()> {
        let old = self
            .images
            .inodes
            .get(&inode)
            .map_or(0, |file| file.seen.len());
        let over = self
            .faults
            .capacity
            .is_some_and(|capacity| self.images.used() + len.saturating_sub(old) > capacity);
        if self.faults.full || (len > old && over) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.alive()?.inode_of(name)?;
        Ok(self.file(name, inode))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.alive()?;
        if state.images.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.images.create(name);
        Ok(self.file(name, inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.alive()?.images.rename(from, to) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.alive()?.images.remove(name) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.images.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        if !state.faults.lying {
            state.images.sync_names();
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        if self.alive()?.locks.insert(name.to_owned()) {
            Ok(Box::new(SimLock {
                disk: self.clone(),
                name: name.to_owned(),
            }))
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.alive() {
            state.locks.remove(&self.name);
        }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.alive()?;
        if let Some(kind) = state.faults.unreadable.get(&self.name) {
            return Err((*kind).into());
        }
        let seen = state
            .images
            .inodes
            .get(&self.inode)
            .map_or(&[][..], |file| &file.seen[..]);
        let rest = seen.get(position(offset)..).unwrap_or(&[]);
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        state.writes += 1;
        let offset = position(offset + state.faults.misdirect.take().unwrap_or(0));
        state.check_room(self.inode, offset + bytes.len())?;
        let failed = countdown(&mut state.faults.write_error);
        let written = if failed.is_some() {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        if let Some(file) = state.images.inodes.get_mut(&self.inode) {
            file.write(offset, written);
        }
        failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        state.syncs += 1;
        if let Some(slow) = state.faults.slow {
            self.disk.shared.released.wait_for(&mut state, slow);
            state.check_life(self.disk.life)?;
        }
        while state.faults.holding {
            self.disk.shared.released.wait(&mut state);
            state.check_life(self.disk.life)?;
        }
        if let Some(kind) = countdown(&mut state.faults.sync_error) {
            if let Some(file) = state.images.inodes.get_mut(&self.inode) {
                file.forget_unsynced();
            }
            return Err(kind.into());
        }
        if let Some(kind) = countdown(&mut state.faults.sync_cut) {
            return Err(kind.into());
        }
        if !state.faults.lying
            && let Some(file) = state.images.inodes.get_mut(&self.inode)
        {
            file.sync();
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self
            .disk
            .alive()?
            .images
            .inodes
            .get(&self.inode)
            .map_or(0, |file| file.seen.len() as u64))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        let len = position(len);
        state.check_room(self.inode, len)?;
        if let Some(file) = state.images.inodes.get_mut(&self.inode) {
            file.grow(len);
        }
        Ok(())
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file fits in memory")
}

/// Counts one call against a planned fault; the kind when its turn has come.
fn countdown(fault: &mut Option<(u64, io::ErrorKind)>) -> Option<io::ErrorKind> {
    match fault {
        Some((0, kind)) => {
            let kind = *kind;
            *fault = None;
            Some(kind)
        }
        Some((skip, _)) => {
            *skip -= 1;
            None
        }
        None => None,
    }
}
