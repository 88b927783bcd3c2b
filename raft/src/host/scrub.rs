//! Reads what nobody reads, slowly and again and again, so that damage is found while other replicas are whole.
//!
//! | read | what is damaged |
//! |---|---|
//! | each replica's state as the disk has it, every value | makes the replica be rebuilt from another node (`repair.rs`) |
//! | each replica's newest snapshot, every file | makes a new snapshot take its place |
//! | the log's cold segments, every batch | makes their groups take snapshots and purge (`keeper.rs`) until the segment is gone |
//!
//! No snapshot is taken of a state that is damaged: it would hold the damage, and a rebuilt replica has one.
//!
//! A pass reads so many bytes a second and rests in between; a pass that an operator asks for does not wait for its time and is
//! [`HASTE`] times as fast. A snapshot whose transfer failed is read at once: its files may be to blame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::blocking::blocking;
use metrics::{Counter, Gauge, counter, gauge};
use model::id::GroupId;
use model::time::UnixMillis;
use storage::error::TabletError;
use storage::log::{LogCursor, LogEngine};
use storage::snapshot::Snapshot;
use storage::state::{ScrubCursor, Tablet, TabletStore};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::inner::{Inner, Opened};

/// How much faster a pass is that was asked for.
const HASTE: u64 = 16;
/// The first pass begins so long after the start at the latest, or a node that is restarted often would never make one.
const FIRST: Duration = Duration::from_mins(10);
/// Between two looks at whether there is something to do.
const LOOK: Duration = Duration::from_secs(1);
/// Steps in a second: what is read at once is so much less.
const STEPS: u64 = 8;

/// How cold data is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// From the beginning of one pass to that of the next, if it has ended by then.
    pub every: Duration,
    /// Bytes read in a second.
    pub bytes_per_second: u64,
}

impl Default for ScrubPace {
    fn default() -> Self {
        Self {
            every: Duration::from_hours(24),
            bytes_per_second: 8 << 20,
        }
    }
}

/// What scrubbing has come to since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Whether a pass is under way.
    pub running: bool,
    /// Passes ended.
    pub passes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Pieces of damage found.
    pub damage: u64,
    /// When the last pass ended.
    pub last: Option<UnixMillis>,
}

/// The state of the scrubbing of a node.
#[derive(Debug, Default)]
pub(crate) struct Scrubber {
    asked: Notify,
    running: AtomicBool,
    passes: AtomicU64,
    bytes: AtomicU64,
    damage: AtomicU64,
    /// Milliseconds since 1970; zero before the first.
    last: AtomicU64,
    /// One more than the newest damaged segment of the log.
    bad_segments: AtomicU64,
}

impl Scrubber {
    /// Asks for a pass now. One that is under way goes on, and another one follows it.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    pub(crate) fn report(&self) -> ScrubReport {
        let last = self.last.load(Ordering::Acquire);
        ScrubReport {
            running: self.running.load(Ordering::Acquire),
            passes: self.passes.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Acquire),
            damage: self.damage.load(Ordering::Acquire),
            last: (last > 0).then_some(UnixMillis(last)),
        }
    }

    /// Whether this segment of the log is to be given up, as are all before it.
    pub(crate) fn gives_up(&self, generation: u64) -> bool {
        generation < self.bad_segments.load(Ordering::Acquire)
    }
}

/// Scrubs, for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let pace = inner.tuning.scrub;
    let mut due = Instant::now() + pace.every.min(FIRST);
    loop {
        let asked = tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.scrub.asked.notified() => true,
            () = tokio::time::sleep_until(due) => false,
        };
        due = Instant::now() + pace.every;
        let haste = if asked { HASTE } else { 1 };
        let mut pass = Pass::new(&inner, pace.bytes_per_second.saturating_mul(haste).max(1));
        inner.scrub.running.store(true, Ordering::Release);
        let whole = pass.run().await;
        inner.scrub.running.store(false, Ordering::Release);
        if !whole {
            return;
        }
        pass.end();
    }
}

/// Checks snapshots whose transfer failed, for as long as the host runs.
pub(crate) async fn suspects(inner: Arc<Inner>) {
    while inner.pause(LOOK).await {
        for opened in inner.all_opened() {
            let store = &opened.replica.parts.store;
            let Some(snapshot) = store.snapshot().filter(|kept| kept.take_suspicion()) else {
                continue;
            };
            let mut pass = Pass::new(&inner, u64::MAX);
            pass.snapshot(opened.replica.parts.group, store, &snapshot)
                .await;
        }
    }
}

/// One pass over everything.
struct Pass {
    inner: Arc<Inner>,
    bytes_per_second: u64,
    read: Counter,
    found: Counter,
    last: Gauge,
}

impl Pass {
    fn new(inner: &Arc<Inner>, bytes_per_second: u64) -> Self {
        Self {
            inner: Arc::clone(inner),
            bytes_per_second,
            read: counter!("psp_scrub_bytes_total"),
            found: counter!("psp_scrub_damage_total"),
            last: gauge!("psp_scrub_last_pass_seconds"),
        }
    }

