//! A group's state rebuilt from records, and the contradictions that show damage.
//!
//! Pure: records in, marks and places out. Entries that lie in segments no longer kept are holes at first; by the end
//! of the log every one of them must have been purged or truncated.

use std::collections::{BTreeMap, VecDeque};

use super::error::Damage;
use super::format::{Kind, Record};
use super::marks::GroupMarks;
use super::segment::Location;
use super::types::{LogId, Vote};

/// All groups, as far as the records read so far say.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) groups: BTreeMap<u32, Replayed>,
    pub(crate) entries: u64,
}

/// One group.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) marks: GroupMarks,
    /// The index of the first place known; from there on none is missing.
    base: u64,
    pub(crate) located: VecDeque<Location>,
}

impl Replay {
    /// Takes the next record. In the first segment read, `first`, checkpoints are taken; later they are compared.
    pub(crate) fn take(
        &mut self,
        record: &Record<'_>,
        location: Location,
        first: bool,
    ) -> Result<(), Damage> {
        let (group, id) = (record.head.group, record.head.id);
        let wrong = |what| Damage::State { group, what };
        if record.head.kind == Kind::Checkpoint {
            let marks =
                GroupMarks::decode(record.payload).ok_or(wrong("a checkpoint cannot be read"))?;
            return self.checkpoint(group, marks, first).map_err(wrong);
        }
        if record.head.kind == Kind::Remove {
            return if self.groups.remove(&group).is_some() {
                Ok(())
            } else {
                Err(wrong("it is removed twice"))
            };
        }
        let replayed = self.groups.entry(group).or_default();
        match record.head.kind {
            Kind::Entry => {
                self.entries += 1;
                if !replayed.append(id, location) {
                    return Err(wrong("an entry does not follow the last one"));
                }
            }
            Kind::Vote => {
                replayed.marks.vote = Some(Vote {
                    term: id.term,
                    node: id.node,
                    committed: id.index == 1,
                })
            }
            Kind::Truncate => replayed.truncate(id.index),
            Kind::Purge => replayed.purge(id),
            Kind::Committed => replayed.marks.committed = (id.term != u64::MAX).then_some(id),
            Kind::Remove | Kind::Checkpoint => {}
        }
        Ok(())
    }

    /// A segment after the first begins with a checkpoint of this many groups.
    pub(crate) fn check_count(&self, checkpoints: usize) -> Result<(), Damage> {
        if self.groups.len() == checkpoints {
            return Ok(());
        }
        let group = self.groups.keys().next().copied().unwrap_or(0);
        Err(Damage::State {
            group,
            what: "a checkpoint has more or fewer groups than were replayed",
        })
    }

    /// At the end of the log no entry may be missing.
    pub(crate) fn finish(&self) -> Result<(), Damage> {
        let missing = self.groups.iter().find(|(_, replayed)| replayed.has_hole());
        missing.map_or(Ok(()), |(&group, _)| {
            Err(Damage::State {
                group,
                what: "entries are missing",
            })
        })
    }

    fn checkpoint(
        &mut self,
        group: u32,
        marks: GroupMarks,
        first: bool,
    ) -> Result<(), &'static str> {
        if first {
            let base = marks.span.next;
            let before = self.groups.insert(
                group,
                Replayed {
                    marks,
                    base,
                    located: VecDeque::new(),
                },
            );
            return if before.is_none() {
                Ok(())
            } else {
                Err("it is checkpointed twice")
            };
        }
        let same = self
            .groups
            .get(&group)
            .is_some_and(|replayed| replayed.marks == marks);
        if same {
            Ok(())
        } else {
            Err("a checkpoint differs from what was replayed")
        }
    }
}

impl Replayed {
    fn append(&mut self, id: LogId, location: Location) -> bool {
        if !self.marks.accepts(id.index) || id.index == u64::MAX {
            return false;
        }
        if self.marks.span.is_empty() {
            self.base = id.index;
        }
        self.marks.append(id);
        self.located.push_back(location);
        true
    }

    fn truncate(&mut self, next: u64) {
        self.marks.truncate(next);
        let next = self.marks.span.next;
        while self.base + self.located.len() as u64 > next && self.located.pop_back().is_some() {}
        self.base = self.base.min(next);
    }

    fn purge(&mut self, upto: LogId) {
        self.marks.purge(upto);
        let first = self.marks.span.first;
        while self.base < first && self.located.pop_front().is_some() {
            self.base += 1;
        }
        if self.marks.span.is_empty() {
            self.base = first;
        }
    }

    fn has_hole(&self) -> bool {
        !self.marks.span.is_empty() && self.base > self.marks.span.first
    }
}
