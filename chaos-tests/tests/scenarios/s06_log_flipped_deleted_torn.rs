//! Scenario 6: a node's log is flipped, then that of another loses a segment, and each time one more node is killed; and a log ends with
//! half a batch.
//!
//! A damaged node may have forgotten what it promised: with it and one other there is no quorum, so nothing is acknowledged, until it
//! is made anew from the others under a new id. A tail that the crash tore was never promised: that node boots as it was, votes and
//! acknowledges.

use std::time::Duration;

use chaos_tests::faults::Fault as _;
use chaos_tests::faults::log::{DamagedLog, Harm, batches};
use chaos_tests::faults::process::{Killed, PowerCut};
use chaos_tests::history::{Action, End};
use chaos_tests::rig::{DATA, RigConfig};
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;
use rand::Rng as _;

use crate::own::Own;
use crate::play::Play;

/// How long the load goes on before a fault, and beside a dead node.
const GOES_ON: Duration = Duration::from_secs(1);
/// When the last lease of a leader that lost its quorum is over, and what was under way has ended.
const LEASES_END: Duration = Duration::from_millis(2500);
/// How long a damaged node is alone with one other.
const ALONE: Duration = Duration::from_secs(4);
/// Within what it is rebuilt when there is a quorum without it.
const REBUILT_WITHIN: Duration = Duration::from_secs(30);
/// Within what a node boots whose log is whole.
const BOOTS_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_damaged_log_neither_votes_nor_acknowledges_until_it_is_rebuilt() {
    let seed = crate::seed("6");
    let config = RigConfig {
        settings: vec!["cluster.rebuild=auto".to_owned()],
        ..RigConfig::new(&crate::pspd(), seed)
    };
    // Without a quorum each write is unknown: few for each session, or their order cannot be searched.
    let mix = Mix {
        rate: 60,
        sessions: 72,
        ..Mix::new(seed)
    };
    let mut play = Play::begin("6 damaged", config, Rules::default(), mix).await;
    let first = play.leader().await;
    let flipped = Harm::Flipped(play.random.random());
    for (node, harm) in [(first, flipped), ((first + 1) % 3, Harm::Deleted)] {
        damaged_beside_a_dead_one(&play, DamagedLog { node, harm }).await;
    }
    play.finish().await;
}

async fn damaged_beside_a_dead_one(play: &Play, mut damage: DamagedLog) {
    let (node, other) = (damage.node, (damage.node + 2) % 3);
    play.scenario.until_passed(GOES_ON).await;
    let target = play.rig.target();
    let before = target.status(node).await.expect("it answers").node;
    play.rig.kill(node);
    play.inject(&mut damage);
    // The others acknowledge what it will not have.
    play.scenario.until_passed(GOES_ON).await;
    let mut killed = Killed(vec![other]);
    play.inject(&mut killed);
    play.rig.begin(node);
    play.scenario.until_passed(LEASES_END).await;
    let from = play.scenario.history().now();
    play.scenario.until_passed(ALONE).await;
    let until = play.scenario.history().now();
    let log = play.rig.log(node);
    let refused = log.contains("this node's disk is not to be trusted");
    play.scenario
        .cover(format!("node {node} found its log damaged"), refused);
    let marked = play.rig.disk(node).path().join(DATA).join("rebuild");
    play.scenario
        .cover("it had not been rebuilt meanwhile", marked.exists());
    play.heal(&mut killed);
    let rebuilt = || async { is_replaced(play, node, before).await };
    let what = "the damaged node is there under a new id";
    let took = play.rig.until(what, REBUILT_WITHIN, rebuilt).await;
    println!("node {node} was rebuilt {took:?} after there was a quorum");
    let kept = play
        .rig
        .disk(node)
        .files(&format!("{DATA}/damaged/log"), "watermark");
    assert_eq!(kept.len(), 1, "the old log is kept");
    play.until_serves().await;
    nothing_was_acknowledged(play, from, until);
}

/// Whether a node is there under another id, and has taken its old one's place in each group, as all nodes say: from then on another
/// one may be lost.
async fn is_replaced(play: &Play, node: usize, before: u64) -> bool {
    let target = play.rig.target();
    for position in 0..play.rig.count() {
        let Some(status) = target.status(position).await else {
            return false;
        };
        let is_old = position == node && status.node == before;
        if is_old || status.nodes.iter().any(|known| known.id == before) {
            return false;
        }
    }
    play.rig.is_ready(node).await
}

/// Nothing that was asked for in a while was answered in it, but by what a node has by itself.
fn nothing_was_acknowledged(play: &Play, from: u64, until: u64) {
    let mut asked = play.scenario.history().operations();
    let here = from..until;
    asked.retain(|it| here.contains(&it.start) && it.action != Action::ReadLocal);
    let answered = asked
        .iter()
        .find(|it| it.outcome == End::Ok && it.end <= until);
    assert!(answered.is_none(), "{answered:?}");
    let met = format!("{} requests met a cluster without a quorum", asked.len());
    play.scenario.cover(met, asked.len() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_torn_tail_boots_votes_and_acknowledges() {
    let seed = crate::seed("6");
    let config = RigConfig::new(&crate::pspd(), seed);
    let play = Play::begin("6 torn", config, Rules::default(), Mix::new(seed)).await;
    let own = Own::new(&play);
    let sessions = own.in_each_shard(None).await;
    let target = play.rig.target();
    for node in 0..play.rig.count() {
        play.scenario.until_passed(GOES_ON).await;
        let mut cut = PowerCut(vec![node]);
        play.inject(&mut cut);
        let whole = batches(play.rig.disk(node)).len();
        let mut torn = DamagedLog {
            node,
            harm: Harm::Torn,
        };
        play.inject(&mut torn);
        let half = batches(play.rig.disk(node)).len() - whole;
        play.scenario.cover(
            format!("node {node}'s log ends with half a batch"),
            half == 1,
        );
        cut.heal(&play.rig);
        let ready = || play.rig.is_ready(node);
        let what = "a node with a torn tail boots";
        let took = play.rig.until(what, BOOTS_WITHIN, ready).await;
        println!("node {node} booted after {took:?}");
        let id = target.status(node).await.map(|status| status.node);
        assert_eq!(id, Some(u64::try_from(node).unwrap() + 1), "its id");
        play.until_serves().await;
        // With one of the others dead, nothing is acknowledged without this one.
        let mut killed = Killed(vec![(node + 1) % 3]);
        play.inject(&mut killed);
        for session in sessions.values() {
            let put = own.ask(Action::Put, session, crate::own::SMALL).await;
            assert!(put.is_acknowledged(), "{put:?}");
        }
        play.heal(&mut killed);
        play.until_serves().await;
    }
    play.finish().await;
}
