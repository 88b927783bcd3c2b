//! Carries out the plan on a rig: one [`Scenario`] for each wave, and trends over all of them.
//!
//! A wave has a load, sessions and a history of its own, so that everything is checked again and again and memory stays bounded. The
//! rig stays: what one wave leaves behind, the next one meets. The first wave that is no pass ends the soak, with its
//! report, its history and the nodes' logs in one folder.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep_until};

use super::faults::fault;
use super::plan::{Kind, Wave};
use super::trend::{Trend, Verdict};
use crate::faults::Fault;
use crate::rig::{DATA, Rig, RigConfig};
use crate::scenario::{Rules, Scenario, Verdicts, metric};
use crate::workload::Mix;

/// The last line of the log of a node that had no room to start begins with the one and has the other in it.
const NOT_STARTED: &str = "pspd: error: cannot start";
const NO_ROOM: &str = "no space left";
/// How a node ends whose disk is refused (the table is in `node/src/exit.rs`).
const REFUSED: i32 = 71;
/// How often it is looked whether a node ended.
const LOOKS: Duration = Duration::from_millis(250);
/// Within what shards take writes, and replicas are equal, when a node has to be made anew.
const REBUILT: Duration = Duration::from_secs(40);

/// Growth for each hour that is allowed, what is noise over the whole time, and the most that there may be at any time.
struct Bound {
    what: &'static str,
    hourly: f64,
    noise: f64,
    most: f64,
}

/// What holds memory up to a bound of its own and fills within hours: opened documents, newest entries of the log, states.
const CACHES: [&str; 3] = [
    "psp_service_cache_bytes",
    "psp_log_tail_bytes",
    "psp_state_cache_bytes",
];

const BOUNDS: [Bound; 6] = [
    // The caches are 288 MiB when they are full, about a third more as allocators keep them; a node is 64 MiB when it starts, and
    // may hold twice as much for requests and for watchers that come back.
    Bound {
        what: "memory of a node, MiB",
        hourly: f64::INFINITY,
        noise: 0.0,
        most: 288.0 * 4.0 / 3.0 + 64.0 + 128.0,
    },
    Bound {
        what: "memory of a node beside its caches, MiB",
        hourly: 60.0,
        noise: 40.0,
        most: f64::INFINITY,
    },
    Bound {
        what: "open files of a node",
        hourly: 60.0,
        noise: 60.0,
        most: f64::INFINITY,
    },
    // It fills, by 4 KiB for each sync, until half of its segments are in use, and no more: 32 of 64 MiB, and one or two that are
    // being filled or prepared.
    Bound {
        what: "log of a node, MiB",
        hourly: f64::INFINITY,
        noise: 0.0,
        most: 34.0 * 64.0,
    },
    // The sessions of all waves are a few MiB; what a rebuild keeps of the old disk is not counted. What was overwritten stays until a
    // compaction, which has four tables of a memtable
    // each to begin with, in nine tablets, and as much again where a snapshot holds it.
    Bound {
        what: "disk of a node without the log, MiB",
        hourly: 200.0,
        noise: 9.0 * 4.0 * 8.0 * 2.0,
        most: f64::INFINITY,
    },
    Bound {
        what: "p99 without a fault, ms",
        hourly: 30.0,
        noise: 30.0,
        most: f64::INFINITY,
    },
];

/// How the names of the log's files begin.
const SEGMENT: &str = "segment-";

/// How a wave ended, in one line for each thing.
#[derive(Debug)]
pub struct Waved {
    /// Its plan.
    pub wave: Wave,
    /// What the checkers say.
    pub verdicts: Verdicts,
    /// The 99th percentile before the first fault, in milliseconds.
    pub calm_p99: Option<f64>,
    /// Memory in MiB, MiB of it beside the caches, open files, MiB of log, and MiB of disk beside it: the most that any node has.
    pub most: [f64; 5],
}

