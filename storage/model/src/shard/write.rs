//! `Create`, `Update` and `Delete`: each carried out at most once, against the version it was made from.
//!
//! Order of the questions, the same for all: was this request carried out before (by its id, then by its
//! idempotency key)? Is it too late? Is the session there, in the expected version? Are its chunks? Only then anything changes.

use bytes::Bytes;

use crate::codec::{self, Blob};
use crate::id::{ChunkId, RequestId, SessionId, TenantId, Version};
use crate::limits::{PURGE_AFTER, TOMBSTONE_TTL};
use crate::shard::record::{Body, Content, Ending, Live, Record, Tombstone};
use crate::shard::{
    Command, Event, EventKind, IdempotencyTag, Outcome, Rejection, Remembered, RequestTag,
    Requests, chunk, counter, idempotency, set_counter,
};
use crate::state::{Due, Key, StateError, StateRead, StateWrite};
use crate::time::UnixMillis;

/// What the three commands have in common.
struct Target<'a> {
    tenant: TenantId,
    session: SessionId,
    request: RequestTag,
    idempotency: Option<&'a IdempotencyTag>,
    now: UnixMillis,
}

impl Target<'_> {
    /// As the session remembers the request.
    const fn remembered(&self, ending: Ending) -> Remembered {
        Remembered {
            id: self.request.id,
            not_after: self.request.not_after,
            ending,
        }
    }
}

pub(super) fn apply(
    state: &mut impl StateWrite,
    command: &Command,
    now: UnixMillis,
    events: &mut Vec<Event>,
) -> Result<Outcome, StateError> {
    let (Command::Create {
        tenant,
        session,
        request,
        idempotency,
        ..
    }
    | Command::Update {
        tenant,
        session,
        request,
        idempotency,
        ..
    }
    | Command::Delete {
        tenant,
        session,
        request,
        idempotency,
        ..
    }) = command
    else {
        unreachable!("only writes are sent here");
    };
    let target = Target {
        tenant: *tenant,
        session: *session,
        request: *request,
        idempotency: idempotency.as_ref(),
        now,
    };
    let record = Record::load(state, *tenant, *session)?;
    if let Some(outcome) = already(state, &target, record.as_ref())? {
        return Ok(outcome);
    }
    match (command, record) {
        (Command::Create { key, content, .. }, None) => {
            create(state, &target, (key, content), events)
        }
        (Command::Create { .. }, Some(_)) => Ok(Outcome::Rejected(Rejection::Exists)),
        (
            Command::Update {
                expected,
                after,
                content,
                ..
            },
            Some(Record::Live(live)),
        ) => {
            if live.version == *expected && follows(&live, *after) {
                update(state, &target, live, content, events)
            } else {
                Ok(mismatch(&live))
            }
        }
        (Command::Delete { expected, .. }, Some(Record::Live(live))) => {
            if expected.is_none_or(|expected| live.version == expected) {
                delete(state, &target, live, events)
            } else {
                Ok(mismatch(&live))
            }
        }
        (_, None | Some(Record::Tombstone(_))) => Ok(Outcome::Rejected(Rejection::NotFound)),
        (Command::PutChunk { .. } | Command::Sweep, Some(_)) => {
            unreachable!("only writes are sent here")
        }
    }
}

const fn mismatch(live: &Live) -> Outcome {
    Outcome::Rejected(Rejection::VersionMismatch {
        current: live.version,
    })
}

/// Whether the session's version is the one that this request made, if there is one.
fn follows(live: &Live, after: Option<RequestId>) -> bool {
    let last = live.remembered.last().map(|last| last.id);
    after.is_none() || after == last
}

/// What is decided about a request before its session is looked at: the outcome of an earlier try or of an earlier
/// request with the same idempotency key, or a refusal of the key, or that it is too late at the log time `now`. A
/// leader asks this before it refuses a request for another reason. The record is the session's, of the same state.
/// `None` when nothing is decided yet.
///
/// # Errors
/// When the state cannot be read.
pub fn decided(
    state: &impl StateRead,
    (tenant, session, record): (TenantId, SessionId, Option<&Record>),
    request: RequestTag,
    idempotency: Option<&IdempotencyTag>,
    now: UnixMillis,
) -> Result<Option<Outcome>, StateError> {
    let target = Target {
        tenant,
        session,
        request,
        idempotency,
        now,
    };
    already(state, &target, record)
}

fn already(
    state: &impl StateRead,
    target: &Target<'_>,
    record: Option<&Record>,
) -> Result<Option<Outcome>, StateError> {
    let remembered = record.map(Record::remembered);
    if let Some(old) = remembered.and_then(|list| list.find(target.request.id)) {
        return Ok(Some(old.ending.replay(target.session)));
    }
    if let Some(tag) = target.idempotency {
        let place = (target.tenant, target.session.slot());
        if let Some(outcome) = idempotency::check(state, place, tag, target.now)? {
            return Ok(Some(outcome));
        }
    }
    Ok((target.now > target.request.not_after).then_some(Outcome::Rejected(Rejection::Late)))
}

fn create(
    state: &mut impl StateWrite,
    target: &Target<'_>,
    (key, content): (&Blob, &Content),
    events: &mut Vec<Event>,
) -> Result<Outcome, StateError> {
    let missing = chunk::missing(state, target.tenant, content.body.chunks())?;
    if !missing.is_empty() {
        return Ok(Outcome::Rejected(Rejection::ChunksMissing(missing)));
    }
    state.put(Key::Secret(target.tenant, target.session), key.0.clone());
    let live = Live {
        home: target.session.birth(),
        version: Version::FIRST,
        created: target.now,
        updated: target.now,
        expires: None,
        summary: content.summary.clone(),
        plain_bytes: content.plain_bytes,
        chunks: 0,
        remembered: Requests::default(),
    };
    let count = counter(state, &Key::SessionCount(target.tenant))?;
    set_counter(
        state,
        Key::SessionCount(target.tenant),
        count.saturating_add(1),
    );
    store(state, target, live, content, events)
}

