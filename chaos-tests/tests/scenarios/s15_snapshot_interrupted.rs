//! Scenario 15: a node was away for so long that its logs are purged elsewhere. It gets snapshots, over a slow link, and is killed in the
//! middle of them; a file that had arrived is flipped, and so is one of a sender; a sender is killed; then the node once more, while it
//! installs.
//!
//! A replica has all of a snapshot or nothing of it. What has arrived is not sent again. In the end all replicas are equal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos_tests::faults::disk::Rot;
use chaos_tests::faults::network::Links;
use chaos_tests::faults::process::Killed;
use chaos_tests::rig::link::LinkSpec;
use chaos_tests::rig::{DATA, RigConfig};
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;
use futures::future::join_all;
use model::id::GroupId;
use model::limits::DEFAULT_SHARDS;
use rand::Rng as _;

use crate::own::Own;
use crate::play::Play;

/// Bytes of a session that is made while the node is away, and what an entry has of them at the least, compressed as it is.
const BYTES: usize = 16_000;
const IN_LOG: u64 = 8_000;
/// Sessions made at a time, bytes of a shard's log after which there are enough, and within what it is purged then.
const AT_ONCE: usize = 6;
const ENOUGH: u64 = 2_000_000;
const PURGED_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a log that is cut, and within what one that is to be cut was.
const CUT: u64 = 1 << 20;
const SETTLES: Duration = Duration::from_millis(1500);
/// How often it is looked whether all are.
const LOOKS: usize = 5;
/// Bytes a second to the node while snapshots come, and what waits at most for that.
const RATE: u64 = 2_000_000;
const QUEUE: u64 = 64 << 10;
/// Bytes that have arrived when the node is killed, and more that come before a sender is.
const ARRIVED: u64 = 2_000_000;
const MORE: u64 = 500_000;
/// How long a transfer may take to get so far.
const COMES_WITHIN: Duration = Duration::from_secs(20);
/// How long the sender stays dead.
const DEAD_FOR: Duration = Duration::from_millis(1500);

