//! What the clients' history must show, session by session, given that every change makes a version of its own.
//!
//! | rule | source |
//! |---|---|
//! | a version has one content, and one request made it | S-2 |
//! | a request, or a key, makes one version at most, and an acknowledged one made the version that it was told | S-1 |
//! | what was refused or unavailable is nowhere | `model::service::Failure` |
//! | a version is one change away from the one before it: no update is lost | S-3 |
//! | an answer shows what was acknowledged before it was asked; a write comes after | R-1, R-2 |
//! | a local answer is not older than it says, nor than what was asked for | `ReadReply`, `Consistency` |
//! | a session that is gone stays gone; one that is there is not denied | R-2 |
//! | nothing expires early, nothing expired is served, "expired" stays so | I-10 ([`no_expired_read`]) |
//!
//! It looks at the whole history when the run is over. What is unknown may have happened at any time after it was sent, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::id::{RequestId, SessionId, Version};
use model::service::Refused;

use super::clients::told;
use super::clock::BEGIN;
use super::record::{Content, End, Form, Kind, Op};
use crate::invariants::ledger_exact::Ledger;
use crate::invariants::no_expired_read::{self, Answer, Told};

/// How far a group's time may be from the true one while most clocks are right: what a probe and a slew cannot see.
const CLOCK_SLACK: Duration = Duration::from_millis(1000);

/// Checks a history.
///
/// # Errors
/// The first rule that does not hold, in words.
pub(super) fn check(ops: &[Op], ledger: &Ledger) -> Result<(), String> {
    if let Some(conflict) = &ledger.conflict {
        return Err(conflict.clone());
    }
    for op in ops {
        if let End::Wrong(what) = &op.end {
            return Err(format!("no fault explains \"{what}\": {}", told(op)));
        }
    }
    let mut sessions: BTreeMap<SessionId, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        sessions.entry(op.session).or_default().push(op);
    }
    for (session, ops) in sessions {
        One {
            session,
            ops: &ops,
            ledger,
        }
        .check()?;
    }
    Ok(())
}

/// One session's history.
struct One<'a> {
    session: SessionId,
    ops: &'a [&'a Op],
    ledger: &'a Ledger,
}

/// The version that an operation shows or made.
fn version(op: &Op) -> Option<Version> {
    match &op.end {
        End::Written { version, .. } | End::Found { version, .. } => Some(*version),
        End::Refused(Refused::VersionMismatch { current }) => Some(*current),
        _ => None,
    }
}

const fn form(op: &Op) -> Option<&Form> {
    match &op.kind {
        Kind::Write { form, .. } => Some(form),
        _ => None,
    }
}

const fn is_local(op: &Op) -> bool {
    matches!(op.kind, Kind::Local(_))
}

