//! What a session's history says before any order of it is tried: it keeps the search ([`super::linearizable`]) from orders that cannot be.

use std::collections::{BTreeSet, HashMap, HashSet};

use model::id::Version;

use super::register::{Act, Answer, Event, Expiry, FIELDS};

/// What is known of a version from its answers, wherever they stand in the order.
#[derive(Clone, Copy, Default)]
pub(super) struct Pin {
    pub(super) fields: [Option<u64>; FIELDS],
    pub(super) owner: Option<usize>,
}

pub(super) fn pins(events: &[Event]) -> HashMap<Version, Pin> {
    let mut pins: HashMap<Version, Pin> = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        let (version, fields, owner) = match (event.act, event.answer) {
            (_, Answer::Found(version, fields)) => (version, fields, None),
            (Act::Write(sets, _) | Act::Create(sets), Answer::Done(Some(version))) => {
                (version, sets.fields, Some(at))
            }
            _ => continue,
        };
        let pin = pins.entry(version).or_default();
        pin.owner = pin.owner.or(owner);
        for (field, seen) in pin.fields.iter_mut().zip(fields) {
            *field = field.or(seen);
        }
    }
    pins
}

/// A value, or an end, that nobody has ever seen.
const UNSEEN: u64 = u64::MAX;

/// The same history with one value in the place of all that nobody has seen: whatever is said of one of them can be said of each. Orders
/// that differ in nothing else come to the same states then.
pub(super) fn blurred(events: &[Event]) -> Vec<Event> {
    let (seen, ends) = shown(events);
    let mut events = events.to_vec();
    for event in &mut events {
        if let Act::Write(sets, _) | Act::Create(sets) = &mut event.act {
            for value in sets.fields.iter_mut().flatten() {
                if !seen.contains(value) {
                    *value = UNSEEN;
                }
            }
            if let Expiry::At(end) = &mut sets.expires
                && !ends.contains(end)
            {
                *end = UNSEEN;
            }
        }
    }
    events
}

/// The same history with unknown writes that nobody saw, and that ask for nothing, touching nothing.
pub(super) fn loosened(mut events: Vec<Event>) -> Vec<Event> {
    for event in &mut events {
        if event.answer == Answer::Unknown
            && let Act::Write(sets, None) = &mut event.act
            && sets.expires == Expiry::Keep
            && sets.fields.iter().flatten().all(|value| *value == UNSEEN)
        {
            sets.fields = [None; FIELDS];
        }
    }
    events
}

/// Values that were read, and ends that were told.
fn shown(events: &[Event]) -> (HashSet<u64>, HashSet<u64>) {
    let (mut seen, mut ends) = (HashSet::new(), HashSet::new());
    for event in events {
        match event.answer {
            Answer::Found(_, fields) => seen.extend(fields.into_iter().flatten()),
            Answer::Expired(at) => ends.extend(at),
            _ => {}
        }
    }
    (seen, ends)
}

/// A value that was seen at a version was written up to it, and above every other write of its field that is known to be up to it. Where
/// none is known, the field may have had any value before.
pub(super) fn spans(events: &[Event]) -> Vec<Option<(Version, Version)>> {
    const NONE: Version = Version {
        epoch: 0,
        revision: 0,
    };
    // For each field: by which version it was set, the first version at which a value was seen, and how many write a value.
    let mut set: [BTreeSet<Version>; FIELDS] = Default::default();
    let mut seen: [HashMap<u64, Version>; FIELDS] = Default::default();
    let mut writers: [HashMap<u64, usize>; FIELDS] = Default::default();
    for event in events {
        if let Act::Write(sets, _) | Act::Create(sets) = event.act {
            for (writers, value) in writers.iter_mut().zip(sets.fields) {
                *writers.entry(value.unwrap_or(UNSEEN)).or_default() += 1;
            }
        }
        match (event.act, event.answer) {
            (Act::Write(sets, _) | Act::Create(sets), Answer::Done(Some(version))) => {
                for (set, value) in set.iter_mut().zip(sets.fields) {
                    set.extend(value.map(|_| version));
                }
            }
            (_, Answer::Found(version, fields)) => {
                for (seen, value) in seen.iter_mut().zip(fields) {
                    let Some(value) = value else { continue };
                    let first = seen.entry(value).or_insert(version);
                    *first = version.min(*first);
                }
            }
            _ => {}
        }
    }
    let span = |event: &Event| {
        let (Act::Write(sets, _), Answer::Unknown) = (event.act, event.answer) else {
            return None;
        };
        let mut span: Option<(Version, Version)> = None;
        let fields = set.iter().zip(&seen).zip(&writers).zip(sets.fields);
        for (((set, seen), writers), value) in fields {
            let alone = value.filter(|value| writers.get(value) == Some(&1));
            let Some(most) = alone.and_then(|value| seen.get(&value)) else {
                continue;
            };
            let Some(above) = set.range(..=*most).next_back().copied() else {
                continue;
            };
            let (low, high) = span.unwrap_or((NONE, *most));
            span = Some((low.max(above), high.min(*most)));
        }
        span
    };
    events.iter().map(span).collect()
}

/// For each end that somebody was told: by how many answers, and set by how many writes.
pub(super) fn ends(events: &[Event]) -> HashMap<u64, (usize, usize)> {
    let mut ends: HashMap<u64, (usize, usize)> = HashMap::new();
    for event in events {
        if let Answer::Expired(Some(end)) = event.answer {
            ends.entry(end).or_default().0 += 1;
        }
    }
    for event in events {
        if let Act::Write(sets, _) | Act::Create(sets) = event.act
            && let Expiry::At(end) = sets.expires
            && let Some((_, set)) = ends.get_mut(&end)
        {
            *set += 1;
        }
    }
    ends
}

/// Unknown operations of one kind differ in nothing but their start, if nobody has seen what they leave behind.
#[derive(PartialEq, Eq, Hash)]
enum Kind {
    /// Which fields it sets, whether it renews, and its condition.
    Write([bool; FIELDS], bool, Option<Version>),
    Delete(Option<Version>),
}

pub(super) fn twins(events: &[Event]) -> Vec<Option<usize>> {
    let mut newest = HashMap::new();
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|at| events[*at].start);
    let mut twins = vec![None; events.len()];
    for at in order {
        if events[at].answer != Answer::Unknown {
            continue;
        }
        let kind = match events[at].act {
            Act::Write(sets, named) => {
                let shown = sets.fields.iter().flatten().any(|it| *it != UNSEEN);
                let told = !matches!(sets.expires, Expiry::Keep | Expiry::At(UNSEEN));
                if shown || told {
                    continue;
                }
                let renews = sets.expires != Expiry::Keep;
                Kind::Write(sets.fields.map(|field| field.is_some()), renews, named)
            }
            Act::Delete(named) => Kind::Delete(named),
            Act::Create(_) | Act::Read => continue,
        };
        twins[at] = newest.insert(kind, at);
    }
    twins
}

pub(super) fn last(events: &[Event]) -> Option<Version> {
    let mut last = None;
    for event in events {
        let version = match event.answer {
            Answer::Unknown | Answer::Absent => continue,
            Answer::Done(None) if matches!(event.act, Act::Delete(None)) => continue,
            Answer::Done(version) | Answer::Mismatch(version) => version?,
            Answer::Found(version, _) => version,
            Answer::Expired(_) => return None,
        };
        last = last.max(Some(version));
    }
    last
}