fn update(
    state: &mut impl StateWrite,
    target: &Target<'_>,
    mut live: Live,
    content: &Content,
    events: &mut Vec<Event>,
) -> Result<Outcome, StateError> {
    let missing = chunk::missing(state, target.tenant, content.body.chunks())?;
    if !missing.is_empty() {
        return Ok(Outcome::Rejected(Rejection::ChunksMissing(missing)));
    }
    if live.remembered.is_full(target.now) {
        return Ok(Outcome::Rejected(Rejection::TooManyRequests));
    }
    live.version = live.version.next();
    let old = chunks(state, (target.tenant, target.session), &live)?;
    // New references first: a chunk that both bodies share must not be removed in between.
    let outcome = store(state, target, live, content, events)?;
    chunk::release(state, &old)?;
    Ok(outcome)
}

/// Writes record, body and due times of a session that has `live.version` from now on.
fn store(
    state: &mut impl StateWrite,
    target: &Target<'_>,
    mut live: Live,
    content: &Content,
    events: &mut Vec<Event>,
) -> Result<Outcome, StateError> {
    let Target {
        tenant,
        session,
        now,
        ..
    } = *target;
    let version = live.version;
    chunk::refer(state, content.body.chunks())?;
    clear_due(state, tenant, session, live.expires);
    live.updated = now;
    live.expires = content.expires;
    live.summary = content.summary.clone();
    live.plain_bytes = content.plain_bytes;
    live.chunks = u32::try_from(content.body.chunks().len()).unwrap_or(u32::MAX);
    if let Some(expires) = live.expires {
        state.put(
            Key::Due(expires, Due::Expire(tenant, session)),
            Bytes::new(),
        );
        state.put(
            Key::Due(expires.plus(PURGE_AFTER), Due::Purge(tenant, session)),
            Bytes::new(),
        );
    }
    let ending = Ending::Written(version);
    live.remembered.remember(&target.remembered(ending), now);
    if let Some(tag) = target.idempotency {
        idempotency::keep(state, tenant, (session, ending), tag, now)?;
    }
    let body = codec::encode_about(&content.body, content.weight().saturating_add(64));
    state.put(Key::Body(tenant, session), body);
    let record = Record::Live(live);
    state.put(Key::Session(tenant, session), record.encode());
    if let Record::Live(live) = record {
        let kind = EventKind::Updated(Box::new(live), content.body.clone());
        events.push(Event {
            tenant,
            session,
            version,
            kind,
        });
    }
    Ok(Outcome::Written {
        session,
        version,
        replayed: false,
    })
}

fn delete(
    state: &mut impl StateWrite,
    target: &Target<'_>,
    mut live: Live,
    events: &mut Vec<Event>,
) -> Result<Outcome, StateError> {
    if live.remembered.is_full(target.now) {
        return Ok(Outcome::Rejected(Rejection::TooManyRequests));
    }
    let remembered = target.remembered(Ending::Deleted);
    live.remembered.remember(&remembered, target.now);
    let (tenant, session) = (target.tenant, target.session);
    if let Some(tag) = target.idempotency {
        idempotency::keep(state, tenant, (session, Ending::Deleted), tag, target.now)?;
    }
    bury(state, (tenant, session), live, target.now, events)?;
    Ok(Outcome::Deleted {
        session,
        replayed: false,
    })
}

/// Puts a tombstone where a session was.
pub(super) fn bury(
    state: &mut impl StateWrite,
    (tenant, session): (TenantId, SessionId),
    live: Live,
    now: UnixMillis,
    events: &mut Vec<Event>,
) -> Result<(), StateError> {
    let chunks = chunks(state, (tenant, session), &live)?;
    chunk::release(state, &chunks)?;
    clear_due(state, tenant, session, live.expires);
    state.delete(Key::Body(tenant, session));
    state.delete(Key::Secret(tenant, session));
    let version = live.version.next();
    let tombstone = Tombstone {
        version,
        deleted: now,
        remembered: live.remembered,
    };
    state.put(
        Key::Session(tenant, session),
        Record::Tombstone(tombstone).encode(),
    );
    let end = now.plus(TOMBSTONE_TTL);
    state.put(Key::Due(end, Due::Tombstone(tenant, session)), Bytes::new());
    let count = counter(state, &Key::SessionCount(tenant))?;
    set_counter(state, Key::SessionCount(tenant), count.saturating_sub(1));
    events.push(Event {
        tenant,
        session,
        version,
        kind: EventKind::Deleted,
    });
    Ok(())
}

fn clear_due(
    state: &mut impl StateWrite,
    tenant: TenantId,
    session: SessionId,
    expires: Option<UnixMillis>,
) {
    if let Some(expires) = expires {
        state.delete(Key::Due(expires, Due::Expire(tenant, session)));
        state.delete(Key::Due(
            expires.plus(PURGE_AFTER),
            Due::Purge(tenant, session),
        ));
    }
}

/// The chunks of a session's body. A body without any is not read.
fn chunks(
    state: &impl StateRead,
    (tenant, session): (TenantId, SessionId),
    live: &Live,
) -> Result<Vec<ChunkId>, StateError> {
    if live.chunks == 0 {
        return Ok(Vec::new());
    }
    let bytes = state.get(&Key::Body(tenant, session))?;
    let body = bytes.map(|bytes| codec::decode(&bytes)).transpose()?;
    Ok(match body {
        Some(Body::Chunked { chunks, .. }) => chunks,
        Some(Body::Inline(_)) | None => Vec::new(),
    })
}
