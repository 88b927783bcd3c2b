//! One run: load, faults on a timeline, claims of coverage, and at its end two verdicts.
//!
//! [`Scenario::begin`] starts watching, [`Scenario::load`] the clients. The test injects its faults and says so with
//! [`Scenario::fault`] and [`Scenario::healed`], and claims what must have been so with [`Scenario::cover`].
//! [`Scenario::finish`] heals what is left, asks for a write in every shard, compares everything, and leaves a folder with the
//! raw history and a report. The property verdict and the coverage verdict stay apart: a run passes only with both. A run that a
//! panic ends before that leaves the same, with what is known by then: it is no pass either.

mod finish;
mod sampler;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

pub use finish::Verdicts;
pub(crate) use sampler::metric;
pub use sampler::{Sample, Usage};

use crate::checker::coverage::Coverage;
use crate::faults::Injected;
use crate::history::History;
use crate::target::Target;
use crate::workload::{Client, Document, Mix, Running};
use sampler::Sampler;

/// A fault, or anything else that a person should see on the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// What it is and to whom.
    pub label: String,
    /// When, in microseconds of the history.
    pub from: u64,
    /// When it was taken back; `None` for what has no length, or lasts.
    pub to: Option<u64>,
    /// Why it may not have been there.
    pub doubt: Option<String>,
    /// Whether it is a fault.
    pub is_fault: bool,
}

/// What differs between scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How far log time may be from the clock of the test.
    pub expiry_tolerance: Duration,
    /// How long after the faults every shard takes a write again, and replicas become equal.
    pub recovery: Duration,
    /// The longest time without a successful write in a shard, if there is a bound.
    pub longest_gap: Option<Duration>,
    /// The fewest acknowledged writes while a fault was there.
    pub least_under_fault: usize,
    /// The fewest acknowledged writes after the first fault began.
    pub least_after_fault: usize,
    /// Whether a careful client may see a failed or unknown request.
    pub failures_allowed: bool,
    /// How long a client tries.
    pub budget: Duration,
    /// How long one try takes at most.
    pub attempt: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            expiry_tolerance: Duration::from_millis(1500),
            recovery: Duration::from_secs(10),
            longest_gap: None,
            least_under_fault: 50,
            least_after_fault: 50,
            failures_allowed: true,
            budget: Duration::from_secs(5),
            attempt: Duration::from_secs(2),
        }
    }
}

/// A run.
pub struct Scenario {
    name: String,
    again: String,
    seed: u64,
    target: Target,
    rules: Rules,
    folder: PathBuf,
    begun: Instant,
    history: Arc<History>,
    document: Arc<Document>,
    errors: Arc<Mutex<Vec<u8>>>,
    marks: Mutex<Vec<Mark>>,
    coverage: Mutex<Coverage>,
    sampler: Sampler,
    loads: Vec<Running>,
    heals: Vec<BoxFuture<'static, ()>>,
    concluded: bool,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Scenario {
    /// Begins a run with the usual rules.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn begin(name: &str, seed: u64, target: &Target) -> Self {
        Self::begin_with(name, seed, target, Rules::default())
    }

