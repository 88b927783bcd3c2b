//! What one session is to a client: absent, or two fields with a version and perhaps an end.
//!
//! [`Event`] is an operation as the search sees it, free of HTTP: the simulation makes them too. [`State::after`] is the
//! specification: what a session in a state answers to an operation, or `None` when it never answers so. Values are
//! numbers, unique for each write, and versions are never given twice; a field that is not known (`None`) matches any.

use model::id::Version;

/// Fields of a session that are written apart from each other.
pub const FIELDS: usize = 2;

/// What a write does to the session's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// It leaves it as it is.
    #[default]
    Keep,
    /// The session ends then (any unit, compared for equality only).
    At(u64),
}

/// What a write replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sets {
    /// The fields that get a new value.
    pub fields: [Option<u64>; FIELDS],
    /// The session's end.
    pub expires: Expiry,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// A new session.
    Create(Sets),
    /// A change, if the session has this version.
    Write(Sets, Option<Version>),
    /// The end of a session, if it has this version.
    Delete(Option<Version>),
    /// A linearizable read.
    Read,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A write was carried out and made this version, if the answer says which.
    Done(Option<Version>),
    /// A read's.
    Found(Version, [Option<u64>; FIELDS]),
    /// There is no such session.
    Absent,
    /// Its time was over, at that time if the answer says when.
    Expired(Option<u64>),
    /// It has another version than was named: this one, if the answer says which.
    Mismatch(Option<Version>),
    /// Nothing: a write may take effect at any later time, or never.
    Unknown,
}

/// An operation. Those that had no effect and showed nothing (refused, reads without an answer) are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was asked, on one clock.
    pub start: u64,
    /// When it was answered; of no meaning for [`Answer::Unknown`].
    pub end: u64,
    /// What was asked for.
    pub act: Act,
    /// What came back.
    pub answer: Answer,
}

/// A session's state, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The history began when the session was there already: anything.
    Any,
    /// No such session yet.
    Absent,
    /// It was deleted: its id is never given again.
    Gone,
    /// There it is.
    Live(Live),
}

/// A session that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// Its version.
    pub version: Version,
    /// Its fields.
    pub fields: [Option<u64>; FIELDS],
    /// Its end, if it is known and there is one.
    pub expires: Option<u64>,
    /// Somebody was told that its time is over: that stays so until it is renewed.
    pub ended: bool,
}

impl State {
    /// The state after an operation with this answer; `None` when this state never gives that answer.
    #[must_use]
    pub fn after(self, act: &Act, answer: &Answer) -> Option<Self> {
        match (answer, self) {
            (Answer::Absent, Self::Absent | Self::Any) => Some(Self::Absent),
            (Answer::Absent, Self::Gone) => Some(Self::Gone),
            (Answer::Absent, Self::Live(_)) => None,
            (Answer::Found(version, fields), state) if *act == Act::Read => {
                state.found(*version, fields)
            }
            (Answer::Found(..), _) => None,
            (Answer::Expired(_) | Answer::Mismatch(_), Self::Absent | Self::Gone) => None,
            (Answer::Expired(_) | Answer::Mismatch(None), Self::Any) => Some(Self::Any),
            (Answer::Expired(at), Self::Live(live)) => live.expired(*at),
            (Answer::Mismatch(Some(version)), Self::Any) => {
                let named = matches!(act, Act::Write(_, Some(named)) | Act::Delete(Some(named)) if named == version);
                (!named).then_some(Self::Live(Live::at(*version)))
            }
            (Answer::Mismatch(current), Self::Live(live)) => {
                let (Act::Write(_, Some(named)) | Act::Delete(Some(named))) = act else {
                    return None;
                };
                (live.version != *named && current.is_none_or(|it| it == live.version))
                    .then_some(self)
            }
            (Answer::Done(version), state) => state.changed(act, *version),
            (Answer::Unknown, state) => state.changed(act, None),
        }
    }

    fn found(self, version: Version, seen: &[Option<u64>; FIELDS]) -> Option<Self> {
        let mut live = match self {
            Self::Absent | Self::Gone => return None,
            Self::Any => Live::at(version),
            Self::Live(live) => live,
        };
        if live.version != version || live.ended || !agree(&live.fields, seen) {
            return None;
        }
        for (field, seen) in live.fields.iter_mut().zip(seen) {
            *field = field.or(*seen);
        }
        Some(Self::Live(live))
    }

    fn changed(self, act: &Act, version: Option<Version>) -> Option<Self> {
        match (act, self) {
            (Act::Read, _) | (Act::Create(_), Self::Live(_) | Self::Gone) => None,
            (Act::Create(sets), Self::Absent | Self::Any) => {
                let new = Live::at(version.unwrap_or(Version::FIRST));
                Some(Self::Live(new.with(sets)))
            }
            (Act::Write(..) | Act::Delete(_), Self::Absent | Self::Gone) => None,
            (Act::Write(sets, _), Self::Any) => Some(version.map_or(Self::Any, |version| {
                Self::Live(Live::at(version).with(sets))
            })),
            (Act::Delete(_), Self::Any) => Some(Self::Gone),
            (Act::Write(sets, named), Self::Live(live)) => {
                let new = version.unwrap_or_else(|| live.version.next());
                let follows = new == live.version.next() || new.epoch > live.version.epoch;
                let named = named.is_none_or(|named| named == live.version);
                (follows && named).then_some(Self::Live(
                    Live {
                        version: new,
                        ..live
                    }
                    .with(sets),
                ))
            }
            (Act::Delete(named), Self::Live(live)) => named
                .is_none_or(|named| named == live.version)
                .then_some(Self::Gone),
        }
    }
}

impl Live {
    const fn at(version: Version) -> Self {
        Self {
            version,
            fields: [None; FIELDS],
            expires: None,
            ended: false,
        }
    }

    fn with(mut self, sets: &Sets) -> Self {
        for (field, new) in self.fields.iter_mut().zip(&sets.fields) {
            *field = new.or(*field);
        }
        if let Expiry::At(at) = sets.expires {
            self.expires = Some(at);
            self.ended = false;
        }
        self
    }

    fn expired(self, at: Option<u64>) -> Option<State> {
        if let (Some(own), Some(at)) = (self.expires, at)
            && own != at
        {
            return None;
        }
        Some(State::Live(Self {
            expires: self.expires.or(at),
            ended: true,
            ..self
        }))
    }
}

/// Whether two looks at the fields can be of the same session.
#[must_use]
pub fn agree(a: &[Option<u64>; FIELDS], b: &[Option<u64>; FIELDS]) -> bool {
    a.iter()
        .zip(b)
        .all(|(a, b)| a.is_none() || b.is_none() || a == b)
}
