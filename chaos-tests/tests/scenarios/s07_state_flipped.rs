//! Scenario 7: bytes of a node's stored state are flipped: in the tables of a replica, then in its values, which are read at once, then
//! in values of another node, which are read from its memory.
//!
//! Whoever reads gets what was written or an error, never anything else: the checkers know each byte. The replica is rebuilt from
//! another node by itself, and a scrub finds what no read would have found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos_tests::faults::Injected;
use chaos_tests::faults::process::Killed;
use chaos_tests::history::{Action, End, Operation};
use chaos_tests::rig::image::flip;
use chaos_tests::rig::{DATA, RigConfig};
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;
use futures::future::join_all;
use model::id::GroupId;
use model::limits::DEFAULT_SHARDS;
use rand::Rng as _;

use crate::own::Own;
use crate::play::Play;

/// Sessions of each shard that nobody changes, and bytes of each: enough for its log to be cut, so that its state is in tables.
const COLD: usize = 9;
const COLD_BYTES: usize = 200_000;
/// Sessions created or read at a time.
const AT_ONCE: usize = 4;
/// Within what all that is in tables.
const STORED_WITHIN: Duration = Duration::from_secs(15);
/// Within what a replica is rebuilt.
const REPAIRED_WITHIN: Duration = Duration::from_secs(20);
/// Within what a pass over all data ends that is asked for.
const SCRUBBED_WITHIN: Duration = Duration::from_secs(20);
/// One byte is flipped in so many of a file that is read at once, so that what is read is damaged; of a cold one in so many.
const HOT_EVERY: u64 = 8 << 10;
const COLD_EVERY: u64 = 512 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn flipped_state_is_never_served_and_is_mended_from_another_node() {
    let seed = crate::seed("7");
    let config = RigConfig {
        settings: vec!["storage.shard_log=1MiB".to_owned()],
        ..RigConfig::new(&crate::pspd(), seed)
    };
    let mut play = Play::begin("7", config, Rules::default(), Mix::new(seed)).await;
    let own = Own::new(&play);
    let cold = store_cold(&play, &own).await;
    let hot = play.leader().await;
    for kind in [".sst", ".blob"] {
        flipped_and_read(&mut play, &own, (hot, kind), &cold).await;
        play.until_serves().await;
    }
    flipped_and_scrubbed(&mut play, &own, (hot + 1) % 3, &cold).await;
    for node in 0..play.rig.count() {
        let read = read_all(&own, node, &cold, Action::Read).await;
        let wrong = read.iter().find(|read| read.outcome != End::Ok);
        assert!(wrong.is_none(), "{wrong:?}");
    }
    play.until_serves().await;
    play.finish().await;
}

/// Files that are read as soon as their node is back.
async fn flipped_and_read(
    play: &mut Play,
    own: &Own,
    (node, kind): (usize, &str),
    cold: &[String],
) {
    let said = |play: &Play| play.rig.log(node).matches("a replica is damaged").count();
    let before = said(play);
    let mut killed = Killed(vec![node]);
    play.inject(&mut killed);
    let files = of_largest_group(play, node, kind);
    flip_some(play, node, &files, HOT_EVERY);
    play.heal(&mut killed);
    let (mut errors, mut right) = (0, 0);
    let from = tokio::time::Instant::now();
    while play.metric(node, "psp_replica_repairs_total").await < 1.0 {
        let late = from.elapsed() > REPAIRED_WITHIN;
        assert!(
            !late,
            "the replica is not rebuilt within {REPAIRED_WITHIN:?}"
        );
        for action in [Action::ReadLocal, Action::Read] {
            for read in read_all(own, node, cold, action).await {
                match read.outcome {
                    End::Ok => right += 1,
                    End::Fail | End::Unknown => errors += 1,
                }
            }
        }
    }
    println!(
        "node {node} was rebuilt after {:?}; {right} reads right, {errors} failed",
        from.elapsed()
    );
    until_whole(play, node).await;
    play.scenario
        .cover(format!("damage of {kind} was met"), said(play) > before);
    play.scenario
        .cover("a damaged node was read", right + errors >= cold.len());
}

/// Values that a node has in memory: no read meets the damage before it needs that memory for something else.
async fn flipped_and_scrubbed(play: &mut Play, own: &Own, node: usize, cold: &[String]) {
    let read = read_all(own, node, cold, Action::ReadLocal).await;
    let right = read.iter().filter(|read| read.outcome == End::Ok).count();
    play.scenario
        .cover("values are in memory", right == cold.len());
    let before = play.metric(node, "psp_replica_repairs_total").await;
    let values = of_largest_group(play, node, ".blob");
    flip_some(play, node, &values, COLD_EVERY);
    let found = scrub(play, node).await;
    println!("node {node}: a scrub found {found} pieces of damage");
    play.scenario
        .cover("a scrub found cold damage", found > 0.0);
    let repaired = || async { play.metric(node, "psp_replica_repairs_total").await > before };
    let what = "the replica is rebuilt";
    let took = play.rig.until(what, REPAIRED_WITHIN, repaired).await;
    println!("node {node} was rebuilt {took:?} later");
    until_whole(play, node).await;
    let again = scrub(play, node).await;
    assert_eq!(again - found, 0.0, "a second pass finds nothing");
}

