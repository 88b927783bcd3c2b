//! `Sweep`: what is due at this log time, oldest first, at most [`MAX_SWEEP`] items.
//!
//! The due list only says when to look; the item's own record decides. Nothing is destroyed less than
//! [`PURGE_AFTER`] of log time after it expired, so no clock error below a day loses a session.

use crate::id::{SessionId, TenantId};
use crate::limits::{MAX_SWEEP, PURGE_AFTER, TOMBSTONE_TTL};
use crate::shard::record::Record;
use crate::shard::{Event, EventKind, Outcome, chunk, idempotency, write};
use crate::state::{Due, Key, StateError, StateWrite};
use crate::time::UnixMillis;

/// The smallest due key.
const FIRST: Key = Key::Due(
    UnixMillis(0),
    Due::Expire(TenantId(0), SessionId::from_bytes([0; 16])),
);

pub(super) fn apply(
    state: &mut impl StateWrite,
    now: UnixMillis,
    events: &mut Vec<Event>,
) -> Result<Outcome, StateError> {
    let mut swept: u32 = 0;
    for (key, _) in state.scan(&FIRST, MAX_SWEEP)? {
        let Key::Due(at, due) = key else { break };
        if at > now {
            break;
        }
        state.delete(key);
        swept = swept.saturating_add(1);
        match due {
            Due::Expire(tenant, session) => expire(state, (tenant, session), now, events)?,
            Due::Purge(tenant, session) => purge(state, (tenant, session), now, events)?,
            Due::Tombstone(tenant, session) => forget(state, tenant, session, now)?,
            Due::Idempotency(tenant, slot, hash) => {
                idempotency::forget(state, (tenant, slot), hash, now)?;
            }
            Due::Chunk(id) => chunk::forget(state, id)?,
        }
    }
    Ok(Outcome::Done { swept })
}

/// When the first item is due, if there is one. The leader proposes no sweep before.
///
/// # Errors
/// When the state cannot be read.
pub fn next_due(state: &impl crate::state::StateRead) -> Result<Option<UnixMillis>, StateError> {
    Ok(match state.scan(&FIRST, 1)?.first() {
        Some((Key::Due(at, _), _)) => Some(*at),
        _ => None,
    })
}

fn expire(
    state: &mut impl StateWrite,
    (tenant, session): (TenantId, SessionId),
    now: UnixMillis,
    events: &mut Vec<Event>,
) -> Result<(), StateError> {
    if let Some(Record::Live(live)) = Record::load(state, tenant, session)?
        && live.expires.is_some_and(|expires| expires <= now)
    {
        let version = live.version;
        events.push(Event {
            tenant,
            session,
            version,
            kind: EventKind::Expired,
        });
    }
    Ok(())
}

fn purge(
    state: &mut impl StateWrite,
    (tenant, session): (TenantId, SessionId),
    now: UnixMillis,
    events: &mut Vec<Event>,
) -> Result<(), StateError> {
    if let Some(Record::Live(live)) = Record::load(state, tenant, session)?
        && live
            .expires
            .is_some_and(|expires| expires.plus(PURGE_AFTER) <= now)
    {
        write::bury(state, (tenant, session), live, now, events)?;
    }
    Ok(())
}

fn forget(
    state: &mut impl StateWrite,
    tenant: TenantId,
    session: SessionId,
    now: UnixMillis,
) -> Result<(), StateError> {
    if let Some(Record::Tombstone(tombstone)) = Record::load(state, tenant, session)?
        && tombstone.deleted.plus(TOMBSTONE_TTL) <= now
    {
        state.delete(Key::Session(tenant, session));
    }
    Ok(())
}
