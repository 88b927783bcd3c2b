//! Whether this node is fit to lead: its disk and its processor are as fast as a leader's must be.
//!
//! - **Disk**: the log's writes and syncs take [`SLOW_SYNC`] on average, or [`SLOWER_SYNC`] and [`TIMES`] as long as the peers', or one that is
//!   under way has taken so long already (one that never returns shows only so). The raises of the node's life are counted as well, so that
//!   an idle node knows its disk.
//! - **CPU**: a timer is late for [`LATE`] of the time, or for [`LATER`] and [`TIMES`] as much as the peers': the process does not get the
//!   processor that it needs.
//!
//! Either must hold for [`SUSTAINED`] to make a node sick, and be gone for [`WELL`] to make it well again. A sick node
//! gives up its leaderships and is not given any (`balance.rs`), as long as another one is well: the peers hear of it in the
//! probe. If all are sick nobody gives up anything: it would not help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ::metrics::Gauge;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use storage::log::{LogEngine, LogStats};
use tokio::time::{Instant, sleep_until};

use super::inner::Inner;
use crate::metrics;

/// A write and sync of the log that takes so long on average is slow; half of it is well again.
pub(crate) const SLOW_SYNC: Duration = Duration::from_millis(100);
/// The same where the peers' take less than a [`TIMES`]th of it.
const SLOWER_SYNC: Duration = Duration::from_millis(40);
/// So many times as slow as the peers is slow.
const TIMES: u32 = 4;
/// The part of the time, in percent, by which a timer is late on a processor that is not there; half of it is well again.
const LATE: u32 = 40;
/// The same where the peers' are late for less than a [`TIMES`]th of it.
const LATER: u32 = 20;
/// For how long it must be bad.
const SUSTAINED: Duration = Duration::from_secs(2);
/// For how long it must be good.
const WELL: Duration = Duration::from_secs(10);
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(250);
/// The timer by which the processor is measured, and over how long.
const TICK: Duration = Duration::from_millis(25);
const WINDOW: Duration = Duration::from_secs(1);
/// A timer that is so late, in a process that got next to no processor meanwhile, was not slow: its process stood still, as one
/// that is stopped or a machine that is moved does.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// One part in this many of the time is next to no processor.
const NEXT_TO_NONE: u32 = 50;

/// What a node knows of its own fitness.
#[derive(Debug, Default)]
pub(crate) struct Health {
    disk: AtomicBool,
    cpu: AtomicBool,
    /// How long a write and sync of the log took of late, in microseconds; zero while nothing was written.
    sync_micros: AtomicU64,
    /// For which part of the last second a timer was late, in percent; zero until a second has passed.
    late_percent: AtomicU32,
    /// Only in tests.
    pretended: AtomicBool,
    /// Syncs that were not the log's, since the last look.
    samples: Mutex<(u32, Duration)>,
}

impl Health {
    /// Why this node should not lead; empty when it is well.
    pub(crate) fn reasons(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if self.slow_disk() {
            reasons.push("slow-disk");
        }
        if self.cpu.load(Ordering::Acquire) {
            reasons.push("slow-cpu");
        }
        reasons
    }

    pub(crate) fn is_sick(&self) -> bool {
        self.slow_disk() || self.cpu.load(Ordering::Acquire)
    }

    /// How long a write and sync of the log took of late.
    pub(crate) fn sync(&self) -> Duration {
        Duration::from_micros(self.sync_micros.load(Ordering::Acquire))
    }

    /// For which part of the last second a timer was late, in percent; zero while it does not know.
    pub(crate) fn late(&self) -> u32 {
        self.late_percent.load(Ordering::Acquire)
    }

    fn slow_disk(&self) -> bool {
        self.disk.load(Ordering::Acquire) || self.pretended.load(Ordering::Acquire)
    }

    /// A sync of this disk, other than the log's, took so long.
    pub(crate) fn synced(&self, took: Duration) {
        let mut samples = self.samples.lock();
        samples.0 = samples.0.saturating_add(1);
        samples.1 += took;
    }

    /// Takes the disk to be slow from now on, or no more; a test's.
    #[cfg(test)]
    pub(crate) fn pretend(&self, slow: bool) {
        self.pretended.store(slow, Ordering::Release);
    }
}

/// How something is at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Bad,
    /// Neither: all stays as it is.
    Between,
    Good,
}

