//! The small state of a group: its vote, its marks, and which entries it has, by whom.
//!
//! The same few rules change it in three places: at the caller's side when an operation is taken, at the writer's when
//! it is written, and at recovery when it is read. Each segment begins with this state of every group, so that older
//! segments can go; recovery compares it with what it has replayed. It knows no payloads and no places of bytes.

use std::collections::VecDeque;

use super::format::{u32_at, u64_at};
use super::types::{LogId, LogState, Vote};

/// The entries from `first` up to, not including, `next`, as runs of one leader each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// The first id of each run; the first run may begin before `first`. Empty if and only if the span is.
    leaders: VecDeque<LogId>,
}

/// What is remembered of a group besides its entries' payloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupMarks {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) span: Span,
}

impl Span {
    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// The id of the entry at `index`, if it is here.
    pub(crate) fn id(&self, index: u64) -> Option<LogId> {
        if index < self.first || index >= self.next {
            return None;
        }
        let after = self.leaders.partition_point(|run| run.index <= index);
        let run = self.leaders[after
            .checked_sub(1)
            .expect("the first run begins at or before the first entry")];
        Some(LogId { index, ..run })
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.next.checked_sub(1).and_then(|last| self.id(last))
    }

    /// The first id of each run of one leader, the first run from the first entry on.
    pub(crate) fn runs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.leaders.iter().map(|run| LogId {
            index: run.index.max(self.first),
            ..*run
        })
    }

    fn append(&mut self, id: LogId) {
        if self.is_empty() {
            self.first = id.index;
        }
        if self.leaders.back().is_none_or(|run| !run.same_leader(&id)) {
            self.leaders.push_back(id);
        }
        self.next = id.index + 1;
    }

    /// Keeps what is before `next`.
    fn truncate(&mut self, next: u64) {
        if next < self.next {
            self.next = next.max(self.first);
            while self
                .leaders
                .back()
                .is_some_and(|run| run.index >= self.next)
                || self.is_empty()
            {
                if self.leaders.pop_back().is_none() {
                    break;
                }
            }
        }
    }

    /// Drops what is before `first`.
    fn purge(&mut self, first: u64) {
        if first >= self.next {
            (self.first, self.next) = (first, first);
            self.leaders.clear();
        } else if first > self.first {
            self.first = first;
            while self.leaders.get(1).is_some_and(|run| run.index <= first) {
                self.leaders.pop_front();
            }
        }
    }
}

impl GroupMarks {
    /// Whether an entry at `index` may come next: in a log without entries, any that is not purged.
    pub(crate) fn accepts(&self, index: u64) -> bool {
        if self.span.is_empty() {
            self.purged.is_none_or(|purged| index > purged.index)
        } else {
            index == self.span.next
        }
    }

    pub(crate) fn append(&mut self, id: LogId) {
        self.span.append(id);
    }

    /// Keeps the entries before `next`.
    pub(crate) fn truncate(&mut self, next: u64) {
        self.span.truncate(next);
    }

    /// Drops the entries up to and including `upto`; false if that changes nothing.
    pub(crate) fn purge(&mut self, upto: LogId) -> bool {
        let further = self.purged.is_none_or(|purged| purged.index < upto.index);
        if further {
            self.purged = Some(upto);
            self.span.purge(upto.index + 1);
        }
        further
    }

    pub(crate) fn state(&self) -> LogState {
        LogState {
            last: self.span.last().or(self.purged),
            purged: self.purged,
        }
    }

