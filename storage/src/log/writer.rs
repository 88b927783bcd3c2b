//! The writer: one batch, one write, one sync, then the callbacks, in order; then the next batch.
//!
//! It owns the segments and the state of all groups as written. [`Writer::turn`] does one step and never waits, so a
//! simulation can drive it; [`Writer::run`] is the thread that waits between steps. It is parked while there is
//! nothing to do: the only timers are the watermark's after a batch, and the retry while the disk is full.
//!
//! An error of the disk other than a full one ends it: all who wait are told, and so is everyone who comes later.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::disk::{DiskLock, is_full};

use super::batch::Batch;
use super::build::{Effect, Flight};
use super::group::GroupState;
use super::marks::GroupMarks;
use super::queue::{Load, Op};
use super::segment::SegmentSet;
use super::shared::Shared;
use super::types::LogId;
use super::watermark::{Mark, Watermark};

/// What a step of the writer did, and when the next is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something; look again at once.
    Worked,
    /// A batch was written, and the next step syncs it. Only of a writer that is driven by half steps.
    Written,
    /// Nothing to do until there is work, or this time has passed.
    Idle(Option<Duration>),
    /// The disk or the log is full; try again after the retry time.
    Full,
    /// Closed or failed; there will be no further step.
    Ended,
}

/// The writer of a log.
#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own")]
pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) segments: SegmentSet,
    /// The groups as far as they are written, or in the batch being built.
    pub(super) marks: BTreeMap<u32, GroupMarks>,
    pub(super) pending: VecDeque<Op>,
    pub(super) committed: BTreeMap<u32, Option<LogId>>,
    pub(super) batch: Batch,
    /// Where the next batch goes, and the length of the segment.
    pub(super) position: u32,
    pub(super) capacity: u32,
    /// The last durable batch.
    pub(super) end: Mark,
    watermark: Watermark,
    flight: Option<Flight>,
    /// Since when there is a durable batch that the watermark does not know.
    unmarked_since: Option<Instant>,
    /// The batch in flight is the last before a rest: the watermark follows it at once.
    settling: bool,
    /// When a spare segment could last not be had.
    without_spare: Option<Instant>,
    /// Whether a step ends between a write and its sync, so that a simulation can crash there.
    pub(super) by_halves: bool,
    /// The batch in flight is written, and not yet synced.
    written: bool,
    ended: bool,
    _lock: DiskLock,
}

/// What the writer starts from.
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segments: SegmentSet,
    pub(crate) marks: BTreeMap<u32, GroupMarks>,
    pub(crate) position: u32,
    pub(crate) capacity: u32,
    pub(crate) end: Mark,
    pub(crate) watermark: Watermark,
    pub(crate) lock: DiskLock,
}

impl Writer {
    /// A writer that goes on where the log ends.
    pub(crate) fn new(start: Start) -> Self {
        let writer = Self {
            shared: start.shared,
            segments: start.segments,
            marks: start.marks,
            pending: VecDeque::new(),
            committed: BTreeMap::new(),
            batch: Batch::default(),
            position: start.position,
            capacity: start.capacity,
            end: start.end,
            watermark: start.watermark,
            flight: None,
            unmarked_since: None,
            settling: false,
            without_spare: None,
            by_halves: false,
            written: false,
            ended: false,
            _lock: start.lock,
        };
        writer.publish();
        writer
    }

