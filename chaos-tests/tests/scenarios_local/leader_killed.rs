//! The node that leads most is killed every two seconds; careful clients retry through any other and see nothing of it.

use std::time::Duration;

use chaos_tests::run::number;
use chaos_tests::scenario::{Rules, Scenario};
use chaos_tests::workload::Mix;
use rustix::process::Signal;
use tokio::time::Instant;

use super::{cluster, conclude, leaderships, seed, signal, until_whole};

/// From one kill to the next.
const PERIOD: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaders_are_killed_every_two_seconds_and_careful_clients_see_no_failure() {
    let seed = seed();
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, target) = cluster(dir.path()).await;
    let rules = Rules {
        longest_gap: Some(Duration::from_secs(1)),
        failures_allowed: false,
        least_under_fault: 300,
        ..Rules::default()
    };
    let mut scenario = Scenario::begin_with("leaders killed", seed, &target, rules);
    scenario.load(Mix::new(seed)).await;
    scenario.progress(500).await;
    for _ in 0..number("ROUNDS", 4) {
        let begun = Instant::now();
        let led = leaderships(&target).await;
        let (victim, count) = led
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .expect("somebody leads");
        let label = format!("node {victim} killed");
        let injected = signal(&cluster, &scenario, victim, Signal::KILL).await;
        scenario.fault(&label, &injected);
        scenario.cover(format!("{label}: it led {count} shards"), count > 0);
        let shards = usize::from(model::limits::DEFAULT_SHARDS);
        let moved = scenario
            .until("others lead", Duration::from_secs(5), || async {
                let led = leaderships(&target).await;
                !led.contains_key(&victim) && led.values().sum::<usize>() == shards
            })
            .await;
        println!("{label}: others lead after {moved:?}");
        cluster.node_command("start", victim);
        scenario.healed(&label);
        // Another kill before this one has caught up would leave no quorum, which is another scenario.
        until_whole(&scenario, &target).await;
        scenario
            .until_passed(PERIOD.saturating_sub(begun.elapsed()))
            .await;
    }
    conclude(scenario, cluster).await;
}
