//! Damage to the log of a node that does not run: a flipped byte, a segment that is gone, a batch that was torn by the crash.
//!
//! Reads batches as `storage::log` writes them (its `format.rs` has the table), so that a flip is in bytes that mean something: what
//! pads a block is nobody's. Not healed: the product is to.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{Fault, Injected};
use crate::rig::image::{Image, flip};
use crate::rig::{DATA, Rig};

/// Batches begin on multiples of this. Bytes.
const BLOCK: u64 = 4096;
/// Length of a batch's header. Bytes.
const HEADER: usize = 64;
const MAGIC: &[u8] = b"PSPL";
/// Blocks of a torn batch that are on the disk, and that are not.
const TORN: (u64, u64) = (2, 2);

/// A batch of a log, as its header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The segment's file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Header and records, without padding.
    pub length: u64,
    /// Of the segment.
    pub generation: u64,
    /// Counts batches over all segments.
    pub sequence: u64,
    floor: u64,
    checksum: u32,
}

impl Batch {
    fn read(file: &File, path: &Path, offset: u64) -> Option<Self> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, offset).ok()?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let short = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let checksum = short(60);
        let whole = header.starts_with(MAGIC) && crc32c::crc32c(&header[..60]) == checksum;
        whole.then(|| Self {
            file: path.to_owned(),
            offset,
            length: short(32).into(),
            generation: number(8),
            sequence: number(16),
            floor: number(24),
            checksum,
        })
    }

    /// Where the next one begins.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.length.next_multiple_of(BLOCK)
    }

    /// The header of a batch of so many blocks that follows this one.
    fn next_header(&self, blocks: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let length = u32::try_from(blocks * BLOCK - 1).expect("a batch is short");
        header[..4].copy_from_slice(MAGIC);
        header[4] = 1;
        header[8..16].copy_from_slice(&self.generation.to_le_bytes());
        header[16..24].copy_from_slice(&(self.sequence + 1).to_le_bytes());
        header[24..32].copy_from_slice(&self.floor.to_le_bytes());
        header[32..36].copy_from_slice(&length.to_le_bytes());
        header[36..40].copy_from_slice(&1_u32.to_le_bytes());
        header[44..48].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&checksum.to_le_bytes());
        header
    }
}

/// The batches of the log on a disk, in their order; those of a segment's earlier use are not among them.
#[must_use]
pub fn batches(disk: &Image) -> Vec<Batch> {
    in_files(disk.files(&format!("{DATA}/log"), ""))
}

fn in_files(files: Vec<PathBuf>) -> Vec<Batch> {
    let mut found = BTreeMap::new();
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_segment = name.is_some_and(|name| name.starts_with("segment-"));
        let Some(file) = File::open(&path).ok().filter(|_| is_segment) else {
            continue;
        };
        let (mut at, mut last) = (0, None);
        while let Some(batch) = Batch::read(&file, &path, at) {
            let follows = last.is_none_or(|(generation, sequence)| {
                batch.generation == generation && batch.sequence == sequence + 1
            });
            if !follows {
                break;
            }
            at = batch.end();
            last = Some((batch.generation, batch.sequence));
            found.insert(batch.sequence, batch);
        }
    }
    found.into_values().collect()
}

/// What happens to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// A byte of a batch in the older half is flipped: which one follows from this number.
    Flipped(u64),
    /// The newest segment is gone.
    Deleted,
    /// After the last batch stands half of another one, as a crash leaves it that comes in the middle of a write. It was never
    /// synced, so nothing of it was acknowledged.
    Torn,
}

/// A log to which this happens.
#[derive(Clone, Debug)]
pub struct DamagedLog {
    /// Which node's; it must not run.
    pub node: usize,
    /// What.
    pub harm: Harm,
}

