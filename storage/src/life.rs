//! The node's life counter: raised and synced at each start and every few seconds, remembered by peers.
//!
//! A node that shows a lower counter than its peers have seen runs on an old image of its disk; they refuse it. The upper bits are the
//! disk's *birth*, drawn when the counter was made: an empty disk in the place of one that had lived for a short time
//! only would show no lower counter, but it shows another birth. This file only keeps the number; who compares it with what is
//! not its concern.

use std::io;
use std::sync::Arc;

use crate::disk::Disk;
use crate::slots::{Slots, SlotsError};

const NAME: &str = "life";
const MAGIC: [u8; 4] = *b"PSPV";
/// Bits of the number that count; a raise every second for 34,000 years.
const COUNTS: u32 = 40;

/// The birth of the disk that shows this number. Zero on a disk from before births were drawn.
#[must_use]
pub const fn birth(life: u64) -> u64 {
    life >> COUNTS
}

/// A number that only grows, on disk.
#[derive(Debug)]
pub struct LifeCounter {
    slots: Slots<8>,
    current: u64,
}

/// Why the counter could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The operating system refused.
    #[error("the life counter cannot be read or made")]
    Io(#[from] io::Error),
    /// The file is there and holds no valid number: this disk must not be used under the same node id.
    #[error("the life counter is damaged")]
    Damaged,
}

impl LifeCounter {
    /// Opens the counter of this disk; on a fresh disk it is made, at 0 raises, with the birth that is drawn.
    ///
    /// # Errors
    /// [`LifeError::Damaged`] if the file holds no valid number.
    pub fn open(disk: &Arc<dyn Disk>, draw: impl FnOnce() -> u32) -> Result<Self, LifeError> {
        match Slots::open(disk.as_ref(), NAME, MAGIC) {
            Ok(Some((slots, value))) => Ok(Self {
                slots,
                current: u64::from_le_bytes(value),
            }),
            Ok(None) => {
                // 24 bits are left for it.
                let current = u64::from(draw() >> 8) << COUNTS;
                let slots = Slots::create(disk.as_ref(), NAME, MAGIC, &current.to_le_bytes())?;
                Ok(Self { slots, current })
            }
            Err(SlotsError::Io(error)) => Err(error.into()),
            Err(SlotsError::Damaged) => Err(LifeError::Damaged),
        }
    }

    /// The number as it is on disk.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Adds 1 and returns the new number, durable. It blocks for a sync of the disk.
    ///
    /// # Errors
    /// What the disk says; the number on disk is then the old or the new one, and is not to be shown to anyone.
    pub fn raise(&mut self) -> io::Result<u64> {
        let next = self.current + 1;
        self.slots.write(&next.to_le_bytes())?;
        self.current = next;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{CrashKeeps, RealDisk, SimDisk};

    fn open(disk: &SimDisk) -> LifeCounter {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        LifeCounter::open(&disk, || 0).unwrap()
    }

    #[test]
    fn it_grows_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        for expected in 1..4 {
            let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
            let mut life = LifeCounter::open(&disk, || 0).unwrap();
            assert_eq!(life.current(), expected - 1);
            assert_eq!(life.raise().unwrap(), expected);
        }
    }

    #[test]
    fn a_raised_counter_survives_a_power_cut() {
        let disk = SimDisk::new(7);
        open(&disk).raise().unwrap();
        assert_eq!(open(&disk.crash(CrashKeeps::Nothing)).current(), 1);
    }

    #[test]
    fn an_old_image_shows_an_older_life() {
        let disk = SimDisk::new(8);
        let mut life = open(&disk);
        life.raise().unwrap();
        let image = disk.image();
        life.raise().unwrap();
        assert_eq!(open(&disk.restore(&image)).current(), 1);
    }

    #[test]
    fn a_damaged_counter_is_not_a_fresh_one() {
        let disk = SimDisk::new(9);
        open(&disk);
        disk.flip(NAME, 4096 + 3, 4).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        assert!(matches!(
            LifeCounter::open(&disk, || 0),
            Err(LifeError::Damaged)
        ));
    }

    #[test]
    fn another_disk_shows_another_birth_and_the_same_one_keeps_its_own() {
        let first: Arc<dyn Disk> = Arc::new(SimDisk::new(10));
        let other: Arc<dyn Disk> = Arc::new(SimDisk::new(11));
        let mut life = LifeCounter::open(&first, || 0x0000_0700).unwrap();
        assert_eq!(birth(life.current()), 7);
        let raised = life.raise().unwrap();
        assert_eq!((birth(raised), raised & 0xff), (7, 1));
        drop(life);
        let again = LifeCounter::open(&first, || 0xffff_ffff).unwrap();
        assert_eq!(again.current(), raised);
        let wiped = LifeCounter::open(&other, || 0xffff_ffff).unwrap();
        assert_eq!(birth(wiped.current()), 0x00ff_ffff);
    }
}
