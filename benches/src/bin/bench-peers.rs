//! `bench-peers`: the same work on ours and on others, side by side, in turns, in one run.
//!
//! Each system runs alone while it is measured, and who begins changes with every round. The servers come from
//! `benches/peers/install`. Raw results are in `results.json` in the folder; they are written after each turn.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the tables are its result"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use benches::peers::Place;
use benches::peers::{etcd, nats, nginx, postgres, psp, redis, reference};
use benches::turns::plan::SYSTEMS;
use benches::turns::turn::turn;
use benches::turns::{CASES, Case, Measured, Plan, System, table};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// The same work on ours and on others, side by side, in turns, in one run.
#[derive(Debug, Parser)]
#[command(name = "bench-peers", version)]
struct Wish {
    /// Turns of each system.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each load that are counted.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of each load before.
    #[arg(long, default_value_t = 3.0)]
    warm_up: f64,
    /// Only these beside ours: etcd, nats, redis, postgres, nginx, reference.
    #[arg(long, value_delimiter = ',')]
    only: Vec<System>,
    /// Only these loads: writes-c1, writes-c16, writes-c64, reads-c64, local-c64, writes-c64-64k, kill.
    #[arg(long, value_delimiter = ',', value_parser = case)]
    cases: Vec<Case>,
    /// One round of short loads: whether it works, no figures.
    #[arg(long)]
    quick: bool,
    /// How often a load is repeated in which something else took more than a tenth of a processor.
    #[arg(long, default_value_t = 2)]
    repeats: u32,
    /// Keys.
    #[arg(long, default_value_t = 1000)]
    keys: usize,
    /// Our server.
    #[arg(long, default_value = "target/release/pspd")]
    pspd: PathBuf,
    /// What the systems write, and what was installed, is in here.
    #[arg(long, default_value = ".run/peers")]
    folder: PathBuf,
    /// The folder of the stand-in's script.
    #[arg(long, default_value = "benches/peers")]
    scripts: PathBuf,
    /// The first of the ports that servers listen on.
    #[arg(long, default_value_t = 17000)]
    port: u16,
}

fn case(name: &str) -> Result<Case, String> {
    let found = CASES.into_iter().find(|case| case.name == name);
    found.ok_or_else(|| format!("{name}: there is no such load"))
}

impl Wish {
    fn plan(&self) -> Result<Plan, String> {
        let seconds = |value: f64, what: &str| {
            Duration::try_from_secs_f64(value).map_err(|error| format!("{what}: {error}"))
        };
        let (time, warm_up) = if self.quick {
            (2.0, 0.5)
        } else {
            (self.seconds, self.warm_up)
        };
        let cases = if self.cases.is_empty() {
            CASES.to_vec()
        } else {
            // In the order that they have there.
            let all = CASES.into_iter();
            all.filter(|case| self.cases.contains(case)).collect()
        };
        Ok(Plan {
            time: seconds(time, "seconds")?,
            warm_up: seconds(warm_up, "warm-up")?,
            keys: self.keys.max(1),
            repeats: if self.quick { 0 } else { self.repeats },
            cases,
        })
    }

    fn place(&self) -> Result<Place, String> {
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let folder = whole(&self.folder)?;
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Place {
            bin: folder.join("bin"),
            folder,
            pspd: whole(&self.pspd)?,
            reference: whole(&self.scripts)?.join("reference.mjs"),
            port: self.port,
        })
    }

    fn systems(&self) -> Vec<System> {
        let wanted = |system: &System| {
            self.only.is_empty() || *system == System::Psp || self.only.contains(system)
        };
        SYSTEMS.into_iter().filter(wanted).collect()
    }
}

fn main() -> ExitCode {
    match work(&Wish::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(problems) => {
            eprintln!("bench-peers: {problems} turns did not end well");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("bench-peers: {problem}");
            ExitCode::from(2)
        }
    }
}

fn work(wish: &Wish) -> Result<u32, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    LocalSet::new().block_on(&runtime, async {
        let interrupted = async {
            let listen = |kind| signal(kind).map_err(|error| error.to_string());
            let mut int = listen(SignalKind::interrupt())?;
            let mut term = listen(SignalKind::terminate())?;
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            Ok::<_, String>(())
        };
        // Whatever runs is dropped with the rounds, and ends.
        tokio::select! {
            done = rounds(wish) => done,
            told = interrupted => told.and_then(|()| Err("it was told to stop".to_owned())),
        }
    })
}

async fn rounds(wish: &Wish) -> Result<u32, String> {
    let (plan, place) = (wish.plan()?, wish.place()?);
    let mut systems = wish.systems();
    let (mut results, mut problems) = (Vec::new(), 0);
    let count = if wish.quick { 1 } else { wish.rounds };
    for round in 1..=count {
        for system in &systems {
            let mut each = |measured: Measured| {
                println!("{}", measured.line());
                results.push(measured);
            };
            if let Err(why) = one(&place, *system, (&plan, round), &mut each).await {
                problems += 1;
                eprintln!("bench-peers: {} in round {round}: {why}", system.name());
            }
            let text = serde_json::to_vec_pretty(&results).map_err(|error| error.to_string())?;
            let path = place.folder.join("results.json");
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        systems.rotate_left(1);
    }
    println!("{}{}", table::medians(&results), table::ratios(&results));
    Ok(problems)
}

async fn one(
    place: &Place,
    system: System,
    plan: (&Plan, u32),
    each: &mut dyn FnMut(Measured),
) -> Result<(), String> {
    if !plan.0.cases.iter().any(|case| system.takes(case)) {
        return Ok(());
    }
    match system {
        System::Psp => turn::<psp::Psp>(place, system, plan, each).await,
        System::Etcd => turn::<etcd::Etcd>(place, system, plan, each).await,
        System::Nats => turn::<nats::Nats>(place, system, plan, each).await,
        System::Redis => turn::<redis::Redis>(place, system, plan, each).await,
        System::Postgres => turn::<postgres::Postgres>(place, system, plan, each).await,
        System::Nginx => turn::<nginx::Nginx>(place, system, plan, each).await,
        System::Reference => turn::<reference::Reference>(place, system, plan, each).await,
    }
}
