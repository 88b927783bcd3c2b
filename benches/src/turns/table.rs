//! Medians, ratios of ours to each peer's, and what those must be.
//!
//! A ratio is that of two medians; beside it stand the smallest and the largest of the single rounds.

use std::fmt::Write as _;

use serde::Serialize;

use super::plan::{CASES, SYSTEMS};
use super::{Case, System};
use crate::load::Outcome;

/// What came of one load on one system in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Who.
    pub system: System,
    /// What.
    pub case: &'static str,
    /// From 1.
    pub round: u32,
    /// Requests a second that were answered as wanted.
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Seconds of processor time of all servers for 1,000 requests; 0 when one of them was killed.
    pub cpu: f64,
    /// MiB of a node, at the end.
    pub memory: f64,
    /// The longest time in which no write of one client ended well, in milliseconds.
    pub gap: f64,
    /// The same over all clients.
    pub gap_of_all: f64,
    /// Requests that failed.
    pub failed: u64,
    /// The first of them, in words.
    pub failure: Option<String>,
    /// Processors that something else took meanwhile.
    pub others: f64,
}

impl Measured {
    /// From a load on so many nodes, while something else took so many processors.
    #[must_use]
    pub fn new(
        system: System,
        case: &Case,
        round: u32,
        (outcome, nodes, others): (&Outcome, usize, f64),
    ) -> Self {
        let tally = if case.reads {
            &outcome.reads
        } else {
            &outcome.writes
        };
        let nodes = u32::try_from(nodes.max(1)).unwrap_or(u32::MAX);
        let mib = u32::try_from(outcome.usage.memory >> 20).unwrap_or(u32::MAX);
        Self {
            system,
            case: case.name,
            round,
            per_second: outcome.per_second(),
            p50: tally.millis(0.5),
            p99: tally.millis(0.99),
            // The killed node takes its time along.
            cpu: if case.rate.is_some() {
                0.0
            } else {
                outcome.cpu_per_thousand()
            },
            memory: f64::from(mib) / f64::from(nodes),
            gap: outcome.gap_of_one.as_secs_f64() * 1000.0,
            gap_of_all: outcome.gap.as_secs_f64() * 1000.0,
            failed: tally.failed,
            failure: outcome.failure.clone(),
            others,
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "round {} {:>9} {:<14} {:>7.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms  {:.3} s of CPU per 1,000  {:.0} MiB",
            self.round,
            self.system.name(),
            self.case,
            self.per_second,
            self.p50,
            self.p99,
            self.cpu,
            self.memory
        );
        let add = |line: &mut String, text: String| line.push_str(&text);
        if self.case == "kill" {
            add(&mut line, format!("  gap {:.0} ms", self.gap));
        }
        if self.others > 0.1 {
            add(&mut line, format!("  others took {:.2}", self.others));
        }
        if let Some(why) = &self.failure {
            let why = why.chars().take(120).collect::<String>();
            add(&mut line, format!("  {} failed: {why}", self.failed));
        }
        line
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Requests a second: more is better; of all others less is.
    PerSecond,
    /// The median latency.
    P50,
    /// Of 100 requests, all but one take less.
    P99,
    /// Processor time.
    Cpu,
    /// Of a node.
    Memory,
    /// Without a successful write.
    Gap,
}

impl Metric {
    const fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::PerSecond => measured.per_second,
            Self::P50 => measured.p50,
            Self::P99 => measured.p99,
            Self::Cpu => measured.cpu,
            Self::Memory => measured.memory,
            Self::Gap => measured.gap,
        }
    }

    fn reaches(self, ratio: f64, wanted: f64) -> bool {
        match self {
            Self::PerSecond => ratio >= wanted,
            Self::P50 | Self::P99 | Self::Cpu | Self::Memory | Self::Gap => ratio <= wanted,
        }
    }
}

