//! The consensus engine's knobs, and why they have their values.
//!
//! A follower campaigns after the lease (`election_max`) and a random part between `election_min` and `election_max`; so
//! the worst failover is about twice `election_max` and a few round trips and syncs. The heartbeat must exceed a round trip and a
//! follower's sync. Pre-vote is on: a node that stalled does not depose a leader. A restarted leader does not lead again
//! without an election. A follower that lost its log is never taken back under the same id.

use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

/// How fast a group notices that its leader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Least part that is random in a follower's patience.
    pub election_min: Duration,
    /// The most, and the leader's lease.
    pub election_max: Duration,
}

impl Pace {
    /// Shards within a region: a failover takes about 450 to 600 ms. Each heartbeat and tick costs CPU while nothing
    /// happens (`host/pulse.rs` sends the one and saves most of the other); 40, 100, 180 fails over faster and costs more.
    pub const SHARD: Self = Self {
        heartbeat: Duration::from_millis(75),
        election_min: Duration::from_millis(150),
        election_max: Duration::from_millis(270),
    };
    /// The meta group within one region: off the data path, so cheaper.
    pub const META: Self = Self {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(500),
    };

    /// For how long a leader may count on the promise of its followers.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.election_max
    }
}

/// openraft's configuration of a group.
pub(crate) fn config(name: String, pace: &Pace, may_elect: bool) -> Result<Config, ConfigError> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: name,
        heartbeat_interval: millis(pace.heartbeat),
        election_timeout_min: millis(pace.election_min),
        election_timeout_max: millis(pace.election_max),
        // Only passed on to us, as the limit of a snapshot's transfer, which watches its own progress.
        install_snapshot_timeout: 30_000,
        // The reader of the log bounds the bytes.
        max_payload_entries: 64,
        max_append_entries: Some(256),
        // The host decides by bytes.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 64,
        purge_batch_size: 64,
        api_channel_size: Some(4096),
        api_batch_capacity: 256,
        state_machine_channel_size: Some(256),
        enable_elect: may_elect,
        // Frees a group from a leader that only a minority hears; at least twice the lease.
        quorum_loss_probe_interval: Some(millis(pace.election_max) * 2 + 40),
        enable_pre_vote: Some(true),
        backoff: "10ms 20ms 40ms 80ms 160ms 200ms".to_owned(),
        allow_log_reversion: None,
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_paces_are_valid() {
        for pace in [Pace::SHARD, Pace::META] {
            let config = config("test".to_owned(), &pace, true).unwrap();
            // `host/pulse.rs`: the beat sees a leader's silence before the lease ends.
            assert!(Pace::SHARD.heartbeat < pace.lease() / 2);
            assert!(config.quorum_loss_probe_interval >= Some(config.election_timeout_max * 2));
        }
    }
}
