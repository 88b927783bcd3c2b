//! The leader stands still beyond its lease while clients wait on it, and goes on when others lead.
//!
//! Clients wait longer than the pause: what it held when it stood still is answered, or not, by a node that no longer leads.

use std::time::Duration;

use chaos_tests::history::End;
use chaos_tests::run::number;
use chaos_tests::scenario::{Rules, Scenario};
use chaos_tests::workload::Mix;
use rustix::process::Signal;

use super::{cluster, conclude, leaderships, seed, signal, until_whole};

/// Longer than any lease and any election.
const PAUSE: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_that_stood_still_beyond_its_lease_gives_no_stale_answer() {
    let seed = seed();
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, target) = cluster(dir.path()).await;
    let rules = Rules {
        budget: Duration::from_secs(12),
        attempt: Duration::from_secs(8),
        least_under_fault: 200,
        ..Rules::default()
    };
    let mut scenario = Scenario::begin_with("leader paused", seed, &target, rules);
    scenario.load(Mix::new(seed)).await;
    scenario.progress(500).await;
    for _ in 0..number("ROUNDS", 2) {
        let led = leaderships(&target).await;
        let (victim, count) = led
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .expect("somebody leads");
        let label = format!("node {victim} paused");
        let injected = signal(&cluster, &scenario, victim, Signal::STOP).await;
        scenario.fault(&label, &injected);
        scenario.cover(format!("{label}: it led {count} shards"), count > 0);
        scenario.until_passed(PAUSE).await;
        let led = leaderships(&target).await;
        let moved = led.values().sum::<usize>();
        let shards = usize::from(model::limits::DEFAULT_SHARDS);
        scenario.cover(
            format!("{label}: others led {moved} shards before it went on"),
            moved == shards,
        );
        let resumed = scenario.history().now();
        cluster.signal(victim, Signal::CONT);
        scenario.healed(&label);
        until_whole(&scenario, &target).await;
        let gateway = &target.nodes[victim].http;
        let operations = scenario.history().operations();
        let late = operations.iter().filter(|it| {
            it.gateway == *gateway
                && it.start < resumed
                && it.end > resumed
                && it.outcome == End::Ok
        });
        let late = late.count();
        scenario.cover(
            format!("{label}: it answered {late} requests that it held, at least 10"),
            late >= 10,
        );
    }
    conclude(scenario, cluster).await;
}