/// What ours must come to beside a peer.
#[derive(Clone, Debug)]
pub struct Target {
    /// In words.
    pub what: &'static str,
    /// The load.
    pub case: &'static str,
    /// What of it.
    pub metric: Metric,
    /// Beside whom.
    pub peer: System,
    /// Ours divided by the peer's, at least or at most.
    pub must: f64,
    /// The same, as it should be.
    pub goal: f64,
}

const fn target(
    what: &'static str,
    (case, metric): (&'static str, Metric),
    peer: System,
    (must, goal): (f64, f64),
) -> Target {
    Target {
        what,
        case,
        metric,
        peer,
        must,
        goal,
    }
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    target(
        "writes/s, 64 clients",
        ("writes-c64", Metric::PerSecond),
        System::Etcd,
        (1.7, 3.0),
    ),
    target(
        "writes/s, 64 clients",
        ("writes-c64", Metric::PerSecond),
        System::Nats,
        (1.0, 1.5),
    ),
    target(
        "writes/s, 64 clients",
        ("writes-c64", Metric::PerSecond),
        System::Redis,
        (0.75, 1.2),
    ),
    target(
        "writes/s, 64 clients",
        ("writes-c64", Metric::PerSecond),
        System::Reference,
        (4.0, 7.0),
    ),
    target(
        "writes/s, 64 clients, 64 KiB",
        ("writes-c64-64k", Metric::PerSecond),
        System::Etcd,
        (2.0, 4.0),
    ),
    target(
        "server CPU for 1,000 writes, 64 clients",
        ("writes-c64", Metric::Cpu),
        System::Etcd,
        (0.55, 0.33),
    ),
    target(
        "p50 of writes, 1 client",
        ("writes-c1", Metric::P50),
        System::Etcd,
        (1.2, 0.8),
    ),
    target(
        "p99 of writes, 16 clients, closed",
        ("writes-c16", Metric::P99),
        System::Etcd,
        (0.8, 0.4),
    ),
    target(
        "linearizable reads/s, 64 clients",
        ("reads-c64", Metric::PerSecond),
        System::Etcd,
        (1.6, 2.5),
    ),
    target(
        "linearizable reads/s beside files",
        ("reads-c64", Metric::PerSecond),
        System::Nginx,
        (0.5, 0.75),
    ),
    target(
        "local reads/s on all nodes, 64 clients",
        ("local-c64", Metric::PerSecond),
        System::Etcd,
        (1.3, 1.8),
    ),
    target(
        "longest gap of a client's writes after SIGKILL",
        ("kill", Metric::Gap),
        System::Etcd,
        (0.5, 0.2),
    ),
    target(
        "memory of a node after the 4 KiB loads",
        ("local-c64", Metric::Memory),
        System::Etcd,
        (0.7, 0.3),
    ),
];

/// The one in the middle; of two, their mean.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

fn of<'a>(
    results: &'a [Measured],
    system: System,
    case: &'a str,
) -> impl Iterator<Item = &'a Measured> {
    let mine = move |measured: &&Measured| measured.system == system && measured.case == case;
    results.iter().filter(mine)
}

/// A table for each load, of the medians of each system.
#[must_use]
pub fn medians(results: &[Measured]) -> String {
    let mut out = String::new();
    for case in &CASES {
        let mut rows = String::new();
        for system in SYSTEMS {
            let all: Vec<&Measured> = of(results, system, case.name).collect();
            let middle = |value: &dyn Fn(&Measured) -> f64| {
                median(all.iter().map(|measured| value(measured)).collect()).unwrap_or(0.0)
            };
            if all.is_empty() {
                continue;
            }
            let failed: u64 = all.iter().map(|measured| measured.failed).sum();
            row(
                &mut rows,
                &[
                    system.name().to_owned(),
                    format!("{:.0}", middle(&|measured| measured.per_second)),
                    format!("{:.2}", middle(&|measured| measured.p50)),
                    format!("{:.2}", middle(&|measured| measured.p99)),
                    some(middle(&|measured| measured.cpu), 3),
                    format!("{:.0}", middle(&|measured| measured.memory)),
                    some(middle(&|measured| measured.gap), 0),
                    format!("{failed}"),
                    format!("{:.2}", middle(&|measured| measured.others)),
                ],
            );
        }
        if !rows.is_empty() {
            let head = "requests/s | p50 ms | p99 ms | CPU s per 1,000 | MiB of a node | gap ms | failed | others' CPU |";
            add(&mut out, format_args!("\n| {} | {head}\n", case.name));
            out.push_str("|---|---|---|---|---|---|---|---|---|\n");
            out.push_str(&rows);
        }
    }
    out
}

