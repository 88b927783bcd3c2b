//! Linearizability of one session: is there an order of its operations that agrees with real time and explains every
//! answer?
//!
//! A memoised search after Wing, Gong and Lowe over the model in [`super::register`]. What makes it fast without making it
//! wrong: an operation that fits and changes nothing is placed at once; an acknowledged write whose version is the next
//! one is placed at once, for no other order can ever place it; of unknown writes that nobody can tell apart the earliest is
//! tried first; a version whose content somebody has seen is not given to another; an unknown write whose value somebody has seen
//! gets no version at which that value could not have been seen; a session's end is not replaced before everybody who was told it
//! has been placed, unless it can come again. A proptest compares it with brute force.
//!
//! A long outage can leave a session with more unknown writes than the search can order. It is searched again then with those that
//! nobody saw touching nothing: every order that explains the history explains this one too, so what has none is a violation.
//! What has one stays undecided.

use std::collections::{HashMap, HashSet};

use model::id::Version;

use super::known::{Pin, blurred, ends, last, loosened, pins, spans, twins};
use super::register::{Act, Answer, Event, Expiry, State, agree};

/// Steps after which the search gives up on a session: the verdict is then *undecided*, and the run not a pass.
const MOST_STEPS: usize = 30_000_000;
/// Places that are remembered at most, each about 150 bytes; past it the search gives up too.
const MOST_VISITED: usize = 5_000_000;

/// Why a session's history is no pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such order.
    Violated(String),
    /// The search took too long.
    Undecided,
}

/// Checks one session that is in `initial` when the history begins.
///
/// # Errors
/// See [`Problem`].
pub fn check(events: &[Event], initial: State) -> Result<(), Problem> {
    check_within(events, initial, MOST_STEPS)
}

pub(super) fn check_within(events: &[Event], initial: State, steps: usize) -> Result<(), Problem> {
    let events = blurred(events);
    match Search::new(events.clone(), initial).run(steps) {
        Err(Problem::Undecided) => Search::new(loosened(events), initial)
            .run(MOST_STEPS)
            .and(Err(Problem::Undecided)),
        decided => decided,
    }
}

/// A step of the search that can be undone.
struct Placed {
    operation: usize,
    before: State,
    /// There was no choice.
    forced: bool,
}

/// The calls and returns that are not placed yet, as a linked list in order of time: call i is entry 2i, its return 2i + 1,
/// the head is the last.
struct Open {
    next: Vec<usize>,
    back: Vec<usize>,
    unknown: Vec<bool>,
    head: usize,
}

impl Open {
    fn new(events: &[Event]) -> Self {
        let head = events.len() * 2;
        let mut order: Vec<(u64, usize, usize)> = Vec::with_capacity(head);
        for (at, event) in events.iter().enumerate() {
            // A call at the moment of a return is concurrent with it.
            order.push((event.start, 0, at * 2));
            if event.answer != Answer::Unknown {
                order.push((event.end.max(event.start), 1, at * 2 + 1));
            }
        }
        order.sort_unstable();
        let (mut next, mut back) = (vec![head; head + 1], vec![head; head + 1]);
        let mut last = head;
        for (.., entry) in order {
            next[last] = entry;
            back[entry] = last;
            last = entry;
        }
        next[last] = head;
        back[head] = last;
        let unknown = events.iter().map(|it| it.answer == Answer::Unknown);
        Self {
            next,
            back,
            unknown: unknown.collect(),
            head,
        }
    }

    fn lift(&mut self, operation: usize) {
        let returns = (!self.unknown[operation]).then_some(operation * 2 + 1);
        for entry in [Some(operation * 2), returns].into_iter().flatten() {
            let (back, next) = (self.back[entry], self.next[entry]);
            self.next[back] = next;
            self.back[next] = back;
        }
    }

