//! One group as its callers see it: marks, the recent entries in memory, and where the older ones are.
//!
//! What is taken is seen at once, before it is durable. Every entry is in the tail, or located in a segment, or both;
//! only located ones leave the tail. This file does no I/O; `read.rs` fetches what is not in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::format::RECORD;
use super::marks::GroupMarks;
use super::segment::Location;
use super::types::{Entry, LogId};

/// What an entry in the tail costs beside its payload. Bytes, estimated.
const TAIL_OVERHEAD: usize = 64;

/// A group, shared between its callers and the writer.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: u32,
    state: Mutex<GroupState>,
    /// As in the state, readable without the lock.
    tail_bytes: AtomicUsize,
    /// Appends, votes and the like that were taken and are not durable yet.
    pending: AtomicUsize,
    /// Wakes those who wait for a truncate, or for all that was taken.
    pub(crate) settled: Notify,
}

/// The state of a group, under its lock.
#[derive(Debug, Default)]
pub(crate) struct GroupState {
    pub(crate) marks: GroupMarks,
    /// Where the entries from `marks.span.first` on are, as far as they are durable.
    located: VecDeque<Location>,
    /// The newest entries, up to `marks.span.next`.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    log_bytes: u64,
    /// What each truncate that is not yet durable keeps: entries before this index.
    truncates: VecDeque<u64>,
    /// The group was removed; handles that are left answer with errors.
    pub(crate) removed: bool,
}

/// One entry to read.
#[derive(Debug)]
pub(crate) enum Found {
    /// From memory.
    Here(Entry),
    /// In a segment.
    There(LogId, Location),
}

impl Group {
    pub(crate) fn new(id: u32, marks: GroupMarks, located: VecDeque<Location>) -> Self {
        let log_bytes = located
            .iter()
            .map(|location| u64::from(location.length))
            .sum();
        let state = GroupState {
            marks,
            located,
            log_bytes,
            ..GroupState::default()
        };
        Self {
            id,
            state: Mutex::new(state),
            tail_bytes: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            settled: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock()
    }

    /// Payload bytes in memory, with their overhead.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes.load(Ordering::Relaxed)
    }

    /// Something that is to be made durable is about to be queued.
    pub(crate) fn taken(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Of what was [taken](Self::taken) one is durable, or was refused.
    pub(crate) fn dropped(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_waiters();
        }
    }

    /// Whether all that was taken is durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// Changes the state and publishes what the change does to the tail.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut GroupState) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.tail_bytes.store(state.tail_bytes, Ordering::Relaxed);
        result
    }

    /// Takes entries out of memory until at most `keep` bytes are left, or only such that are not durable.
    pub(crate) fn evict(&self, keep: usize) {
        self.change(|state| state.evict(keep));
    }
}

