//! What a seed decides before a run begins: how large the cluster is, how fast it is, and which faults are likely.
//!
//! Everything is drawn here, once, from the seed; what happens later draws from generators that begin here. A run may be of a
//! [`Style`] in which a few kinds of faults come often: a rare combination needs many of its parts close together.

use std::ops::RangeInclusive;
use std::time::Duration;

use raft::host::Tuning;
use raft::timing::Pace;
use raft::transport::testing::Link;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use storage::log::LogConfig;

/// Which faults come often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Style {
    /// All of them.
    Mixed,
    /// Processes and machines die and return.
    Crashes,
    /// Links are cut, slow and lossy.
    Links,
    /// Disks fail, fill, rot, lie still, or come back old.
    Disks,
    /// Wall clocks jump.
    Clocks,
    /// Logs are purged, followers need snapshots, replicas are rebuilt.
    Snapshots,
    /// A leader is alone while its followers forget their promises.
    Gate,
}

impl Style {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Mixed,
        Self::Crashes,
        Self::Links,
        Self::Disks,
        Self::Clocks,
        Self::Snapshots,
        Self::Gate,
    ];
}

/// A run, as its seed wants it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Which faults come often.
    pub style: Style,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// Shards of its region.
    pub shards: u16,
    /// How long faults come.
    pub faults: Duration,
    /// Between two faults, in milliseconds.
    pub fault_gap: RangeInclusive<u64>,
    /// How links behave when they are well.
    pub link: Link,
    /// How long a sync takes on a disk that is well, in milliseconds.
    pub sync: RangeInclusive<u64>,
    /// Clients.
    pub clients: u64,
    /// Sessions that they share.
    pub sessions: usize,
    /// Between two operations of a client, in milliseconds.
    pub think: RangeInclusive<u64>,
    /// How likely a client takes a session that will expire, in percent.
    pub expiring: u32,
    /// What the hosts are started with.
    pub tuning: Tuning,
}

impl Plan {
    /// What the seed decides.
    ///
    /// # Panics
    /// Never: every list that is drawn from has something in it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed ^ 0x5EED);
        let style = *Style::ALL.choose(&mut dice).expect("there are styles");
        let five = style != Style::Gate && dice.random_ratio(1, 12);
        let slowest = *[0, 1, 1, 2, 5].choose(&mut dice).expect("not empty");
        let sync = *[0..=0, 0..=2, 1..=4, 2..=12]
            .choose(&mut dice)
            .as_ref()
            .expect("not empty");
        Self {
            seed,
            style,
            nodes: if five { 5 } else { 3 },
            shards: if dice.random_ratio(1, 3) { 1 } else { 2 },
            faults: Duration::from_millis(dice.random_range(6_000..=14_000)),
            fault_gap: if dice.random_ratio(1, 2) {
                30..=700
            } else {
                200..=2_500
            },
            link: Link {
                delay: Duration::ZERO..=Duration::from_millis(slowest),
                loss: 0.0,
            },
            sync: sync.clone(),
            clients: dice.random_range(3..=5),
            sessions: dice.random_range(3..=6),
            think: 0..=*[20, 60, 200].choose(&mut dice).expect("not empty"),
            expiring: if style == Style::Clocks { 60 } else { 15 },
            tuning: tuning(style, &mut dice),
        }
    }
}

fn tuning(style: Style, dice: &mut StdRng) -> Tuning {
    let shard_pace = match style {
        // A long lease and a short patience: what a restarted node forgets matters for longer.
        Style::Gate => Pace {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(110),
            election_max: Duration::from_millis(600),
        },
        _ => Pace::SHARD,
    };
    let small = style == Style::Snapshots || dice.random_ratio(1, 3);
    let segment_bytes = *[64 << 10, 128 << 10, 256 << 10]
        .choose(dice)
        .expect("not empty");
    let log = LogConfig {
        segment_bytes,
        spare_segments: 1,
        max_segments: 16,
        batch_bytes: 64 << 10,
        tail_bytes_per_group: if dice.random_ratio(1, 2) {
            2 << 10
        } else {
            1 << 20
        },
        tail_bytes: 2 << 20,
        ..LogConfig::default()
    };
    Tuning {
        shard_pace,
        meta_pace: Pace::META,
        log_bytes: if small { 6 << 10 } else { 256 << 10 },
        log,
        replay_bytes: if dice.random_ratio(1, 2) {
            4 << 10
        } else {
            1 << 20
        },
        ..Tuning::default()
    }
}

/// A generator for one purpose of a run.
#[must_use]
pub(super) fn dice(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(purpose),
    )
}
