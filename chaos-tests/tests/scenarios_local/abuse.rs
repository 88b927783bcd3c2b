//! Clients that mean harm, or do not know better: the others go on, and no process grows or dies.
//!
//! Four at once against one gateway: a flood of ten times the load, connections that send a byte a second, HTTP/2 streams that
//! are reset as soon as they are opened, and small bodies that decompress into large ones. Tenants do not exist yet, so all
//! of it comes with one key: what is shown is that the gateway bounds what it takes on, not that it is fair.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chaos_tests::faults::Injected;
use chaos_tests::resources::{MIB, memory};
use chaos_tests::scenario::{Rules, Scenario};
use chaos_tests::target::Target;
use chaos_tests::workload::Mix;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::{cluster, conclude, seed};

/// Operations a second of the others.
const RATE: u32 = 60;
/// How long each phase takes.
const PHASE: Duration = Duration::from_secs(8);
/// Slow connections.
const SLOW: usize = 400;
/// No node may need more memory than this.
const MEMORY: u64 = 256 * MIB;
/// Bytes that a bomb becomes: more than any document may have.
const BOMB: usize = 200 << 20;

#[derive(Debug, Default)]
struct Counts {
    flood_ok: AtomicU64,
    flood_refused: AtomicU64,
    slow: AtomicU64,
    resets: AtomicU64,
    bombs_refused: AtomicU64,
    bombs_taken: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn abuse_of_one_gateway_costs_the_others_little_and_no_process_its_life() {
    let seed = seed();
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, target) = cluster(dir.path()).await;
    let rules = Rules {
        failures_allowed: false,
        least_under_fault: 100,
        ..Rules::default()
    };
    let mut scenario = Scenario::begin_with("abuse", seed, &target, rules);
    let mix = Mix {
        rate: RATE,
        large_percent: 0,
        ..Mix::new(seed)
    };
    scenario.load(mix).await;
    scenario.progress(100).await;
    let before = scenario.history().now();
    scenario.until_passed(PHASE).await;
    let begun = scenario.history().now();
    let counts = Arc::new(Counts::default());
    let mut abuse = abusers(&target, &counts);
    for label in ["flood", "slow connections", "rapid resets", "bombs"] {
        scenario.fault(label, &Injected::Installed);
    }
    scenario.until_passed(PHASE).await;
    let ended = scenario.history().now();
    abuse.shutdown().await;
    for label in ["flood", "slow connections", "rapid resets", "bombs"] {
        scenario.healed(label);
    }
    println!("{counts:?}");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    scenario.cover(
        "the flood was answered",
        count(&counts.flood_ok) + count(&counts.flood_refused) > 500,
    );
    scenario.cover(
        "slow connections were held",
        count(&counts.slow) >= SLOW as u64 / 2,
    );
    scenario.cover("streams were reset", count(&counts.resets) > 1000);
    scenario.cover("bombs were refused", count(&counts.bombs_refused) > 5);
    let (quiet, abused) = (p99(&scenario, before, begun), p99(&scenario, begun, ended));
    println!("p99 of the others: quiet {quiet:?}, abused {abused:?}");
    let nodes = cluster.nodes();
    let most = nodes.iter().map(|node| memory(node.pid, "VmHWM")).max();
    let most = most.expect("there are nodes");
    println!("a node used at most {} MiB", most / MIB);
    let taken = count(&counts.bombs_taken);
    conclude(scenario, cluster).await;
    assert_eq!(taken, 0, "a body larger than any document was taken");
    assert!(most < MEMORY, "a node used {} MiB", most / MIB);
    assert!(
        abused <= quiet * 2,
        "p99 of the others rose from {quiet:?} to {abused:?}"
    );
}

/// The 99th percentile of what was due in this time.
fn p99(scenario: &Scenario, from: u64, to: u64) -> Duration {
    let operations = scenario.history().operations();
    let own = operations.iter().filter(|it| (from..to).contains(&it.due));
    let mut times: Vec<u64> = own.map(|it| it.latency()).collect();
    assert!(times.len() > 200, "too few operations for a percentile");
    times.sort_unstable();
    Duration::from_micros(times[times.len() * 99 / 100])
}