    /// Undoes the newest [`Self::lift`] that is not undone.
    fn put_back(&mut self, operation: usize) {
        let returns = (!self.unknown[operation]).then_some(operation * 2 + 1);
        for entry in [returns, Some(operation * 2)].into_iter().flatten() {
            let (back, next) = (self.back[entry], self.next[entry]);
            self.next[back] = entry;
            self.back[next] = entry;
        }
    }
}

struct Search {
    events: Vec<Event>,
    open: Open,
    state: State,
    placed: Vec<Placed>,
    is_placed: Vec<bool>,
    answered: usize,
    visited: HashSet<(u128, State)>,
    set: u128,
    pins: HashMap<Version, Pin>,
    /// The unknown write before this one that nobody can tell from it.
    twin: Vec<Option<usize>>,
    /// Between which versions an unknown write is, if its value was seen: above the first, up to the second.
    span: Vec<Option<(Version, Version)>>,
    /// For each end: answers that tell it, and writes that set it, which are not placed.
    ends: HashMap<u64, (usize, usize)>,
    /// The newest version in any answer; above it no unknown write is needed. `None` when that cannot be said.
    last: Option<Version>,
    deepest: (usize, usize, State),
}

impl Search {
    fn new(events: Vec<Event>, initial: State) -> Self {
        Self {
            open: Open::new(&events),
            state: initial,
            placed: Vec::with_capacity(events.len()),
            is_placed: vec![false; events.len()],
            answered: events
                .iter()
                .filter(|it| it.answer != Answer::Unknown)
                .count(),
            visited: HashSet::new(),
            set: 0,
            pins: pins(&events),
            twin: twins(&events),
            span: spans(&events),
            ends: ends(&events),
            last: last(&events),
            deepest: (0, usize::MAX, initial),
            events,
        }
    }

    fn run(mut self, most: usize) -> Result<(), Problem> {
        let mut steps = 0_usize;
        let mut entry = self.begin();
        while self.answered > 0 {
            steps += 1;
            if steps > most || self.visited.len() > MOST_VISITED {
                return Err(Problem::Undecided);
            }
            let is_call = entry != self.open.head && entry.is_multiple_of(2);
            if is_call {
                match self.step(entry / 2) {
                    Some(after) if self.is_new(entry / 2, after) => {
                        self.place(entry / 2, after, false);
                        entry = self.begin();
                    }
                    Some(_) | None => entry = self.open.next[entry],
                }
                continue;
            }
            if self.deepest.1 == usize::MAX || self.placed.len() > self.deepest.0 {
                self.deepest = (self.placed.len(), entry / 2, self.state);
            }
            match self.undo() {
                Some(operation) => entry = self.open.next[operation * 2],
                None => return Err(Problem::Violated(self.explain())),
            }
        }
        Ok(())
    }

    /// Places what leaves no choice; where to go on.
    fn begin(&mut self) -> usize {
        while let Some((operation, after)) = self.forced() {
            self.place(operation, after, true);
        }
        self.open.next[self.open.head]
    }

    /// An operation that may be placed now without looking at any other order.
    fn forced(&self) -> Option<(usize, State)> {
        let mut write = None;
        let mut may_end = false;
        for at in self.candidates() {
            let event = &self.events[at];
            if event.answer == Answer::Unknown {
                continue;
            }
            let Some(after) = self.step(at) else { continue };
            if after == self.state {
                return Some((at, after));
            }
            let State::Live(live) = self.state else {
                continue;
            };
            match (event.answer, event.act) {
                // A version never comes back: it fits now or never.
                (Answer::Found(..), _) => return Some((at, after)),
                (Answer::Done(Some(version)), Act::Write(..)) if version == live.version.next() => {
                    write = Some((at, after));
                }
                // "Expired" may come before the write or after it.
                (Answer::Expired(_), _) => may_end = true,
                _ => {}
            }
        }
        write.filter(|_| !may_end)
    }

