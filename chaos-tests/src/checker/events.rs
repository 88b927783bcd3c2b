//! From a recorded history to what the search takes.
//!
//! What had no effect and showed nothing is left out: refused operations, reads without an answer. A write without an answer
//! stays, as unknown. Local reads are no part of this order; `versions` checks them.

use std::collections::HashMap;

use super::register::{Act, Answer, Event, Expiry, Sets, State};
use crate::history::{Action, Content, End, Operation, Shown};

/// The events of one session, and the state in which its history finds it.
#[must_use]
pub fn of(operations: &[&Operation]) -> (Vec<Event>, State) {
    let mut names = Names::default();
    let created = operations
        .iter()
        .any(|operation| operation.action == Action::Create);
    let events = operations
        .iter()
        .filter_map(|operation| event(operation, &mut names))
        .collect();
    let initial = if created { State::Absent } else { State::Any };
    (events, initial)
}

/// Numbers for the unique names of values.
#[derive(Default)]
struct Names<'a>(HashMap<&'a str, u64>);

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a Option<String>) -> Option<u64> {
        let next = self.0.len() as u64;
        name.as_deref()
            .map(|name| *self.0.entry(name).or_insert(next))
    }

    fn both(&mut self, content: &'a Content) -> [Option<u64>; 2] {
        [self.number(&content.body), self.number(&content.tag)]
    }
}

fn event<'a>(operation: &'a Operation, names: &mut Names<'a>) -> Option<Event> {
    let answer = match (operation.outcome, operation.shown) {
        (End::Unknown, _) if operation.action.writes() => Answer::Unknown,
        (End::Fail | End::Unknown, _) | (End::Ok, None) => return None,
        (End::Ok, Some(Shown::Absent)) => Answer::Absent,
        (End::Ok, Some(Shown::Expired)) => Answer::Expired(operation.expires),
        (End::Ok, Some(Shown::Mismatch)) => Answer::Mismatch(operation.version),
        (End::Ok, Some(Shown::Done)) if operation.action.writes() => {
            Answer::Done(operation.version)
        }
        (End::Ok, Some(Shown::Done)) => {
            let read = operation.read.as_ref()?;
            Answer::Found(operation.version?, names.both(read))
        }
    };
    let sets = Sets {
        fields: names.both(&operation.wrote),
        expires: operation.expires.map_or(Expiry::Keep, Expiry::At),
    };
    let act = match operation.action {
        Action::Create => Act::Create(sets),
        Action::Put | Action::PutIfMatch | Action::Patch | Action::Renew => {
            Act::Write(sets, operation.if_match)
        }
        Action::Delete => Act::Delete(operation.if_match),
        Action::Read => Act::Read,
        Action::ReadLocal => return None,
    };
    Some(Event {
        start: operation.start,
        end: operation.end,
        act,
        answer,
    })
}
