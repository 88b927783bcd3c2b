//! Scenario 9: the disk of one node is full, then those of a majority, then that of one node to the last byte; and freed again.
//!
//! One full disk of three refuses nobody's write: its node leads nothing more. A write that the disks of a majority hold up is answered with
//! 507 or 503 at once. As long as the reserve of a disk is not used up, reads, deletions and expiry go on, also at the node whose disk it is.
//! When there is room again, all is as before, and no process has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos_tests::faults::disk::Full;
use chaos_tests::history::{Action, End, Operation, Shown};
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::own::Own;
use crate::play::Play;

/// Bytes left where a node is to refuse writes and go on with the rest: less than its reserve, a tenth of the disk.
const NEARLY: u64 = 120 << 20;
/// Bytes left where there is no room for anything.
const NOTHING: u64 = 1 << 20;
/// Within what a node knows that its disk is full, and that it is not any more.
const KNOWS_WITHIN: Duration = Duration::from_secs(5);
/// When sessions end that are made before a fault, so that they end during it.
const END_IN: Duration = Duration::from_secs(4);
/// Until when an ended session must be gone: its end, what log time may be off, and a bit.
const GONE_WITHIN: Duration = Duration::from_secs(7);
/// Sessions made while a disk has no room at all, and their bytes.
const LARGE: usize = 40;
const LARGE_BYTES: usize = 400_000;
/// How long that disk is left alone with the load then.
const LASTS: Duration = Duration::from_secs(3);
/// Within what a node writes again whose disk had no room at all: RocksDB looks every 5 seconds.
const WRITES_WITHIN: Duration = Duration::from_secs(15);

/// Sessions of the scenario's own, one in each shard, by the shard's group.
struct Sessions {
    kept: BTreeMap<String, String>,
    deleted: BTreeMap<String, String>,
    ending: BTreeMap<String, String>,
}

