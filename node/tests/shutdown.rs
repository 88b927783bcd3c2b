//! How processes end: cleanly when told to, with their supervisor whatever happens, and never with a trace left.

mod support;

use support::{Cluster, runs, signal, until};

#[tokio::test]
async fn a_stopped_cluster_leaves_no_process_and_no_record() {
    let mut cluster = Cluster::start().await;
    let nodes: Vec<u32> = (0..3).map(|node| cluster.pid(node)).collect();
    assert!(nodes.iter().all(|pid| runs(*pid)));
    assert!(cluster.stop().await.success());
    assert!(!nodes.iter().any(|pid| runs(*pid)));
    assert!(!cluster.folder().join("dev.json").exists());
    for node in 0..3 {
        let log = std::fs::read_to_string(cluster.folder().join(format!("node-{node}/pspd.log")))
            .unwrap();
        assert!(
            log.contains("node stopped"),
            "node {node} did not end its steps:\n{log}"
        );
        assert!(!log.contains("panic"), "{log}");
    }
}

#[tokio::test]
async fn nodes_end_when_their_supervisor_is_killed() {
    let mut cluster = Cluster::start().await;
    let nodes: Vec<u32> = (0..3).map(|node| cluster.pid(node)).collect();
    cluster.kill_supervisor().await;
    until("all nodes ended", async || {
        (!nodes.iter().any(|pid| runs(*pid))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_hands_over_and_the_others_serve() {
    let mut cluster = Cluster::start().await;
    let id = cluster.create(0, r#"{"name":"served"}"#).await;
    let stopped = cluster.pspd(&["dev", "node", "stop", "0"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(cluster.read(1, &id).await["name"], "served");
    let again = cluster.pspd(&["dev", "node", "stop", "0"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("node 0 is not running"));
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn a_node_killed_from_outside_stays_dead() {
    let mut cluster = Cluster::start().await;
    let pid = cluster.pid(2);
    signal(pid, "KILL");
    until("the supervisor noticed", async || {
        let stop = cluster.pspd(&["dev", "node", "stop", "2"]);
        String::from_utf8_lossy(&stop.stderr)
            .contains("not running")
            .then_some(())
    })
    .await;
    assert_eq!(
        cluster.pid(2),
        pid,
        "dev.json keeps the line of a dead node"
    );
    assert!(!runs(pid));
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn secrets_are_in_no_log_and_no_other_user_reads_them() {
    use std::os::unix::fs::MetadataExt as _;
    let mut cluster = Cluster::start().await;
    let key = cluster.record()["api_key"].as_str().unwrap().to_owned();
    cluster
        .create(
            0,
            r#"{"cookies":[{"name":"n","value":"cookie-value-x","domain":"d","path":"/"}]}"#,
        )
        .await;
    let (status, metrics) = cluster.admin(0, "/metrics").await;
    assert_eq!(status, 200);
    assert!(cluster.stop().await.success());
    let secrets: Vec<String> = ["master-key", "cluster-secret", "api-key"]
        .iter()
        .map(|name| cluster.folder().join("secrets").join(name))
        .map(|path| {
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        })
        .collect();
    assert!(secrets.contains(&key));
    for node in 0..3 {
        let log = std::fs::read_to_string(cluster.folder().join(format!("node-{node}/pspd.log")))
            .unwrap();
        for secret in secrets.iter().map(String::as_str).chain(["cookie-value-x"]) {
            assert!(!log.contains(secret) && !metrics.contains(secret));
        }
    }
}
