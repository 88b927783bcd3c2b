//! Reading entries that are no longer in memory.
//!
//! Neighbors are fetched with one read and cut without a copy. Every record is verified again and must be the entry
//! that was asked for; what is not is an error, never an answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::format::{self, Kind, RECORD};
use super::group::{Found, Group};
use super::segment::{Location, Segment, low_bits};
use super::shared::Shared;
use super::types::{Entry, LogId};

/// Entries this far from each other are fetched together. Bytes.
const GAP: u32 = 16 << 10;
/// At most so much is fetched with one read, unless one entry is longer. Bytes.
const FETCH: u32 = 4 << 20;

/// What [`GroupLog::read`](super::GroupLog::read) does.
pub(crate) fn read(
    shared: &Shared,
    group: &Group,
    from: u64,
    to: u64,
    max_bytes: usize,
) -> io::Result<Vec<Entry>> {
    if let Some(error) = shared.failure() {
        return Err(error);
    }
    let (found, segments) = {
        let state = group.lock();
        if state.removed {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the group was removed",
            ));
        }
        let found = state.find(from, to, max_bytes);
        // Taken under the lock: while it is held no purge can let a segment go.
        let segments = segments(shared, &found)?;
        (found, segments)
    };
    let mut entries = Vec::with_capacity(found.len());
    let mut run = Vec::new();
    for one in found {
        match one {
            Found::There(id, location) => {
                if run
                    .last()
                    .is_some_and(|(_, last)| !together(&run, *last, location))
                {
                    fetch(shared, group.id, &segments, &mut run, &mut entries)?;
                }
                run.push((id, location));
            }
            Found::Here(entry) => {
                fetch(shared, group.id, &segments, &mut run, &mut entries)?;
                entries.push(entry);
            }
        }
    }
    fetch(shared, group.id, &segments, &mut run, &mut entries)?;
    Ok(entries)
}

/// The segments that hold these entries, in order and each once.
fn segments(shared: &Shared, found: &[Found]) -> io::Result<Vec<Arc<Segment>>> {
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    for one in found {
        if let Found::There(_, location) = one
            && segments
                .last()
                .is_none_or(|last| low_bits(last.generation) != location.generation)
        {
            let segment = shared.readable.get(location.generation);
            segments.push(
                segment.ok_or_else(|| damaged(shared, "the segment of an entry is not there"))?,
            );
        }
    }
    Ok(segments)
}

fn together(run: &[(LogId, Location)], last: Location, next: Location) -> bool {
    let start = run.first().map_or(0, |(_, first)| first.offset);
    let end = last.offset + last.length;
    last.generation == next.generation
        && next.offset >= end
        && next.offset - end <= GAP
        && next.offset + next.length - start <= FETCH
}

/// Reads the entries of `run`, which lie close together, and empties it.
fn fetch(
    shared: &Shared,
    group: u32,
    segments: &[Arc<Segment>],
    run: &mut Vec<(LogId, Location)>,
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
        return Ok(());
    };
    let segment = segments
        .iter()
        .find(|segment| low_bits(segment.generation) == first.generation);
    let segment = segment.expect("the segments of all entries were looked up");
    let start = first.offset;
    let mut bytes = vec![0; (last.offset + last.length - start) as usize];
    crate::disk::read_exact_at(segment.file.as_ref(), &mut bytes, start.into())?;
    let bytes = Bytes::from(bytes);
    for (id, location) in run.drain(..) {
        let at = (location.offset - start) as usize;
        let end = at + location.length as usize;
        let record = format::record(&bytes[at..end]);
        let right = record.filter(|record| {
            let head = record.head;
            (head.kind, head.group, head.id) == (Kind::Entry, group, id)
                && record.length() == location.length
        });
        if right.is_none() {
            return Err(damaged(
                shared,
                &format!("entry {id} of group {group} is damaged in {}", segment.name),
            ));
        }
        entries.push(Entry {
            id,
            payload: bytes.slice(at + RECORD as usize..end),
        });
    }
    Ok(())
}

fn damaged(shared: &Shared, what: &str) -> io::Error {
    shared.damaged_reads.fetch_add(1, Ordering::Relaxed);
    tracing::error!(what, "damage in the log");
    io::Error::new(io::ErrorKind::InvalidData, what)
}