    /// The bytes of a checkpoint.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(88 + 24 * self.span.leaders.len());
        let vote = self
            .vote
            .map_or(0, |vote| if vote.committed { 3 } else { 1 });
        let flags =
            vote | u32::from(self.purged.is_some()) << 2 | u32::from(self.committed.is_some()) << 3;
        out.extend_from_slice(&flags.to_le_bytes());
        let runs = u32::try_from(self.span.leaders.len())
            .expect("a run has an entry, and a log fewer than 2^32");
        out.extend_from_slice(&runs.to_le_bytes());
        let vote = self.vote.map_or((0, 0), |vote| (vote.term, vote.node));
        let nothing = LogId {
            term: 0,
            node: 0,
            index: 0,
        };
        let ids = [
            self.purged.unwrap_or(nothing),
            self.committed.unwrap_or(nothing),
        ];
        let numbers = [vote.0, vote.1, self.span.first, self.span.next];
        let ids = ids
            .iter()
            .chain(&self.span.leaders)
            .flat_map(|id| [id.term, id.node, id.index]);
        for number in numbers.into_iter().chain(ids) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    /// Reads what [`GroupMarks::encode`] wrote; `None` if these bytes are not that.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, runs) = (u32_at(bytes.get(..8)?, 0), u32_at(bytes, 4) as usize);
        if bytes.len() != 88 + 24 * runs || flags > 15 {
            return None;
        }
        let id = |at: usize| LogId {
            term: u64_at(bytes, at),
            node: u64_at(bytes, at + 8),
            index: u64_at(bytes, at + 16),
        };
        let vote = Vote {
            term: u64_at(bytes, 8),
            node: u64_at(bytes, 16),
            committed: flags & 2 != 0,
        };
        let leaders = (0..runs).map(|run| id(88 + 24 * run)).collect();
        let span = Span {
            first: u64_at(bytes, 24),
            next: u64_at(bytes, 32),
            leaders,
        };
        let sound = span.first <= span.next
            && span.is_empty() == span.leaders.is_empty()
            && span
                .leaders
                .front()
                .is_none_or(|run| run.index <= span.first);
        sound.then_some(Self {
            vote: (flags & 1 != 0).then_some(vote),
            purged: (flags & 4 != 0).then(|| id(40)),
            committed: (flags & 8 != 0).then(|| id(64)),
            span,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            term,
            node: 1,
            index,
        }
    }

    fn marks(terms: &[u64]) -> GroupMarks {
        let mut marks = GroupMarks::default();
        for (index, term) in (5..).zip(terms) {
            assert!(marks.accepts(index));
            marks.append(id(*term, index));
        }
        marks
    }

    #[test]
    fn ids_follow_the_leaders() {
        let marks = marks(&[1, 1, 2, 3, 3]);
        assert_eq!(marks.span.id(6), Some(id(1, 6)));
        assert_eq!(marks.span.id(7), Some(id(2, 7)));
        assert_eq!(marks.span.last(), Some(id(3, 9)));
        assert_eq!((marks.span.id(4), marks.span.id(10)), (None, None));
        assert!(!marks.accepts(9) && marks.accepts(10) && !marks.accepts(11));
    }

    #[test]
    fn truncate_and_purge_forget_leaders() {
        let mut marks = marks(&[1, 1, 2, 3, 3]);
        marks.truncate(8);
        assert_eq!(marks.span.last(), Some(id(2, 7)));
        assert!(marks.purge(id(1, 5)));
        assert!(!marks.purge(id(1, 5)));
        assert_eq!(marks.span.runs().collect::<Vec<_>>(), [id(1, 6), id(2, 7)]);
        marks.truncate(0);
        assert!(marks.span.is_empty());
        assert_eq!(
            marks.state(),
            LogState {
                last: Some(id(1, 5)),
                purged: Some(id(1, 5))
            }
        );
        assert!(!marks.accepts(5) && marks.accepts(6) && marks.accepts(60));
        marks.append(id(4, 60));
        assert!(marks.purge(id(5, 80)));
        assert!(marks.span.is_empty());
        assert_eq!(marks.state().last, Some(id(5, 80)));
    }

    #[test]
    fn a_purge_before_the_first_entry_keeps_it() {
        let mut marks = marks(&[1]);
        assert!(marks.purge(id(1, 1)));
        assert_eq!(marks.span.last(), Some(id(1, 5)));
    }

    #[test]
    fn a_checkpoint_reads_as_written() {
        let mut full = marks(&[1, 2, 2, 9]);
        full.vote = Some(Vote {
            term: 9,
            node: 3,
            committed: true,
        });
        full.purge(id(1, 5));
        full.committed = Some(id(2, 7));
        for marks in [full, GroupMarks::default(), marks(&[7])] {
            let bytes = marks.encode();
            assert_eq!(GroupMarks::decode(&bytes), Some(marks));
            assert_eq!(GroupMarks::decode(&bytes[1..]), None);
        }
    }
}
