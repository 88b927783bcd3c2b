//! The versions of one key in memory, the oldest first, each with the number of its commit.
//!
//! Which ones are still shown to somebody is known to the caller; this only looks and drops.

use bytes::Bytes;

/// A key's values; `None` where it was deleted.
pub(crate) type Versions = Vec<(u64, Option<Bytes>)>;

/// What a key held at a moment.
pub(crate) fn at(versions: &Versions, moment: u64) -> Option<&Bytes> {
    let shown = versions.iter().rev().find(|(commit, _)| *commit <= moment);
    shown.and_then(|(_, value)| value.as_ref())
}

/// Drops versions that nobody sees; says whether any is left.
pub(crate) fn prune(versions: &mut Versions, horizon: u64) -> bool {
    let hidden = versions
        .iter()
        .rposition(|(commit, _)| *commit <= horizon)
        .unwrap_or(0);
    versions.drain(..hidden);
    !matches!(versions.as_slice(), [] | [(_, None)])
        || versions
            .first()
            .is_some_and(|(commit, _)| *commit > horizon)
}
