//! What a soak does to a cluster, drawn from a seed: waves of one to three overlapping faults, every 20 to 60 seconds.
//!
//! Guarantees: the same seed gives the same plan; within a wave no two faults need the same thing of the same node; what makes a
//! node unable to answer is drawn for a minority only, except for the one fault that takes the power of all of them; every
//! fault ends before its wave does, and each wave leaves a rest in which the cluster must serve again.
//!
//! It only plans: `faults` carries out, and the binary `soak` joins the two.

use std::fmt;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and a start when the fault ends.
    Kill,
    /// SIGTERM, and a start when the fault ends.
    Restart,
    /// SIGSTOP, and SIGCONT when the fault ends.
    Pause,
    /// The power of one node is cut: what it had not synced is gone.
    PowerCut,
    /// The power of all nodes is cut at once.
    PowerCutOfAll,
    /// No packet leaves or reaches the node.
    Cut,
    /// The node hears nothing.
    Deaf,
    /// Nobody hears the node.
    Mute,
    /// The links of the node lose, double, delay and reorder packets.
    Lossy,
    /// The node's syncs take long.
    SlowSync,
    /// The node's syncs fail: it ends, and is started when the fault ends.
    FailedSync,
    /// The node's syncs lie, and when the fault ends its power is cut: its disk has less than it promised, and it is made anew.
    Forgets,
    /// The node's disk takes few writes a second.
    SlowDisk,
    /// The node gets a tenth of a processor.
    LittleCpu,
    /// The node's disk has no room.
    DiskFull,
    /// The node's wall clock is an hour ahead.
    ClockAhead,
    /// The node's wall clock is two hours behind.
    ClockBehind,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::Restart,
        Self::Pause,
        Self::PowerCut,
        Self::PowerCutOfAll,
        Self::Cut,
        Self::Deaf,
        Self::Mute,
        Self::Lossy,
        Self::SlowSync,
        Self::FailedSync,
        Self::Forgets,
        Self::SlowDisk,
        Self::LittleCpu,
        Self::DiskFull,
        Self::ClockAhead,
        Self::ClockBehind,
    ];

    /// Whether the node may be unable to answer meanwhile.
    #[must_use]
    pub const fn silences(self) -> bool {
        !matches!(self, Self::Lossy | Self::ClockAhead | Self::ClockBehind)
    }

    /// Whether the fault needs the node's process for itself.
    #[must_use]
    pub const fn owns_process(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Restart
                | Self::Pause
                | Self::PowerCut
                | Self::PowerCutOfAll
                | Self::SlowSync
                | Self::FailedSync
                | Self::Forgets
        )
    }

    /// Whether the process is not there meanwhile.
    #[must_use]
    pub const fn ends_process(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Restart
                | Self::PowerCut
                | Self::PowerCutOfAll
                | Self::FailedSync
                | Self::Forgets
        )
    }

    /// Whether the fault is one of the node's clock.
    #[must_use]
    pub const fn is_of_clock(self) -> bool {
        matches!(self, Self::ClockAhead | Self::ClockBehind)
    }

    /// Whether the fault is one of the node's links.
    #[must_use]
    pub const fn is_of_links(self) -> bool {
        matches!(self, Self::Cut | Self::Deaf | Self::Mute | Self::Lossy)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::PowerCut => "power cut",
            Self::PowerCutOfAll => "power cut of all",
            Self::Cut => "cut",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::Lossy => "lossy links",
            Self::SlowSync => "slow sync",
            Self::FailedSync => "failed sync",
            Self::Forgets => "forgets",
            Self::SlowDisk => "slow disk",
            Self::LittleCpu => "little cpu",
            Self::DiskFull => "disk full",
            Self::ClockAhead => "clock ahead",
            Self::ClockBehind => "clock behind",
        })
    }
}

