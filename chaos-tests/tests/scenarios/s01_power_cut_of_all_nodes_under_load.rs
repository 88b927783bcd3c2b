//! Scenario 1: the power goes at all nodes at once, at a random moment of a load, again and again.
//!
//! Every node is killed and its disk loses what was not synced. No acknowledged write may be lost, none applied twice,
//! and the region serves again within 10 seconds.

use std::time::Duration;

use chaos_tests::faults::process::PowerCut;
use chaos_tests::rig::RigConfig;
use chaos_tests::run::number;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;
use rand::Rng as _;
use tokio::time::Instant;

use crate::play::Play;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn nothing_acknowledged_is_lost_when_the_power_goes_everywhere() {
    let seed = crate::seed("1");
    let config = RigConfig::new(&crate::pspd(), seed);
    let rules = Rules {
        // Nobody is there to take one.
        least_under_fault: 0,
        ..Rules::default()
    };
    let mut play = Play::begin("1", config, rules, Mix::new(seed)).await;
    for _ in 0..number("CUTS", 4) {
        let load = Duration::from_millis(play.random.random_range(500..3500));
        play.scenario.until_passed(load).await;
        let mut cut = PowerCut((0..play.rig.count()).collect());
        play.inject(&mut cut);
        let from = Instant::now();
        play.heal(&mut cut);
        play.until_serves().await;
        println!("serving {:?} after the power came back", from.elapsed());
        play.scenario.progress(50).await;
    }
    play.finish().await;
}