    /// Calls before the first return.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let first = self.open.next[self.open.head];
        std::iter::successors(Some(first), |entry| Some(self.open.next[*entry]))
            .take_while(|entry| *entry != self.open.head && entry.is_multiple_of(2))
            .map(|entry| entry / 2)
    }

    /// The state with this operation next, if it can be.
    fn step(&self, at: usize) -> Option<State> {
        let Event { act, answer, .. } = &self.events[at];
        let unknown = *answer == Answer::Unknown;
        if unknown {
            let waits = self.twin[at].is_some_and(|twin| !self.is_placed[twin]);
            if waits || (matches!(act, Act::Write(..)) && self.is_past_all()) {
                return None;
            }
        }
        let after = self.state.after(act, answer)?;
        if self.ends_too_early(after) {
            return None;
        }
        if let (Some((above, most)), State::Live(live)) = (self.span[at], after)
            && (live.version <= above || live.version > most)
        {
            return None;
        }
        if let (Answer::Done(_) | Answer::Unknown, State::Live(live)) = (answer, after)
            && let Some(pin) = self.pins.get(&live.version)
            && (pin.owner.is_some_and(|owner| owner != at) || !agree(&pin.fields, &live.fields))
        {
            return None;
        }
        Some(after)
    }

    /// Whether this replaces an end of which somebody is still to be told, and which does not come again.
    fn ends_too_early(&self, after: State) -> bool {
        let (State::Live(live), State::Live(after)) = (self.state, after) else {
            return false;
        };
        let Some(old) = live.expires.filter(|_| after.expires != live.expires) else {
            return false;
        };
        let told = self.ends.get(&old);
        told.is_some_and(|(told, set)| *told > 0 && *set == 0)
    }

    /// Keeps count of what is not placed.
    fn count_end(&mut self, operation: usize, placed: bool) {
        let event = &self.events[operation];
        let step = |count: &mut usize| match placed {
            true => *count -= 1,
            false => *count += 1,
        };
        if let Answer::Expired(Some(end)) = event.answer
            && let Some((told, _)) = self.ends.get_mut(&end)
        {
            step(told);
        }
        if let Act::Write(sets, _) | Act::Create(sets) = event.act
            && let Expiry::At(end) = sets.expires
            && let Some((_, set)) = self.ends.get_mut(&end)
        {
            step(set);
        }
    }

    fn is_past_all(&self) -> bool {
        match (self.state, self.last) {
            (State::Live(live), Some(last)) => live.version >= last,
            _ => false,
        }
    }

    fn is_new(&mut self, operation: usize, after: State) -> bool {
        self.visited.insert((self.set ^ mark(operation), after))
    }

    fn place(&mut self, operation: usize, after: State, forced: bool) {
        self.placed.push(Placed {
            operation,
            before: self.state,
            forced,
        });
        self.state = after;
        self.set ^= mark(operation);
        self.is_placed[operation] = true;
        self.count_end(operation, true);
        self.answered -= usize::from(!self.open.unknown[operation]);
        self.open.lift(operation);
    }

    /// Takes back the newest choice, and what followed from it.
    fn undo(&mut self) -> Option<usize> {
        loop {
            let Placed {
                operation,
                before,
                forced,
            } = self.placed.pop()?;
            self.state = before;
            self.set ^= mark(operation);
            self.is_placed[operation] = false;
            self.count_end(operation, false);
            self.answered += usize::from(!self.open.unknown[operation]);
            self.open.put_back(operation);
            if !forced {
                return Some(operation);
            }
        }
    }

    fn explain(&self) -> String {
        let (placed, stuck, state) = self.deepest;
        let stuck = self.events.get(stuck);
        format!(
            "no order explains {stuck:?}: {placed} of {} operations could be placed, then the session is {state:?}",
            self.events.len()
        )
    }
}

/// A number for each operation whose sums (xor) are different for different sets, but for one chance in 2^128.
fn mark(operation: usize) -> u128 {
    let half = |salt: u64| {
        let mut x = (operation as u64).wrapping_add(salt);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    u128::from(half(0x9E37_79B9_7F4A_7C15)) << 64 | u128::from(half(0xD1B5_4A32_D192_ED03))
}