/// One fault of a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub kind: Kind,
    /// Which node, by position; 0 where it is all of them.
    pub victim: usize,
    /// When, from the beginning of the wave.
    pub from: Duration,
    /// When it ends, from the beginning of the wave.
    pub to: Duration,
}

/// A wave: faults that overlap, and a rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Its number, from 0.
    pub number: u64,
    /// The seed of its load and of its faults' own chances.
    pub seed: u64,
    /// In order of their beginning.
    pub steps: Vec<Step>,
    /// How long the wave takes, rest included.
    pub length: Duration,
}

/// Shortest and longest wave, in seconds.
const WAVE_SECONDS: std::ops::RangeInclusive<u64> = 20..=60;
/// Load without a fault at the beginning of a wave: what faults are compared with.
const CALM: Duration = Duration::from_secs(3);
/// Part of a wave that is left after its last fault.
const REST: Duration = Duration::from_secs(6);
/// Most faults in one wave.
const MOST: usize = 3;

impl Wave {
    /// Whether no other fault is of this one's node.
    #[must_use]
    pub fn is_alone(&self, step: &Step) -> bool {
        let same = |other: &&Step| other.victim == step.victim || other.kind == Kind::PowerCutOfAll;
        self.steps.iter().filter(same).count() == 1
    }

    /// Whether it has a fault of this kind.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.steps.iter().any(|step| step.kind == kind)
    }

    /// The wave `number` of a soak of `nodes` nodes. It depends on nothing else, so that it can be repeated alone.
    ///
    /// # Panics
    /// With fewer than three nodes: then there is no minority.
    #[must_use]
    pub fn draw(seed: u64, number: u64, nodes: usize) -> Self {
        assert!(nodes >= 3, "a minority needs three nodes");
        let seed = mix(seed, number);
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let length = Duration::from_secs(dice.random_range(WAVE_SECONDS));
        let end = length.saturating_sub(REST);
        let wanted = dice.random_range(1..=MOST);
        let mut steps: Vec<Step> = Vec::new();
        // A draw that does not go with what is drawn already is drawn again, a bounded number of times.
        for _ in 0..wanted * 20 {
            if steps.len() == wanted {
                break;
            }
            let step = draw_step(&mut dice, nodes, end);
            if fits(&steps, step, nodes) {
                steps.push(step);
            }
        }
        steps.sort_by_key(|step| step.from);
        Self {
            number,
            seed,
            steps,
            length,
        }
    }
}

fn draw_step(dice: &mut ChaCha8Rng, nodes: usize, end: Duration) -> Step {
    let kind = *Kind::ALL.choose(dice).expect("there are kinds");
    let victim = match kind {
        Kind::PowerCutOfAll => 0,
        _ => dice.random_range(0..nodes),
    };
    let last = end.saturating_sub(Duration::from_secs(3)).max(CALM);
    let from = between(dice, CALM, last.min(CALM + Duration::from_secs(5)));
    let to = between(
        dice,
        from + Duration::from_secs(2),
        end.max(from + Duration::from_secs(3)),
    );
    Step {
        kind,
        victim,
        from,
        to,
    }
}

