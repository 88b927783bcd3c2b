//! Housekeeping, once a second: sweeps, snapshots, purges, flushes, and the map.

use std::sync::Arc;
use std::time::Duration;

use model::id::GroupId;
use openraft::async_runtime::watch::WatchReceiver;
use storage::state::FlushPolicy;

use super::inner::{Inner, Opened};
use super::{groups, repair};
use crate::blocking::blocking;
use crate::error::Fatal;
use crate::life::Map;
use crate::metrics::{self, LogMetrics};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// Entries before a snapshot that stay for a follower that is a little behind; none in a group that keeps a segment of all
/// groups from being used again, for a group with few entries would keep it for ever.
const KEPT: u64 = 64;
/// Rounds in a row in which a state could not be flushed, after which the node ends.
const FLUSH_TRIES: u32 = 3;

/// Sweeps the shards that this node leads.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    while inner.pause(EVERY).await {
        for shard in inner.shards_opened() {
            shard.sweep().await;
        }
    }
}

/// Bounds the log and what a restart must replay.
pub(crate) async fn bound(inner: Arc<Inner>) {
    let figures = LogMetrics::new();
    let mut failures = 0;
    while inner.pause(EVERY).await {
        let seen = inner
            .log
            .lock()
            .as_ref()
            .map(|log| (log.stats(), log.failure()));
        let Some((stats, failure)) = seen else { return };
        if let Some(error) = failure {
            // Groups that write nothing would not notice.
            let reason = error.to_string();
            inner.fail(Fatal::Log { reason });
        }
        inner.space.look(&inner.folder);
        figures.set(&stats, inner.space.is_short());
        metrics::show_state(&inner.state.stats());
        tracing::trace!(?stats, "the log");
        // Old entries of a quiet group keep a segment: only worth a snapshot when many are in use.
        let crowded = stats.segments.saturating_mul(2) > inner.tuning.log.max_segments;
        // A damaged one as well: what is in snapshots is not needed from it.
        let gives_up = inner.scrub.gives_up(stats.oldest_generation);
        let pinning = if crowded || stats.no_room || gives_up {
            stats.oldest_groups
        } else {
            Vec::new()
        };
        for opened in inner.all_opened() {
            metrics::show(&opened.replica);
            let raw = opened.replica.parts.group.to_raw();
            let large = opened.replica.parts.log.bytes() > inner.tuning.log_bytes;
            let pins = pinning.contains(&raw);
            if large || pins {
                shorten(&opened, if pins { 0 } else { KEPT }).await;
            }
        }
        repair::look(&inner);
        match flush(&inner).await {
            None => failures = 0,
            Some(fatal) => {
                failures += 1;
                if failures >= FLUSH_TRIES {
                    inner.fail(fatal);
                }
            }
        }
    }
}

/// Keeps within bounds what a restart must apply again. A state that the disk does not take ends the node, as a log does, but
/// not at once: nothing was promised, and all of it is written again. A damaged one is rebuilt; a full disk passes.
async fn flush(inner: &Arc<Inner>) -> Option<Fatal> {
    let tablets: Vec<_> = inner
        .all_opened()
        .iter()
        .map(|opened| opened.replica.parts.store.current())
        .collect();
    let limit_bytes = inner.tuning.replay_bytes;
    let work = blocking(move || FlushPolicy { limit_bytes }.run(&tablets));
    let (raw, error) = match work.await {
        Ok(Ok(_flushed)) => return None,
        Ok(Err(failed)) => failed,
        Err(error) => {
            tracing::error!(%error, "flushing failed");
            return None;
        }
    };
    let group = GroupId::from_raw(raw)?;
    tracing::error!(%group, %error, "state cannot be flushed");
    let goes_on = error.is_disk_full() || inner.opened(group).is_none();
    let reason = error.to_string();
    if goes_on || error.is_damage() && repair::begin(inner, group, &reason, None) {
        return None;
    }
    Some(Fatal::Group { group, reason })
}

/// Takes a snapshot of all that is applied, and purges the log up to `kept` entries before the last one.
pub(crate) async fn shorten(opened: &Opened, kept: u64) {
    let raft = &opened.replica.parts.raft;
    let (snapshot, applied) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index);
        (index(metrics.snapshot), index(metrics.last_applied))
    };
    let group = opened.replica.parts.group;
    if applied > snapshot && raft.trigger().snapshot().await.is_err() {
        tracing::debug!(%group, "the group stops: no snapshot");
    }
    let upto = snapshot.saturating_sub(kept);
    if upto > 0 && raft.trigger().purge_log(upto).await.is_err() {
        tracing::debug!(%group, "the group stops: no purge");
    }
}

/// Follows the meta group: keeps the map, the addresses and the groups of this node as it says.
pub(crate) async fn follow_map(inner: Arc<Inner>) {
    loop {
        // It may be closed for a while, to be rebuilt.
        let Some(meta) = inner.meta() else {
            if !inner.pause(EVERY).await {
                return;
            }
            continue;
        };
        let mut states = meta.state();
        drop(meta);
        let state = Arc::clone(&states.borrow_and_update());
        if state.is_bootstrapped() && *state != *inner.map() {
            inner.map.send_replace(Arc::clone(&state));
            if state.removed.contains(&inner.me) {
                inner.fail(Fatal::Removed);
                return;
            }
            save(&inner).await;
            inner.set_addresses().await;
        }
        for group in groups::wanted(&inner) {
            if let Err(error) = groups::open(&inner, group).await {
                let reason = error.to_string();
                inner.fail(Fatal::Group { group, reason });
            }
        }
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() && !inner.pause(EVERY).await { return },
            // What is open may change without the map.
            () = tokio::time::sleep(EVERY * 5) => {}
        }
    }
}

async fn save(inner: &Arc<Inner>) {
    let (memory, node) = (Arc::clone(&inner.memory), inner.me);
    let meta = (*inner.map()).clone();
    match blocking(move || memory.save_map(&Map { node, meta })).await {
        Ok(Err(error)) => tracing::error!(%error, "the map cannot be saved"),
        Err(error) => tracing::error!(%error, "saving the map failed"),
        Ok(Ok(())) => {}
    }
}
