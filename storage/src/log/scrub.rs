//! Reading the cold part of the log again: damage in it is found before a restart would find it.
//!
//! All segments in use but the newest are read, batch by batch, and every batch must be valid and continue the one before it; a
//! segment ends where the next one goes on. What is found is only said: whose entries lie there can be purged once they
//! are in a snapshot, and with them the segment goes.

use std::io;
use std::sync::Arc;

use super::engine::LogEngine;
use super::format::to_block;
use super::scan::Scan;
use super::segment::Segment;
use super::shared::Shared;

/// Where a scrub goes on; the default is the oldest batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCursor {
    generation: u64,
    offset: u32,
    /// Sequence and checksum of the batch before.
    last: Option<(u64, u32)>,
}

/// What one step of a scrub found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogScrub {
    /// Where to go on; `None` at the end.
    pub next: Option<LogCursor>,
    /// Bytes read.
    pub bytes: u64,
    /// The generation of a segment that is damaged. The scrub goes on with the next one.
    pub damaged: Option<u64>,
}

/// How a segment's batches end.
enum End {
    /// So much was read that it is to go on later.
    Paused(LogCursor),
    /// After this batch.
    After(Option<(u64, u32)>),
}

/// The part of an open log that is not written any more. Cheap to make; it may outlive the log.
#[derive(Debug)]
pub struct ColdLog(Arc<Shared>);

impl LogEngine {
    /// What can be scrubbed.
    #[must_use]
    pub fn cold(&self) -> ColdLog {
        ColdLog(Arc::clone(&self.shared))
    }
}

impl ColdLog {
    /// Reads on from a place, about `max_bytes`, and verifies every batch. Blocks. What is written meanwhile is not looked at.
    #[must_use]
    pub fn scrub(&self, from: LogCursor, max_bytes: u64) -> LogScrub {
        let segments = self.0.readable.from(from.generation);
        let mut step = LogScrub::default();
        let [segment, next, ..] = segments.as_slice() else {
            return step;
        };
        let from = match segment.generation == from.generation {
            true => from,
            // What lay between has been purged.
            false => LogCursor {
                generation: segment.generation,
                ..LogCursor::default()
            },
        };
        let whole = match walk(segment, from, max_bytes, &mut step.bytes) {
            Ok(End::Paused(cursor)) => {
                step.next = Some(cursor);
                return step;
            }
            Ok(End::After(last)) => last.filter(|last| is_continued(*last, next)),
            Err(error) => {
                tracing::error!(file = segment.name, %error, "a segment of the log cannot be read");
                None
            }
        };
        if whole.is_none() {
            step.damaged = Some(segment.generation);
        }
        step.next = Some(LogCursor {
            generation: next.generation,
            offset: 0,
            last: whole,
        });
        step
    }
}

fn walk(segment: &Segment, from: LogCursor, max: u64, read: &mut u64) -> io::Result<End> {
    let mut scan = Scan::new(segment.file.as_ref())?;
    let mut at = from;
    while let Some(batch) = scan.batch(at.offset)? {
        let header = batch.header;
        let follows = at.last.is_none_or(|(sequence, checksum)| {
            header.sequence == sequence + 1 && header.previous == checksum
        });
        if header.generation != segment.generation
            || !follows
            || header.starts_segment != (at.offset == 0)
        {
            break;
        }
        *read += u64::from(header.length);
        at.offset += to_block(header.length);
        at.last = Some((header.sequence, batch.checksum));
        if *read >= max {
            return Ok(End::Paused(at));
        }
    }
    // The batch before the segment does not count for one that has none.
    Ok(End::After(at.last.filter(|_| at.offset > 0)))
}

/// Whether the next segment goes on after this batch; what cannot be told is left to the look at that one.
fn is_continued((sequence, checksum): (u64, u32), next: &Segment) -> bool {
    let first = Scan::new(next.file.as_ref()).and_then(|mut scan| scan.header(0));
    let Ok(Some((header, _))) = first else {
        return true;
    };
    header.generation != next.generation
        || header.sequence == sequence + 1 && header.previous == checksum
}
