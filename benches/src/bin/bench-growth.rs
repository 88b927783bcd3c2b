//! `bench-growth`: what sessions and shards cost as they become more.
//!
//! Prints a table with the exponent of each column; the folder gets it as Markdown, all figures as JSON, and pictures as SVG.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is its result"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use benches::growth::region::Shape;
use benches::growth::report::{self, Along};
use benches::growth::stage::{self, Loads, Stage};
use benches::peers::Place;
use clap::Parser;
use tokio::task::LocalSet;

/// What sessions and shards cost as they become more.
#[derive(Debug, Parser)]
#[command(name = "bench-growth", version)]
struct Wish {
    /// Sessions, one size after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 30_000, 100_000, 300_000, 1_000_000])]
    sessions: Vec<usize>,
    /// Nodes of the region that holds them.
    #[arg(long, default_value_t = 1)]
    nodes: u16,
    /// Shards, one region after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64])]
    shards: Vec<u16>,
    /// Sessions of each of those regions, which have three nodes.
    #[arg(long, default_value_t = 10_000)]
    each: usize,
    /// Only sessions, or only shards.
    #[arg(long, value_parser = ["sessions", "shards"])]
    only: Option<String>,
    /// Bytes of a session.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// Seconds of each load that are counted.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Seconds of each load before.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Our server.
    #[arg(long, default_value = "target/release/pspd")]
    pspd: PathBuf,
    /// Where its data and the results go.
    #[arg(long, default_value = ".run/growth")]
    folder: PathBuf,
    /// The first of the ports that nodes listen on.
    #[arg(long, default_value_t = 18900)]
    port: u16,
}

/// Shards of a region by default.
const SHARDS: u16 = 6;

fn main() -> ExitCode {
    match work(&Wish::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench-growth: {problem}");
            ExitCode::from(2)
        }
    }
}

fn work(wish: &Wish) -> Result<(), String> {
    let seconds = |value: f64, what: &str| {
        Duration::try_from_secs_f64(value).map_err(|error| format!("{what}: {error}"))
    };
    let loads = Loads {
        bytes: wish.bytes,
        time: seconds(wish.seconds, "seconds")?,
        warm_up: seconds(wish.warm_up, "warm-up")?,
    };
    if wish.sessions.is_empty() || !wish.sessions.is_sorted() {
        return Err("sessions must become more".to_owned());
    }
    let place = Place::alone(&wish.pspd, &wish.folder, wish.port)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let wanted = |what: &str| wish.only.as_ref().is_none_or(|only| only == what);
    LocalSet::new().block_on(&runtime, async {
        if wanted("sessions") {
            let shape = Shape {
                nodes: wish.nodes,
                shards: SHARDS,
            };
            grow(&place, Along::Sessions, loads, &[(shape, &wish.sessions)]).await?;
        }
        if wanted("shards") {
            let each = [wish.each];
            let shapes = wish.shards.iter().map(|&shards| Shape { nodes: 3, shards });
            let regions: Vec<_> = shapes.map(|shape| (shape, &each[..])).collect();
            grow(&place, Along::Shards, loads, &regions).await?;
        }
        Ok(())
    })
}

async fn grow(
    place: &Place,
    along: Along,
    loads: Loads,
    regions: &[(Shape, &[usize])],
) -> Result<(), String> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut end = Ok(());
    for region in regions {
        let mut each = |stage: Stage| {
            println!(
                "{} nodes {:>2} shards {:>8} sessions {:>6.0} writes/s {:>6.0} reads/s {:>5} MiB start {:.2} s",
                stage.nodes,
                stage.shards,
                stage.sessions,
                stage.writes,
                stage.reads,
                stage.memory >> 20,
                stage.start
            );
            stages.push(stage);
        };
        end = stage::measure(place, *region, loads, &mut each).await;
        if end.is_err() {
            break;
        }
    }
    // What was measured before a failure is shown all the same.
    tell(&place.folder, along, &stages)?;
    end
}

fn tell(folder: &Path, along: Along, stages: &[Stage]) -> Result<(), String> {
    let table = report::table(along, stages);
    println!("{table}");
    let json = serde_json::to_vec_pretty(stages).map_err(|error| error.to_string())?;
    let name = match along {
        Along::Sessions => "sessions",
        Along::Shards => "shards",
    };
    for (end, text) in [("md", table.as_bytes()), ("json", &json)] {
        let path = folder.join(format!("{name}.{end}"));
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for name in report::pictures(along, stages, folder)? {
        println!("{}", folder.join(name).display());
    }
    Ok(())
}
