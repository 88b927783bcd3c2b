//! A region of three real processes: what is written through one node is there through the others, whichever dies.

#[cfg(test)]
mod support;

use serde_json::Value;
use support::{Cluster, until};

/// The node that leads most shards, by position; ids are positions plus one in a cluster whose nodes never joined.
fn busiest(status: &Value) -> Option<usize> {
    let nodes = status["nodes"].as_array()?;
    let most = nodes.iter().max_by_key(|node| node["leads"].as_u64())?;
    usize::try_from(most["id"].as_u64()? - 1).ok()
}

/// What `pspd cluster status -o json` prints.
fn status(cluster: &Cluster) -> Value {
    let output = cluster.pspd(&["cluster", "status", "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn leaders_known(status: &Value) -> bool {
    let groups = status["groups"].as_array();
    groups.is_some_and(|groups| {
        groups.len() == 7 && groups.iter().all(|group| !group["leader"].is_null())
    })
}

#[tokio::test]
async fn a_session_survives_the_death_of_its_leader() {
    let mut cluster = Cluster::start().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        let body = format!(r#"{{"name":"session {number}"}}"#);
        ids.push(cluster.create(number % 3, &body).await);
    }
    for (number, id) in ids.iter().enumerate() {
        for node in 0..3 {
            assert_eq!(
                cluster.read(node, id).await["name"],
                format!("session {number}")
            );
        }
    }

    let status = until("every group has a leader", async || {
        Some(status(&cluster)).filter(leaders_known)
    })
    .await;
    let victim = busiest(&status).unwrap();
    let killed = cluster.pspd(&["dev", "node", "kill", &victim.to_string()]);
    assert!(killed.status.success(), "{killed:?}");
    for (number, id) in ids.iter().enumerate() {
        for node in (0..3).filter(|node| *node != victim) {
            assert_eq!(
                cluster.read(node, id).await["name"],
                format!("session {number}")
            );
        }
    }

    let old = cluster.pid(victim);
    let started = cluster.pspd(&["dev", "node", "start", &victim.to_string()]);
    assert!(started.status.success(), "{started:?}");
    assert_ne!(cluster.pid(victim), old, "dev.json names the new process");
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(
            cluster.read(victim, id).await["name"],
            format!("session {number}")
        );
    }
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn the_whole_cluster_starts_again_with_what_it_had() {
    let mut cluster = Cluster::start().await;
    let id = cluster.create(0, r#"{"name":"kept","tags":["a"]}"#).await;
    let before = cluster.read(1, &id).await;
    assert!(cluster.stop().await.success());
    cluster.boot().await;
    assert_eq!(cluster.read(2, &id).await, before);
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn a_node_whose_log_cannot_be_written_serves_on() {
    let mut cluster = Cluster::start().await;
    let id = cluster.create(0, r#"{"name":"kept"}"#).await;
    assert!(cluster.pspd(&["dev", "node", "kill", "1"]).status.success());
    // As on a full disk.
    let log = cluster.folder().join("node-1").join("pspd.log");
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let started = cluster.pspd(&["dev", "node", "start", "1"]);
    assert!(started.status.success(), "{started:?}");
    assert_eq!(cluster.read(1, &id).await["name"], "kept");
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn the_client_commands_do_what_they_say() {
    let mut cluster = Cluster::start().await;
    let file = cluster.folder().join("document.json");
    std::fs::write(&file, r#"{"name":"from a file","tags":["x"]}"#).unwrap();
    let put = cluster.pspd(&["session", "put", file.to_str().unwrap()]);
    assert!(put.status.success(), "{put:?}");
    let id = String::from_utf8(put.stdout).unwrap().trim().to_owned();

    let got = cluster.pspd(&["session", "get", &id]);
    let document: Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(document["name"], "from a file");
    let listed = String::from_utf8(cluster.pspd(&["session", "ls", "--tag", "x"]).stdout).unwrap();
    assert!(
        listed.contains(&id) && listed.contains("from a file"),
        "{listed}"
    );

    assert!(cluster.pspd(&["session", "rm", &id]).status.success());
    let gone = cluster.pspd(&["session", "get", &id]);
    assert_eq!(gone.status.code(), Some(6), "{gone:?}");

    let table = String::from_utf8(cluster.pspd(&["cluster", "status"]).stdout).unwrap();
    assert!(
        table.contains("LEADER") && table.contains("r0-s5") && table.contains("meta"),
        "{table}"
    );
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn a_wiped_node_comes_back_under_a_new_id() {
    let mut cluster = Cluster::start().await;
    let id = cluster.create(0, r#"{"name":"rebuilt"}"#).await;
    for verb in ["kill", "wipe", "start"] {
        let done = cluster.pspd(&["dev", "node", verb, "1"]);
        assert!(done.status.success(), "{verb}: {done:?}");
    }
    assert_eq!(cluster.read(1, &id).await["name"], "rebuilt");
    until(
        "the old id is gone and the new one has all replicas",
        async || {
            let status = status(&cluster);
            let ids = |list: &Value, key: &str| -> Vec<u64> {
                list.as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|item| item[key].as_u64())
                    .collect()
            };
            let whole = status["groups"].as_array()?.iter().all(|group| {
                let mut replicas = ids(&group["replicas"], "node");
                replicas.sort_unstable();
                replicas == [1, 3, 4]
            });
            (whole && ids(&status["nodes"], "id") == [1, 3, 4]).then_some(())
        },
    )
    .await;
    assert_eq!(cluster.record()["nodes"][1]["id"], 1, "its position stays");
    assert!(cluster.stop().await.success());
}