/// All abusers, until they are shut down.
fn abusers(target: &Target, counts: &Arc<Counts>) -> JoinSet<()> {
    let mut abuse = JoinSet::new();
    let address = target.nodes[0]
        .http
        .trim_start_matches("http://")
        .to_owned();
    for _ in 0..SLOW {
        abuse.spawn(crawl(address.clone(), Arc::clone(counts)));
    }
    for _ in 0..4 {
        abuse.spawn(reset(address.clone(), Arc::clone(counts)));
    }
    abuse.spawn(flood(target.clone(), Arc::clone(counts)));
    for _ in 0..2 {
        abuse.spawn(bomb(target.clone(), Arc::clone(counts)));
    }
    abuse
}

/// Ten times the others' rate, whatever comes back.
async fn flood(target: Target, counts: Arc<Counts>) {
    let mut period = interval(Duration::from_secs(1) / (RATE * 10));
    let mut under_way = JoinSet::new();
    loop {
        period.tick().await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() > 2000 {
            continue;
        }
        let (target, counts) = (target.clone(), Arc::clone(&counts));
        under_way.spawn(async move {
            let body = serde_json::json!({"name": "flood", "description": "x".repeat(2000)});
            let request = target
                .http
                .post(format!("{}/api/v2/sessions", target.nodes[0].http))
                .bearer_auth(&target.api_key)
                .header("content-type", "application/json")
                .header("prefer", "return=minimal")
                .body(body.to_string());
            let status = request.send().await.map(|answer| answer.status().as_u16());
            let counter = match status {
                Ok(201) => &counts.flood_ok,
                _ => &counts.flood_refused,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }
}

/// A request that never ends: a byte a second.
async fn crawl(address: String, counts: Arc<Counts>) {
    loop {
        let Ok(mut stream) = TcpStream::connect(&address).await else {
            return;
        };
        if stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ")
            .await
            .is_err()
        {
            continue;
        }
        counts.slow.fetch_add(1, Ordering::Relaxed);
        let mut period = interval(Duration::from_secs(1));
        loop {
            period.tick().await;
            if stream.write_all(b"x").await.is_err() {
                break;
            }
        }
    }
}

/// HTTP/2 streams, each reset right after it was opened (CVE-2023-44487), on a connection that is made again when it is
/// closed.
async fn reset(address: String, counts: Arc<Counts>) {
    // Length, type, flags, stream; then the payload. GET / with an authority of one letter.
    let headers = |stream: u32| {
        let mut frame = vec![0, 0, 6, 1, 0x5];
        frame.extend(stream.to_be_bytes());
        frame.extend([0x82, 0x86, 0x84, 0x41, 1, b'x']);
        frame.extend([0, 0, 4, 3, 0]);
        frame.extend(stream.to_be_bytes());
        frame.extend([0, 0, 0, 8]);
        frame
    };
    loop {
        let Ok(mut stream) = TcpStream::connect(&address).await else {
            return;
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        if stream.write_all(preface).await.is_err() {
            continue;
        }
        let mut answer = [0; 4096];
        let mut period = interval(Duration::from_millis(5));
        for burst in 0_u32.. {
            period.tick().await;
            let frames: Vec<u8> = (0..10)
                .flat_map(|at| headers((burst * 10 + at) * 2 + 1))
                .collect();
            if stream.write_all(&frames).await.is_err() {
                break;
            }
            counts.resets.fetch_add(10, Ordering::Relaxed);
            let answer = timeout(Duration::from_millis(1), stream.read(&mut answer)).await;
            if let Ok(Ok(0) | Err(_)) = answer {
                break;
            }
        }
    }
}

/// A small body that becomes a large one.
async fn bomb(target: Target, counts: Arc<Counts>) {
    let body = bytes::Bytes::from(packed());
    let mut period = interval(Duration::from_millis(100));
    loop {
        period.tick().await;
        let request = target
            .http
            .post(format!("{}/api/v2/sessions", target.nodes[0].http))
            .bearer_auth(&target.api_key)
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .body(body.clone());
        let counter = match request.send().await.map(|answer| answer.status().as_u16()) {
            Ok(200..300) => &counts.bombs_taken,
            _ => &counts.bombs_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn packed() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let piece = vec![b'x'; 1 << 20];
    encoder.write_all(br#"{"description":""#).expect("memory");
    for _ in 0..BOMB >> 20 {
        encoder.write_all(&piece).expect("memory");
    }
    encoder.write_all(br#""}"#).expect("memory");
    encoder.finish().expect("memory")
}
