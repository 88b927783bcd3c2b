//! Scenarios that need no privilege, on `pspd dev`: each is a run with a seed, a report and two verdicts.
//!
//! | module | scenario of `faults.md`, section 5 |
//! |---|---|
//! | `quiet` | no fault: what a run must look like before any other means something |
//! | `leader_killed` | 2: the leader is killed every two seconds |
//! | `leader_paused` | 3: the leader stands still beyond its lease, with reads and writes in flight |
//! | `abuse` | 17: a flood, slow clients, rapid resets, bombs |
//!
//! `SEED` repeats a run, `ROUNDS` makes it longer, `CHAOS_RUNS` says where reports go.

mod abuse;
mod leader_killed;
mod leader_paused;
mod quiet;

use std::collections::BTreeMap;
use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::faults::Injected;
use chaos_tests::run::number;
use chaos_tests::scenario::{Scenario, Verdicts};
use chaos_tests::target::Target;
use rustix::process::{Pid, Signal, test_kill_process};

/// The nodes' program, as this package builds it.
const PSPD: &str = env!("CARGO_BIN_EXE_victim");

/// The run's seed; printed, so that it can be repeated.
#[expect(clippy::print_stdout, reason = "a seed must be seen to be repeated")]
fn seed() -> u64 {
    let drawn = usize::try_from(rand::random::<u32>()).unwrap_or(1);
    let seed = number("SEED", drawn) as u64;
    println!("SEED={seed}");
    seed
}

/// Three nodes with spread leaders.
async fn cluster(dir: &std::path::Path) -> (Cluster, Target) {
    let cluster = Cluster::start(PSPD, 3, dir).await;
    cluster.until_balanced().await;
    let target = cluster.target();
    (cluster, target)
}

/// Sends a signal and says whether the process is as it should be afterwards.
async fn signal(cluster: &Cluster, scenario: &Scenario, victim: usize, signal: Signal) -> Injected {
    let pid = cluster.nodes()[victim].pid;
    cluster.signal(victim, signal);
    let limit = Duration::from_secs(2);
    let what = format!("node {victim} takes the signal");
    scenario
        .until(&what, limit, || async { took(pid, signal) })
        .await;
    Injected::Installed
}

fn took(pid: i32, signal: Signal) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let state = state.and_then(|text| text.rsplit_once(") ")?.1.chars().next());
    if signal == Signal::STOP {
        return state == Some('T');
    }
    let id = Pid::from_raw(pid).expect("a process id");
    state.is_none_or(|state| state == 'Z') || test_kill_process(id).is_err()
}

/// How many shards each position leads, as the leaders themselves say.
async fn leaderships(target: &Target) -> BTreeMap<usize, usize> {
    let mut count = BTreeMap::new();
    for position in target.leaders().await.into_values() {
        *count.entry(position).or_default() += 1;
    }
    count
}

/// Waits until all nodes are ready and every replica has nearly all of its leader's log.
async fn until_whole(scenario: &Scenario, target: &Target) {
    let limit = Duration::from_secs(30);
    let whole = || async {
        let mut groups = 0;
        for position in 0..target.nodes.len() {
            let ready = target.admin_page(position, "/readyz").await;
            let Some(status) = target.status(position).await else {
                return false;
            };
            if !ready.is_some_and(|page| page.contains("\"ready\":true")) {
                return false;
            }
            for group in status
                .groups
                .iter()
                .filter(|it| it.leader == Some(status.node))
            {
                groups += 1;
                let caught_up = |lag: Option<u64>| lag.is_some_and(|lag| lag < 200);
                if !group.replicas.iter().all(|replica| caught_up(replica.lag)) {
                    return false;
                }
            }
        }
        groups >= 7
    };
    scenario.until("all nodes are whole", limit, whole).await;
}

#[expect(clippy::print_stdout, reason = "the figures of a run are its result")]
/// Ends a run: prints what a person wants to see, and fails unless both verdicts are a pass.
async fn conclude(scenario: Scenario, cluster: Cluster) -> Verdicts {
    let verdicts = scenario.finish().await;
    let (shard, gap) = &verdicts.longest_gap;
    println!(
        "{:?}, longest gap {gap:?} in {shard}, report {}",
        verdicts.tally,
        verdicts.report.display()
    );
    verdicts.assert();
    cluster.stop().await;
    verdicts
}
