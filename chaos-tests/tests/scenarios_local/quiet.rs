//! Nothing happens: a run without a fault passes all checks, and its clients see no failure.

use chaos_tests::scenario::{Rules, Scenario};
use chaos_tests::workload::Mix;

use super::{cluster, conclude, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_quiet_cluster_passes_every_check() {
    let seed = seed();
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, target) = cluster(dir.path()).await;
    let rules = Rules {
        failures_allowed: false,
        ..Rules::default()
    };
    let mut scenario = Scenario::begin_with("a quiet cluster", seed, &target, rules);
    scenario.load(Mix::new(seed)).await;
    scenario.progress(2500).await;
    let done = scenario.history().acknowledged();
    scenario.cover(format!("{done} writes, at least 500"), done >= 500);
    conclude(scenario, cluster).await;
}
