//! What an `Idempotency-Key` remembers: which request used it, and how that ended, for 24 hours of log time.
//!
//! A key belongs to a tenant and a slot. The same key with another request is refused; too many live keys in one
//! slot are refused, so that memory is bounded.

use bincode::{Decode, Encode};

use crate::codec;
use crate::id::{SessionId, Slot, TenantId};
use crate::limits::{IDEMPOTENCY_TTL, MAX_IDEMPOTENCY_KEYS};
use crate::shard::record::Ending;
use crate::shard::{Outcome, Rejection, counter, set_counter};
use crate::state::{Due, Key, StateError, StateRead, StateWrite};
use crate::time::UnixMillis;

/// A client's idempotency key, as it enters the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IdempotencyTag {
    /// Hash of tenant and key.
    pub key: [u8; 32],
    /// Hash of what was asked: method, target and body.
    pub fingerprint: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Kept {
    fingerprint: [u8; 32],
    session: SessionId,
    ending: Ending,
    until: UnixMillis,
}

/// What the key already decides: an earlier outcome, or a refusal. `None` when the key is free.
pub(super) fn check(
    state: &impl StateRead,
    (tenant, slot): (TenantId, Slot),
    tag: &IdempotencyTag,
    now: UnixMillis,
) -> Result<Option<Outcome>, StateError> {
    let kept: Option<Kept> = state
        .get(&Key::Idempotency(tenant, slot, tag.key))?
        .map(|bytes| codec::decode(&bytes))
        .transpose()?;
    if let Some(kept) = kept.filter(|kept| kept.until > now) {
        return Ok(Some(if kept.fingerprint == tag.fingerprint {
            kept.ending.replay(kept.session)
        } else {
            Outcome::Rejected(Rejection::KeyReused)
        }));
    }
    let live = counter(state, &Key::IdempotencyCount(tenant, slot))?;
    Ok((live >= MAX_IDEMPOTENCY_KEYS).then_some(Outcome::Rejected(Rejection::TooManyKeys)))
}

/// Remembers how the key's request ended.
pub(super) fn keep(
    state: &mut impl StateWrite,
    tenant: TenantId,
    (session, ending): (SessionId, Ending),
    tag: &IdempotencyTag,
    now: UnixMillis,
) -> Result<(), StateError> {
    let slot = session.slot();
    let until = now.plus(IDEMPOTENCY_TTL);
    let key = Key::Idempotency(tenant, slot, tag.key);
    if state.get(&key)?.is_none() {
        let count = counter(state, &Key::IdempotencyCount(tenant, slot))?;
        set_counter(
            state,
            Key::IdempotencyCount(tenant, slot),
            count.saturating_add(1),
        );
    }
    let kept = Kept {
        fingerprint: tag.fingerprint,
        session,
        ending,
        until,
    };
    state.put(key, codec::encode(&kept));
    state.put(
        Key::Due(until, Due::Idempotency(tenant, slot, tag.key)),
        bytes::Bytes::new(),
    );
    Ok(())
}

/// Forgets the key if its time is over; a key that was used again since stays.
pub(super) fn forget(
    state: &mut impl StateWrite,
    (tenant, slot): (TenantId, Slot),
    hash: [u8; 32],
    now: UnixMillis,
) -> Result<(), StateError> {
    let key = Key::Idempotency(tenant, slot, hash);
    let kept: Option<Kept> = state
        .get(&key)?
        .map(|bytes| codec::decode(&bytes))
        .transpose()?;
    if kept.is_some_and(|kept| kept.until <= now) {
        state.delete(key);
        let count = counter(state, &Key::IdempotencyCount(tenant, slot))?;
        set_counter(
            state,
            Key::IdempotencyCount(tenant, slot),
            count.saturating_sub(1),
        );
    }
    Ok(())
}