impl One<'_> {
    fn check(&self) -> Result<(), String> {
        self.requests()?;
        let contents = self.contents()?;
        self.steps(&contents)?;
        self.order()?;
        self.absence()?;
        self.expiry()
    }

    fn wrong(&self, rule: &str, ops: &[&Op]) -> String {
        let ops: Vec<String> = ops.iter().map(|op| told(op)).collect();
        format!("{rule} ({}):\n  {}", self.session, ops.join("\n  "))
    }

    /// Versions and requests belong to each other as they were acknowledged.
    fn requests(&self) -> Result<(), String> {
        let mut made: BTreeMap<Version, &Op> = BTreeMap::new();
        for op in self.ops {
            let Kind::Write {
                requests, if_match, ..
            } = &op.kind
            else {
                continue;
            };
            let applied: BTreeSet<Version> = requests
                .iter()
                .filter_map(|request| self.made_by(*request))
                .collect();
            if applied.len() > 1 {
                return Err(self.wrong("one key was carried out twice", &[op]));
            }
            match &op.end {
                // A deletion is told the version that it ended.
                End::Written { version, .. } if form(op) == Some(&Form::Delete) => {
                    let other = if_match.is_some_and(|named| named != *version);
                    if other {
                        return Err(self.wrong("its condition named another version", &[op]));
                    }
                }
                End::Written { version, .. } => {
                    if let Some(other) = made.insert(*version, op) {
                        return Err(self.wrong("two writes were told one version", &[other, op]));
                    }
                    let by = self.ledger.made.get(&(self.session, *version));
                    if by.is_some_and(|by| !requests.contains(by)) {
                        return Err(
                            self.wrong("another request made the version that it was told", &[op])
                        );
                    }
                    if applied.first().is_some_and(|applied| applied != version) {
                        return Err(self.wrong("it made another version than it was told", &[op]));
                    }
                    if let Some(named) = if_match
                        && named.next() != *version
                    {
                        return Err(self.wrong("its condition named another version", &[op]));
                    }
                }
                End::Refused(_) | End::Unavailable if !applied.is_empty() => {
                    return Err(self.wrong(
                        "it was carried out, and its client was told that nothing was changed",
                        &[op],
                    ));
                }
                End::Refused(Refused::VersionMismatch { current })
                    if if_match.is_none_or(|named| named == *current) =>
                {
                    return Err(self.wrong("a condition that holds was refused", &[op]));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn made_by(&self, request: RequestId) -> Option<Version> {
        let (session, version) = self.ledger.by_request.get(&request)?;
        (*session == self.session).then_some(*version)
    }

    /// One content for each version.
    fn contents(&self) -> Result<BTreeMap<Version, (Content, &Op)>, String> {
        let mut contents: BTreeMap<Version, (Content, &Op)> = BTreeMap::new();
        for op in self.ops {
            let (version, content) = match &op.end {
                End::Written {
                    version,
                    content: Some(content),
                    ..
                } => (version, content),
                End::Found {
                    version, content, ..
                } => (version, content),
                _ => continue,
            };
            if let Some((known, other)) = contents.get(version) {
                if known != content {
                    return Err(self.wrong("one version has two contents", &[other, op]));
                }
            } else {
                contents.insert(*version, (content.clone(), op));
            }
        }
        Ok(contents)
    }

    /// Each content is what the request that made it makes of the one before.
    fn steps(&self, contents: &BTreeMap<Version, (Content, &Op)>) -> Result<(), String> {
        let mut writers: BTreeMap<RequestId, &Op> = BTreeMap::new();
        let mut told_by: BTreeMap<Version, &Op> = BTreeMap::new();
        for op in self.ops {
            if let Kind::Write { requests, .. } = &op.kind {
                writers.extend(requests.iter().map(|request| (*request, *op)));
                if let End::Written { version, .. } = &op.end
                    && form(op) != Some(&Form::Delete)
                {
                    told_by.insert(*version, op);
                }
            }
        }
        for (version, (content, seen)) in contents {
            let by = self.ledger.made.get(&(self.session, *version));
            let by = by
                .and_then(|request| writers.get(request))
                .or_else(|| told_by.get(version));
            let Some(by) = by else {
                // No replica told what made it, and nobody was told: its mark still has an author.
                if !self.has_author(content) {
                    return Err(self.wrong("nobody wrote this", &[seen]));
                }
                continue;
            };
            let before = Version {
                epoch: version.epoch,
                revision: version.revision - 1,
            };
            let before = contents.get(&before).map(|(content, _)| content);
            let Some(form) = form(by) else { continue };
            let fits = match (form, before) {
                (Form::Create(first), _) => content == first && *version == Version::FIRST,
                (Form::Put(name, expires), before) => {
                    content.name == *name
                        && expires.is_none_or(|at| content.expires == Some(at))
                        && before.is_none_or(|before| {
                            before.tag == content.tag
                                && (expires.is_some() || before.expires == content.expires)
                        })
                }
                (Form::Patch(tag), before) => {
                    content.tag == *tag
                        && before.is_none_or(|before| {
                            before.name == content.name && before.expires == content.expires
                        })
                }
                (Form::Delete, _) => false,
            };
            if !fits {
                return Err(self.wrong(
                    "a version is not what its request makes of the one before",
                    &[by, seen],
                ));
            }
        }
        Ok(())
    }

    fn has_author(&self, content: &Content) -> bool {
        self.ops.iter().any(|op| match form(op) {
            Some(Form::Create(first)) => first.name == content.name,
            Some(Form::Put(name, _)) => *name == content.name,
            Some(Form::Patch(tag)) => *tag == content.tag,
            _ => false,
        })
    }

    /// Versions follow real time.
    fn order(&self) -> Result<(), String> {
        // The newest version known at each moment, by the operation that showed it.
        let mut ended: Vec<(&Op, Version)> = self
            .ops
            .iter()
            .filter(|op| !is_local(op))
            .filter_map(|op| Some((*op, version(op)?)))
            .collect();
        ended.sort_by_key(|(op, version)| (op.ended, *version));
        let mut newest: Vec<(Duration, Version, &Op)> = Vec::new();
        for (op, version) in ended {
            if newest.last().is_none_or(|(_, last, _)| version > *last) {
                newest.push((op.ended, version, op));
            }
        }
        let known_at = |at: Duration| {
            let before = newest.partition_point(|(ended, _, _)| *ended < at);
            before.checked_sub(1).and_then(|last| newest.get(last))
        };
        for op in self.ops {
            let Some(shown) = version(op) else { continue };
            let asked = match (&op.kind, &op.end) {
                (Kind::Local(at_least), End::Found { staleness, .. }) => {
                    if at_least.is_some_and(|least| shown < least) {
                        return Err(self.wrong("a local read is older than was asked for", &[op]));
                    }
                    // Without an age it is an answer of the leader's, as fresh as any.
                    staleness.map_or(op.began, |age| op.ended.saturating_sub(age))
                }
                _ => op.began,
            };
            let Some((_, known, by)) = known_at(asked) else {
                continue;
            };
            let writes = matches!(op.end, End::Written { .. }) && form(op) != Some(&Form::Delete);
            if shown < *known || writes && shown == *known {
                return Err(self.wrong(
                    "it does not show what was known when it was asked",
                    &[by, op],
                ));
            }
        }
        Ok(())
    }

    /// What is gone stays gone, what is there is not denied.
    fn absence(&self) -> Result<(), String> {
        let gone: Option<&&Op> = self
            .ops
            .iter()
            .filter(|op| form(op) == Some(&Form::Delete) && matches!(op.end, End::Written { .. }))
            .min_by_key(|op| op.ended);
        let may_go = self
            .ops
            .iter()
            .filter(|op| form(op) == Some(&Form::Delete))
            .filter(|op| !matches!(op.end, End::Refused(_) | End::Unavailable))
            .map(|op| op.began)
            .min();
        let there = self
            .ops
            .iter()
            .filter(|op| !is_local(op) && matches!(op.end, End::Written { .. } | End::Found { .. }))
            .filter(|op| form(op) != Some(&Form::Delete))
            .min_by_key(|op| op.ended);
        for op in self.ops.iter().filter(|op| !is_local(op)) {
            let absent = matches!(op.end, End::Refused(Refused::NotFound));
            if absent
                && let Some(there) = there
                && there.ended < op.began
                && may_go.is_none_or(|may_go| may_go > op.ended)
            {
                return Err(self.wrong("a session that is there was not found", &[there, op]));
            }
            let writes = matches!(
                op.end,
                End::Written {
                    replayed: false,
                    ..
                }
            );
            let shown = matches!(
                op.end,
                End::Found { .. }
                    | End::Refused(Refused::VersionMismatch { .. } | Refused::Expired { .. })
            );
            let alive = shown || writes;
            if alive
                && let Some(gone) = gone
                && gone.ended < op.began
            {
                return Err(self.wrong("a session that was deleted is there", &[gone, op]));
            }
        }
        Ok(())
    }

    fn expiry(&self) -> Result<(), String> {
        let at = |moment: Duration| BEGIN.plus(moment);
        let mut answers: Vec<(&Op, Answer)> = self
            .ops
            .iter()
            .filter(|op| !is_local(op))
            .filter_map(|op| {
                let told = match &op.end {
                    End::Found { content, .. } => Told::Served(content.expires?),
                    End::Refused(Refused::Expired { at }) => Told::Expired(*at),
                    _ => return None,
                };
                let (began, ended) = (at(op.began), at(op.ended));
                Some((*op, Answer { began, ended, told }))
            })
            .collect();
        answers.sort_by_key(|(op, _)| op.ended);
        let told: Vec<Answer> = answers.iter().map(|(_, answer)| *answer).collect();
        no_expired_read::check(&told, CLOCK_SLACK).map_err(|(rule, places)| {
            let ops: Vec<&Op> = places.into_iter().map(|place| answers[place].0).collect();
            self.wrong(rule, &ops)
        })
    }
}
