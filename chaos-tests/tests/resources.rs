//! What a cluster costs when nothing happens, and when it holds much. Figures: `make figures` measures them alone on the
//! machine, which a run among other tests would not.

use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::resources::{MIB, memory, processor_time};
use chaos_tests::run::{fill, number};
use tokio::time::{Instant, sleep_until};

/// The nodes' program, as this package builds it.
const PSPD: &str = env!("CARGO_BIN_EXE_victim");

#[tokio::test]
#[ignore = "measures the machine: `make figures` runs it alone"]
async fn an_idle_cluster_costs_little() {
    const FOR: Duration = Duration::from_secs(60);
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(PSPD, 3, dir.path()).await;
    cluster.until_balanced().await;
    let pids: Vec<i32> = cluster.nodes().iter().map(|node| node.pid).collect();
    let used = || -> Duration { pids.iter().map(|pid| processor_time(*pid)).sum() };
    let (from, before) = (Instant::now(), used());
    sleep_until(from + FOR).await;
    let percent = (used() - before).as_secs_f64() * 100.0 / from.elapsed().as_secs_f64();
    let most = pids.iter().map(|pid| memory(*pid, "VmRSS")).max();
    let most = most.expect("there are nodes");
    println!(
        "three idle nodes: {percent:.1} % of a core in all, at most {} MiB each",
        most / MIB
    );
    cluster.stop().await;
    assert!(percent < 10.0, "{percent} %");
    assert!(most < 150 * MIB, "{most} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs 30 GB of disk and a quarter of an hour: `make million` runs it"]
async fn a_million_sessions_need_less_than_a_gibibyte() {
    let count = number("SESSIONS", 1_000_000);
    let dir = tempfile::tempdir().expect("a folder");
    // Three nodes share one disk here: short logs leave room for the sessions.
    let cluster = Cluster::start_with(PSPD, 3, dir.path(), &["storage.shard_log=32MiB"]).await;
    cluster.until_balanced().await;
    let pids: Vec<i32> = cluster.nodes().iter().map(|node| node.pid).collect();
    let from = Instant::now();
    let steps = 10;
    for step in 1..=steps {
        fill(&cluster, count / steps, 4096).await;
        let now: Vec<u64> = pids.iter().map(|pid| memory(*pid, "VmRSS") / MIB).collect();
        println!(
            "{} sessions after {:?}: {now:?} MiB",
            count / steps * step,
            from.elapsed()
        );
    }
    let most: Vec<u64> = pids.iter().map(|pid| memory(*pid, "VmHWM") / MIB).collect();
    println!("{count} sessions of 4 KiB: at most {most:?} MiB");
    cluster.stop().await;
    assert!(
        most.iter().all(|mebibytes| *mebibytes < 1024),
        "{most:?} MiB"
    );
}
