//! Versions of one session: a version names one content, their order agrees with real time, and the writes in that order
//! give every answer.
//!
//! It needs no search, so it holds for histories of any size, and it says which answer is wrong. Local reads may be old, but
//! not older than they say or than their client has seen, and never from the future.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::id::Version;

use crate::history::{Action, Content, End, Operation, Shown};

/// Clocks in `PSP-Staleness-Ms` have milliseconds; the histories' have microseconds.
const ROUNDING: u64 = 1000;

/// What is wrong with a session's versions, in sentences.
#[must_use]
pub fn check(operations: &[&Operation]) -> Vec<String> {
    let mut wrong = Vec::new();
    let contents = contents(operations, &mut wrong);
    real_time(operations, &mut wrong);
    replay(operations, &contents, &mut wrong);
    local_reads(operations, &contents, &mut wrong);
    wrong
}

/// What a version holds, as far as anybody has said or seen.
#[derive(Default)]
struct Known<'a> {
    seen: Content,
    writer: Option<&'a Operation>,
}

/// Whether a read shows content.
fn is_found(operation: &Operation) -> bool {
    !operation.action.writes()
        && operation.outcome == End::Ok
        && operation.shown == Some(Shown::Done)
}

fn contents<'a>(
    operations: &[&'a Operation],
    wrong: &mut Vec<String>,
) -> BTreeMap<Version, Known<'a>> {
    let mut contents: BTreeMap<Version, Known<'a>> = BTreeMap::new();
    for operation in operations.iter().copied() {
        let (Some(version), true) = (
            operation.version,
            is_found(operation) || operation.is_acknowledged(),
        ) else {
            continue;
        };
        let known = contents.entry(version).or_default();
        let content = if operation.action.writes() {
            if let Some(other) = known.writer.replace(operation) {
                wrong.push(format!(
                    "version {version} was acknowledged to {} and to {}",
                    name(other),
                    name(operation)
                ));
            }
            Some(&operation.wrote)
        } else {
            operation.read.as_ref()
        };
        let Some(content) = content else { continue };
        for (known, said) in [
            (&mut known.seen.body, &content.body),
            (&mut known.seen.tag, &content.tag),
        ] {
            match (known.as_ref(), said) {
                (Some(known), Some(said)) if known != said => wrong.push(format!(
                    "version {version} names two contents: {known} and, as {} says, {said}",
                    name(operation)
                )),
                (None, Some(_)) => known.clone_from(said),
                _ => {}
            }
        }
    }
    contents
}

/// An operation that began after another had ended shows no older version; a write a newer one.
fn real_time(operations: &[&Operation], wrong: &mut Vec<String>) {
    let mut shown: Vec<(&Operation, Version)> = operations
        .iter()
        .filter(|it| it.action != Action::ReadLocal && it.outcome == End::Ok)
        .filter_map(|it| Some((*it, it.version?)))
        .collect();
    let mut ended = shown.clone();
    ended.sort_by_key(|(operation, _)| operation.end);
    shown.sort_by_key(|(operation, _)| operation.start);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<(&Operation, Version)> = None;
    for (operation, version) in shown {
        while let Some((before, seen)) = ended.next_if(|(it, _)| it.end < operation.start) {
            if newest.is_none_or(|(_, newest)| seen > newest) {
                newest = Some((before, seen));
            }
        }
        let Some((before, seen)) = newest else {
            continue;
        };
        let writes = operation.is_acknowledged();
        if version < seen || (writes && version == seen) {
            wrong.push(format!(
                "{} shows version {version}, but {} had ended before with {seen}",
                name(operation),
                name(before)
            ));
        }
    }
}

/// The writes in order of their versions give what the reads show.
fn replay(
    operations: &[&Operation],
    contents: &BTreeMap<Version, Known<'_>>,
    wrong: &mut Vec<String>,
) {
    let mut ends: HashMap<&str, End> = HashMap::new();
    for operation in operations.iter().filter(|it| it.action.writes()) {
        let done = match operation.shown {
            None | Some(Shown::Done) => operation.outcome,
            // It was answered, and changed nothing.
            Some(_) => End::Fail,
        };
        for value in [&operation.wrote.body, &operation.wrote.tag] {
            ends.extend(value.as_deref().map(|value| (value, done)));
        }
    }
    let created = operations.iter().any(|it| it.action == Action::Create);
    let fields: [fn(&Content) -> Option<&str>; 2] =
        [|it| it.body.as_deref(), |it| it.tag.as_deref()];
    for field in fields {
        let mut gone: HashSet<&str> = HashSet::new();
        let mut now: Option<&str> = None;
        let mut first = true;
        for (version, known) in contents {
            let written = known.writer.and_then(|writer| field(&writer.wrote));
            let Some(shows) = field(&known.seen) else {
                continue;
            };
            let is_first = std::mem::replace(&mut first, false) && !created;
            if now == Some(shows) {
                continue;
            }
            let end = ends.get(shows).copied();
            match end {
                _ if written.is_some() => {}
                None if is_first => {}
                None => wrong.push(format!(
                    "version {version} holds {shows}, which nobody wrote"
                )),
                Some(End::Fail) => wrong.push(format!(
                    "version {version} holds {shows}, whose write was refused"
                )),
                Some(End::Ok) if now.is_some() => wrong.push(format!(
                    "version {version} holds {shows}, acknowledged under another version"
                )),
                Some(End::Ok | End::Unknown) => {}
            }
            if gone.contains(shows) {
                wrong.push(format!(
                    "version {version} holds {shows} again, which was replaced"
                ));
            }
            gone.extend(now.replace(shows));
        }
    }
}

fn local_reads(
    operations: &[&Operation],
    contents: &BTreeMap<Version, Known<'_>>,
    wrong: &mut Vec<String>,
) {
    let mut writes: Vec<(u64, Version)> = operations
        .iter()
        .filter(|it| it.is_acknowledged())
        .filter_map(|it| Some((it.end, it.version?)))
        .collect();
    writes.sort_unstable();
    // The newest version that was acknowledged by then.
    let mut newest = None;
    for (_, version) in &mut writes {
        newest = newest.max(Some(*version));
        *version = newest.unwrap_or(*version);
    }
    for read in operations
        .iter()
        .filter(|it| it.action == Action::ReadLocal && is_found(it))
    {
        let Some(version) = read.version else {
            continue;
        };
        if read.at_least.is_some_and(|at_least| version < at_least) {
            wrong.push(format!(
                "{} shows {version}, older than its token",
                name(read)
            ));
        }
        if let Some(writer) = contents.get(&version).and_then(|known| known.writer)
            && writer.start > read.end
        {
            wrong.push(format!(
                "{} shows {version} before it was written",
                name(read)
            ));
        }
        let Some(staleness) = read.staleness else {
            continue;
        };
        let moment = read
            .start
            .saturating_sub(staleness)
            .saturating_sub(ROUNDING);
        let before = writes.partition_point(|(end, _)| *end < moment);
        if let Some((end, newest)) = before.checked_sub(1).map(|at| writes[at])
            && version < newest
        {
            wrong.push(format!(
                "{} shows {version} and says it is at most {staleness} us old, but {newest} was acknowledged {} us before",
                name(read),
                read.start - end
            ));
        }
    }
}

/// An operation, for a person who looks it up in the history.
pub(super) fn name(operation: &Operation) -> String {
    format!(
        "{:?} {}-{} at {} us",
        operation.action, operation.client, operation.number, operation.start
    )
}
