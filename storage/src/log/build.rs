//! From waiting operations to the bytes of one batch.
//!
//! As many operations as fit, in order; an append may be cut between two entries. A segment that has no room for the
//! next one is followed by a new one, whose first batch begins with a checkpoint of all groups. The last block or so
//! of a segment is reserved for purges alone, so that a full log can still make room.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::batch::Place;
use super::format::{HEADER, Head, Kind, RECORD};
use super::group::Group;
use super::queue::{Action, Load, Op};
use super::segment::{Location, low_bits};
use super::types::{Callback, Entry, LogId};
use super::writer::Writer;

/// A batch that is built and not yet durable.
#[derive(Default)]
pub(super) struct Flight {
    pub(super) floor: u64,
    pub(super) checksum: u32,
    pub(super) starts_segment: bool,
    pub(super) load: Load,
    pub(super) done: Vec<Done>,
    pub(super) locations: Vec<Location>,
}

/// What one operation has in a batch, and what follows when this is durable.
pub(super) struct Done {
    pub(super) group: Arc<Group>,
    pub(super) effect: Effect,
    pub(super) callback: Option<Callback>,
}

pub(super) enum Effect {
    /// The next `count` locations are those of the entries from index `from` on.
    Located {
        from: u64,
        count: usize,
    },
    Truncated,
    Nothing,
}

const NO_ID: LogId = LogId {
    term: 0,
    node: 0,
    index: 0,
};
const NONE_COMMITTED: LogId = LogId {
    term: u64::MAX,
    node: u64::MAX,
    index: u64::MAX,
};

impl Writer {
    /// Builds a batch of what is pending.
    ///
    /// # Errors
    /// `StorageFull` if a new segment is needed and cannot be had; nothing has changed then.
    pub(super) fn build(&mut self) -> io::Result<Flight> {
        let mut flight = Flight::default();
        self.batch.begin();
        if HEADER + first_length(self.pending.front()) > self.room() {
            self.rotate(&mut flight)?;
        }
        let room = self.room();
        while let Some(op) = self.pending.pop_front() {
            if let Some(rest) = self.add(op, room, &mut flight) {
                self.pending.push_front(rest);
                break;
            }
        }
        if flight.done.is_empty() && !self.pending.is_empty() {
            return Err(io::Error::other(
                "the checkpoint of the groups leaves no room for an entry in a segment",
            ));
        }
        self.add_committed(room);
        self.close_batch(&mut flight);
        Ok(flight)
    }

    /// Builds a batch of those pending purges that can go first, if that frees a segment.
    pub(super) fn build_relief(&mut self) -> Option<Flight> {
        let mut purges = BTreeMap::new();
        for op in &self.pending {
            if let Action::Purge(upto) = op.action
                && self
                    .marks
                    .get(&op.group.id)
                    .is_some_and(|marks| upto.index < marks.span.next)
            {
                purges.insert(op.group.id, upto);
            }
        }
        let upto = purges
            .iter()
            .map(|(group, upto)| (*group, upto.index))
            .collect();
        let count = u32::try_from(purges.len()).unwrap_or(u32::MAX);
        let length = count.saturating_mul(RECORD).saturating_add(HEADER);
        if self.segments.floor_with(&upto) <= self.segments.oldest()
            || length > self.capacity - self.position
        {
            return None;
        }
        let mut flight = Flight::default();
        self.batch.begin();
        for (group, upto) in purges {
            self.purge(group, upto);
        }
        self.close_batch(&mut flight);
        Some(flight)
    }

    /// Whether a committed mark waits that can be written.
    pub(super) fn has_committed(&self) -> bool {
        let is_news = |group, id| {
            self.marks
                .get(group)
                .is_some_and(|marks| marks.committed != id)
        };
        self.committed
            .iter()
            .any(|(group, id)| is_news(group, *id) && self.may_commit(*group, *id))
    }

    /// What the segment being written takes of other than purges.
    pub(super) fn room(&self) -> u32 {
        self.capacity
            .saturating_sub(self.shared.config.reserve())
            .saturating_sub(self.position)
    }

    fn rotate(&mut self, flight: &mut Flight) -> io::Result<()> {
        self.segments.begin()?;
        (self.position, self.capacity) = (0, self.shared.config.segment_bytes);
        flight.starts_segment = true;
        let mut bytes = HEADER as usize;
        for (&group, marks) in &self.marks {
            let payload = marks.encode();
            bytes += payload.len() + RECORD as usize;
            if bytes > self.room() as usize {
                return Err(io::Error::other(
                    "the checkpoint of the groups does not fit in a segment",
                ));
            }
            self.batch.add(
                &Head {
                    kind: Kind::Checkpoint,
                    group,
                    id: NO_ID,
                },
                &payload,
            );
        }
        Ok(())
    }