/// A soak.
#[derive(Debug)]
pub struct Soak {
    rig: Rig,
    seed: u64,
    begun: Instant,
    next: u64,
    trends: [Trend; 6],
}

impl Soak {
    /// Starts a cluster of three. The first wave is number `first`.
    pub async fn start(binary: &str, seed: u64, first: u64) -> Self {
        let config = RigConfig {
            clocks: true,
            disk_mib: 8192,
            settings: vec!["cluster.rebuild=auto".to_owned()],
            ..RigConfig::new(binary, seed)
        };
        Self {
            rig: Rig::start(config).await,
            seed,
            begun: Instant::now(),
            next: first,
            trends: Default::default(),
        }
    }

    /// Since the cluster was started.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Carries out the next wave.
    pub async fn wave(&mut self) -> Waved {
        let wave = Wave::draw(self.seed, self.next, self.rig.count());
        self.next += 1;
        let usual = Rules::default();
        let least = if wave.has(Kind::PowerCutOfAll) { 0 } else { 20 };
        let rules = Rules {
            least_under_fault: least,
            least_after_fault: least,
            recovery: if wave.has(Kind::Forgets) {
                REBUILT
            } else {
                usual.recovery
            },
            ..usual
        };
        let name = format!("soak {} wave {}", self.seed, wave.number);
        let mut scenario = Scenario::begin_with(&name, wave.seed, &self.rig.target(), rules);
        scenario.repeated_by(format!(
            "make soak SEED={} FROM={} (alone), or without FROM (all before it too)",
            self.seed, wave.number
        ));
        scenario.load(Mix::new(wave.seed)).await;
        let calm_p99 = self.play(&scenario, &wave).await;
        let folder = scenario.folder().to_owned();
        let verdicts = scenario.finish().await;
        if !verdicts.passed() {
            self.keep_logs(&folder);
        }
        let most = self.usage().await;
        let at = self.lasted();
        for (trend, value) in self
            .trends
            .iter_mut()
            .zip(most.into_iter().map(Some).chain([calm_p99]))
        {
            if let Some(value) = value {
                trend.add(at, value);
            }
        }
        Waved {
            wave,
            verdicts,
            calm_p99,
            most,
        }
    }

    /// The faults, each at its time; the 99th percentile before the first.
    async fn play(&self, scenario: &Scenario, wave: &Wave) -> Option<f64> {
        let begun = Instant::now();
        let mut acts: Vec<(Duration, usize, bool)> = Vec::new();
        for (place, step) in wave.steps.iter().enumerate() {
            acts.extend([(step.from, place, true), (step.to, place, false)]);
        }
        acts.sort_unstable();
        let mut faults: Vec<Box<dyn Fault>> = wave
            .steps
            .iter()
            .map(|step| fault(*step, self.rig.count()))
            .collect();
        let mut calm = None;
        for (at, place, begins) in acts {
            sleep_until(begun + at).await;
            if calm.is_none() {
                calm = Some(p99(scenario));
            }
            let fault = &mut faults[place];
            let label = fault.label();
            if begins {
                scenario.fault(&label, &fault.inject(&self.rig));
            } else {
                let met = fault.met(&self.rig);
                // Two faults of one node can leave nothing for one of them to do.
                if wave.is_alone(&wave.steps[place]) {
                    let claim = format!("{label}: something met it ({met:?})");
                    scenario.cover(claim, met.is_installed());
                }
                let healed = fault.heal(&self.rig);
                scenario.cover(format!("{label}: taken back"), healed.is_installed());
                scenario.healed(&label);
            }
        }
        let mut looks = interval(LOOKS);
        while begun.elapsed() < wave.length {
            looks.tick().await;
            self.supervise(scenario, wave);
        }
        calm.flatten()
    }

