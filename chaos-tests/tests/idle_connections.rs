//! 10,000 connections that do nothing, or half of something: they cost little, and the next request is served.

use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::resources::{MIB, memory, raise_open_files};
use chaos_tests::run::{revision_now, sessions};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The nodes' program, as this package builds it.
const PSPD: &str = env!("CARGO_BIN_EXE_victim");

const COUNT: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let may = raise_open_files();
    assert!(
        may > COUNT as u64 + 1000,
        "this machine allows {may} open files: `ulimit -n` must be above"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(PSPD, 3, dir.path()).await;
    let sessions = sessions(&cluster, 1, None).await;
    let node = cluster.nodes().remove(0);
    let address = node.http.trim_start_matches("http://").to_owned();
    let before = memory(node.pid, "VmRSS");
    let mut idle = Vec::with_capacity(COUNT);
    for at in 0..COUNT {
        let stream = timeout(Duration::from_secs(5), TcpStream::connect(&address)).await;
        let mut stream = stream.expect("in time").expect("connects");
        if at % 2 == 0 {
            let half = stream.write_all(b"GET / HTTP/1.1\r\nx-half").await;
            half.expect("written");
        }
        idle.push(stream);
    }
    // A client that has a connection of its own to make, among all these.
    let http = reqwest::Client::new();
    let answer = http
        .get(format!("{}/api/v2/sessions/{}", node.http, sessions[0]))
        .bearer_auth(cluster.api_key())
        .timeout(Duration::from_secs(2))
        .send()
        .await
        .expect("an answer among idle connections");
    assert_eq!(answer.status(), 200);
    let after = memory(node.pid, "VmRSS");
    let grown = after.saturating_sub(before);
    println!(
        "{COUNT} idle connections: {} MiB, {} bytes each",
        grown / MIB,
        grown / COUNT as u64
    );
    assert!(grown < 256 * MIB, "{grown} bytes");
    drop(idle);
    revision_now(&cluster, &sessions[0]).await;
    cluster.stop().await;
}
