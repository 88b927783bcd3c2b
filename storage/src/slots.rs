//! A small value in a file of its own that survives a crash in the middle of its write.
//!
//! Two slots, a block each, are written in turn: counter, value, checksum. The newer valid one counts, so a torn
//! write leaves the value before. If neither is valid, or the file is cut, that is damage and is said, never a
//! fresh start. Used for the log's watermark and the life counter.
//!
//! | slot | bytes |
//! |---|---|
//! | magic | 0..4 |
//! | format, 1 | 4..8 |
//! | counter | 8..16 |
//! | value | 16..16+N |
//! | crc32c of all before | the next 4 |

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, File};

const SLOT: usize = 4096;
const FORMAT: u32 = 1;

/// A file with one value of `N` bytes.
#[derive(Debug)]
pub(crate) struct Slots<const N: usize> {
    file: Arc<dyn File>,
    magic: [u8; 4],
    counter: u64,
}

/// Why the value could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotsError {
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    #[error("neither slot is valid")]
    Damaged,
}

impl<const N: usize> Slots<N> {
    /// Opens the file `name` and reads its value; `None` if there is no such file.
    pub(crate) fn open(
        disk: &dyn Disk,
        name: &str,
        magic: [u8; 4],
    ) -> Result<Option<(Self, [u8; N])>, SlotsError> {
        let file = match disk.open(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = vec![0; 2 * SLOT];
        file.read_at(&mut bytes, 0)?;
        let newest = bytes
            .chunks(SLOT)
            .filter_map(|slot| decode(slot, magic))
            .max_by_key(|(counter, _)| *counter);
        let (counter, value) = newest.ok_or(SlotsError::Damaged)?;
        let mut slots = Self {
            file,
            magic,
            counter,
        };
        // What was read may stand in memory only, if the process alone died before its sync, and after a failed sync
        // the system even takes it for written: it is written again, the same bytes at the same place.
        slots.put(counter, &value)?;
        Ok(Some((slots, value)))
    }

    /// Makes the file `name` with this value, durable on return.
    pub(crate) fn create(
        disk: &dyn Disk,
        name: &str,
        magic: [u8; 4],
        value: &[u8; N],
    ) -> io::Result<Self> {
        let new = format!("{name}.new");
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new)?;
        file.preallocate(2 * SLOT as u64)?;
        let mut slots = Self {
            file,
            magic,
            counter: 0,
        };
        slots.write(value)?;
        disk.rename(&new, name)?;
        disk.sync_dir()?;
        Ok(slots)
    }

    /// Replaces the value, durable on return. After an error the old or the new value is there.
    pub(crate) fn write(&mut self, value: &[u8; N]) -> io::Result<()> {
        self.put(self.counter + 1, value)
    }

    fn put(&mut self, counter: u64, value: &[u8; N]) -> io::Result<()> {
        let mut slot = vec![0; SLOT];
        slot[0..4].copy_from_slice(&self.magic);
        slot[4..8].copy_from_slice(&FORMAT.to_le_bytes());
        slot[8..16].copy_from_slice(&counter.to_le_bytes());
        slot[16..16 + N].copy_from_slice(value);
        let checksum = crc32c::crc32c(&slot[..16 + N]);
        slot[16 + N..20 + N].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_at(&slot, (counter % 2) * SLOT as u64)?;
        self.file.sync_data()?;
        self.counter = counter;
        Ok(())
    }
}

fn decode<const N: usize>(slot: &[u8], magic: [u8; 4]) -> Option<(u64, [u8; N])> {
    let (head, rest) = slot.split_at_checked(16)?;
    let (value, rest) = rest.split_at_checked(N)?;
    let checksum = crc32c::crc32c(slot.get(..16 + N)?).to_le_bytes();
    let known =
        head[0..4] == magic && head[4..8] == FORMAT.to_le_bytes() && rest.get(..4)? == checksum;
    let counter = u64::from_le_bytes(head[8..16].try_into().ok()?);
    known.then_some((counter, value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{CrashKeeps, SimDisk};

    const MAGIC: [u8; 4] = *b"test";

    fn value_of(disk: &SimDisk) -> Result<Option<u8>, SlotsError> {
        Ok(Slots::<1>::open(disk, "f", MAGIC)?.map(|(_, value)| value[0]))
    }

    #[test]
    fn a_crash_leaves_the_value_before_or_after() {
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            assert_eq!(value_of(&disk).unwrap(), None);
            let mut slots = Slots::create(&disk, "f", MAGIC, &[1]).unwrap();
            for next in 2..2 + (seed % 5) as u8 {
                slots.write(&[next]).unwrap();
                assert_eq!(value_of(&disk).unwrap(), Some(next));
            }
            let last = value_of(&disk).unwrap().unwrap();
            disk.fail_sync(0, io::ErrorKind::Other);
            slots.write(&[99]).unwrap_err();
            let disk = disk.crash(CrashKeeps::Random);
            let found = value_of(&disk).unwrap().unwrap();
            assert!(found == last || found == 99, "seed {seed}: {found}");
        }
    }

    #[test]
    fn a_value_that_a_failed_sync_left_in_memory_is_not_built_upon() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let mut slots = Slots::create(&disk, "f", MAGIC, &[1]).unwrap();
            slots.write(&[2]).unwrap();
            disk.fail_sync(0, io::ErrorKind::Other);
            slots.write(&[3]).unwrap_err();
            let disk = disk.kill();
            let (mut slots, value) = Slots::open(&disk, "f", MAGIC).unwrap().unwrap();
            assert_eq!(value, [3]);
            disk.fail_write(0, io::ErrorKind::Other);
            slots.write(&[4]).unwrap_err();
            let found = value_of(&disk.crash(CrashKeeps::Random)).unwrap().unwrap();
            assert!(found == 3 || found == 4, "seed {seed}: {found}");
        }
    }

    #[test]
    fn an_unfinished_file_is_none() {
        for skip in 0..2 {
            let disk = SimDisk::new(skip);
            disk.fail_write(0, io::ErrorKind::Other);
            Slots::create(&disk, "f", MAGIC, &[1]).unwrap_err();
            assert_eq!(value_of(&disk).unwrap(), None);
            Slots::create(&disk, "f", MAGIC, &[2]).unwrap();
            assert_eq!(value_of(&disk).unwrap(), Some(2));
        }
    }

    #[test]
    fn damage_of_both_slots_is_said() {
        let disk = SimDisk::new(0);
        let mut slots = Slots::create(&disk, "f", MAGIC, &[1]).unwrap();
        slots.write(&[2]).unwrap();
        disk.flip("f", 16, 1).unwrap();
        assert_eq!(value_of(&disk).unwrap(), Some(1), "the other slot serves");
        disk.flip("f", SLOT + 9, 1).unwrap();
        assert!(matches!(value_of(&disk), Err(SlotsError::Damaged)));
    }
}