/// A table of the ratios that there are, and whether each is as it must be.
#[must_use]
pub fn ratios(results: &[Measured]) -> String {
    let mut out = "\n| what | beside | ours/peer | of the rounds | must | goal | |\n".to_owned();
    out.push_str("|---|---|---|---|---|---|---|\n");
    for target in &TARGETS {
        let Some((ratio, low, high)) = ratio(results, target) else {
            continue;
        };
        let verdict = if target.metric.reaches(ratio, target.goal) {
            "goal"
        } else if target.metric.reaches(ratio, target.must) {
            "met"
        } else {
            "NOT MET"
        };
        row(
            &mut out,
            &[
                target.what.to_owned(),
                target.peer.name().to_owned(),
                format!("{ratio:.2}"),
                format!("{low:.2} to {high:.2}"),
                format!("{}", target.must),
                format!("{}", target.goal),
                verdict.to_owned(),
            ],
        );
    }
    out
}

/// Of the medians, and the smallest and the largest of the rounds that both have.
fn ratio(results: &[Measured], target: &Target) -> Option<(f64, f64, f64)> {
    let value = |measured: &Measured| target.metric.of(measured);
    let middle = |system| median(of(results, system, target.case).map(value).collect());
    let (ours, theirs) = (middle(System::Psp)?, middle(target.peer)?);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for own in of(results, System::Psp, target.case) {
        let mut peers = of(results, target.peer, target.case);
        if let Some(peer) = peers.find(|peer| peer.round == own.round) {
            low = low.min(value(own) / value(peer));
            high = high.max(value(own) / value(peer));
        }
    }
    Some((ours / theirs, low, high))
}

/// Nothing is no figure.
fn some(value: f64, digits: usize) -> String {
    if value > 0.0 {
        format!("{value:.digits$}")
    } else {
        "-".to_owned()
    }
}

fn row(out: &mut String, cells: &[String]) {
    add(out, format_args!("| {} |\n", cells.join(" | ")));
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(system: System, round: u32, per_second: f64, cpu: f64) -> Measured {
        let case = CASES.iter().find(|case| case.name == "writes-c64");
        let outcome = Outcome::default();
        Measured {
            per_second,
            cpu,
            ..Measured::new(
                system,
                case.expect("it is there"),
                round,
                (&outcome, 3, 0.0),
            )
        }
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_those_of_medians_and_more_is_not_always_better() {
        let results = [
            measured(System::Psp, 1, 200.0, 0.1),
            measured(System::Psp, 2, 100.0, 0.2),
            measured(System::Psp, 3, 220.0, 0.1),
            measured(System::Etcd, 1, 100.0, 0.1),
            measured(System::Etcd, 2, 100.0, 0.2),
            measured(System::Etcd, 3, 110.0, 0.3),
        ];
        let table = ratios(&results);
        assert!(
            table.contains("| writes/s, 64 clients | etcd | 2.00 | 1.00 to 2.00 | 1.7 | 3 | met |"),
            "{table}"
        );
        assert!(
            table.contains("| etcd | 0.50 | 0.33 to 1.00 | 0.55 | 0.33 | met |"),
            "{table}"
        );
        assert!(!table.contains("redis"), "it was not measured");
        let table = medians(&results);
        assert!(table.contains("| psp | 200 |") && table.contains("| etcd | 100 |"));
        assert_eq!(medians(&[]), "");
    }
}