/// The node that was away, and what is known of it.
struct Behind {
    node: usize,
    /// The last entry of each group that it had.
    had: BTreeMap<String, u64>,
    /// What the snapshots of the others reach to, at the least.
    offered: BTreeMap<String, u64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn an_interrupted_snapshot_is_nothing_and_goes_on_where_it_was() {
    let seed = crate::seed("15");
    let config = RigConfig {
        settings: vec!["storage.shard_log=1MiB".to_owned()],
        ..RigConfig::new(&crate::pspd(), seed)
    };
    // Little, so that the snapshots that are sent stay the newest.
    let mix = Mix {
        rate: 40,
        large_percent: 0,
        ..Mix::new(seed)
    };
    let mut play = Play::begin("15", config, Rules::default(), mix).await;
    let own = Own::new(&play);
    let node = play.random.random_range(0..3);
    let (first, second) = ((node + 1) % 3, (node + 2) % 3);
    let mut away = Killed(vec![node]);
    let had = last_indexes(&play, node).await;
    play.inject(&mut away);
    let offered = until_purged(&play, &own, [first, second]).await;
    let behind = Behind { node, had, offered };
    let mut slow = slow_link(node);
    play.inject(&mut slow);
    flip_at_sender(&mut play, second).await;
    play.heal(&mut away);

    let staged = killed_in_the_middle(&mut play, &behind).await;
    goes_on(&play, &behind, &staged).await;
    sender_killed(&play, &behind, first).await;
    killed_while_it_installs(&play, &behind).await;
    play.heal(&mut slow);
    play.until_serves().await;
    whole(&play, &behind, second).await;
    play.finish().await;
}

/// Where each shard's log ends on a node.
async fn last_indexes(play: &Play, node: usize) -> BTreeMap<String, u64> {
    let status = play.rig.target().status(node).await.expect("it answers");
    let shards = status.groups.into_iter();
    let shards = shards.filter(|it| it.group != GroupId::Meta.to_string());
    shards.map(|it| (it.group, it.last_index)).collect()
}

/// Makes sessions until each shard has much more than its log keeps, and waits until no log of these nodes has all of it; what their
/// snapshots reach to.
async fn until_purged(play: &Play, own: &Own, nodes: [usize; 2]) -> BTreeMap<String, u64> {
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    while written.len() < usize::from(DEFAULT_SHARDS)
        || written.values().any(|bytes| *bytes < ENOUGH)
    {
        let made = (0..AT_ONCE).map(|_| own.create(BYTES, None));
        for (group, _) in join_all(made).await {
            *written.entry(group).or_default() += IN_LOG;
        }
    }
    let done = || async { purged(play, &written, nodes).await.is_some() };
    for _ in 0..LOOKS {
        play.rig.until("logs are purged", PURGED_WITHIN, done).await;
        // A snapshot that is being taken takes the place of the one that is there.
        play.scenario.until_passed(SETTLES).await;
        if let Some(offered) = purged(play, &written, nodes).await {
            println!("logs are purged after {written:?}");
            return offered;
        }
    }
    unreachable!("the logs are cut again and again");
}

/// If each log is shorter than what was written, its beginning is gone; and if none is to be cut now.
async fn purged(
    play: &Play,
    written: &BTreeMap<String, u64>,
    nodes: [usize; 2],
) -> Option<BTreeMap<String, u64>> {
    let mut offered: BTreeMap<String, u64> = BTreeMap::new();
    for node in nodes {
        for group in play.rig.target().status(node).await?.groups {
            let Some(written) = written.get(&group.group) else {
                continue;
            };
            if group.log_bytes >= (*written).min(CUT) {
                return None;
            }
            let least = offered.entry(group.group).or_insert(u64::MAX);
            *least = group.snapshot_index.min(*least);
        }
    }
    (offered.len() == usize::from(DEFAULT_SHARDS)).then_some(offered)
}

fn slow_link(node: usize) -> Links {
    let spec = LinkSpec {
        rate: Some(RATE),
        queue: QUEUE,
        ..LinkSpec::default()
    };
    let others = (0..3).filter(|other| *other != node);
    let links = others.map(|other| (other, node)).collect();
    Links::new(format!("slow links to node {node}"), links, spec)
}

/// Flips a file of a snapshot that a node is going to send: one that is not its state's, too.
async fn flip_at_sender(play: &mut Play, sender: usize) {
    let status = play.rig.target().status(sender).await.expect("it answers");
    let meta = GroupId::Meta.to_string();
    let led = status.groups.into_iter();
    let led = led.filter(|it| it.leader == Some(status.node) && it.group != meta);
    // The one that is cut last of them: its snapshot stays the newest.
    let chosen = led.min_by_key(|it| it.log_bytes);
    let group = chosen.expect("each of two nodes leads").group;
    let mut files = play.rig.disk(sender).files(&format!("{DATA}/groups"), "");
    files.retain(|path| {
        let text = path.to_string_lossy();
        is_of(path, &group) && text.contains("/snapshot-") && text.contains("/MANIFEST-")
    });
    let newest = files
        .into_iter()
        .max_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).ok());
    let file = newest.expect("it has a snapshot");
    let offset = play.random.random_range(0..size(&file));
    let mut rot = Rot {
        node: sender,
        file,
        offset,
    };
    play.inject(&mut rot);
}

/// Kills the node when some of the snapshots is there; what is there then. One file of it is flipped.
async fn killed_in_the_middle(play: &mut Play, behind: &Behind) -> BTreeMap<PathBuf, u64> {
    let node = behind.node;
    let some = || async { total(&staged(play, node)) > ARRIVED };
    play.rig.until("some has arrived", COMES_WITHIN, some).await;
    let mut killed = Killed(vec![node]);
    play.inject(&mut killed);
    let mut there = staged(play, node);
    println!(
        "{} bytes in {} files had arrived",
        total(&there),
        there.len()
    );
    let largest = there.iter().max_by_key(|(_, bytes)| **bytes);
    let (file, bytes) = largest
        .map(|(file, bytes)| (file.clone(), *bytes))
        .expect("a file");
    let mut rot = Rot {
        node,
        file: file.clone(),
        offset: play.random.random_range(0..bytes),
    };
    play.inject(&mut rot);
    play.heal(&mut killed);
    // Of its group all may have to come again.
    there.retain(|path, _| path.parent() != file.parent());
    there
}

/// The transfer goes on: what was there is not sent again.
async fn goes_on(play: &Play, behind: &Behind, before: &BTreeMap<PathBuf, u64>) {
    let node = behind.node;
    let from = total(&staged(play, node));
    let more = || async {
        all_or_nothing(play, behind).await;
        let now = staged(play, node);
        total(&now) > from + MORE || !installed(play, behind).await.is_empty()
    };
    play.rig
        .until("the transfer goes on", COMES_WITHIN, more)
        .await;
    let (there, installed) = (staged(play, node), installed(play, behind).await);
    let is_kept = |(path, bytes): &(&PathBuf, &u64)| {
        let now = there
            .get(*path)
            .or_else(|| there.get(&path.with_extension("")));
        let used = installed.iter().any(|group| is_of(path, group));
        used || now.is_some_and(|now| now >= *bytes)
    };
    let kept: u64 = before.iter().filter(is_kept).map(|(_, bytes)| bytes).sum();
    println!(
        "{kept} of {} bytes that had arrived were kept",
        total(before)
    );
    play.scenario.cover(
        "bytes had arrived before the node was killed",
        total(before) > MORE,
    );
    // Of the group whose sender finds its file flipped, some come again.
    assert!(kept * 2 >= total(before), "{before:?} {there:?}");
}

