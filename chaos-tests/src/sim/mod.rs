//! A whole cluster in one thread, on virtual time: the real groups, service and log over a simulated network, disk and clock.
//!
//! One seed is one run, and the same seed is the same run, event for event: its trace has the same hash. A run has two phases.
//! First faults come, by the seed, while clients read and write, and all replicas are looked at some fifty times a second
//! ([`crate::invariants`]). Then everything heals, and the cluster must serve again within ten seconds, come to one state, and
//! keep every promise it made to a client (`oracle.rs`).
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what the seed decides at the beginning |
//! | `lab.rs`, `trace.rs`, `coverage.rs` | what all share; what happened; which faults really happened |
//! | `machine.rs`, `disk.rs`, `clock.rs` | a machine and the node on it |
//! | `world.rs`, `faults.rs`, `decay.rs`, `heal.rs` | all machines; what breaks; how it must heal |
//! | `clients.rs`, `record.rs`, `oracle.rs` | what clients do, what they saw, and what that must show |
//! | `observe.rs` | what the invariants are shown |
//! | `panics.rs` | a panic anywhere in a run is its failure |
//!
//! What is not simulated: RocksDB (state is in memory, with the same guarantees and the same loss of what was not flushed), QUIC and
//! TLS (the carrier below the frames is another: it delays and cuts, but packets that are doubled, out of order or damaged are QUIC's to
//! mend, and the rig's to send), a process that stands still (its links are cut, its disks lie still), the gateway, and several regions.

mod clients;
mod clock;
mod coverage;
mod decay;
mod disk;
mod faults;
mod heal;
mod lab;
mod machine;
mod observe;
mod oracle;
mod panics;
mod plan;
mod record;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::invariants::Violation;

use clients::{Client, Pool};
pub use faults::missing as missing_faults;
pub use lab::Credentials;
use lab::Lab;
pub use plan::{Plan, Style};
use world::{Todo, World};

/// How long the cluster may take to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// How long clients may take to end, beyond their longest request.
const CLIENTS: Duration = Duration::from_secs(12);

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed's plan.
    pub plan: Plan,
    /// What does not hold, if anything.
    pub violation: Option<Violation>,
    /// A hash over everything that happened, and how many events that were.
    pub trace: (u64, u64),
    /// The last of them, as lines.
    pub tail: String,
    /// What happened how often.
    pub coverage: BTreeMap<String, u64>,
    /// Virtual time that passed.
    pub passed: Duration,
}

/// Runs a seed; `keep` of the last events can be read afterwards.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn run(seed: u64, credentials: &Arc<Credentials>, keep: usize) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime is made");
    let _chance = raft::chance::seeded(seed);
    panics::begin();
    let plan = Plan::new(seed);
    let work = async {
        let lab = Lab::new(plan, Arc::clone(credentials), keep);
        let result = play(&lab).await;
        let violation = result.err().or_else(|| panics::seen().map(panicked));
        if let Some(violation) = &violation {
            lab.trace.say("failed", violation.to_string());
        }
        Outcome {
            plan: lab.plan.clone(),
            violation,
            trace: lab.trace.hash(),
            tail: lab.trace.tail(|_| true),
            coverage: lab.coverage.counts(),
            passed: lab.trace.now(),
        }
    };
    // The run itself may panic too; then nothing of it is left to tell but that.
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    // What is left of the nodes ends here, and not in the middle of the next run.
    drop(runtime);
    outcome.unwrap_or_else(|_panic| Outcome {
        plan: Plan::new(seed),
        violation: panics::seen().map(panicked),
        trace: (0, 0),
        tail: String::new(),
        coverage: BTreeMap::new(),
        passed: Duration::ZERO,
    })
}

fn panicked(text: String) -> Violation {
    Violation {
        id: "nothing panics",
        text,
    }
}

async fn play(lab: &Arc<Lab>) -> Result<(), Violation> {
    let mut world = World::new(lab);
    begin(lab, &mut world).await?;
    let stop = CancellationToken::new();
    let pool = Pool::new(lab);
    let mut clients = JoinSet::new();
    for number in 1..=lab.plan.clients {
        let client = Client {
            lab: Arc::clone(lab),
            pool: Arc::clone(&pool),
            number,
            dice: plan::dice(lab.plan.seed, 100 + number),
            stop: stop.clone(),
        };
        clients.spawn(client.run());
    }
    world.after(300, Todo::Fault);
    let end = Instant::now() + lab.plan.faults;
    world.until(end).await?;
    world.heal().await?;
    // A little of plain work, then everybody goes.
    let end = Instant::now() + Duration::from_millis(500);
    world.until(end).await?;
    stop.cancel();
    let limit = Instant::now() + CLIENTS;
    while !clients.is_empty() {
        while clients.try_join_next().is_some() {}
        if Instant::now() > limit {
            return Err(Violation {
                id: "every request ends",
                text: format!("{} clients still wait", clients.len()),
            });
        }
        let next = Instant::now() + Duration::from_millis(50);
        world.until(next).await?;
    }
    heal::last_reads(lab).await?;
    world.converge().await?;
    verdict(lab)
}

/// Starts all nodes, and waits for leaders.
async fn begin(lab: &Arc<Lab>, world: &mut World) -> Result<(), Violation> {
    for node in 1..=lab.plan.nodes {
        world.start(NodeId(node)).await?;
    }
    let began = Instant::now();
    let groups: Vec<_> = (0..lab.plan.shards).map(lab::shard).collect();
    while groups.iter().any(|group| world.leader(*group).is_none()) {
        let next = Instant::now() + Duration::from_millis(50);
        world.until(next).await?;
        if began.elapsed() > BEGIN {
            return Err(Violation {
                id: "it begins",
                text: format!("no leaders after {BEGIN:?}"),
            });
        }
    }
    Ok(())
}

fn verdict(lab: &Lab) -> Result<(), Violation> {
    let (ops, ledger) = (lab.ops.lock(), lab.ledger.lock());
    let operations = u64::try_from(ops.len()).unwrap_or(u64::MAX);
    lab.coverage.add("operations", operations);
    oracle::check(&ops, &ledger).map_err(|text| Violation {
        id: "what clients saw",
        text,
    })
}
