//! Bytes on a node's disk change: what is damaged is never served, and the node is whole again without an operator.

#[cfg(test)]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Cluster, until};

/// Flips bits in the middle of a file, as a disk does that rots.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("the file is read");
    bytes[at] ^= 0x40;
    fs::write(path, bytes).expect("the file is written");
}

/// What a node's admin listener answers, as JSON.
async fn admin(cluster: &Cluster, node: usize, path: &str) -> Option<Value> {
    let record = cluster.record();
    let base = record["nodes"][node]["admin"].as_str()?.to_owned();
    let answer = cluster.http.get(format!("{base}/admin/v1/{path}")).send();
    serde_json::from_slice(&answer.await.ok()?.bytes().await.ok()?).ok()
}

fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    let (folders, mut files): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| path.is_dir());
    files.retain(|path| path.to_string_lossy().contains(name));
    files.extend(folders.iter().flat_map(|folder| self::files(folder, name)));
    files
}

/// Text that does not compress.
fn noise(seed: usize, length: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed as u64 + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + u8::try_from(state % 90).unwrap_or_default())
    };
    (0..length)
        .map(|_| next())
        .filter(|c| !matches!(c, '"' | '\\'))
        .collect()
}

fn document(number: usize, length: usize) -> String {
    let value = noise(number, length);
    format!(
        r#"{{"name":"session {number}","origins":[{{"origin":"https://a.example","localStorage":[{{"name":"k","value":"{value}"}}]}}]}}"#
    )
}

#[tokio::test]
async fn a_node_whose_log_is_damaged_comes_back_under_a_new_id_with_everything() {
    let mut cluster = Cluster::start().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(cluster.create(number % 3, &document(number, 2000)).await);
    }
    let old = cluster.pid(2);
    let killed = cluster.pspd(&["dev", "node", "kill", "2"]);
    assert!(killed.status.success(), "{killed:?}");
    let data = cluster.folder().join("node-2/data");
    flip(&files(&data.join("log"), "segment-")[0], 100);
    for number in 12..15 {
        ids.push(cluster.create(number % 2, &document(number, 2000)).await);
    }
    let started = cluster.pspd(&["dev", "node", "start", "2"]);
    assert!(started.status.success(), "{started:?}");
    assert_ne!(cluster.pid(2), old);
    until("it is there under a new id alone", async || {
        let status = admin(&cluster, 0, "cluster").await?;
        let nodes = status["nodes"].as_array()?;
        let mut known: Vec<u64> = nodes
            .iter()
            .filter_map(|node| node["id"].as_u64())
            .collect();
        known.sort_unstable();
        (known == [1, 2, 4]).then_some(())
    })
    .await;
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(
            cluster.read(2, id).await["name"],
            format!("session {number}")
        );
    }
    assert!(
        !files(&data.join("damaged/log"), "segment-").is_empty(),
        "the old log is kept"
    );
    assert!(!data.join("rebuild").exists(), "it is done");
    // And it stays who it is.
    let stopped = cluster.pspd(&["dev", "node", "stop", "2"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let started = cluster.pspd(&["dev", "node", "start", "2"]);
    assert!(started.status.success(), "{started:?}");
    assert_eq!(admin(&cluster, 2, "cluster").await.unwrap()["node"], 4);
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn a_flip_in_stored_data_that_nobody_reads_is_found_by_a_scrub_and_mended_from_another_node()
{
    let mut cluster = Cluster::start_with(&["storage.shard_log=1MiB"]).await;
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(cluster.create(number % 3, &document(number, 500_000)).await);
    }
    let groups = cluster.folder().join("node-1/data/groups");
    let tables = || -> Vec<PathBuf> {
        let mut found = files(&groups, ".blob");
        found.retain(|path| path.to_string_lossy().contains("tablet-"));
        found
    };
    let table = until("something is on the disk", async || {
        tables()
            .into_iter()
            .find(|path| fs::metadata(path).is_ok_and(|it| it.len() > 200_000))
    })
    .await;
    // In place: the node has the file open.
    {
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&table)
            .unwrap();
        let (mut byte, at) = ([0], 100_000);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }
    let begun = cluster.pspd(&["node", "scrub"]);
    assert!(begun.status.success(), "{begun:?}");
    until("the damage is found and mended", async || {
        let report = admin(&cluster, 1, "scrub").await?;
        let mended = report["repairs"].as_object()?.is_empty();
        (report["damage"].as_u64()? > 0 && mended).then_some(())
    })
    .await;
    until("the node counts it as mended", async || {
        let record = cluster.record();
        let base = record["nodes"][1]["admin"].as_str()?.to_owned();
        let answer = cluster.http.get(format!("{base}/metrics")).send().await;
        let text = answer.ok()?.text().await.ok()?;
        text.contains("psp_replica_repairs_total 1").then_some(())
    })
    .await;
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(
            cluster.read(1, id).await["name"],
            format!("session {number}")
        );
    }
    assert!(cluster.stop().await.success());
}

#[tokio::test]
async fn a_compaction_gives_back_what_was_overwritten_and_changes_nothing_else() {
    let mut cluster = Cluster::start_with(&["storage.shard_log=1MiB"]).await;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(cluster.create(number % 3, &document(number, 300_000)).await);
    }
    let url = |id: &str| format!("/{id}");
    for round in 1..4 {
        for (number, id) in ids.iter().enumerate() {
            let body = document(number + 100 * round, 300_000);
            let answer = cluster
                .request(reqwest::Method::PUT, number % 3, &url(id))
                .body(body)
                .send()
                .await
                .unwrap();
            assert!(answer.status().is_success(), "{answer:?}");
        }
    }
    let begun = cluster.pspd(&["node", "compact"]);
    assert!(begun.status.success(), "{begun:?}");
    let lines = String::from_utf8(begun.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    // Each is one value of some 240 KB when it is packed; what was replaced is dead at once.
    for node in 0..3 {
        let report = admin(&cluster, node, "compact").await.unwrap();
        assert_eq!(report["passes"], 1, "{report}");
        assert_eq!(report["running"], false, "{report}");
        assert_eq!(report["skipped"], serde_json::json!({}), "{report}");
        let (before, after) = (report["before"].as_u64(), report["after"].as_u64());
        assert!(after < before && after > Some(12 * 200_000), "{report}");
    }
    for (number, id) in ids.iter().enumerate() {
        let name = format!("session {}", number + 300);
        assert_eq!(cluster.read(2, id).await["name"], name);
    }
    assert!(cluster.stop().await.success());
}
