//! `bench-ours`: throughput, latency and processor time of a region of three nodes on this machine, over clients and over size.
//!
//! Prints a table; the folder gets it as `results.md`, all figures as `results.json`, and pictures as SVG.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is its result"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use benches::alone::grid::{self, Measured};
use benches::alone::report;
use benches::peers::psp::Psp;
use benches::peers::{Peer as _, Place};
use clap::Parser;
use tokio::task::LocalSet;

/// Throughput, latency and processor time over clients and over size.
#[derive(Debug, Parser)]
#[command(name = "bench-ours", version)]
struct Wish {
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
    #[arg(long, default_value = ".run/bench")]
    folder: PathBuf,
    /// The first of the ports that nodes listen on.
    #[arg(long, default_value_t = 17900)]
    port: u16,
}

fn main() -> ExitCode {
    match work(&Wish::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench-ours: {problem}");
            ExitCode::from(2)
        }
    }
}

fn work(wish: &Wish) -> Result<(), String> {
    let seconds = |value: f64, what: &str| {
        Duration::try_from_secs_f64(value).map_err(|error| format!("{what}: {error}"))
    };
    let times = (
        seconds(wish.seconds, "seconds")?,
        seconds(wish.warm_up, "warm-up")?,
    );
    let place = Place::alone(&wish.pspd, &wish.folder, wish.port)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let results = LocalSet::new().block_on(&runtime, measure(&place, times))?;
    tell(&place.folder, &results)
}

async fn measure(place: &Place, times: (Duration, Duration)) -> Result<Vec<Measured>, String> {
    let peer = Psp::start(place).await?;
    let mut results = Vec::new();
    let mut each = |measured: Measured| {
        println!(
            "{:<18} {:>3} clients {:>8} bytes {:>7.0}/s",
            measured.kind.name(),
            measured.clients,
            measured.bytes,
            measured.per_second
        );
        results.push(measured);
    };
    let measured = grid::measure(&peer, times, &mut each).await;
    peer.stop().await;
    measured.map(|()| results)
}

fn tell(folder: &Path, results: &[Measured]) -> Result<(), String> {
    let table = report::table(results);
    println!("{table}");
    let json = serde_json::to_vec_pretty(results).map_err(|error| error.to_string())?;
    for (name, text) in [("results.md", table.as_bytes()), ("results.json", &json)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for name in report::pictures(results, folder)? {
        println!("{}", folder.join(name).display());
    }
    Ok(())
}
