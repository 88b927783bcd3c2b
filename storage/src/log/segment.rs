//! The segment files: which are in use, which entries keep them, which can be used again.
//!
//! Segments in use have generations without a gap, the oldest first. A segment may go when no group needs an entry in
//! it or in any older one; it is used again only after a synced batch has said so (its floor), so that a crash in
//! the middle of the new use does not look like a loss. A file that a reader still holds is not used again.
//!
//! This knows no records; it makes files, lays them out as they are written, counts, and forgets.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::disk::{Disk, File, is_full};

use super::config::LogConfig;

/// More free files than this are deleted.
const KEPT_FREE: usize = 4;
/// So many bytes are laid out ahead of a batch.
const LAY: u32 = 256 << 10;
static ZEROS: [u8; LAY as usize] = [0; LAY as usize];

/// A segment file in one of its uses.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) generation: u64,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    /// Up to where it was written before, as far as this process knows.
    laid: AtomicU32,
}

impl Segment {
    /// A file in one of its uses. It counts as never written.
    pub(crate) fn new(generation: u64, name: String, file: Arc<dyn File>) -> Self {
        let laid = AtomicU32::new(0);
        Self {
            generation,
            name,
            file,
            laid,
        }
    }

    /// The same file in its next use.
    fn again(&self, generation: u64) -> Self {
        Self {
            generation,
            name: self.name.clone(),
            file: Arc::clone(&self.file),
            laid: AtomicU32::new(self.laid.load(Ordering::Relaxed)),
        }
    }

    /// Writes a batch, and zeros after it where the file was not written before: room that is only reserved becomes data by a
    /// change of the file's metadata, and a sync that has to write that too takes half as long again. One of many does so for all.
    pub(crate) fn write(&self, batch: &[u8], position: u32, capacity: u32) -> io::Result<()> {
        self.file.write_at(batch, position.into())?;
        let end = position.saturating_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        if end <= self.laid.load(Ordering::Relaxed) {
            return Ok(());
        }
        let ahead = LAY.min(capacity.saturating_sub(end));
        if ahead > 0 {
            match self.file.write_at(&ZEROS[..ahead as usize], end.into()) {
                Ok(()) => {}
                // It would only have saved time; the batch has its room.
                Err(error) if is_full(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.laid.store(end + ahead, Ordering::Relaxed);
        Ok(())
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// The low bits of the segment's generation: fewer than 2^32 segments are in use at one time.
    pub(crate) generation: u32,
    pub(crate) offset: u32,
    /// Of the whole record.
    pub(crate) length: u32,
}

/// The segments that readers may use, by the low bits of the generation.
#[derive(Debug, Default)]
pub(crate) struct Readable(RwLock<BTreeMap<u32, Arc<Segment>>>);

/// A segment in use, and the first and last index of each group's entries that keep it.
#[derive(Debug)]
struct Used {
    segment: Arc<Segment>,
    live: BTreeMap<u32, (u64, u64)>,
}

/// All segment files of the log; owned by the writer.
#[derive(Debug)]
pub(crate) struct SegmentSet {
    disk: Arc<dyn Disk>,
    segment_bytes: u32,
    spare_segments: usize,
    max_segments: usize,
    used: VecDeque<Used>,
    free: Vec<Arc<Segment>>,
    next_number: u64,
    readable: Arc<Readable>,
}

impl Readable {
    pub(crate) fn get(&self, generation: u32) -> Option<Arc<Segment>> {
        self.0.read().get(&generation).cloned()
    }

    /// The oldest segment from this generation on, and the one after it.
    pub(crate) fn from(&self, generation: u64) -> Vec<Arc<Segment>> {
        let mut found: Vec<_> = self.0.read().values().cloned().collect();
        found.retain(|segment| segment.generation >= generation);
        found.sort_unstable_by_key(|segment| segment.generation);
        found.truncate(2);
        found
    }
}

impl Used {
    fn note(&mut self, group: u32, index: u64) {
        let span = self.live.entry(group).or_insert((index, index));
        // After a truncate the same segment may hold lower indexes again.
        *span = (span.0.min(index), span.1.max(index));
    }
}

/// The bits of a generation that a [`Location`] keeps.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits are what is wanted"
)]
pub(crate) fn low_bits(generation: u64) -> u32 {
    generation as u32
}

/// The name of segment file `number`.
fn name(number: u64) -> String {
    format!("segment-{number:08}")
}

/// The number in a segment file's name; `None` if it is not one.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.parse().ok()
}

impl SegmentSet {
    /// The set of the files found: those in use by generation, and those free.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        config: &LogConfig,
        used: Vec<Arc<Segment>>,
        free: Vec<Arc<Segment>>,
    ) -> Self {
        let numbers = used
            .iter()
            .chain(&free)
            .filter_map(|segment| number(&segment.name));
        let mut set = Self {
            disk,
            segment_bytes: config.segment_bytes,
            spare_segments: config.spare_segments,
            max_segments: config.max_segments,
            next_number: numbers.max().map_or(0, |number| number + 1),
            used: VecDeque::new(),
            free,
            readable: Arc::default(),
        };
        for segment in used {
            set.push(segment);
        }
        set
    }

    pub(crate) fn readable(&self) -> Arc<Readable> {
        Arc::clone(&self.readable)
    }

    /// The segment being written, if there is any.
    pub(crate) fn active(&self) -> Option<&Arc<Segment>> {
        self.used.back().map(|used| &used.segment)
    }