impl GroupState {
    /// What is wrong with appending these entries, if anything is.
    pub(crate) fn refusal(&self, entries: &[Entry], max_payload: u32) -> Option<&'static str> {
        let first = entries.first()?;
        if !self.marks.accepts(first.id.index) {
            return Some("an entry does not follow the last one");
        }
        let gap = entries
            .windows(2)
            .any(|pair| pair[0].id.index.checked_add(1) != Some(pair[1].id.index));
        if gap || entries.iter().any(|entry| entry.id.index == u64::MAX) {
            return Some("the entries do not follow each other");
        }
        let long = entries
            .iter()
            .any(|entry| entry.payload.len() > max_payload as usize);
        long.then_some("an entry is longer than half a segment")
    }

    /// Takes entries that were not refused.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.marks.append(entry.id);
            self.tail_bytes += cost(&entry);
            self.log_bytes += record_length(&entry);
            self.tail.push_back(entry);
        }
    }

    /// Keeps the entries before `next`; the truncate is not durable before [`GroupState::truncate_flushed`].
    pub(crate) fn truncate(&mut self, next: u64) {
        while self.marks.span.next > next.max(self.marks.span.first) {
            let index = self.marks.span.next - 1;
            let located = self.located.len() as u64 == self.marks.span.next - self.marks.span.first;
            let location = if located {
                self.located.pop_back()
            } else {
                None
            };
            let entry = self.tail.pop_back();
            self.forget(location, entry.as_ref());
            self.marks.truncate(index);
        }
        self.truncates.push_back(next);
    }

    /// The oldest truncate is durable.
    pub(crate) fn truncate_flushed(&mut self) {
        self.truncates.pop_front();
    }

    /// Whether a truncate is not yet durable.
    pub(crate) fn truncating(&self) -> bool {
        !self.truncates.is_empty()
    }

    /// Drops the entries up to and including `upto`; false if that changes nothing.
    pub(crate) fn purge(&mut self, upto: LogId) -> bool {
        let (first, next) = (self.marks.span.first, self.marks.span.next);
        if !self.marks.purge(upto) {
            return false;
        }
        let tail_first = next - self.tail.len() as u64;
        for index in first..self.marks.span.first.min(next) {
            let location = self.located.pop_front();
            let entry = if index >= tail_first {
                self.tail.pop_front()
            } else {
                None
            };
            self.forget(location, entry.as_ref());
        }
        true
    }

    /// The entries from index `from` on are durable, at these places, unless they have been truncated or purged since.
    ///
    /// A truncate that is not yet flushed came after them, because operations are flushed in order.
    pub(crate) fn flushed(&mut self, from: u64, locations: &[Location]) {
        if self.removed {
            return;
        }
        let keep = self.truncates.iter().copied().min().unwrap_or(u64::MAX);
        let known = self.marks.span.first + self.located.len() as u64;
        for (index, location) in (from..).zip(locations) {
            if index >= known && index < keep {
                debug_assert_eq!(
                    index,
                    self.marks.span.first + self.located.len() as u64,
                    "no entry is left out"
                );
                self.located.push_back(*location);
            }
        }
    }

    /// Forgets everything; the handle is dead.
    pub(crate) fn remove(&mut self) {
        *self = Self {
            removed: true,
            ..Self::default()
        };
    }

    /// The entries from `from` to before `to`, as far as they are here and within `max_bytes` of payload; one at least.
    pub(crate) fn find(&self, from: u64, to: u64, max_bytes: usize) -> Vec<Found> {
        let span = &self.marks.span;
        let tail_first = span.next - self.tail.len() as u64;
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        for index in from.max(span.first)..to.min(span.next) {
            let (one, length) = match index.checked_sub(tail_first) {
                Some(place) => {
                    let entry = &self.tail[place_of(place)];
                    (Found::Here(entry.clone()), entry.payload.len())
                }
                None => {
                    let location = self.located[place_of(index - span.first)];
                    let id = span.id(index).expect("an index in the span has an id");
                    (
                        Found::There(id, location),
                        (location.length - RECORD) as usize,
                    )
                }
            };
            bytes = bytes.saturating_add(length);
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(one);
        }
        found
    }

    /// Bytes of the records of all entries.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    fn evict(&mut self, keep: usize) {
        let durable = self.marks.span.first + self.located.len() as u64;
        while self.tail_bytes > keep
            && self
                .tail
                .front()
                .is_some_and(|entry| entry.id.index < durable)
            && let Some(entry) = self.tail.pop_front()
        {
            self.tail_bytes -= cost(&entry);
        }
    }

    /// An entry is gone that had this place, or was in the tail, or both.
    fn forget(&mut self, location: Option<Location>, entry: Option<&Entry>) {
        let length = location.map(|location| u64::from(location.length));
        self.log_bytes -= length.or_else(|| entry.map(record_length)).unwrap_or(0);
        self.tail_bytes -= entry.map_or(0, cost);
    }
}

fn cost(entry: &Entry) -> usize {
    entry.payload.len() + TAIL_OVERHEAD
}

fn record_length(entry: &Entry) -> u64 {
    u64::from(RECORD) + entry.payload.len() as u64
}

fn place_of(distance: u64) -> usize {
    usize::try_from(distance).expect("an entry in memory has a place in memory")
}
