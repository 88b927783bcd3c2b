//! Scenario 8: a sync fails once, then each one; on another node each one lies, and then its power goes.
//!
//! Nothing is acknowledged after a failed sync: the node fails closed, and others take its shards within 5 seconds; then its power goes,
//! and it comes back with all that it promised. A node
//! that promised what its disk does not have neither votes nor acknowledges with it: no acknowledged write is lost.

use std::time::Duration;

use chaos_tests::faults::Fault as _;
use chaos_tests::faults::disk::{BadSync, Sync};
use chaos_tests::faults::process::PowerCut;
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::play::Play;

/// Within what others lead the shards of a node whose syncs fail.
const MOVES_WITHIN: Duration = Duration::from_secs(5);
/// Within what a node ends that can write no more. It lets what is in flight end first.
const ENDS_WITHIN: Duration = Duration::from_secs(25);
/// How long a node lies before its power goes.
const LIES_FOR: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_failed_sync_acknowledges_nothing_and_moves_the_leaders() {
    let seed = crate::seed("8");
    let config = RigConfig::new(&crate::pspd(), seed);
    let play = Play::begin("8 fails", config, Rules::default(), Mix::new(seed)).await;
    for what in [Sync::FailsOnce, Sync::Fails] {
        play.rig.until_balanced(Duration::from_secs(30)).await;
        let victim = play.leader().await;
        let mut bad = BadSync::new(victim, what);
        play.inject(&mut bad);
        let target = &play.rig.target();
        let elsewhere = || async {
            let leaders = target.leaders().await;
            leaders.len() == 6 && leaders.values().all(|leader| *leader != victim)
        };
        let what = "others lead all shards";
        let took = play.rig.until(what, MOVES_WITHIN, elsewhere).await;
        println!("leaders moved {took:?} after the fault");
        play.heal(&mut bad);
        let ends = || async { play.rig.ended(victim).is_some() };
        let what = "a node whose sync failed ends";
        let took = play.rig.until(what, ENDS_WITHIN, ends).await;
        println!("it ended {took:?} later with {:?}", play.rig.ended(victim));
        // What it acknowledged without a sync, if anything, is gone now.
        let mut cut = PowerCut(vec![victim]);
        play.inject(&mut cut);
        play.heal(&mut cut);
        play.until_serves().await;
    }
    play.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_node_whose_syncs_lied_loses_nothing_for_the_others() {
    let seed = crate::seed("8");
    let config = RigConfig::new(&crate::pspd(), seed);
    let play = Play::begin("8 lies", config, Rules::default(), Mix::new(seed)).await;
    let liar = play.leader().await;
    let mut lie = BadSync::new(liar, Sync::Lies);
    play.inject(&mut lie);
    play.scenario.until_passed(LIES_FOR).await;
    let mut cut = PowerCut(vec![liar]);
    play.inject(&mut cut);
    play.heal(&mut lie);
    // Back with a disk that has less than it promised: it is refused.
    cut.heal(&play.rig);
    play.until_refused_and_rejoined(liar).await;
    play.until_serves().await;
    play.finish().await;
}