    /// Begins a segment of the next generation in a free file.
    ///
    /// # Errors
    /// `StorageFull` if there may be no more segments, or the disk has no room; otherwise what the disk says.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        if self.used.len() >= self.max_segments {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the log holds as many segments as it may",
            ));
        }
        let generation = self.active().map_or(1, |active| active.generation + 1);
        // A count of 1 cannot grow: a free segment is not to be found by readers any more.
        let free = self
            .free
            .iter()
            .position(|segment| Arc::strong_count(segment) == 1);
        let file = match free {
            Some(place) => self.free.swap_remove(place),
            None => self.create()?,
        };
        self.push(Arc::new(file.again(generation)));
        Ok(())
    }

    /// Keeps enough free files ready, durable by name and size.
    ///
    /// # Errors
    /// `StorageFull` if the disk has no room; otherwise what the disk says.
    pub(crate) fn stock(&mut self) -> io::Result<()> {
        while self.free.len() < self.spare_segments
            && self.used.len() + self.free.len() < self.max_segments
        {
            let file = self.create()?;
            self.free.push(file);
        }
        Ok(())
    }

    /// An entry was written to the active segment.
    pub(crate) fn note(&mut self, group: u32, index: u64) {
        let active = self
            .used
            .back_mut()
            .expect("an entry is written to a segment");
        active.note(group, index);
    }

    /// An entry was found at this place.
    pub(crate) fn note_found(&mut self, group: u32, index: u64, location: Location) {
        let oldest = self
            .used
            .front()
            .map_or(0, |used| low_bits(used.segment.generation));
        if let Some(used) = self
            .used
            .get_mut(location.generation.wrapping_sub(oldest) as usize)
        {
            used.note(group, index);
        }
    }

    /// The entries of `group` from `next` on are gone.
    pub(crate) fn truncate(&mut self, group: u32, next: u64) {
        self.keep(group, |(first, last)| {
            (first < next).then(|| (first, last.min(next.saturating_sub(1))))
        });
    }

    /// The entries of `group` up to `upto` are gone.
    pub(crate) fn purge(&mut self, group: u32, upto: u64) {
        self.keep(group, |(first, last)| {
            (last > upto).then(|| (first.max(upto + 1), last))
        });
    }

    /// The group is gone.
    pub(crate) fn remove(&mut self, group: u32) {
        self.keep(group, |_| None);
    }

    /// The oldest generation that is still needed.
    pub(crate) fn floor(&self) -> u64 {
        let needed = self
            .used
            .iter()
            .find(|used| !used.live.is_empty())
            .or_else(|| self.used.back());
        needed.map_or(0, |used| used.segment.generation)
    }

    /// The same, if these groups were purged up to these indexes.
    pub(crate) fn floor_with(&self, purges: &BTreeMap<u32, u64>) -> u64 {
        let needs = |used: &&Used| {
            used.live
                .iter()
                .any(|(group, (_, last))| purges.get(group).is_none_or(|upto| last > upto))
        };
        self.used
            .iter()
            .find(needs)
            .or_else(|| self.used.back())
            .map_or(0, |used| used.segment.generation)
    }

    /// The oldest generation in use.
    pub(crate) fn oldest(&self) -> u64 {
        self.used.front().map_or(0, |used| used.segment.generation)
    }

    /// Frees what is older than `floor`, once a batch with this floor is synced.
    ///
    /// # Errors
    /// What the disk says when a surplus file is deleted.
    pub(crate) fn release(&mut self, floor: u64) -> io::Result<()> {
        while self
            .used
            .front()
            .is_some_and(|used| used.segment.generation < floor)
            && self.used.len() > 1
        {
            if let Some(used) = self.used.pop_front() {
                self.readable
                    .0
                    .write()
                    .remove(&low_bits(used.segment.generation));
                self.free.push(used.segment);
            }
        }
        while self.free.len() > KEPT_FREE.max(self.spare_segments)
            && let Some(segment) = self.free.pop()
        {
            self.disk.remove(&segment.name)?;
        }
        Ok(())
    }

    /// How many segments are in use.
    pub(crate) fn used(&self) -> usize {
        self.used.len()
    }

    /// How many files are free.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// The groups whose entries keep the oldest segment.
    pub(crate) fn oldest_groups(&self) -> Vec<u32> {
        let oldest = self.used.iter().find(|used| !used.live.is_empty());
        oldest.map_or_else(Vec::new, |used| used.live.keys().copied().collect())
    }

    fn push(&mut self, segment: Arc<Segment>) {
        self.readable
            .0
            .write()
            .insert(low_bits(segment.generation), Arc::clone(&segment));
        self.used.push_back(Used {
            segment,
            live: BTreeMap::new(),
        });
    }

    fn keep(&mut self, group: u32, rule: impl Fn((u64, u64)) -> Option<(u64, u64)>) {
        for used in &mut self.used {
            if let Some(span) = used.live.get(&group).copied() {
                match rule(span) {
                    Some(kept) => used.live.insert(group, kept),
                    None => used.live.remove(&group),
                };
            }
        }
    }

    fn create(&mut self) -> io::Result<Arc<Segment>> {
        let name = name(self.next_number);
        // A number is used once: a file left half made by an error is not met again in this process.
        self.next_number += 1;
        let file = self.disk.create(&name)?;
        if let Err(error) = file
            .preallocate(self.segment_bytes.into())
            .and_then(|()| file.sync_data())
        {
            // The room it took is needed; if it cannot even be removed, the next start does it.
            if let Err(also) = self.disk.remove(&name) {
                tracing::warn!(%also, file = name, "cannot remove a half made segment");
            }
            return Err(error);
        }
        self.disk.sync_dir()?;
        Ok(Arc::new(Segment::new(0, name, file)))
    }
}