    /// Makes the spare segments before the first batch needs them.
    ///
    /// # Errors
    /// What the disk says, unless it is full; that is tried again later.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        self.stock(Instant::now())?;
        self.publish();
        Ok(())
    }

    /// Works until the log is closed or has failed.
    pub(crate) fn run(mut self) {
        loop {
            match self.turn() {
                Turn::Worked | Turn::Written => {}
                Turn::Idle(limit) => self.shared.queue.wait(limit),
                Turn::Full => self
                    .shared
                    .queue
                    .wait_closed(self.shared.config.retry_every),
                Turn::Ended => return,
            }
        }
    }

    /// Does one step: at most one batch, one watermark, or one attempt at a full disk.
    pub(crate) fn turn(&mut self) -> Turn {
        if self.ended {
            return Turn::Ended;
        }
        self.shared.syncing.set(Some(Instant::now()));
        let done = self.step();
        self.shared.syncing.set(None);
        match done {
            Ok(turn) => turn,
            Err(error) => {
                self.fail(&error);
                Turn::Ended
            }
        }
    }

    fn step(&mut self) -> io::Result<Turn> {
        let closing = self.shared.queue.is_closed();
        if self.flight.is_none() {
            self.shared
                .queue
                .take(closing, &mut self.pending, &mut self.committed);
            if self.pending.is_empty() {
                return self.rest(closing);
            }
            match self.build() {
                Ok(flight) => self.flight = Some(flight),
                Err(error) if is_full(&error) => return self.make_room(closing, error),
                Err(error) => return Err(error),
            }
        }
        self.fly(closing)
    }

    /// Writes and syncs the batch in flight.
    fn fly(&mut self, closing: bool) -> io::Result<Turn> {
        let Some(active) = self.segments.active() else {
            return Ok(Turn::Idle(None));
        };
        let started = Instant::now();
        let mut written = Ok(());
        if !std::mem::take(&mut self.written) {
            written = active.write(self.batch.bytes(), self.position, self.capacity);
            if written.is_ok() && self.by_halves {
                self.written = true;
                return Ok(Turn::Written);
            }
        }
        // A full disk may show at the sync; then nothing is known about the pages, and all is written again.
        match written.and_then(|()| active.file.sync_data()) {
            Ok(()) => self.land(started.elapsed())?,
            Err(error) if is_full(&error) => return self.stay_full(closing, error),
            Err(error) => return Err(error),
        }
        Ok(Turn::Worked)
    }

    /// The batch in flight is durable.
    fn land(&mut self, took: Duration) -> io::Result<()> {
        let Some(mut flight) = self.flight.take() else {
            return Ok(());
        };
        let active = self.segments.active().map_or(0, |active| active.generation);
        self.end = Mark {
            sequence: self.end.sequence + 1,
            generation: active,
            checksum: flight.checksum,
        };
        let length =
            u32::try_from(self.batch.bytes().len()).expect("a batch is shorter than a segment");
        self.position += length;
        self.count(&flight, took);
        // Before anything that can fail: these operations are done, whatever comes.
        self.tell(&mut flight);
        let now = Instant::now();
        let since = *self.unmarked_since.get_or_insert(now);
        self.segments.release(flight.floor)?;
        if flight.starts_segment || self.without_spare.is_some() {
            self.stock(now)?;
        }
        if flight.starts_segment
            || self.settling
            || now - since >= self.shared.config.watermark_every
        {
            self.raise_watermark()?;
        }
        self.settling = false;
        self.publish();
        Ok(())
    }

    /// Makes the effects seen, then calls back, in order. Who is called finds everything as it is now.
    fn tell(&self, flight: &mut Flight) {
        let mut locations = &flight.locations[..];
        for done in &flight.done {
            match done.effect {
                Effect::Located { from, count } => {
                    let (mine, rest) = locations.split_at(count);
                    locations = rest;
                    done.group.change(|state| state.flushed(from, mine));
                    done.group.evict(self.shared.config.tail_bytes_per_group);
                }
                Effect::Truncated => {
                    done.group.change(GroupState::truncate_flushed);
                    done.group.settled.notify_waiters();
                }
                Effect::Nothing => {}
            }
            // What is written in parts has one at its last.
            if done.callback.is_some() {
                done.group.dropped();
            }
        }
        self.shared.evict();
        self.shared.queue.complete(flight.load);
        self.publish_room();
        for callback in flight.done.drain(..).filter_map(|done| done.callback) {
            callback(Ok(()));
        }
    }

    /// Nothing is pending: brings the watermark up to the end when it is time, and waits.
    fn rest(&mut self, closing: bool) -> io::Result<Turn> {
        if self
            .without_spare
            .is_some_and(|since| since.elapsed() >= self.shared.config.retry_every)
        {
            self.stock(Instant::now())?;
            self.publish();
        }
        let retry = self.without_spare.map(|_| self.shared.config.retry_every);
        let due = match self.unmarked_since {
            None => None,
            Some(since) => Some(
                self.shared
                    .config
                    .watermark_every
                    .saturating_sub(since.elapsed()),
            ),
        };
        // A full log refuses what is urgent, so it must take what is lazy by itself: a purge among it makes room.
        let full = self.shared.no_room.load(Ordering::Relaxed);
        if !closing && !full && due.is_none_or(|due| due > Duration::ZERO) {
            return Ok(Turn::Idle(due.into_iter().chain(retry).min()));
        }
        self.shared
            .queue
            .take(true, &mut self.pending, &mut self.committed);
        if !self.pending.is_empty() || self.has_committed() {
            match self.build() {
                Ok(flight) => {
                    (self.flight, self.settling) = (Some(flight), true);
                    return self.fly(closing);
                }
                Err(error) if is_full(&error) => {
                    // Nobody waits for what is lazy; it stays for when there is room.
                    self.no_room();
                    if !closing && !self.pending.is_empty() {
                        return self.make_room(closing, error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // A full disk may refuse it; at the end one attempt must do.
        if self.unmarked_since.is_some() {
            if self.raise_watermark()? {
                return Ok(Turn::Worked);
            }
            if !closing {
                return Ok(Turn::Idle(Some(self.shared.config.watermark_every)));
            }
        }
        if !closing {
            return Ok(Turn::Idle(Some(self.shared.config.retry_every)));
        }
        self.end();
        Ok(Turn::Ended)
    }

    /// A new segment cannot be had: frees an old one by the purges that wait, or stays full.
    fn make_room(&mut self, closing: bool, error: io::Error) -> io::Result<Turn> {
        self.shared
            .queue
            .take(true, &mut self.pending, &mut self.committed);
        match self.build_relief() {
            None => self.stay_full(closing, error),
            Some(flight) => {
                self.flight = Some(flight);
                self.fly(closing)
            }
        }
    }

    fn stay_full(&mut self, closing: bool, error: io::Error) -> io::Result<Turn> {
        self.no_room();
        if closing {
            return Err(error);
        }
        // What was durable before waits for no room: there is room for the mark that says so.
        let every = self.shared.config.watermark_every;
        if self
            .unmarked_since
            .is_some_and(|since| since.elapsed() >= every)
        {
            self.raise_watermark()?;
        }
        Ok(Turn::Full)
    }

    fn no_room(&mut self) {
        self.shared.stats.lock().full += 1;
        self.shared.room.set(0);
        if !self.shared.no_room.swap(true, Ordering::Relaxed) {
            tracing::warn!("no room for the log");
        }
    }

    /// Makes spare segments; a full disk is remembered and tried again later.
    fn stock(&mut self, now: Instant) -> io::Result<()> {
        match self.segments.stock() {
            Ok(()) => self.without_spare = None,
            Err(error) if is_full(&error) => self.without_spare = Some(now),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes the watermark say that all until now is durable. On a full disk the old mark serves a while longer.
    /// Whether it is raised: a full disk may refuse it.
    fn raise_watermark(&mut self) -> io::Result<bool> {
        match self.watermark.raise(self.end) {
            Ok(()) => {
                self.shared.stats.lock().watermarks += 1;
                self.unmarked_since = None;
            }
            // Tried again when as much time has passed.
            Err(error) if is_full(&error) => {
                self.unmarked_since = Some(Instant::now());
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn count(&self, flight: &Flight, took: Duration) {
        let mut stats = self.shared.stats.lock();
        stats.batches += 1;
        stats.entries += flight.locations.len() as u64;
        stats.bytes += self.batch.bytes().len() as u64;
        stats.sequence = self.end.sequence;
        stats.synced(took);
    }

    /// Publishes what changes with a batch besides the groups.
    fn publish(&self) {
        self.publish_room();
        let mut stats = self.shared.stats.lock();
        stats.sequence = self.end.sequence;
        stats.segments = self.segments.used();
        stats.segments_free = self.segments.free();
        stats.oldest_groups = self.segments.oldest_groups();
        stats.oldest_generation = self.segments.oldest();
    }

    fn publish_room(&self) {
        let config = &self.shared.config;
        let more = config.soft_segments().saturating_sub(self.segments.used());
        let without_spare = self.without_spare.is_some();
        self.shared
            .no_room
            .store(more == 0 || without_spare, Ordering::Relaxed);
        // What the disk has no room for cannot be counted on.
        let more = if without_spare {
            more.min(self.segments.free())
        } else {
            more
        };
        let room = match more as u64 {
            0 => u64::from(self.room()),
            // What does not fit in the rest of a segment goes to the next one, and the rest is lost: up to half of each.
            more => u64::from(config.segment_bytes - config.reserve()) / 2 * more,
        };
        self.shared.room.set(room);
    }

    fn fail(&mut self, error: &io::Error) {
        self.shared.fail(error);
        let told = || io::Error::new(error.kind(), format!("the log has failed: {error}"));
        let mut load = Load::default();
        if let Some(flight) = self.flight.take() {
            load = flight.load;
            for callback in flight.done.into_iter().filter_map(|done| done.callback) {
                callback(Err(told()));
            }
        }
        // Closed by the failure: what is taken now is all there will ever be.
        self.shared
            .queue
            .take(true, &mut self.pending, &mut self.committed);
        for op in self.pending.drain(..) {
            load.ops += 1;
            load.bytes += op.bytes;
            op.finish(Err(told()));
        }
        self.shared.queue.complete(load);
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        for group in self.shared.groups.read().values() {
            group.settled.notify_waiters();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Reached before the end only by a panic, or when a test drops a writer it drives.
        if !self.ended {
            self.fail(&io::Error::other("the writer has ended"));
        }
    }
}