impl Look {
    fn of<T: PartialOrd>(value: &T, bad: &T, good: &T) -> Self {
        if value >= bad {
            Self::Bad
        } else if value < good {
            Self::Good
        } else {
            Self::Between
        }
    }
}

/// A verdict that does not come and go with every look.
#[derive(Debug)]
struct Verdict {
    sick: bool,
    /// Since when the looks have spoken against the verdict.
    against: Option<Instant>,
}

impl Verdict {
    const fn new() -> Self {
        Self {
            sick: false,
            against: None,
        }
    }

    /// Says whether it is sick after this look.
    fn after(&mut self, look: Look, now: Instant) -> bool {
        let (other, patience) = if self.sick {
            (Look::Good, WELL)
        } else {
            (Look::Bad, SUSTAINED)
        };
        if look == other {
            let since = *self.against.get_or_insert(now);
            if now - since >= patience {
                *self = Self {
                    sick: !self.sick,
                    against: None,
                };
            }
        } else if look != Look::Between {
            self.against = None;
        }
        self.sick
    }
}

/// The log's figures at the last look.
#[derive(Debug, Default)]
struct Before {
    batches: u64,
    took: Duration,
}

impl Before {
    /// How long a write and sync took on average since the last look; one that is under way counts if it is longer.
    fn mean(&mut self, stats: &LogStats, others: (u32, Duration)) -> Option<Duration> {
        let batches = stats.batches.saturating_sub(self.batches);
        let count = u32::try_from(batches)
            .unwrap_or(u32::MAX)
            .saturating_add(others.0);
        let took = stats.sync_time.saturating_sub(self.took) + others.1;
        *self = Self {
            batches: stats.batches,
            took: stats.sync_time,
        };
        let mean = took.checked_div(count);
        let waits = Some(stats.syncing).filter(|waits| *waits >= SLOWER_SYNC);
        mean.max(waits)
    }
}

/// How a disk is whose syncs take so long, beside those of its peers.
fn disk_look(mean: Option<Duration>, peers: &mut [Duration]) -> Look {
    let Some(mean) = mean else {
        return Look::Between;
    };
    let bad = middle(peers).map_or(SLOW_SYNC, |theirs| {
        (theirs * TIMES).clamp(SLOWER_SYNC, SLOW_SYNC)
    });
    Look::of(&mean, &bad, &(bad / 2))
}

/// How a processor is on which timers are late for so many percent of the time, beside those of its peers.
///
/// Between well and bad there is nothing for one that is well: the processor is looked at all the time, and a look that is not bad is a
/// good one.
fn processor_look(percent: u32, sick: bool, peers: &mut [u32]) -> Look {
    let bad = middle(peers).map_or(LATE, |theirs| {
        theirs.saturating_mul(TIMES).clamp(LATER, LATE)
    });
    let good = if sick { bad / 2 } else { bad };
    Look::of(&percent, &bad, &good)
}

/// The upper median.
fn middle<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Watches the disk, for as long as the host runs.
pub(crate) async fn disk(inner: Arc<Inner>) {
    let shown = metrics::sick("disk");
    let (mut verdict, mut before) = (Verdict::new(), Before::default());
    while inner.pause(LOOK).await {
        let Some(stats) = inner.log.lock().as_ref().map(LogEngine::stats) else {
            return;
        };
        let others = std::mem::take(&mut *inner.health.samples.lock());
        let mean = before.mean(&stats, others);
        if let Some(mean) = mean {
            let micros = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX);
            inner.health.sync_micros.store(micros, Ordering::Release);
        }
        let mut peers = inner.peer_syncs();
        let look = disk_look(mean, &mut peers);
        let sick = verdict.after(look, Instant::now());
        set(&inner.health.disk, &shown, sick, "disk");
    }
}

/// Watches the processor, for as long as the host runs.
pub(crate) async fn cpu(inner: Arc<Inner>) {
    let shown = metrics::sick("cpu");
    let mut verdict = Verdict::new();
    let (mut began, mut late) = (Instant::now(), Duration::ZERO);
    loop {
        let due = Instant::now() + TICK;
        let used_before = processor_time();
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = sleep_until(due) => {}
        }
        let now = Instant::now();
        let used = processor_time().saturating_sub(used_before);
        if now - due >= STOOD_STILL && used < (now - due) / NEXT_TO_NONE {
            (began, late) = (now, Duration::ZERO);
            continue;
        }
        late += now - due;
        let window = now - began;
        if window < WINDOW {
            continue;
        }
        let percent = late.as_millis() * 100 / window.as_millis().max(1);
        let percent = u32::try_from(percent).unwrap_or(u32::MAX);
        // Zero says that it is not known.
        inner
            .health
            .late_percent
            .store(percent.max(1), Ordering::Release);
        metrics::late(percent);
        let look = processor_look(percent, verdict.sick, &mut inner.peers_late());
        let sick = verdict.after(look, now);
        set(&inner.health.cpu, &shown, sick, "cpu");
        (began, late) = (now, Duration::ZERO);
    }
}

