//! Scenario 10: a leader with few writes a second, with slow syncs, with little processor time; then a follower.
//!
//! Leadership leaves the sick node. A sick follower costs the others next to nothing: a quorum does without it.

use std::time::Duration;

use chaos_tests::faults::Fault;
use chaos_tests::faults::disk::{BadSync, Sync};
use chaos_tests::faults::pressure::{SlowDisk, SlowProcessor};
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::play::Play;

/// Within what a sick node leads nothing any more.
const LEAVES_WITHIN: Duration = Duration::from_secs(20);
/// Within what a node that is sick no more says so: it must be well for ten seconds first.
const WELL_WITHIN: Duration = Duration::from_secs(20);
/// How often the follower becomes sick and well again. A machine is not the same from minute to minute (the 99th percentile of the same
/// load differs by a third), so what is compared lies beside each other.
const TURNS: usize = 3;
/// How long the load is measured, each time: some 5,500 writes in all with a sick follower, and more without.
const MEASURES: Duration = Duration::from_secs(10);
/// Before a time in which all are well: sessions are made at the beginning, and leaders have just moved after a turn. Neither is to make what
/// a sick follower is compared with look worse.
const SETTLES: Duration = Duration::from_secs(5);

fn sick(node: usize) -> [Box<dyn Fault>; 3] {
    [
        Box::new(SlowDisk::new(node, 20)),
        Box::new(BadSync::new(node, Sync::Waits(Duration::from_millis(200)))),
        Box::new(SlowProcessor::new(node, 10)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn leadership_leaves_a_sick_node() {
    let seed = crate::seed("10");
    let config = RigConfig::new(&crate::pspd(), seed);
    let mix = Mix {
        // A tenth of a processor is to be too little.
        rate: 250,
        large_percent: 0,
        ..Mix::new(seed)
    };
    let play = Play::begin("10 leader", config, Rules::default(), mix).await;
    for kind in 0..3 {
        play.rig.until_balanced(Duration::from_secs(60)).await;
        let victim = play.leader().await;
        let mut fault = sick(victim).into_iter().nth(kind).expect("three");
        play.inject(fault.as_mut());
        let what = "the sick node leads nothing";
        let took = play
            .rig
            .until(what, LEAVES_WITHIN, || leads_nothing(&play, victim))
            .await;
        println!("{}: leaders left after {took:?}", fault.label());
        play.heal(fault.as_mut());
        until_well(&play, victim).await;
    }
    play.until_serves().await;
    play.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_sick_follower_costs_next_to_nothing() {
    let seed = crate::seed("10");
    let config = RigConfig::new(&crate::pspd(), seed);
    let mix = Mix {
        rate: 400,
        large_percent: 0,
        ..Mix::new(seed)
    };
    let play = Play::begin("10 follower", config, Rules::default(), mix).await;
    let victim = play.leader().await;
    // Of the three kinds the one that slows nobody who asks this node: a traced process is slow in all that it does, and so is one with
    // little processor time.
    let mut fault = SlowDisk::new(victim, 20);
    let (mut sick, mut well) = (Vec::new(), Vec::new());
    play.scenario.until_passed(SETTLES).await;
    latencies(&play, &mut well).await;
    for _ in 0..TURNS {
        play.inject(&mut fault);
        // Sick until it leads nothing: from then on it is a follower.
        play.rig
            .until("the sick node leads nothing", LEAVES_WITHIN, || {
                leads_nothing(&play, victim)
            })
            .await;
        latencies(&play, &mut sick).await;
        play.heal(&mut fault);
        until_well(&play, victim).await;
        play.until_serves().await;
        play.rig.until_balanced(Duration::from_secs(60)).await;
        play.scenario.until_passed(SETTLES).await;
        latencies(&play, &mut well).await;
    }
    let (sick, well) = (p99(sick), p99(well));
    let figures = format!(
        "99th percentile of writes: {sick:?} with a sick follower, {well:?} before and after"
    );
    println!("{figures}");
    assert!(sick <= well.mul_f64(1.2), "{figures}");
    play.finish().await;
}

/// Whether others lead all shards.
async fn leads_nothing(play: &Play, node: usize) -> bool {
    let leaders = play.rig.target().leaders().await;
    leaders.len() == 6 && leaders.values().all(|leader| *leader != node)
}

async fn until_well(play: &Play, node: usize) {
    let ready = || play.rig.is_ready(node);
    play.rig.until("the node is well", WELL_WITHIN, ready).await;
}

/// Adds the latencies of the writes of a while, in microseconds.
async fn latencies(play: &Play, found: &mut Vec<u64>) {
    let from = play.scenario.history().now();
    play.scenario.until_passed(MEASURES).await;
    let operations = play.scenario.history().operations();
    let writes = operations
        .iter()
        .filter(|operation| operation.is_acknowledged() && operation.due >= from);
    found.extend(writes.map(|operation| operation.latency()));
}

fn p99(mut latencies: Vec<u64>) -> Duration {
    latencies.sort_unstable();
    assert!(latencies.len() > 1000, "{} writes", latencies.len());
    let at = |percent: usize| Duration::from_micros(latencies[latencies.len() * percent / 100]);
    let (writes, median, most) = (latencies.len(), at(50), at(90));
    println!("{writes} writes: 50 % in {median:?}, 90 % in {most:?}");
    at(99)
}
