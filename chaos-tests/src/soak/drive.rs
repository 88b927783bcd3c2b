//! Carries out the plan on a rig: one [`Scenario`] for each wave, and trends over all of them.
//!
//! A wave has a load, sessions and a history of its own, so that everything is checked again and again and memory stays bounded. The
//! rig stays: what one wave leaves behind, the next one meets. The first wave that is no pass ends the soak, with its
//! report, its history and the nodes' logs in one folder.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::plan::{Kind, Step, Wave};
use super::trend::{Trend, Verdict};
use crate::faults::clock::WallClock;
use crate::faults::disk::{BadSync, Full, Sync};
use crate::faults::network::Links;
use crate::faults::pressure::SlowProcessor;
use crate::faults::process::{Killed, Paused, PowerCut};
use crate::faults::{Fault, Injected};
use crate::rig::link::LinkSpec;
use crate::rig::{Rig, RigConfig};
use crate::scenario::{Rules, Scenario, Verdicts, metric};
use crate::workload::Mix;

/// What a slow sync takes more.
const SLOW: Duration = Duration::from_millis(200);
/// Bytes that a full disk has left.
const LEFT: u64 = 1 << 20;
/// The last line of the log of a node that had no room to start begins with the one and has the other in it.
const NOT_STARTED: &str = "pspd: error: cannot start";
const NO_ROOM: &str = "no space left";
/// Longest time until a node that was asked to end has ended.
const ENDS: Duration = Duration::from_secs(20);

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
    // may hold as much again for requests and for watchers that come back.
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
    // The sessions of all waves are a few MiB. What was overwritten stays until a compaction, which has four tables of a memtable
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
        let everyone = wave
            .steps
            .iter()
            .any(|step| step.kind == Kind::PowerCutOfAll);
        let rules = Rules {
            least_under_fault: if everyone { 0 } else { 20 },
            ..Rules::default()
        };
        let name = format!("soak {} wave {}", self.seed, wave.number);
        let mut scenario = Scenario::begin_with(&name, wave.seed, &self.rig.target(), rules);
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
                scenario.note(&format!("{label}: {met:?}"));
                let healed = fault.heal(&self.rig);
                scenario.cover(format!("{label}: taken back"), healed.is_installed());
                scenario.healed(&label);
                if wave.steps[place].kind == Kind::DiskFull {
                    self.supervise(scenario, wave.steps[place].victim);
                }
            }
        }
        sleep_until(begun + wave.length).await;
        calm.flatten()
    }

    /// A node that was started while its disk was full says so and ends; whoever supervises it starts it again. One that ended for another
    /// reason is left as it is, and found.
    fn supervise(&self, scenario: &Scenario, node: usize) {
        let log = self.rig.log(node);
        let last = log.lines().next_back().unwrap_or_default();
        let no_room = last.starts_with(NOT_STARTED) && last.to_lowercase().contains(NO_ROOM);
        if no_room && self.rig.ended(node).is_some() {
            scenario.note(&format!(
                "node {node} had no room to start, and is started again"
            ));
            self.rig.begin(node);
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
            let log = disk.allocated("", SEGMENT);
            let values = [
                mebi(memory),
                mebi(memory.saturating_sub(cached)),
                float(figure("process_open_fds")),
                mebi(log),
                mebi(disk.used().unwrap_or(0).saturating_sub(log)),
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

    fn keep_logs(&self, folder: &std::path::Path) {
        for node in 0..self.rig.count() {
            let path: PathBuf = folder.join(format!("node-{node}.log"));
            // The verdict says what is wrong; without a log there is less to look at, and no other harm.
            drop(std::fs::write(path, self.rig.log(node)));
        }
    }
}

/// SIGTERM: the node hands over and ends. Healed by a start.
#[derive(Debug)]
struct Stopped(usize);

impl Fault for Stopped {
    fn label(&self) -> String {
        format!("node {} is stopped in order", self.0)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        rig.signal(self.0, Signal::TERM);
        Injected::Installed
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        let ended = crate::rig::command::until(ENDS, || rig.ended(self.0).is_some());
        Injected::when(ended, || format!("node {} does not end", self.0))
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        rig.begin(self.0);
        Injected::Installed
    }
}

fn fault(step: Step, nodes: usize) -> Box<dyn Fault> {
    let node = step.victim;
    match step.kind {
        Kind::Kill => Box::new(Killed(vec![node])),
        Kind::Restart => Box::new(Stopped(node)),
        Kind::Pause => Box::new(Paused(node)),
        Kind::PowerCut => Box::new(PowerCut(vec![node])),
        Kind::PowerCutOfAll => Box::new(PowerCut((0..nodes).collect())),
        Kind::Cut => Box::new(Links::split(&[node], nodes)),
        Kind::Deaf => Box::new(Links::deaf(node, nodes)),
        Kind::Mute => Box::new(Links::mute(node, nodes)),
        Kind::Lossy => {
            let others = (0..nodes).filter(|other| *other != node);
            let links = others.flat_map(|other| [(other, node), (node, other)]);
            let label = format!("the links of node {node} are lossy");
            Box::new(Links::new(label, links.collect(), lossy()))
        }
        Kind::SlowSync => Box::new(BadSync::new(node, Sync::Waits(SLOW))),
        Kind::LittleCpu => Box::new(SlowProcessor::new(node, 10)),
        Kind::DiskFull => Box::new(Full { node, leave: LEFT }),
        Kind::ClockAhead => Box::new(WallClock {
            node,
            seconds: 3600,
        }),
    }
}

fn lossy() -> LinkSpec {
    LinkSpec {
        loss: 0.05,
        duplicate: 0.02,
        reorder: 0.05,
        corrupt: 0.005,
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(8),
        ..LinkSpec::default()
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
