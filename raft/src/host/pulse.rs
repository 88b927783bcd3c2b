//! One beat for all replicas of a process, in place of a timer in each.
//!
//! openraft wakes every replica five times in a heartbeat to look at its timers; with nothing to do, those looks were most of what
//! an idle node cost. They are needed only where an election may be due. So:
//!
//! - A replica that leads does not tick: the beat sends its heartbeats, those of all groups together, so that they share packets.
//! - A replica that heard its leader within the last half of the lease does not tick either.
//! - Every other one ticks, as at its start: openraft's own timers decide when it campaigns.
//!
//! Invariant: a replica that has not heard a leader for its whole lease ticks. For the beat is shorter than half of the lease
//! (tested in `timing.rs`), so it sees the silence in time; a failover takes no longer than with all timers on.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::MissedTickBehavior;

use super::inner::Inner;
use crate::replica::Replica;

/// Beats for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let beat = inner.tuning.shard_pace.heartbeat;
    let mut beats = tokio::time::interval(beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            _ = beats.tick() => {}
        }
        count = count.wrapping_add(1);
        for opened in inner.all_opened() {
            let replica = &opened.replica;
            let leads = replica.role().leader == Some(inner.me);
            replica
                .parts
                .raft
                .runtime_config()
                .tick(!leads && !replica.hears_leader());
            if leads && count.is_multiple_of(every(replica.parts.pace.heartbeat, beat)) {
                heartbeat(replica);
            }
        }
    }
}

/// In how many beats a heartbeat is due; rounded down, so that none is late.
fn every(heartbeat: Duration, beat: Duration) -> u32 {
    let beats = heartbeat.as_millis() / beat.as_millis().max(1);
    u32::try_from(beats).unwrap_or(u32::MAX).max(1)
}

/// A group too busy to take it now shows by its work that it lives; no other group waits for it.
fn heartbeat(replica: &Replica) {
    if let Some(Err(error)) = replica.parts.raft.trigger().heartbeat().now_or_never() {
        tracing::debug!(group = %replica.parts.group, %error, "the group stops: no heartbeat");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::Pace;

    #[test]
    fn no_heartbeat_is_later_than_its_pace() {
        let beat = Pace::SHARD.heartbeat;
        assert_eq!(every(beat, beat), 1);
        assert_eq!(every(Pace::META.heartbeat, beat), 2);
        assert_eq!(every(beat / 2, beat), 1);
        for pace in [Pace::SHARD, Pace::META] {
            assert!(beat * every(pace.heartbeat, beat) <= pace.heartbeat);
        }
    }
}
