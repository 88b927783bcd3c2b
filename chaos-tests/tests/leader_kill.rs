//! The leader is killed, or restarted as planned, under load from clients of the surviving nodes.
//!
//! All writers' sessions are in shards that the victim leads, so every one of them meets the fault.

use std::time::Duration;

use chaos_tests::checker::{Tally, by_session, longest_gap};
use chaos_tests::cluster::Cluster;
use chaos_tests::run::{Load, number, sessions};
use rustix::process::Signal;

/// The nodes' program, as this package builds it.
const PSPD: &str = env!("CARGO_BIN_EXE_victim");

const CLIENTS: usize = 8;
const PERIOD: Duration = Duration::from_millis(20);

/// Takes the node at `victim` down with `signal` under load; what the load saw, and its longest pause.
async fn round(cluster: &Cluster, victim: usize, signal: Signal) -> (Tally, Duration) {
    cluster.until_balanced().await;
    let sessions = sessions(cluster, CLIENTS, Some(victim)).await;
    let survivors: Vec<String> = cluster
        .nodes()
        .iter()
        .filter(|node| node.id != victim)
        .map(|node| node.http.clone())
        .collect();
    let mut load = Load::start(cluster, &sessions, &survivors, PERIOD).await;
    load.progress(cluster, 400).await;
    let led = cluster
        .leaders()
        .await
        .values()
        .filter(|position| **position == victim)
        .count();
    assert!(led > 0, "the victim leads nothing: the fault would be none");
    let from = load.history().now();
    if signal == Signal::TERM {
        cluster.node_command("stop", victim);
    } else {
        cluster.signal(victim, signal);
    }
    load.progress(cluster, 1200).await;
    let to = load.history().now();
    load.finish().await;
    // Each session on its own: all of them are in shards that the victim led.
    let operations = load.history().operations();
    let gap = by_session(&operations)
        .into_values()
        .map(|own| longest_gap(own, from, to))
        .max();
    let gap = gap.expect("there are sessions");
    cluster.node_command("start", victim);
    let tally = load.check(cluster).await;
    (tally, gap)
}

#[expect(clippy::print_stdout, reason = "the figures of a run are its result")]
async fn rounds(signal: Signal, limit: Duration) {
    let count = number("KILLS", 3);
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(PSPD, 3, dir.path()).await;
    let mut gaps = Vec::new();
    for kill in 0..count {
        let victim = kill % 3;
        let (tally, gap) = round(&cluster, victim, signal).await;
        println!("kill {kill} of node {victim}: {tally:?}, longest pause {gap:?}");
        assert!(tally.ok > 1000, "too few writes met the fault: {tally:?}");
        assert_eq!(
            (tally.fail, tally.unknown),
            (0, 0),
            "a client saw the fault"
        );
        gaps.push(gap);
    }
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2];
    println!("longest pause of {count} rounds: median {median:?}, all {gaps:?}");
    assert!(median <= limit, "median {median:?} is above {limit:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_leader_costs_no_request_and_no_write_is_applied_twice() {
    rounds(Signal::KILL, Duration::from_millis(700)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_planned_restart_pauses_writes_for_a_moment_only() {
    rounds(Signal::TERM, Duration::from_millis(150)).await;
}