/// Makes the cold sessions, and waits until they are in tables and values on every node, and in the log of none.
async fn store_cold(play: &Play, own: &Own) -> Vec<String> {
    let mut cold = Vec::new();
    let mut of_shard: BTreeMap<String, usize> = BTreeMap::new();
    while of_shard.len() < usize::from(DEFAULT_SHARDS) || of_shard.values().any(|it| *it < COLD) {
        let made = (0..AT_ONCE).map(|_| own.create(COLD_BYTES, None));
        for (group, session) in join_all(made).await {
            *of_shard.entry(group).or_default() += 1;
            cold.push(session);
        }
    }
    let target = play.rig.target();
    let stored = || async {
        for node in 0..play.rig.count() {
            let Some(status) = target.status(node).await else {
                return false;
            };
            let mut shards = status.groups.iter();
            let meta = GroupId::Meta.to_string();
            if shards
                .any(|it| it.group != meta && (it.snapshot_index == 0 || it.log_bytes > 1 << 20))
            {
                return false;
            }
        }
        true
    };
    play.rig
        .until("states are stored", STORED_WITHIN, stored)
        .await;
    cold
}

/// Reads all of them through one node.
async fn read_all(own: &Own, node: usize, sessions: &[String], action: Action) -> Vec<Operation> {
    let mut read = Vec::new();
    for some in sessions.chunks(AT_ONCE) {
        let asks = some.iter().map(|session| own.ask_at(node, action, session));
        read.extend(join_all(asks).await);
    }
    for one in &read {
        assert_eq!(one.broken, None, "{one:?}");
    }
    read
}

/// The files of this kind of the shard that has most in them, of the state that is in use.
fn of_largest_group(play: &Play, node: usize, kind: &str) -> Vec<PathBuf> {
    let disk = play.rig.disk(node);
    let groups = disk.path().join(DATA).join("groups");
    let mut all = disk.files(&format!("{DATA}/groups"), kind);
    all.retain(|path| path.to_string_lossy().contains("/tablet-"));
    let group = |path: &Path| {
        path.strip_prefix(&groups)
            .ok()?
            .iter()
            .next()
            .map(std::ffi::OsStr::to_owned)
    };
    let bytes = |of: &PathBuf| -> u64 {
        let same = all.iter().filter(|path| group(path) == group(of));
        same.map(|path| size(path)).sum()
    };
    let largest = all
        .iter()
        .max_by_key(|path| bytes(path))
        .and_then(|path| group(path));
    all.iter()
        .filter(|path| group(path) == largest)
        .cloned()
        .collect()
}

/// Flips a byte in each so many of each file, in the part before its index.
fn flip_some(play: &mut Play, node: usize, files: &[PathBuf], every: u64) {
    let mut flipped = Ok(0_u32);
    for file in files {
        let data = size(file) * 2 / 3;
        for from in (0..data).step_by(usize::try_from(every).expect("a small number")) {
            let within = every.min(data - from);
            let at = from + play.random.random_range(0..within);
            flipped = flipped.and_then(|count| flip(file, at).map(|()| count + 1));
        }
    }
    let kind = files
        .first()
        .and_then(|file| file.extension())
        .unwrap_or_default();
    let label = format!(
        "{} bytes of node {node}'s {} files are flipped",
        flipped.as_ref().map_or_else(String::clone, u32::to_string),
        kind.display()
    );
    let injected = match flipped {
        Ok(0) => Injected::Skipped("there is no such file".to_owned()),
        Ok(_) => Injected::Installed,
        Err(why) => Injected::Indeterminate(why),
    };
    println!("{label}: {injected:?}");
    play.scenario.fault(&label, &injected);
}

/// Reads all of a node's stored data; the damage found since it started.
async fn scrub(play: &Play, node: usize) -> f64 {
    let url = format!("{}/admin/v1/scrub", play.rig.nodes()[node].admin);
    let passes = async || {
        let page = play
            .rig
            .target()
            .admin_page(node, "/admin/v1/scrub")
            .await?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        page["passes"].as_u64()
    };
    let before = passes().await.expect("a node tells of its scrubs");
    let asked = play.rig.http().post(&url).send().await;
    assert!(asked.is_ok_and(|answer| answer.status() == 202));
    let ended = || async { passes().await.is_some_and(|now| now > before) };
    play.rig.until("a pass ends", SCRUBBED_WITHIN, ended).await;
    play.metric(node, "psp_scrub_damage_total").await
}

async fn until_whole(play: &Play, node: usize) {
    let whole = || async {
        let target = play.rig.target();
        target.metric(node, "psp_replicas_in_repair").await == Some(0.0)
    };
    play.rig
        .until("no replica is damaged", REPAIRED_WITHIN, whole)
        .await;
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}