impl Harm {
    fn happen(self, batches: &[Batch]) -> Result<(), String> {
        let last = batches.last().ok_or("there is no batch in the log")?;
        match self {
            Self::Flipped(number) => {
                let older = &batches[..batches.len().div_ceil(2)];
                let many = u64::try_from(older.len()).unwrap_or(1);
                let place = usize::try_from(number % many).unwrap_or_default();
                let batch = &older[place];
                flip(&batch.file, batch.offset + number / many % batch.length)
            }
            Self::Deleted => std::fs::remove_file(&last.file)
                .map_err(|error| format!("cannot remove {}: {error}", last.file.display())),
            Self::Torn => tear(last),
        }
    }
}

/// Writes the first part of a batch behind the last one.
fn tear(last: &Batch) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot tear {}: {error}", last.file.display());
    let file = File::options()
        .read(true)
        .write(true)
        .open(&last.file)
        .map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let blocks = TORN.0 + TORN.1;
    if size < last.end() + blocks * BLOCK {
        return Err(format!(
            "{} has no room for another batch",
            last.file.display()
        ));
    }
    let mut bytes = last.next_header(blocks).to_vec();
    bytes.resize(
        usize::try_from(TORN.0 * BLOCK).map_err(|error| error.to_string())?,
        0xA5,
    );
    file.write_all_at(&bytes, last.end()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

impl Fault for DamagedLog {
    fn label(&self) -> String {
        let what = match self.harm {
            Harm::Flipped(_) => "has a flipped byte",
            Harm::Deleted => "lacks its newest segment",
            Harm::Torn => "ends with half a batch",
        };
        format!("node {}'s log {what}", self.node)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        if rig.ended(self.node).is_none() {
            return Injected::Skipped(format!("node {} runs", self.node));
        }
        Injected::of(self.harm.happen(&batches(rig.disk(self.node))))
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use storage::disk::RealDisk;
    use storage::log::{LogConfig, LogEngine, OpenError, Recovery, Vote};
    use tokio::sync::oneshot;

    use super::*;

    fn open(folder: &Path) -> Result<(LogEngine, Recovery), OpenError> {
        let config = LogConfig {
            segment_bytes: 64 << 10,
            ..LogConfig::default()
        };
        LogEngine::open(Arc::new(RealDisk::open(folder).unwrap()), config)
    }

    fn read(folder: &Path) -> Vec<Batch> {
        let files = std::fs::read_dir(folder).unwrap();
        in_files(files.map(|entry| entry.unwrap().path()).collect())
    }

    /// A log of so many batches, at the least.
    async fn written(folder: &Path, batches: u64) {
        let (log, _) = open(folder).unwrap();
        for term in 1..=batches {
            let (sender, done) = oneshot::channel();
            let vote = Vote {
                term,
                node: 1,
                committed: false,
            };
            let tell = Box::new(move |result| drop(sender.send(result)));
            log.group(1).save_vote(vote, tell);
            done.await.unwrap().unwrap();
        }
        log.close().unwrap();
    }

    #[tokio::test]
    async fn batches_are_read_as_they_were_written_over_segments() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 40).await;
        let batches = read(folder.path());
        let sequences: Vec<u64> = batches.iter().map(|batch| batch.sequence).collect();
        assert!(batches.len() >= 2, "{batches:?}");
        assert!(sequences.is_sorted());
        let (first, last) = (&batches[0], &batches[batches.len() - 1]);
        assert!(last.generation > first.generation, "{batches:?}");
    }

    #[tokio::test]
    async fn half_a_batch_at_the_end_boots_and_a_flip_or_a_lost_segment_does_not() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 10).await;
        Harm::Torn.happen(&read(folder.path())).unwrap();
        let (log, found) = open(folder.path()).unwrap();
        assert!(found.torn_tail, "{found:?}");
        log.close().unwrap();
        for harm in [Harm::Flipped(0), Harm::Flipped(12_345), Harm::Deleted] {
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), 10).await;
            harm.happen(&read(folder.path())).unwrap();
            let opened = open(folder.path());
            assert!(matches!(opened, Err(OpenError::Damaged(_))), "{harm:?}");
        }
    }
}
