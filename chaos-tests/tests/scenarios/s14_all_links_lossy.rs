//! Scenario 14: every link, also those of the clients, loses, reorders, repeats and corrupts packets, and is slow.
//!
//! Nothing may be wrong, the load goes on, and no node's memory grows without bound.

use std::time::Duration;

use chaos_tests::faults::network::Links;
use chaos_tests::resources::{MIB, memory};
use chaos_tests::rig::RigConfig;
use chaos_tests::rig::link::LinkSpec;
use chaos_tests::run::number;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::play::Play;

/// What a node may need at most, in bytes.
const MEMORY: u64 = 700 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn lossy_links_cost_time_and_nothing_else() {
    let seed = crate::seed("14");
    let config = RigConfig::new(&crate::pspd(), seed);
    // What such links carry.
    let mix = Mix {
        rate: 25,
        large_percent: 0,
        ..Mix::new(seed)
    };
    let rules = Rules {
        budget: Duration::from_secs(10),
        attempt: Duration::from_secs(5),
        recovery: Duration::from_secs(15),
        ..Rules::default()
    };
    let play = Play::begin("14", config, rules, mix).await;
    let spec = LinkSpec {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(2),
        loss: 0.05,
        reorder: 0.1,
        duplicate: 0.02,
        corrupt: 0.005,
        rate: Some(1_000_000 / 8),
        ..LinkSpec::default()
    };
    let mut lossy = Links::everywhere("all links lossy, 1 Mbit/s", 3, spec);
    play.inject(&mut lossy);
    let lasts = u64::try_from(number("SECONDS", 20)).expect("seconds");
    play.scenario.until_passed(Duration::from_secs(lasts)).await;
    let counts = lossy.counts(&play.rig);
    println!("{counts:?}");
    for (what, count) in [
        ("lost", counts.lost),
        ("reordered", counts.reordered),
        ("duplicated", counts.duplicated),
        ("corrupted", counts.corrupted),
    ] {
        play.scenario
            .cover(format!("packets were {what}"), count > 5);
    }
    for node in 0..play.rig.count() {
        let most = memory(play.rig.pid(node), "VmHWM");
        println!("node {node} needed {} MiB", most / MIB);
        assert!(most < MEMORY, "node {node} needed {most} bytes");
    }
    play.heal(&mut lossy);
    play.until_serves().await;
    play.finish().await;
}
