//! Runs seeds of the simulation: `simulate --seeds 1000..2000 --jobs 2 --for 60s`, or one of them with `--trace`.
//!
//! Prints what was run, which faults happened and how operations ended. A seed that fails prints what does not hold and the line
//! that repeats it; then the exit code is 1. `--twice` runs every seed two times and compares the traces.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chaos_tests::sim::{self, Credentials, Outcome};
use clap::Parser;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Events that a failure shows.
const TAIL: usize = 20_000;

/// Runs seeds of the simulation.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Arguments {
    /// The seeds, as in `1000..2000`, or one of them.
    #[arg(long, value_parser = seeds)]
    seeds: Range<u64>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop after this many seconds.
    #[arg(long = "for", value_parser = seconds)]
    limit: Option<Duration>,
    /// Print what happened, not only in a failure.
    #[arg(long)]
    trace: bool,
    /// Print also messages and disks.
    #[arg(long)]
    all: bool,
    /// Run each seed twice, and compare.
    #[arg(long)]
    twice: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Say which seed is run.
    #[arg(long)]
    verbose: bool,
    /// Print what the nodes log, as in `raft=debug`, with the virtual time.
    #[arg(long, value_name = "FILTER")]
    log: Option<EnvFilter>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    let seconds = number
        .parse()
        .map_err(|_number| format!("no seconds: {text}"))?;
    Ok(Duration::from_secs(seconds))
}

/// The virtual time since the first line of a thread.
struct Virtual;

thread_local! {
    static FIRST: Instant = Instant::now();
}

impl FormatTime for Virtual {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let passed = FIRST.with(Instant::elapsed);
        write!(out, "{:9.3}", passed.as_secs_f64())
    }
}

/// What all threads add to.
struct Sum {
    next: AtomicU64,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    seeds: u64,
    failed: Vec<u64>,
    virtual_time: Duration,
    coverage: BTreeMap<String, u64>,
    slowest: (Duration, u64),
}

fn main() -> io::Result<ExitCode> {
    let mut arguments = Arguments::parse();
    if let Some(filter) = arguments.log.take() {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Virtual)
            .with_ansi(false)
            .with_writer(io::stderr)
            .init();
    }
    let credentials = Credentials::make();
    let sum = Arc::new(Sum {
        next: AtomicU64::new(arguments.seeds.start),
        done: Mutex::default(),
    });
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| work(&arguments, &credentials, &sum, began));
        }
    });
    report(&sum.done.lock(), began.elapsed())
}

fn work(arguments: &Arguments, credentials: &Arc<Credentials>, sum: &Sum, began: Instant) {
    loop {
        let seed = sum.next.fetch_add(1, Ordering::Relaxed);
        let over = arguments
            .limit
            .is_some_and(|limit| began.elapsed() >= limit);
        let stop = !arguments.keep_going && !sum.done.lock().failed.is_empty();
        if seed >= arguments.seeds.end || over || stop {
            return;
        }
        let since = Instant::now();
        let outcome = sim::run(seed, credentials, TAIL);
        let took = since.elapsed();
        let mut failed = outcome.violation.is_some();
        let mut text = String::new();
        if arguments.verbose {
            let (hash, events) = outcome.trace;
            text = format!(
                "seed {seed} {:?}: {hash:016x}, {events} events, {:.1} s in {took:?}\n",
                outcome.plan.style,
                outcome.passed.as_secs_f64()
            );
        }
        if arguments.twice {
            let again = sim::run(seed, credentials, TAIL);
            if again.trace != outcome.trace {
                failed = true;
                text.push_str(&format!("seed {seed}: two runs, two traces\n"));
                text.push_str(&difference(&outcome.tail, &again.tail));
            }
        }
        if failed || arguments.trace {
            text.push_str(&told(seed, &outcome, arguments.all));
        }
        // A closed output is no reason to stop.
        drop(io::stdout().lock().write_all(text.as_bytes()));
        add(&mut sum.done.lock(), seed, &outcome, (failed, took));
    }
}

fn add(done: &mut Done, seed: u64, outcome: &Outcome, (failed, took): (bool, Duration)) {
    done.seeds += 1;
    done.virtual_time += outcome.passed;
    done.slowest = done.slowest.max((took, seed));
    if failed {
        done.failed.push(seed);
    }
    for (what, count) in &outcome.coverage {
        *done.coverage.entry(what.clone()).or_default() += count;
    }
}

/// The lines around the first difference.
fn difference(one: &str, other: &str) -> String {
    let (one, other): (Vec<_>, Vec<_>) = (one.lines().collect(), other.lines().collect());
    let same = one
        .iter()
        .zip(&other)
        .take_while(|(one, other)| one == other);
    let at = same.count();
    let mut text = String::new();
    for line in &one[at.saturating_sub(6)..at] {
        text.push_str(&format!("  = {line}\n"));
    }
    for (mark, lines) in [("-", &one), ("+", &other)] {
        for line in lines.iter().skip(at).take(5) {
            text.push_str(&format!("  {mark} {line}\n"));
        }
    }
    text
}

fn told(seed: u64, outcome: &Outcome, all: bool) -> String {
    let wanted = |line: &&str| {
        all || ["client", "fault", "failed"]
            .iter()
            .any(|kind| line.get(10..).is_some_and(|it| it.starts_with(kind)))
    };
    let mut text = String::new();
    for line in outcome.tail.lines().filter(wanted) {
        text.push_str(line);
        text.push('\n');
    }
    if let Some(violation) = &outcome.violation {
        text.push_str(&format!(
            "seed {seed} ({:?}) FAILED: {violation}\n",
            outcome.plan.style
        ));
        text.push_str(&format!(
            "repeat it: cargo run -p chaos-tests --bin simulate -- --seeds {seed} --trace\n"
        ));
    }
    text
}

fn report(done: &Done, took: Duration) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for (what, count) in &done.coverage {
        writeln!(out, "{count:>10} {what}")?;
    }
    let hours = took.as_secs_f64() / 3600.0;
    // A count of seeds is far from where a float would round it.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = done.seeds as f64 / hours;
    writeln!(
        out,
        "{} seeds in {:.1} s: {rate:.0} an hour; {:.0} virtual seconds; the slowest took {:?} (seed {})",
        done.seeds,
        took.as_secs_f64(),
        done.virtual_time.as_secs_f64(),
        done.slowest.0,
        done.slowest.1
    )?;
    let missing = sim::missing_faults(done.seeds, |fault| done.coverage.contains_key(fault));
    if !missing.is_empty() {
        writeln!(out, "NOT SHOWN: no seed had {missing:?}")?;
    }
    if !done.failed.is_empty() {
        writeln!(out, "FAILED: {:?}", done.failed)?;
    }
    let held = done.failed.is_empty() && missing.is_empty();
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
