//! `soak --hours H [--seed N] [--from WAVE]`: faults and load until the time is over, or until something is wrong.
//!
//! Needs root, as the scenarios do. Exit code 0 when every wave passed and nothing grows; else 1, with everything that is needed to
//! repeat the wave in one folder.

#![expect(clippy::print_stdout, reason = "the lines are its result")]

use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::soak::drive::{Soak, Waved};

/// The nodes' program, built beside this one.
const NODE: &str = "pspd";

struct Wish {
    hours: f64,
    seed: u64,
    from: u64,
}

fn wish() -> Result<Wish, String> {
    let mut wish = Wish {
        hours: 1.0,
        seed: u64::from(rand::random::<u32>()),
        from: 0,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        let bad = || format!("{name}: {value} is no number");
        match name.as_str() {
            "--hours" => wish.hours = value.parse().map_err(|_number| bad())?,
            "--seed" => wish.seed = value.parse().map_err(|_number| bad())?,
            "--from" => wish.from = value.parse().map_err(|_number| bad())?,
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    if !(wish.hours > 0.0 && wish.hours < 1000.0) {
        return Err("hours are above 0 and below 1000".to_owned());
    }
    Ok(wish)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let wish = match wish() {
        Ok(wish) => wish,
        Err(problem) => {
            println!("soak: {problem}; usage: soak [--hours H] [--seed N] [--from WAVE]");
            return ExitCode::from(2);
        }
    };
    let Ok(own) = std::env::current_exe() else {
        println!("soak: its own path is not known");
        return ExitCode::from(2);
    };
    let node = own.with_file_name(NODE);
    println!(
        "soak: seed {}, {} hours, nodes are {}",
        wish.seed,
        wish.hours,
        node.display()
    );
    let length = Duration::from_secs_f64(wish.hours * 3600.0);
    let mut soak = Soak::start(&node.to_string_lossy(), wish.seed, wish.from).await;
    while soak.lasted() < length {
        let waved = soak.wave().await;
        tell(soak.lasted(), &waved);
        if !waved.verdicts.passed() {
            for finding in &waved.verdicts.findings {
                println!("soak: VIOLATION {finding}");
            }
            for missing in &waved.verdicts.missing {
                println!("soak: not shown: {missing}");
            }
            println!("soak: report {}", waved.verdicts.report.display());
            println!("soak: again: {}", waved.verdicts.again());
            soak.keep();
            println!("soak: logs and disks stay in {}", soak.folder().display());
            return ExitCode::FAILURE;
        }
    }
    let mut grows = false;
    for (sentence, bad) in soak.trends() {
        println!("soak: {sentence}");
        grows |= bad;
    }
    println!("soak: {}", if grows { "something grows" } else { "passed" });
    ExitCode::from(u8::from(grows))
}

fn tell(at: Duration, waved: &Waved) {
    let faults: Vec<String> = waved
        .wave
        .steps
        .iter()
        .map(|step| format!("{} {}", step.kind, step.victim))
        .collect();
    let (shard, gap) = &waved.verdicts.longest_gap;
    let [memory, beside, files, log, rest] = waved.most;
    let tally = waved.verdicts.tally;
    println!(
        "soak: {:>5} s, wave {} [{}]: {} ok, {} failed, {} unknown; longest gap {} ms in {shard}; calm p99 {:.1} ms; most of a node: {memory:.0} MiB, {beside:.0} beside its caches, {files:.0} files, {log:.0} MiB of log, {rest:.0} MiB beside it",
        at.as_secs(),
        waved.wave.number,
        faults.join(", "),
        tally.ok,
        tally.fail,
        tally.unknown,
        gap.as_millis(),
        waved.calm_p99.unwrap_or(0.0),
    );
}
