//! How far the log was durable at the least: a file beside the segments.
//!
//! A chain of batches can prove that nothing is missing before its end, but not where its end should be. This file
//! does, up to [`LogConfig::watermark_every`](super::LogConfig) behind: what ends before it has lost something. It is
//! made before the first segment, so segments without it are damage too.

use std::io;

use crate::disk::Disk;
use crate::slots::{Slots, SlotsError};

use super::error::{Damage, OpenError};
use super::format::CHAIN_START;

const NAME: &str = "watermark";
const MAGIC: [u8; 4] = *b"PSPW";

/// The last batch known to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) generation: u64,
    pub(crate) checksum: u32,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Watermark {
    slots: Slots<20>,
    mark: Mark,
}

impl Mark {
    /// Before the first batch.
    pub(crate) const START: Self = Self {
        sequence: 0,
        generation: 0,
        checksum: CHAIN_START,
    };

    fn encode(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; 20]) -> Self {
        Self {
            sequence: super::format::u64_at(&bytes, 0),
            generation: super::format::u64_at(&bytes, 8),
            checksum: super::format::u32_at(&bytes, 16),
        }
    }
}

impl Watermark {
    /// Opens the file; `None` if there is none.
    pub(crate) fn open(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        match Slots::open(disk, NAME, MAGIC) {
            Ok(found) => Ok(found.map(|(slots, value)| Self {
                slots,
                mark: Mark::decode(value),
            })),
            Err(SlotsError::Io(error)) => Err(error.into()),
            Err(SlotsError::Damaged) => Err(Damage::Watermark.into()),
        }
    }

    /// Makes the file for an empty log.
    pub(crate) fn create(disk: &dyn Disk) -> io::Result<Self> {
        let mark = Mark::START;
        Ok(Self {
            slots: Slots::create(disk, NAME, MAGIC, &mark.encode())?,
            mark,
        })
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Writes a new mark, durable on return.
    pub(crate) fn raise(&mut self, mark: Mark) -> io::Result<()> {
        self.slots.write(&mark.encode())?;
        self.mark = mark;
        Ok(())
    }
}