    /// Begins a run.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn begin_with(name: &str, seed: u64, target: &Target, rules: Rules) -> Self {
        let folder = folder(name, seed);
        std::fs::create_dir_all(&folder).expect("the run's folder can be made");
        let history = Arc::new(History::default());
        Self {
            name: name.to_owned(),
            again: again(seed),
            seed,
            target: target.clone(),
            rules,
            folder,
            begun: Instant::now(),
            document: Arc::new(Document::new(seed)),
            errors: Arc::default(),
            marks: Mutex::default(),
            coverage: Mutex::default(),
            sampler: Sampler::start(target.clone(), Arc::clone(&history)),
            history,
            loads: Vec::new(),
            heals: Vec::new(),
            concluded: false,
        }
    }

    /// The line that repeats this run, where it is not a test's.
    pub fn repeated_by(&mut self, again: impl Into<String>) {
        self.again = again.into();
    }

    /// What has been done so far.
    #[must_use]
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Where history and report will be.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// A careful client of this run, over these gateways.
    #[must_use]
    pub fn client(&self, gateways: Vec<String>) -> Client {
        Client {
            http: self.target.http.clone(),
            api_key: self.target.api_key.clone(),
            gateways,
            budget: self.rules.budget,
            attempt: self.rules.attempt,
            document: Arc::clone(&self.document),
            history: Arc::clone(&self.history),
            errors: Arc::clone(&self.errors),
        }
    }

    /// Starts a load over all gateways; it goes on until the end of the run.
    pub async fn load(&mut self, mix: Mix) {
        let client = self.client(self.target.gateways());
        self.loads.push(mix.start(client).await);
    }

    /// Waits until so many more operations have ended.
    ///
    /// # Panics
    /// When that takes more than a minute.
    pub async fn progress(&self, count: usize) {
        let goal = self.history.len() + count;
        let limit = Duration::from_secs(60);
        self.until("the load makes progress", limit, || async {
            self.history.len() >= goal
        })
        .await;
    }

    /// Waits for a condition; how long it took.
    ///
    /// # Panics
    /// When it does not hold within `limit`.
    pub async fn until<F: Future<Output = bool>>(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn() -> F,
    ) -> Duration {
        let start = Instant::now();
        let mut period = tokio::time::interval(Duration::from_millis(20));
        while !condition().await {
            let passed = start.elapsed();
            assert!(
                passed < limit,
                "not within {limit:?}: {what} (SEED={})",
                self.seed
            );
            period.tick().await;
        }
        start.elapsed()
    }

    /// Waits while the faults do their work and the load goes on.
    pub async fn until_passed(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// A fault begins now. One that was not installed is on the timeline too, and the run is no pass.
    pub fn fault(&self, label: &str, injected: &Injected) {
        let doubt = match injected {
            Injected::Installed => None,
            Injected::Skipped(why) => Some(format!("skipped: {why}")),
            Injected::Indeterminate(why) => Some(format!("indeterminate: {why}")),
        };
        self.cover(format!("fault installed: {label}"), doubt.is_none());
        self.mark(Mark {
            label: label.to_owned(),
            from: self.history.now(),
            to: None,
            doubt,
            is_fault: true,
        });
    }

    /// The newest fault of this label ends now.
    pub fn healed(&self, label: &str) {
        let now = self.history.now();
        let mut marks = self.marks.lock();
        let mut open = marks.iter_mut().rev();
        if let Some(mark) = open.find(|mark| mark.label == label && mark.to.is_none()) {
            mark.to = Some(now);
        }
    }

    /// Something that a person should see on the timeline.
    pub fn note(&self, label: &str) {
        self.mark(Mark {
            label: label.to_owned(),
            from: self.history.now(),
            to: None,
            doubt: None,
            is_fault: false,
        });
    }

    fn mark(&self, mark: Mark) {
        self.marks.lock().push(mark);
    }

    /// Claims that something was so: without it the run shows nothing.
    pub fn cover(&self, what: impl Into<String>, held: bool) {
        self.coverage.lock().claim(what, held);
    }

    /// What is to be done at the end, before anything is checked: faults taken back.
    pub fn heal_with(&mut self, heal: impl Future<Output = ()> + Send + 'static) {
        self.heals.push(Box::pin(heal));
    }
}

/// The line that runs the test of this thread once more.
fn again(seed: u64) -> String {
    let binary = std::env::current_exe().unwrap_or_default();
    let binary = binary.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo puts a hash behind the name of a test's binary.
    let (binary, _) = binary.rsplit_once('-').unwrap_or((&binary, ""));
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("");
    format!(
        "SEED={seed} cargo test --workspace --all-features --test {binary} -- --include-ignored --nocapture --exact {test}"
    )
}

/// A value from the environment.
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::vars()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value)
}

/// Below `CHAOS_RUNS`, or the system's folder for temporary files.
fn folder(name: &str, seed: u64) -> PathBuf {
    let runs = setting("CHAOS_RUNS")
        .map_or_else(|| std::env::temp_dir().join("chaos-runs"), PathBuf::from);
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    runs.join(format!("{name}-{seed}"))
}
