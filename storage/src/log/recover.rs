//! Opening a log: what is there, whether it is whole, and where it ends.
//!
//! 1. The newest segment whose first batch is valid is read to its end; its last batch names the oldest one needed.
//! 2. From there on all must be there, and every batch must continue the one before it.
//! 3. An invalid batch is the torn tail if nothing valid of its generation follows it, and the watermark is not
//!    beyond it. Everything else is damage.
//!
//! The last batch is written again and synced before it is trusted: after the death of the process alone it may stand
//! in memory only, and after a failed sync the system even takes it for written. All before it were synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, read_exact_at};

use super::config::LogConfig;
use super::error::{Damage, OpenError};
use super::format::{self, BLOCK, CHAIN_START, Header, Kind, Record, to_block};
use super::replay::Replay;
use super::scan::{Found, Scan};
use super::segment::{Location, Segment, low_bits, number};
use super::watermark::{Mark, Watermark};

/// What opening a log found. For the operator; nothing needs to be done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The groups that have any state.
    pub groups: Vec<u32>,
    /// Segment files read.
    pub segments: usize,
    /// Batches read.
    pub batches: u64,
    /// Entries read, later truncated or purged ones included.
    pub entries: u64,
    /// The last batch was torn by a crash and is gone; nothing of it was ever acknowledged.
    pub torn_tail: bool,
}

/// Everything the writer starts from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) used: Vec<Arc<Segment>>,
    pub(crate) free: Vec<Arc<Segment>>,
    pub(crate) replay: Replay,
    /// Where the next batch goes in the newest segment, and how long this is. Bytes.
    pub(crate) position: u32,
    pub(crate) capacity: u32,
    pub(crate) end: Mark,
    pub(crate) watermark: Watermark,
    pub(crate) report: Recovery,
}

/// Where the valid batches of a segment end, and the last of them.
#[derive(Debug, Clone, Copy)]
struct End {
    offset: u32,
    last_batch: u32,
    sequence: u64,
    checksum: u32,
    floor: u64,
    batches: u64,
}

type ByGeneration = BTreeMap<u64, Arc<Segment>>;

/// Reads the whole log.
pub(crate) fn recover(disk: &dyn Disk, config: &LogConfig) -> Result<Recovered, OpenError> {
    // A process that died may have left names in memory only.
    disk.sync_dir()?;
    let watermark = Watermark::open(disk)?;
    let (found, headless) = segments(disk)?;
    let newest = found
        .last_key_value()
        .map_or(0, |(generation, _)| *generation);
    let mut free = Vec::new();
    for segment in headless {
        free.extend(clear(disk, config, segment, newest)?);
    }
    let watermark = match watermark {
        Some(watermark) => watermark,
        None if newest == 0 => Watermark::create(disk)?,
        None => return Err(Damage::Watermark.into()),
    };
    let Some(last) = found.get(&newest) else {
        let expected = watermark.mark().sequence;
        if expected > 0 {
            return Err(Damage::Behind { found: 0, expected }.into());
        }
        return Ok(empty(free, watermark));
    };
    let floor = walk(last, None, |_, _| Ok(()))?.floor;
    let mut used = Vec::new();
    for (generation, segment) in found {
        if generation >= floor {
            used.push(segment);
        } else if segment.file.size()? == u64::from(config.segment_bytes) {
            free.push(segment);
        } else {
            disk.remove(&segment.name)?;
        }
    }
    read(used, free, watermark)
}