impl Sessions {
    async fn make(own: &Own) -> Self {
        Self {
            kept: own.in_each_shard(None).await,
            deleted: own.in_each_shard(None).await,
            ending: own.in_each_shard(Some(END_IN)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_full_disk_refuses_writes_clearly_serves_the_rest_and_recovers_by_itself() {
    let seed = crate::seed("9");
    // Small logs, so that states are flushed and snapshots taken while there is no room for them.
    let config = RigConfig {
        settings: vec!["storage.shard_log=1MiB".to_owned()],
        ..RigConfig::new(&crate::pspd(), seed)
    };
    let mix = Mix {
        large_percent: 10,
        ending_percent: 30,
        delete_permille: 15,
        ..Mix::new(seed)
    };
    let play = Play::begin("9", config, Rules::default(), mix).await;
    let pids: Vec<i32> = (0..play.rig.count())
        .map(|node| play.rig.pid(node))
        .collect();
    let own = Own::new(&play);
    let leader = play.leader().await;
    for nodes in [vec![leader], vec![leader, (leader + 1) % 3]] {
        nearly_full(&play, &own, &nodes).await;
    }
    without_any_room(&play, &own, leader).await;
    for (node, pid) in pids.into_iter().enumerate() {
        let same = play.rig.pid(node) == pid && play.rig.ended(node).is_none();
        assert!(same, "node {node} ended");
    }
    play.finish().await;
}

/// The reserve of these nodes' disks is touched.
async fn nearly_full(play: &Play, own: &Own, nodes: &[usize]) {
    play.rig.until_balanced(Duration::from_secs(30)).await;
    let sessions = Sessions::make(own).await;
    let mut faults = fill(play, nodes, NEARLY);
    until_known(play, nodes, 1.0).await;
    let leads_nothing = || async {
        let leaders = play.rig.target().leaders().await;
        leaders.values().all(|leads| !nodes.contains(leads))
    };
    let what = "whoever has room leads";
    play.rig.until(what, KNOWS_WITHIN, leads_nothing).await;
    let majority = nodes.len() * 2 > play.rig.count();
    if majority {
        // Who leads hears it from the others.
        let heard = || async { refused(play, own, &sessions).await > 0 };
        let what = "a leader knows of the others' disks";
        play.rig.until(what, KNOWS_WITHIN, heard).await;
    }
    let from = play.scenario.history().now();
    let asked = sessions.kept.len() * play.rig.count();
    let refused = refused(play, own, &sessions).await;
    assert_eq!(refused, if majority { asked } else { 0 }, "{nodes:?}");
    delete_all(own, &sessions.deleted).await;
    for session in sessions.ending.values() {
        let gone = || async {
            let read = own.ask_at(nodes[0], Action::Read, session).await;
            matches!(read.shown, Some(Shown::Expired | Shown::Absent))
        };
        play.rig.until("the session ends", GONE_WITHIN, gone).await;
    }
    let until = play.scenario.history().now();
    for fault in &mut faults {
        play.heal(fault);
    }
    let took = until_known(play, nodes, 0.0).await;
    println!("nodes {nodes:?} know of the room after {took:?}");
    until_written(play, own, &sessions.kept, KNOWS_WITHIN).await;
    all_was_clear(play, from, until);
}

/// How many writes are refused of one to each session through each gateway.
async fn refused(play: &Play, own: &Own, sessions: &Sessions) -> usize {
    let mut refused = 0;
    for session in sessions.kept.values() {
        for gateway in 0..play.rig.count() {
            refused += written_or_refused(own, gateway, session).await;
        }
    }
    refused
}

/// A session takes a write, or it is refused as on a full disk, which counts; it is read in any case.
async fn written_or_refused(own: &Own, gateway: usize, session: &str) -> usize {
    let put = own.ask_at(gateway, Action::Put, session).await;
    assert!(put.is_acknowledged() || says_full(&put), "{put:?}");
    let read = own.ask_at(gateway, Action::Read, session).await;
    assert_eq!(read.shown, Some(Shown::Done), "{read:?}");
    usize::from(says_full(&put))
}

/// Deletes each session through another gateway.
async fn delete_all(own: &Own, sessions: &BTreeMap<String, String>) {
    for (number, session) in sessions.values().enumerate() {
        let delete = own.ask_at(number % 3, Action::Delete, session).await;
        assert!(delete.is_acknowledged(), "{delete:?}");
        let read = own.ask_at(number % 3, Action::Read, session).await;
        assert_eq!(read.shown, Some(Shown::Absent), "{read:?}");
    }
}

/// Nothing is left on this node's disk: what is committed cannot be applied there, and what reads it waits.
async fn without_any_room(play: &Play, own: &Own, node: usize) {
    play.rig.until_balanced(Duration::from_secs(30)).await;
    let kept = own.in_each_shard(None).await;
    let mut faults = fill(play, &[node], NOTHING);
    until_known(play, &[node], 1.0).await;
    let from = play.scenario.history().now();
    // Enough for each shard that a state is to be flushed.
    for _ in 0..LARGE {
        own.ask(Action::Create, "", LARGE_BYTES).await;
    }
    play.scenario.until_passed(LASTS).await;
    let missed = play.rig.log(node).matches("disk full").count();
    println!("node {node} had no room for a write or a snapshot {missed} times");
    play.scenario.cover(
        "the node had no room for what it wanted to write",
        missed > 0,
    );
    let until = play.scenario.history().now();
    for fault in &mut faults {
        play.heal(fault);
    }
    until_known(play, &[node], 0.0).await;
    let took = until_written(play, own, &kept, WRITES_WITHIN).await;
    println!("node {node} takes writes {took:?} after there is room");
    play.until_serves().await;
    refusals_were_clear(play, from, until);
}

fn fill(play: &Play, nodes: &[usize], leave: u64) -> Vec<Full> {
    let full = |node: &usize| Full { node: *node, leave };
    let mut faults: Vec<Full> = nodes.iter().map(full).collect();
    for fault in &mut faults {
        play.inject(fault);
    }
    faults
}

/// Waits until these nodes say that their disks are full, or not any more.
async fn until_known(play: &Play, nodes: &[usize], short: f64) -> Duration {
    let known = || async {
        for node in nodes {
            let said = play.rig.target().metric(*node, "psp_disk_short").await;
            if said != Some(short) {
                return false;
            }
        }
        true
    };
    play.rig.until("the nodes know", KNOWS_WITHIN, known).await
}

/// Waits until each of these sessions can be written through each gateway.
async fn until_written(
    play: &Play,
    own: &Own,
    sessions: &BTreeMap<String, String>,
    limit: Duration,
) -> Duration {
    let written = || async {
        for session in sessions.values() {
            for gateway in 0..play.rig.count() {
                let put = own.ask_at(gateway, Action::Put, session).await;
                if !put.is_acknowledged() {
                    return false;
                }
            }
        }
        true
    };
    play.rig.until("writes are taken", limit, written).await
}

/// Of what began and ended in a while: only writes failed, each with a clear answer; no read and no deletion did.
fn all_was_clear(play: &Play, from: u64, until: u64) {
    refusals_were_clear(play, from, until);
    for operation in within(play, from, until) {
        let goes_on = matches!(
            operation.action,
            Action::Read | Action::ReadLocal | Action::Delete
        );
        assert!(!goes_on || operation.outcome == End::Ok, "{operation:?}");
    }
}

/// Of what began and ended in a while, each failure says that it is one.
fn refusals_were_clear(play: &Play, from: u64, until: u64) {
    let mut answers = BTreeMap::new();
    for operation in within(play, from, until) {
        if operation.outcome == End::Ok {
            continue;
        }
        let said = (operation.action, operation.status, operation.code.clone());
        *answers.entry(said).or_insert(0) += 1;
        let clear = matches!(operation.status, Some(503 | 507)) && operation.code.is_some();
        assert!(clear && operation.outcome == End::Fail, "{operation:?}");
    }
    println!("failed: {answers:?}");
}

fn within(play: &Play, from: u64, until: u64) -> Vec<Operation> {
    let mut operations = play.scenario.history().operations();
    operations.retain(|operation| operation.start >= from && operation.end <= until);
    operations
}

fn says_full(operation: &Operation) -> bool {
    operation.status == Some(507) && operation.code.as_deref() == Some("storage_full")
}
