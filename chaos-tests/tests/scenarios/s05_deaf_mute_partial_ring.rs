//! Scenario 5: links that fail in one direction or between some nodes only.
//!
//! A leader that hears nobody, one that nobody hears, two nodes that do not reach each other, and five nodes in a ring: each
//! time the shards go on after at most three new terms, and stay with what they found.

use std::time::Duration;

use chaos_tests::faults::network::Links;
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::play::Play;

/// How long each fault lasts.
const LASTS: Duration = Duration::from_secs(8);
/// How long a shard may be without a write: a broken connection is noticed, then a leader elected.
const GAP: Duration = Duration::from_secs(5);
/// New terms of a shard for each fault.
const TERMS: u64 = 3;

/// Has the fault for a while; afterwards no shard is more than three terms further.
async fn endure(play: &Play, mut fault: Links) {
    let before = play.rig.terms().await;
    play.inject(&mut fault);
    play.scenario.until_passed(LASTS).await;
    play.heal(&mut fault);
    play.until_serves().await;
    let after = play.rig.terms().await;
    for (group, term) in &after {
        let new = term - before.get(group).copied().unwrap_or(0);
        assert!(new <= TERMS, "{group} went through {new} terms: {fault:?}");
    }
    println!("terms before {before:?}, after {after:?}");
}

fn rules() -> Rules {
    Rules {
        longest_gap: Some(GAP),
        ..Rules::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn three_nodes_go_on_when_a_leader_is_deaf_or_mute_or_one_link_is_cut() {
    let seed = crate::seed("5");
    let config = RigConfig::new(&crate::pspd(), seed);
    let play = Play::begin("5 links", config, rules(), Mix::new(seed)).await;
    let leader = play.leader().await;
    endure(&play, Links::deaf(leader, 3)).await;
    let leader = play.leader().await;
    endure(&play, Links::mute(leader, 3)).await;
    let leader = play.leader().await;
    endure(&play, Links::partial(leader, (leader + 1) % 3)).await;
    play.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn five_nodes_in_a_ring_go_on() {
    let seed = crate::seed("5");
    let config = RigConfig {
        nodes: 5,
        ..RigConfig::new(&crate::pspd(), seed)
    };
    let mix = Mix {
        rate: 100,
        ..Mix::new(seed)
    };
    let play = Play::begin("5 ring", config, rules(), mix).await;
    endure(&play, Links::ring(5)).await;
    play.finish().await;
}