/// Reads the segments in use, from the oldest that is needed.
fn read(
    used: Vec<Arc<Segment>>,
    free: Vec<Arc<Segment>>,
    mut watermark: Watermark,
) -> Result<Recovered, OpenError> {
    let mut replay = Replay::default();
    let mut report = Recovery {
        segments: used.len(),
        ..Recovery::default()
    };
    let mut before: Option<(&Segment, End)> = None;
    for segment in &used {
        let generation =
            before.map_or_else(|| segment.generation, |(before, _)| before.generation + 1);
        if segment.generation != generation {
            return Err(Damage::Segment { generation }.into());
        }
        let first = before.is_none();
        let result = walk(segment, before.map(|(_, end)| end), |offset, batch| {
            check_mark(watermark.mark(), batch)?;
            let place = Location {
                generation: low_bits(generation),
                offset,
                length: 0,
            };
            take_batch(&mut replay, batch, place, first)
        });
        if let (Err(OpenError::Damaged(Damage::Chain { .. })), Some((before, end))) =
            (&result, &before)
        {
            // Why the segment before ended early says more than that this one does not continue it.
            is_torn(before, end)?;
        }
        let end = result?;
        report.batches += end.batches;
        before = Some((segment, end));
    }
    let (active, end) = before.ok_or(Damage::Segment { generation: 0 })?;
    report.torn_tail = is_torn(active, &end)?;
    let expected = watermark.mark().sequence;
    if end.sequence < expected {
        return Err(Damage::Behind {
            found: end.sequence,
            expected,
        }
        .into());
    }
    replay.finish()?;
    write_again(active, &end)?;
    let mark = Mark {
        sequence: end.sequence,
        generation: active.generation,
        checksum: end.checksum,
    };
    if mark != watermark.mark() {
        watermark.raise(mark)?;
    }
    report.groups = replay.groups.keys().copied().collect();
    report.entries = replay.entries;
    let capacity = Scan::new(active.file.as_ref())?.size();
    Ok(Recovered {
        used,
        free,
        replay,
        position: end.offset,
        capacity,
        end: mark,
        watermark,
        report,
    })
}

fn empty(free: Vec<Arc<Segment>>, watermark: Watermark) -> Recovered {
    Recovered {
        used: Vec::new(),
        free,
        replay: Replay::default(),
        position: 0,
        capacity: 0,
        end: watermark.mark(),
        watermark,
        report: Recovery::default(),
    }
}

/// The segment files: by generation, and those whose first batch is not valid.
fn segments(disk: &dyn Disk) -> Result<(ByGeneration, Vec<Segment>), OpenError> {
    let (mut found, mut headless) = (BTreeMap::new(), Vec::new());
    for name in disk
        .list()?
        .into_iter()
        .filter(|name| number(name).is_some())
    {
        let file = disk.open(&name)?;
        let mut segment = Segment::new(0, name, file);
        let batch = Scan::new(segment.file.as_ref()).and_then(|mut scan| {
            Ok(scan
                .batch(0)?
                .filter(|batch| batch.header.starts_segment)
                .map(|batch| batch.header.generation))
        });
        match batch.map_err(|source| unreadable(&segment, source))? {
            None => headless.push(segment),
            Some(generation) => {
                segment.generation = generation;
                if let Some(other) = found.insert(generation, Arc::new(segment)) {
                    return Err(Damage::Twice {
                        file: other.name.clone(),
                    }
                    .into());
                }
            }
        }
    }
    Ok((found, headless))
}

/// Makes a file without a valid first batch free for use: it was never used, or the crash came in its first batch.
/// If batches of a newer generation than all others stand in it, its first one was durable and is lost.
fn clear(
    disk: &dyn Disk,
    config: &LogConfig,
    segment: Segment,
    newest: u64,
) -> Result<Option<Arc<Segment>>, OpenError> {
    let mut scan = Scan::new(segment.file.as_ref())?;
    let later = scan.find(BLOCK, |header| header.generation > newest);
    if let Some((_, header)) = later.map_err(|source| unreadable(&segment, source))? {
        return Err(Damage::Segment {
            generation: header.generation,
        }
        .into());
    }
    if scan.size() != config.segment_bytes {
        disk.remove(&segment.name)?;
        return Ok(None);
    }
    Ok(Some(Arc::new(segment)))
}