/// How much processor time this process has had.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(used.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

fn set(flag: &AtomicBool, shown: &Gauge, sick: bool, what: &str) {
    shown.set(f64::from(u8::from(sick)));
    if flag.swap(sick, Ordering::AcqRel) == sick {
        return;
    }
    if sick {
        tracing::error!(what, "this node is too slow to lead");
    } else {
        tracing::info!(what, "this node is fast enough to lead again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_verdict_needs_time_both_ways() {
        let mut verdict = Verdict::new();
        let mut see = |look, millis: u64| {
            let mut sick = false;
            for _ in 0..millis / 250 {
                sick = verdict.after(look, Instant::now());
                futures::FutureExt::now_or_never(tokio::time::advance(LOOK));
            }
            sick
        };
        assert!(!see(Look::Bad, 1500), "not for long enough");
        assert!(!see(Look::Good, 250));
        assert!(!see(Look::Bad, 1500), "counted from the last good look");
        assert!(!see(Look::Between, 5000));
        assert!(see(Look::Bad, 1000));
        assert!(see(Look::Good, 9000), "not yet well");
        assert!(see(Look::Bad, 250));
        assert!(see(Look::Good, 9000));
        assert!(!see(Look::Good, 1500));
    }

    #[test]
    fn a_sync_that_never_returns_is_slow_and_a_rest_says_nothing() {
        let mut before = Before::default();
        let mut stats = LogStats::default();
        let none = (0, Duration::ZERO);
        let look = |mean| disk_look(mean, &mut []);
        assert_eq!(look(before.mean(&stats, none)), Look::Between);
        stats.syncing = SLOW_SYNC;
        assert_eq!(look(before.mean(&stats, none)), Look::Bad);
        stats.syncing = Duration::ZERO;
        (stats.batches, stats.sync_time) = (10, Duration::from_millis(20));
        assert_eq!(look(before.mean(&stats, none)), Look::Good);
        (stats.batches, stats.sync_time) = (12, Duration::from_millis(320));
        assert_eq!(look(before.mean(&stats, none)), Look::Bad);
        assert_eq!(look(before.mean(&stats, none)), Look::Between);
        assert_eq!(look(before.mean(&stats, (1, SLOW_SYNC))), Look::Bad);
        assert_eq!(look(before.mean(&stats, (2, SLOW_SYNC))), Look::Between);
    }

    #[test]
    fn a_disk_is_slow_beside_fast_ones_and_not_beside_slow_ones() {
        let millis = Duration::from_millis;
        let look = |mean, peers: &[u64]| {
            let mut peers: Vec<_> = peers.iter().copied().map(millis).collect();
            disk_look(Some(millis(mean)), &mut peers)
        };
        assert_eq!(look(50, &[2, 3]), Look::Bad);
        assert_eq!(look(39, &[2, 3]), Look::Between);
        assert_eq!(look(19, &[2, 3]), Look::Good);
        assert_eq!(look(50, &[20, 20]), Look::Between);
        assert_eq!(look(50, &[60, 70]), Look::Between);
        assert_eq!(look(100, &[60, 70]), Look::Bad, "whatever the others are");
        assert_eq!(look(50, &[]), Look::Between, "nobody else is known");
    }

    #[test]
    fn a_processor_is_slow_beside_fast_ones_and_not_beside_slow_ones() {
        let look = |percent, peers: &[u32]| processor_look(percent, false, &mut peers.to_vec());
        assert_eq!(look(25, &[4, 5]), Look::Bad);
        assert_eq!(look(19, &[4, 4]), Look::Good);
        assert_eq!(look(25, &[9, 9]), Look::Good, "the machine is shared");
        assert_eq!(look(40, &[90, 90]), Look::Bad, "whatever the others are");
        assert_eq!(look(39, &[]), Look::Good, "nobody else is known");
        let after = |percent| processor_look(percent, true, &mut [4, 4]);
        assert_eq!((after(9), after(10)), (Look::Good, Look::Between));
    }
}
