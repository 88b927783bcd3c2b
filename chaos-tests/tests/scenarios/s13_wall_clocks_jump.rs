//! Scenario 13: a wall clock jumps an hour ahead, another two hours back, and then to and fro.
//!
//! No session dies early or lives for ever: the checker for expiry has the test's own clock, which does not jump. The node says that its
//! clock is off, which shows that it is.

use std::time::Duration;

use chaos_tests::faults::clock::WallClock;
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::play::Play;

/// How long a clock stays wrong.
const LASTS: Duration = Duration::from_secs(5);
/// Within what a node knows that its clock is not that of the others.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long between one jump to and the next fro.
const TO_AND_FRO: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn nothing_dies_early_or_lives_for_ever() {
    let seed = crate::seed("13");
    let config = RigConfig {
        clocks: true,
        ..RigConfig::new(&crate::pspd(), seed)
    };
    let mix = Mix {
        ending_percent: 50,
        rate: 120,
        ..Mix::new(seed)
    };
    let play = Play::begin("13", config, Rules::default(), mix).await;
    for seconds in [3600, -7200] {
        let node = play.leader().await;
        let mut jump = WallClock { node, seconds };
        play.inject(&mut jump);
        play.rig
            .until("the node says that its clock is off", SEEN_WITHIN, || {
                says_clock(&play, node)
            })
            .await;
        play.scenario.until_passed(LASTS).await;
        play.heal(&mut jump);
        play.until_serves().await;
    }
    let node = play.leader().await;
    for seconds in [3600, -7200, 600, -600, 5, -5] {
        let mut jump = WallClock { node, seconds };
        play.inject(&mut jump);
        play.scenario.until_passed(TO_AND_FRO).await;
        play.heal(&mut jump);
    }
    play.scenario.until_passed(LASTS).await;
    play.until_serves().await;
    play.finish().await;
}

/// Whether a node is not ready because of its clock.
async fn says_clock(play: &Play, node: usize) -> bool {
    let page = play.rig.target().admin_page(node, "/readyz").await;
    page.is_some_and(|page| page.contains("\"clock\""))
}