async fn sender_killed(play: &Play, behind: &Behind, sender: usize) {
    let unfinished = total(&staged(play, behind.node)) > 0;
    play.scenario
        .cover("a sender was killed in the middle", unfinished);
    let mut killed = Killed(vec![sender]);
    play.inject(&mut killed);
    play.scenario.until_passed(DEAD_FOR).await;
    all_or_nothing(play, behind).await;
    play.heal(&mut killed);
}

/// Kills the node in the middle of the installation of one of the snapshots.
async fn killed_while_it_installs(play: &Play, behind: &Behind) {
    let node = behind.node;
    let groups = play.rig.disk(node).path().join(DATA).join("groups");
    let installs = || async { is_installing(&groups) };
    play.rig.until("it installs", COMES_WITHIN, installs).await;
    let mut killed = Killed(vec![node]);
    play.inject(&mut killed);
    play.scenario.cover(
        "the node was killed while it installed",
        is_installing(&groups),
    );
    play.heal(&mut killed);
    let answers = || async { play.rig.target().status(node).await.is_some() };
    play.rig.until("it is back", COMES_WITHIN, answers).await;
    all_or_nothing(play, behind).await;
}

/// It has all of it in the end, and the flipped file was found where it was.
async fn whole(play: &Play, behind: &Behind, sender: usize) {
    let all = || async { installed(play, behind).await.len() == behind.had.len() };
    play.rig.until("it has everything", COMES_WITHIN, all).await;
    let log = play.rig.log(behind.node);
    let count = log.matches("snapshot installed").count();
    println!("{count} snapshots were installed");
    play.scenario
        .cover("each shard came by a snapshot", count >= behind.had.len());
    let found = || async { play.metric(sender, "psp_scrub_damage_total").await > 0.0 };
    let what = "the sender finds its flipped file";
    play.rig.until(what, COMES_WITHIN, found).await;
}

/// Each replica of the node is where it was or where a snapshot put it, never between.
async fn all_or_nothing(play: &Play, behind: &Behind) {
    let Some(status) = play.rig.target().status(behind.node).await else {
        return;
    };
    for group in status.groups {
        let Some(had) = behind.had.get(&group.group) else {
            continue;
        };
        let (applied, offered) = (group.applied_index, behind.offered[&group.group]);
        assert!(
            applied <= *had || applied >= offered,
            "{} is at {applied}; it had {had}, and snapshots reach to {offered}",
            group.group
        );
    }
}

/// The shards that the node has by a snapshot.
async fn installed(play: &Play, behind: &Behind) -> Vec<String> {
    let status = play.rig.target().status(behind.node).await;
    let groups = status.into_iter().flat_map(|status| status.groups);
    let offered = |group: &str| behind.offered.get(group);
    groups
        .filter(|it| offered(&it.group).is_some_and(|offered| it.applied_index >= *offered))
        .map(|it| it.group)
        .collect()
}

/// What has arrived of snapshots on a node, by file.
fn staged(play: &Play, node: usize) -> BTreeMap<PathBuf, u64> {
    let files = play.rig.disk(node).files(&format!("{DATA}/groups"), "");
    let staged = files
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("/staging/"));
    staged.map(|path| (path.clone(), size(&path))).collect()
}

fn total(files: &BTreeMap<PathBuf, u64>) -> u64 {
    files.values().sum()
}

/// Whether a group has a state beside the one that it serves.
fn is_installing(groups: &Path) -> bool {
    let names = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    names(groups).iter().any(|group| {
        let inside = names(group);
        let named = |start: &str| {
            let starts = |path: &&PathBuf| {
                let name = path.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with(start))
            };
            inside.iter().filter(starts).count()
        };
        named("arriving") > 0 || named("tablet-") > 1
    })
}

/// Whether a file is below the folder of a group.
fn is_of(path: &Path, group: &str) -> bool {
    let mut folders = path.iter().filter_map(|name| name.to_str());
    folders.any(|name| {
        let raw = u32::from_str_radix(name, 16).ok();
        let found = raw.and_then(GroupId::from_raw);
        name.len() == 8 && found.is_some_and(|found| found.to_string() == group)
    })
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}