    /// Starts a node again that ended because of what the wave did to it, as its supervisor would. One that ended for another reason is
    /// left as it is, and found.
    fn supervise(&self, scenario: &Scenario, wave: &Wave) {
        for step in &wave.steps {
            let node = step.victim;
            let expected = match (step.kind, self.rig.ended(node)) {
                (Kind::DiskFull, Some(_)) => {
                    let log = self.rig.log(node);
                    let last = log.lines().next_back().unwrap_or_default();
                    last.starts_with(NOT_STARTED) && last.to_lowercase().contains(NO_ROOM)
                }
                (Kind::Forgets, Some(ended)) => ended.code() == Some(REFUSED),
                _ => false,
            };
            if expected {
                scenario.note(&format!("node {node} ended, and is started again"));
                self.rig.begin(node);
            }
        }
    }

    /// [`Waved::most`].
    async fn usage(&self) -> [f64; 5] {
        let target = self.rig.target();
        let mut most = [0.0_f64; 5];
        for node in 0..self.rig.count() {
            let page = target
                .admin_page(node, "/metrics")
                .await
                .unwrap_or_default();
            let figure = |name| metric(&page, name).unwrap_or(0);
            let memory = figure("process_resident_memory_bytes");
            let cached: u64 = CACHES.iter().map(|name| figure(name)).sum();
            let disk = self.rig.disk(node);
            let log = disk.allocated(&format!("{DATA}/log"), SEGMENT);
            let beside = log + disk.allocated(&format!("{DATA}/damaged"), "");
            let values = [
                mebi(memory),
                mebi(memory.saturating_sub(cached)),
                float(figure("process_open_fds")),
                mebi(log),
                mebi(disk.used().unwrap_or(0).saturating_sub(beside)),
            ];
            for (most, value) in most.iter_mut().zip(values) {
                *most = most.max(value);
            }
        }
        most
    }

    /// What grows by more than it may: for each thing a sentence, and whether it grows.
    #[must_use]
    pub fn trends(&self) -> Vec<(String, bool)> {
        let named = BOUNDS.iter().zip(&self.trends);
        named
            .map(|(bound, trend)| {
                let (last, most) = (trend.last().unwrap_or(0.0), trend.most().unwrap_or(0.0));
                let figures = format!("{}: last {last:.0}, most {most:.0}", bound.what);
                if most > bound.most {
                    return (format!("{figures}, MORE than {}", bound.most), true);
                }
                match trend.verdict(bound.hourly, bound.noise) {
                    Verdict::Steady { hourly } => {
                        (format!("{figures}, {hourly:+.1} an hour"), false)
                    }
                    Verdict::Grows { hourly } => {
                        let allowed = bound.hourly;
                        let text =
                            format!("{figures}, GROWS by {hourly:.1} an hour, allowed {allowed}");
                        (text, true)
                    }
                    Verdict::Unknown => (format!("{figures}, too few samples for a trend"), false),
                }
            })
            .collect()
    }

    /// Where the nodes' disks and logs are.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.rig.folder()
    }

    /// Leaves the nodes' disks and logs where they are, for whoever looks into it.
    pub fn keep(&self) {
        self.rig.keep();
    }

    fn keep_logs(&self, folder: &std::path::Path) {
        for node in 0..self.rig.count() {
            let path: PathBuf = folder.join(format!("node-{node}.log"));
            // The verdict says what is wrong; without a log there is less to look at, and no other harm.
            drop(std::fs::write(path, self.rig.log(node)));
        }
    }
}

/// The 99th percentile of what has ended so far, in milliseconds.
fn p99(scenario: &Scenario) -> Option<f64> {
    let mut latencies: Vec<u64> = scenario
        .history()
        .operations()
        .iter()
        .filter(|operation| operation.is_acknowledged())
        .map(crate::history::Operation::latency)
        .collect();
    latencies.sort_unstable();
    let place = latencies.len() * 99 / 100;
    latencies.get(place).map(|micros| float(*micros) / 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "for a person, and for a slope")]
const fn float(value: u64) -> f64 {
    value as f64
}

fn mebi(bytes: u64) -> f64 {
    float(bytes) / 1_048_576.0
}
