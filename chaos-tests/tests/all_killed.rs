//! All nodes are killed at once, at random moments under load, again and again.

use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::run::{Load, fill, number, revision_now, sessions};
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio::time::Instant;

/// The nodes' program, as this package builds it.
const PSPD: &str = env!("CARGO_BIN_EXE_victim");

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    let count = number("KILLS", 4);
    let seed = number("SEED", 0xED6E) as u64;
    println!("SEED={seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(PSPD, 3, dir.path()).await;
    let sessions = sessions(&cluster, 8, None).await;
    let stored = number("SESSIONS", 1000);
    fill(&cluster, stored, 1024).await;
    println!("{stored} sessions stored");
    let mut recoveries = Vec::new();
    for kill in 0..count {
        let gateways: Vec<String> = cluster
            .nodes()
            .iter()
            .map(|node| node.http.clone())
            .collect();
        let mut load = Load::start(&cluster, &sessions, &gateways, Duration::from_millis(20)).await;
        load.progress(&cluster, random.random_range(100..600)).await;
        for position in 0..3 {
            cluster.signal(position, Signal::KILL);
        }
        load.finish().await;
        let from = Instant::now();
        cluster.node_commands("start", &[0, 1, 2]);
        cluster
            .until("the region serves again", Duration::from_secs(30), || {
                cluster.serves(&sessions[0])
            })
            .await;
        let recovery = from.elapsed();
        for session in &sessions {
            revision_now(&cluster, session).await;
        }
        let tally = load.check(&cluster).await;
        println!("kill {kill}: {tally:?}, serving after {recovery:?}");
        assert!(tally.ok > 50, "too few writes met the fault: {tally:?}");
        recoveries.push(recovery);
    }
    recoveries.sort_unstable();
    println!(
        "serving again after: median {:?}, longest {:?}",
        recoveries[count / 2],
        recoveries[count - 1]
    );
    assert!(
        recoveries[count - 1] <= Duration::from_secs(3),
        "{recoveries:?}"
    );
    cluster.stop().await;
}