fn between(dice: &mut ChaCha8Rng, from: Duration, to: Duration) -> Duration {
    let (from, to) = (from.as_millis(), to.as_millis());
    let millis = dice.random_range(from..=to.max(from));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Whether a step can be added to a wave.
fn fits(steps: &[Step], step: Step, nodes: usize) -> bool {
    let everyone = |step: &Step| step.kind == Kind::PowerCutOfAll;
    // The power of all takes every process: nothing that owns one, and no full disk, goes with it.
    let owns = |step: &Step| step.kind.owns_process() || step.kind == Kind::DiskFull;
    if everyone(&step) && steps.iter().any(owns) || steps.iter().any(everyone) && owns(&step) {
        return false;
    }
    // A process that is not there has no clock to be wrong, and cannot be held back.
    let ends = |one: &Step, other: &Step| {
        matches!(
            one.kind,
            Kind::ClockAhead | Kind::ClockBehind | Kind::LittleCpu | Kind::SlowDisk
        ) && other.kind.ends_process()
            && (one.victim == other.victim || everyone(other))
    };
    if steps
        .iter()
        .any(|other| ends(&step, other) || ends(other, &step))
    {
        return false;
    }
    // Two wrong clocks of three could agree.
    if step.kind.is_of_clock() && steps.iter().any(|other| other.kind.is_of_clock()) {
        return false;
    }
    let needs_room =
        |one: &Step, other: &Step| one.kind == Kind::Forgets && other.kind == Kind::DiskFull;
    let clash = |other: &Step| {
        other.victim == step.victim
            && (other.kind == step.kind
                || other.kind.owns_process() && step.kind.owns_process()
                || other.kind.is_of_links() && step.kind.is_of_links()
                || needs_room(&step, other)
                || needs_room(other, &step))
    };
    if steps.iter().any(clash) {
        return false;
    }
    let mut silent: Vec<usize> = steps
        .iter()
        .chain([&step])
        .filter(|step| step.kind.silences() && !everyone(step))
        .map(|step| step.victim)
        .collect();
    silent.sort_unstable();
    silent.dedup();
    silent.len() <= (nodes - 1) / 2
}

/// A number for a wave, of a soak's seed (SplitMix64, Steele et al. 2014).
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn waves() -> impl Iterator<Item = Wave> {
        (0..500).map(|number| Wave::draw(7, number, 3))
    }

    #[test]
    fn a_wave_depends_on_seed_and_number_only() {
        assert_eq!(Wave::draw(7, 3, 3), Wave::draw(7, 3, 3));
        assert_ne!(Wave::draw(7, 3, 3), Wave::draw(7, 4, 3));
        assert_ne!(Wave::draw(7, 3, 3), Wave::draw(8, 3, 3));
    }

    #[test]
    fn every_wave_has_one_to_three_faults_that_end_before_it_rests() {
        for wave in waves() {
            assert!((1..=MOST).contains(&wave.steps.len()), "{wave:?}");
            assert!(WAVE_SECONDS.contains(&wave.length.as_secs()), "{wave:?}");
            for step in &wave.steps {
                assert!(step.from >= CALM && step.from < step.to, "{wave:?}");
                assert!(step.to <= wave.length - REST, "{wave:?}");
            }
        }
    }

    #[test]
    fn a_majority_of_nodes_can_answer_unless_the_power_of_all_is_cut() {
        for wave in waves() {
            let silent: BTreeSet<usize> = wave
                .steps
                .iter()
                .filter(|step| step.kind.silences() && step.kind != Kind::PowerCutOfAll)
                .map(|step| step.victim)
                .collect();
            assert!(silent.len() <= 1, "{wave:?}");
        }
    }

    #[test]
    fn no_node_has_two_faults_that_need_the_same_of_it() {
        for wave in waves() {
            let mut owned: BTreeMap<(usize, &str), usize> = BTreeMap::new();
            for step in &wave.steps {
                if step.kind.owns_process() {
                    *owned.entry((step.victim, "process")).or_default() += 1;
                }
                if step.kind.is_of_links() {
                    *owned.entry((step.victim, "links")).or_default() += 1;
                }
            }
            assert!(owned.values().all(|count| *count == 1), "{wave:?}");
        }
    }

    #[test]
    fn a_majority_of_clocks_is_right() {
        for wave in waves() {
            let wrong = wave.steps.iter().filter(|step| step.kind.is_of_clock());
            assert!(wrong.count() <= 1, "{wave:?}");
        }
    }

    #[test]
    fn every_kind_is_drawn_and_waves_overlap() {
        let kinds: BTreeSet<Kind> = waves()
            .flat_map(|wave| wave.steps)
            .map(|step| step.kind)
            .collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
        let several = waves().filter(|wave| wave.steps.len() > 1).count();
        assert!(several > 200, "{several} of 500 waves have several faults");
    }
}