    /// Says whether it came to its end before the host stopped.
    async fn run(&mut self) -> bool {
        for opened in self.inner.all_opened() {
            if !self.tablet(&opened).await {
                return false;
            }
            let (group, store) = (opened.replica.parts.group, &opened.replica.parts.store);
            if let Some(snapshot) = store.snapshot()
                && !self.snapshot(group, store, &snapshot).await
            {
                return false;
            }
        }
        self.log().await
    }

    fn end(&self) {
        let now = self.inner.clocks.wall();
        let scrub = &self.inner.scrub;
        scrub.last.store(now.0, Ordering::Release);
        let passes = scrub.passes.fetch_add(1, Ordering::AcqRel) + 1;
        let seconds = u32::try_from(now.0 / 1000).unwrap_or(u32::MAX);
        self.last.set(f64::from(seconds));
        tracing::info!(passes, "all data was read");
    }

    /// How much is read before it rests.
    fn step(&self) -> u64 {
        (self.bytes_per_second / STEPS).clamp(1 << 10, 4 << 20)
    }

    /// Counts what was read, and rests as long as its pace wants. False when the host stops.
    async fn rest(&self, bytes: u64) -> bool {
        self.read.increment(bytes);
        self.inner.scrub.bytes.fetch_add(bytes, Ordering::AcqRel);
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_second;
        self.inner.pause(Duration::from_micros(micros)).await
    }

    fn damaged(&self, pieces: u64) {
        self.found.increment(pieces);
        self.inner.scrub.damage.fetch_add(pieces, Ordering::AcqRel);
    }

    /// What it finds the tablet counts as well, and the keeper's next round has it rebuilt.
    async fn tablet(&self, opened: &Opened) -> bool {
        let (group, store) = (
            opened.replica.parts.group,
            opened.replica.parts.store.clone(),
        );
        let copy = match blocking(move || store.cold()).await {
            Ok(Ok(copy)) => copy,
            Ok(Err(error)) => {
                tracing::error!(%group, %error, "state cannot be scrubbed");
                if error.is_damage() {
                    self.damaged(1);
                }
                return true;
            }
            Err(_panicked) => return true,
        };
        let whole = self.copy(group, &copy).await;
        // It removes its files.
        drop(blocking(move || drop(copy)).await);
        whole
    }

    async fn copy(&self, group: GroupId, copy: &Arc<dyn Tablet>) -> bool {
        let mut cursor = ScrubCursor::default();
        loop {
            let (copy, most) = (Arc::clone(copy), self.step());
            let work = blocking(move || copy.scrub(&cursor, most));
            let step = match work.await {
                Ok(Ok(step)) => step,
                Ok(Err(error)) => {
                    tracing::error!(%group, %error, "state cannot be scrubbed");
                    return true;
                }
                Err(_panicked) => return true,
            };
            if step.damaged > 0 {
                tracing::error!(%group, values = step.damaged, "a scrub found damage");
                self.damaged(step.damaged);
                return true;
            }
            if !self.rest(step.bytes).await {
                return false;
            }
            match step.next {
                Some(next) => cursor = next,
                None => return true,
            }
        }
    }

    /// A damaged snapshot is of no use to anybody: another one takes its place.
    async fn snapshot(
        &mut self,
        group: GroupId,
        store: &TabletStore,
        snapshot: &Arc<Snapshot>,
    ) -> bool {
        for file in 0..snapshot.manifest().files.len() {
            let checked = Arc::clone(snapshot);
            let checked = blocking(move || checked.check(file)).await;
            let error = match checked {
                Ok(Ok(bytes)) => {
                    if !self.rest(bytes).await {
                        return false;
                    }
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_panicked) => return true,
            };
            self.damaged(1);
            if store.current().damaged_reads() > 0 {
                tracing::error!(%group, %error, "a snapshot is damaged: the rebuilt replica will have another one");
                return true;
            }
            tracing::error!(%group, %error, "a snapshot is damaged: another one is taken");
            let store = store.clone();
            let taken = blocking(move || -> Result<(), TabletError> {
                store.checkpoint()?.seal().map(drop)
            });
            if let Ok(Err(error)) = taken.await {
                tracing::error!(%group, %error, "no other snapshot could be taken");
                // The next look tries again; damage is the state's, which is to be rebuilt.
                if !error.is_damage() {
                    snapshot.suspect();
                }
            }
            return true;
        }
        true
    }

    async fn log(&self) -> bool {
        let mut cursor = LogCursor::default();
        loop {
            let cold = self.inner.log.lock().as_ref().map(LogEngine::cold);
            let Some(cold) = cold else { return false };
            let most = self.step();
            let Ok(step) = blocking(move || cold.scrub(cursor, most)).await else {
                return false;
            };
            if let Some(generation) = step.damaged {
                tracing::error!(
                    generation,
                    "a segment of the log is damaged: it is given up"
                );
                self.damaged(1);
                let scrub = &self.inner.scrub;
                scrub
                    .bad_segments
                    .fetch_max(generation + 1, Ordering::AcqRel);
            }
            if !self.rest(step.bytes).await {
                return false;
            }
            match step.next {
                Some(next) => cursor = next,
                None => return true,
            }
        }
    }
}
