//! `pspd-load`: puts a load on a running region and prints what came of it.
//!
//! It finds nodes and key in the `dev.json` of `pspd dev`, or is told them. The same arguments give the same requests.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the lines are its result"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::data::Text;
use benches::dev::{Dev, Node};
use benches::load::{self, Load, Outcome, Pace};
use benches::store::Fresh;
use benches::store::psp::{Protocol, Psp};
use clap::Parser;

/// Puts a load on a running region and prints what came of it.
#[derive(Debug, Parser)]
#[command(name = "pspd-load", version)]
struct Wish {
    /// The folder of a running `pspd dev`: its dev.json has addresses, key and processes.
    #[arg(long, default_value = ".run/dev")]
    dev: PathBuf,
    /// A node's address; can be repeated. Then PSP_API_KEY must hold the key, and dev.json is not read.
    #[arg(long = "node")]
    nodes: Vec<SocketAddr>,
    #[arg(long, env = "PSP_API_KEY", hide_env_values = true, default_value = "")]
    key: String,
    /// Clients; each asks one thing at a time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Requests a second, over all clients: an open load. Without it each client asks as fast as it is answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Of 100 requests, how many read.
    #[arg(long, default_value_t = 0.0)]
    reads: f64,
    /// Reads may be answered by the node that is asked.
    #[arg(long)]
    local: bool,
    /// Sessions.
    #[arg(long, default_value_t = 1000)]
    keys: usize,
    /// Bytes of a session.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// What sessions are like: real or random.
    #[arg(long, default_value = "real")]
    text: Text,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before.
    #[arg(long, default_value_t = 3.0)]
    warm_up: f64,
    /// HTTP/2, with so many connections to each node.
    #[arg(long)]
    http2: Option<usize>,
    /// After so many seconds a request has failed.
    #[arg(long, default_value_t = 10.0)]
    limit: f64,
    /// Chooses sessions and bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where the region is.
struct Region {
    nodes: Vec<SocketAddr>,
    key: String,
    processes: Vec<u32>,
}

impl Wish {
    fn load(&self) -> Result<Load, String> {
        let seconds = |value: f64, what: &str| {
            Duration::try_from_secs_f64(value).map_err(|error| format!("{what}: {error}"))
        };
        if !(0.0..=100.0).contains(&self.reads) {
            return Err(format!("reads: {} is not from 0 to 100", self.reads));
        }
        if self.clients == 0 || self.keys == 0 {
            return Err("there is nothing to do without clients and sessions".to_owned());
        }
        if self
            .rate
            .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
        {
            return Err("the rate must be above 0".to_owned());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1,000"
        )]
        let reads = (self.reads * 10.0).round() as u32;
        Ok(Load {
            clients: self.clients,
            pace: self.rate.map_or(Pace::Closed, Pace::Open),
            reads,
            fresh: if self.local {
                Fresh::Local
            } else {
                Fresh::Linearizable
            },
            keys: self.keys,
            bytes: self.bytes,
            text: self.text,
            warm_up: seconds(self.warm_up, "warm-up")?,
            time: seconds(self.seconds, "seconds")?,
            seed: self.seed,
        })
    }

    fn region(&self) -> Result<Region, String> {
        if !self.nodes.is_empty() {
            return Ok(Region {
                nodes: self.nodes.clone(),
                key: self.key.clone(),
                processes: Vec::new(),
            });
        }
        let dev = Dev::read(&self.dev)?;
        let addresses = dev.nodes.iter().map(Node::address);
        Ok(Region {
            nodes: addresses.collect::<Result<_, _>>()?,
            processes: dev.nodes.iter().map(|node| node.pid).collect(),
            key: dev.api_key,
        })
    }
}

fn main() -> ExitCode {
    match work(&Wish::parse()) {
        Ok(failed) => ExitCode::from(u8::from(failed)),
        Err(problem) => {
            eprintln!("pspd-load: {problem}");
            ExitCode::from(2)
        }
    }
}

fn work(wish: &Wish) -> Result<bool, String> {
    let (load, region) = (wish.load()?, wish.region()?);
    let limit =
        Duration::try_from_secs_f64(wish.limit).map_err(|error| format!("limit: {error}"))?;
    let protocol = if wish.http2.is_some() {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    let shared = (wish.http2.unwrap_or(1), limit);
    let store = Psp::new(region.nodes, &region.key, protocol, shared)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let local = tokio::task::LocalSet::new();
    let measured = local.block_on(&runtime, async {
        load::fill(&store, &load, 0..load.keys).await?;
        load::run(&store, &load, &region.processes).await
    });
    let outcome = measured?;
    tell(&load, &outcome);
    Ok(outcome.reads.failed + outcome.writes.failed > 0)
}

fn tell(load: &Load, outcome: &Outcome) {
    println!(
        "{} clients, {} bytes, {:?}: {:.0} requests/s",
        load.clients,
        load.bytes,
        load.pace,
        outcome.per_second()
    );
    for (what, tally) in [("reads", &outcome.reads), ("writes", &outcome.writes)] {
        if tally.done + tally.failed > 0 {
            println!(
                "{what}: {} done, {} failed; p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, longest {:.2}",
                tally.done,
                tally.failed,
                tally.millis(0.5),
                tally.millis(0.9),
                tally.millis(0.99),
                tally.millis(0.999),
                tally.millis(1.0),
            );
        }
    }
    if !outcome.gap.is_zero() {
        println!(
            "longest time without a write that ended well: {} ms",
            outcome.gap.as_millis()
        );
    }
    if outcome.usage.processes > 0 {
        println!(
            "servers: {:.3} s of processor time for each 1,000 requests, {} MiB in {} processes",
            outcome.cpu_per_thousand(),
            outcome.usage.memory >> 20,
            outcome.usage.processes
        );
    }
    if let Some(failure) = &outcome.failure {
        println!("the first failure: {failure}");
    }
}
