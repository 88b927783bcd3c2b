//! A node's disk is lost: it returns under a new id and is rebuilt while clients write.

use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::run::{Load, fill, sessions};
use rustix::process::Signal;

/// The nodes' program, as this package builds it.
const PSPD: &str = env!("CARGO_BIN_EXE_victim");

/// Stores so much that the leaders' logs no longer have the beginning: only a snapshot can bring it.
async fn cut_logs(cluster: &Cluster) {
    fill(cluster, 600, 30_000).await;
    cluster
        .until("the logs are cut", Duration::from_secs(30), || async {
            for position in 0..3 {
                let status = cluster.status(position).await.expect("the node answers");
                let mut shards = status.groups.iter().filter(|group| group.group != "meta");
                if shards.any(|group| group.snapshot_index == 0) {
                    return false;
                }
            }
            true
        })
        .await;
}

/// Nothing else has taken a snapshot on the rebuilt node.
async fn assert_came_by_snapshot(cluster: &Cluster) {
    let mine = cluster.status(2).await.expect("node 2 answers");
    for group in mine.groups.iter().filter(|group| group.group != "meta") {
        assert!(
            group.snapshot_index > 0,
            "{} was not rebuilt from a snapshot",
            group.group
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wiped_node_returns_under_a_new_id_and_is_rebuilt_under_load() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(PSPD, 3, dir.path(), &["storage.shard_log=1MiB"]).await;
    cluster.until_balanced().await;
    let sessions = sessions(&cluster, 8, None).await;
    cut_logs(&cluster).await;
    let old = cluster.status(2).await.expect("node 2 answers").node;
    let gateways: Vec<String> = cluster.nodes()[..2]
        .iter()
        .map(|node| node.http.clone())
        .collect();
    let mut load = Load::start(&cluster, &sessions, &gateways, Duration::from_millis(20)).await;
    load.progress(&cluster, 400).await;

    cluster.signal(2, Signal::KILL);
    cluster.node_command("wipe", 2);
    load.progress(&cluster, 400).await;
    cluster.node_command("start", 2);
    let rebuilt = cluster
        .until(
            "the node is a voter everywhere and the old id is gone",
            Duration::from_secs(60),
            || async {
                let (Some(mine), Some(others)) = (cluster.status(2).await, cluster.status(0).await)
                else {
                    return false;
                };
                mine.node != old
                    && others.nodes.iter().all(|node| node.id != old)
                    && others.groups.iter().all(|group| {
                        group.replicas.len() == 3
                            && group
                                .replicas
                                .iter()
                                .any(|replica| replica.node == mine.node && replica.role == "voter")
                            && group.replicas.iter().all(|replica| replica.node != old)
                    })
            },
        )
        .await;
    assert_came_by_snapshot(&cluster).await;
    load.progress(&cluster, 400).await;
    load.finish().await;
    let tally = load.check(&cluster).await;
    println!("rebuilt after {rebuilt:?} under load: {tally:?}");
    assert_eq!(
        (tally.fail, tally.unknown),
        (0, 0),
        "a client saw the fault"
    );

    // The rebuilt copy is a full one: with another node gone it carries the quorum.
    cluster.signal(0, Signal::KILL);
    cluster
        .until(
            "the rebuilt node serves",
            Duration::from_secs(10),
            || async {
                let node = &cluster.nodes()[2];
                let url = format!("{}/api/v2/sessions/{}", node.http, sessions[0]);
                let request = cluster.http().get(url).bearer_auth(cluster.api_key());
                matches!(request.send().await, Ok(response) if response.status() == 200)
            },
        )
        .await;
    load.check(&cluster).await;
    cluster.node_command("start", 0);
    cluster.stop().await;
}