/// Visits all valid batches of a segment, from its first, each with its offset.
fn walk(
    segment: &Segment,
    before: Option<End>,
    mut visit: impl FnMut(u32, &Found<'_>) -> Result<(), Damage>,
) -> Result<End, OpenError> {
    let mut scan =
        Scan::new(segment.file.as_ref()).map_err(|source| unreadable(segment, source))?;
    let mut last = before;
    let mut end = End {
        offset: 0,
        last_batch: 0,
        sequence: 0,
        checksum: CHAIN_START,
        floor: 0,
        batches: 0,
    };
    while let Some(batch) = scan
        .batch(end.offset)
        .map_err(|source| unreadable(segment, source))?
    {
        let header = batch.header;
        if header.generation != segment.generation {
            break;
        }
        let follows = last.map_or(header.generation > 1 || header.sequence == 1, |last| {
            header.sequence == last.sequence + 1 && header.previous == last.checksum
        });
        if !follows || header.starts_segment != (end.offset == 0) {
            return Err(Damage::Chain {
                file: segment.name.clone(),
            }
            .into());
        }
        visit(end.offset, &batch)?;
        end = End {
            offset: end.offset + to_block(header.length),
            last_batch: end.offset,
            sequence: header.sequence,
            checksum: batch.checksum,
            floor: header.floor,
            batches: end.batches + 1,
        };
        last = Some(end);
    }
    Ok(end)
}

/// Whether a torn batch follows the end. A valid one of this generation behind it is damage: a batch is written only
/// when the one before it is durable.
fn is_torn(segment: &Segment, end: &End) -> Result<bool, OpenError> {
    let read = |source| unreadable(segment, source);
    let mut scan = Scan::new(segment.file.as_ref()).map_err(read)?;
    let later =
        |header: &Header| header.generation == segment.generation && header.sequence > end.sequence;
    let torn = scan
        .header(end.offset)
        .map_err(read)?
        .is_some_and(|(header, _)| later(&header));
    match scan
        .find(end.offset.saturating_add(BLOCK), later)
        .map_err(read)?
    {
        Some((next, _)) => Err(Damage::Batch {
            file: segment.name.clone(),
            offset: end.offset,
            next,
        }
        .into()),
        None => Ok(torn),
    }
}

/// Makes the last batch durable, whatever the system believes about it.
fn write_again(segment: &Segment, end: &End) -> Result<(), OpenError> {
    let mut bytes = vec![0; (end.offset - end.last_batch) as usize];
    read_exact_at(segment.file.as_ref(), &mut bytes, end.last_batch.into())
        .map_err(|source| unreadable(segment, source))?;
    segment.file.write_at(&bytes, end.last_batch.into())?;
    Ok(segment.file.sync_data()?)
}

/// The batch that the watermark names must be the one it has seen.
fn check_mark(mark: Mark, batch: &Found<'_>) -> Result<(), Damage> {
    let header = batch.header;
    let other = (header.generation, batch.checksum) != (mark.generation, mark.checksum);
    if header.sequence == mark.sequence && other {
        return Err(Damage::Behind {
            found: header.sequence,
            expected: mark.sequence,
        });
    }
    Ok(())
}

fn take_batch(
    replay: &mut Replay,
    batch: &Found<'_>,
    place: Location,
    first: bool,
) -> Result<(), Damage> {
    if batch.header.starts_segment && !first {
        let is_checkpoint = |(_, record): &(u32, Record<'_>)| record.head.kind == Kind::Checkpoint;
        replay.check_count(
            format::records(batch.bytes)
                .take_while(is_checkpoint)
                .count(),
        )?;
    }
    for (offset, record) in format::records(batch.bytes) {
        let location = Location {
            offset: place.offset + offset,
            length: record.length(),
            ..place
        };
        replay.take(&record, location, first)?;
    }
    Ok(())
}

fn unreadable(segment: &Segment, source: io::Error) -> OpenError {
    Damage::Unreadable {
        file: segment.name.clone(),
        source,
    }
    .into()
}
