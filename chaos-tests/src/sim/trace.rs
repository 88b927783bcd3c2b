//! What happened in a run, in order: a hash over all of it, and the last part of it.
//!
//! Every message, write, sync, answer and fault is noted with its virtual time. Two runs of one seed must have the same hash: that
//! is what makes a seed a reproduction. The tail is for whoever reads a failure; it is bounded. Contents are not noted: they are
//! sealed with random keys, and differ.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Numbers of one event; what they mean depends on its kind.
pub(super) type Numbers = [u64; 4];

/// The notes of a run. Clones are the same notes.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    began: Instant,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug)]
struct Notes {
    hasher: DefaultHasher,
    count: u64,
    keep: usize,
    /// Messages and disks, of which there are many, apart from what is told in words: or they would push it out.
    numbers: VecDeque<Note>,
    words: VecDeque<Note>,
}

#[derive(Debug)]
struct Note {
    place: u64,
    at: Duration,
    kind: &'static str,
    what: What,
}

#[derive(Debug)]
enum What {
    Numbers(Numbers),
    Text(String),
}

impl Trace {
    /// Notes that begin now; `keep` of the last ones in words can be read, and as many of the others.
    #[must_use]
    pub(super) fn new(keep: usize) -> Self {
        let notes = Notes {
            hasher: DefaultHasher::new(),
            count: 0,
            keep,
            numbers: VecDeque::new(),
            words: VecDeque::new(),
        };
        Self {
            began: Instant::now(),
            notes: Arc::new(Mutex::new(notes)),
        }
    }

    /// Virtual time since the run began.
    #[must_use]
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes an event of which there are many.
    pub(super) fn note(&self, kind: &'static str, numbers: Numbers) {
        let at = self.now();
        let mut notes = self.notes.lock();
        (at, kind, numbers).hash(&mut notes.hasher);
        notes.push(at, kind, What::Numbers(numbers));
    }

    /// Notes an event that is told in words.
    pub(super) fn say(&self, kind: &'static str, text: String) {
        let at = self.now();
        let mut notes = self.notes.lock();
        (at, kind, &text).hash(&mut notes.hasher);
        notes.push(at, kind, What::Text(text));
    }

    /// A hash over all that was noted, and how much that was.
    #[must_use]
    pub(super) fn hash(&self) -> (u64, u64) {
        let notes = self.notes.lock();
        (notes.hasher.finish(), notes.count)
    }

    /// The last notes, one a line; only those of a kind that `wanted` says yes to.
    #[must_use]
    pub(super) fn tail(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        let notes = self.notes.lock();
        let mut tail: Vec<&Note> = notes.numbers.iter().chain(&notes.words).collect();
        tail.sort_by_key(|note| note.place);
        for Note { at, kind, what, .. } in tail {
            if !wanted(kind) {
                continue;
            }
            let at = at.as_secs_f64();
            // Writing to a string does not fail.
            let _written = match what {
                What::Text(what) => writeln!(text, "{at:9.3} {kind:<8} {what}"),
                What::Numbers([a, b, c, d]) => writeln!(text, "{at:9.3} {kind:<8} {a} {b} {c} {d}"),
            };
        }
        text
    }
}

impl Notes {
    fn push(&mut self, at: Duration, kind: &'static str, what: What) {
        self.count += 1;
        if self.keep == 0 {
            return;
        }
        let place = self.count;
        let tail = match &what {
            What::Numbers(_) => &mut self.numbers,
            What::Text(_) => &mut self.words,
        };
        if tail.len() == self.keep {
            tail.pop_front();
        }
        tail.push_back(Note {
            place,
            at,
            kind,
            what,
        });
    }
}