    /// Adds an operation as far as it fits; returns what is left of it.
    fn add(&mut self, mut op: Op, room: u32, flight: &mut Flight) -> Option<Op> {
        let (length, first) = (self.batch.length(), flight.done.is_empty());
        let soft = self.shared.config.batch_bytes;
        if length + first_length(Some(&op)) > room || (length > soft && !first) {
            return Some(op);
        }
        let group = op.group.id;
        let mut effect = Effect::Nothing;
        if let Action::Append { entries, written } = &mut op.action {
            let from = entries.get(*written).map_or(0, |entry| entry.id.index);
            let count = self.add_entries(group, &entries[*written..], room, flight);
            *written += count;
            effect = Effect::Located { from, count };
            if *written < entries.len() {
                let group = Arc::clone(&op.group);
                flight.done.push(Done {
                    group,
                    effect,
                    callback: None,
                });
                return Some(op);
            }
        } else {
            if matches!(op.action, Action::Truncate { .. }) {
                effect = Effect::Truncated;
            }
            self.add_mark(group, &op.action);
        }
        flight.load.ops += 1;
        flight.load.bytes += op.bytes;
        flight.done.push(Done {
            group: op.group,
            effect,
            callback: op.done,
        });
        None
    }

    /// Adds the record of an operation that has no entries.
    fn add_mark(&mut self, group: u32, action: &Action) {
        match *action {
            Action::Append { .. } => {}
            Action::Vote(vote) => {
                self.marks.entry(group).or_default().vote = Some(vote);
                let index = vote.committed.into();
                self.batch.add(
                    &Head {
                        kind: Kind::Vote,
                        group,
                        id: LogId {
                            term: vote.term,
                            node: vote.node,
                            index,
                        },
                    },
                    &[],
                );
            }
            Action::Truncate { next } => {
                self.marks.entry(group).or_default().truncate(next);
                self.segments.truncate(group, next);
                self.batch.add(
                    &Head {
                        kind: Kind::Truncate,
                        group,
                        id: LogId {
                            index: next,
                            ..NO_ID
                        },
                    },
                    &[],
                );
            }
            Action::Purge(upto) => self.purge(group, upto),
            Action::Remove => {
                if self.marks.remove(&group).is_some() {
                    self.segments.remove(group);
                    self.batch.add(
                        &Head {
                            kind: Kind::Remove,
                            group,
                            id: NO_ID,
                        },
                        &[],
                    );
                }
            }
        }
    }

    fn add_entries(
        &mut self,
        group: u32,
        entries: &[Entry],
        room: u32,
        flight: &mut Flight,
    ) -> usize {
        let marks = self.marks.entry(group).or_default();
        let active = self
            .segments
            .active()
            .expect("entries are added to a segment")
            .generation;
        for (count, entry) in entries.iter().enumerate() {
            let length = entry_length(entry);
            let so_far = self.batch.length();
            if so_far + length > room || (so_far > self.shared.config.batch_bytes && count > 0) {
                return count;
            }
            let offset = self.batch.add(
                &Head {
                    kind: Kind::Entry,
                    group,
                    id: entry.id,
                },
                &entry.payload,
            );
            let offset = self.position + offset;
            flight.locations.push(Location {
                generation: low_bits(active),
                offset,
                length,
            });
            marks.append(entry.id);
            self.segments.note(group, entry.id.index);
        }
        entries.len()
    }

    fn purge(&mut self, group: u32, upto: LogId) {
        if self.marks.entry(group).or_default().purge(upto) {
            self.segments.purge(group, upto.index);
            self.batch.add(
                &Head {
                    kind: Kind::Purge,
                    group,
                    id: upto,
                },
                &[],
            );
        }
    }

    /// Adds the committed marks whose entries are written; the others wait for theirs.
    fn add_committed(&mut self, room: u32) {
        for (group, id) in std::mem::take(&mut self.committed) {
            if self.batch.length() + RECORD > room || !self.may_commit(group, id) {
                self.committed.insert(group, id);
            } else if let Some(marks) = self.marks.get_mut(&group)
                && marks.committed != id
            {
                marks.committed = id;
                self.batch.add(
                    &Head {
                        kind: Kind::Committed,
                        group,
                        id: id.unwrap_or(NONE_COMMITTED),
                    },
                    &[],
                );
            }
        }
    }

    /// Whether the log, as written so far, holds or held this entry. A mark ahead of the log, or beside it, would
    /// make a restart apply what is not there, or what was never committed.
    fn may_commit(&self, group: u32, id: Option<LogId>) -> bool {
        self.marks.get(&group).is_some_and(|marks| {
            id.is_none_or(|id| {
                marks.span.id(id.index) == Some(id)
                    || marks.purged.is_some_and(|purged| id.index <= purged.index)
            })
        })
    }

    fn close_batch(&mut self, flight: &mut Flight) {
        flight.floor = self.segments.floor();
        flight.checksum = self.batch.finish(Place {
            starts_segment: flight.starts_segment,
            generation: self.segments.active().map_or(0, |active| active.generation),
            sequence: self.end.sequence + 1,
            floor: flight.floor,
            previous: self.end.checksum,
        });
    }
}

/// Bytes that the next part of an operation takes at least.
fn first_length(op: Option<&Op>) -> u32 {
    match op.map(|op| &op.action) {
        None => RECORD,
        Some(Action::Append { entries, written }) => entries.get(*written).map_or(0, entry_length),
        Some(Action::Vote(_) | Action::Truncate { .. } | Action::Purge(_) | Action::Remove) => {
            RECORD
        }
    }
}

fn entry_length(entry: &Entry) -> u32 {
    RECORD
        + u32::try_from(entry.payload.len()).expect("an entry's length is checked when it is taken")
}
