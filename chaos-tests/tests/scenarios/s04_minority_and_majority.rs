//! Scenario 4: five nodes, cut into two and three, the leader first on the smaller side, then on the larger.
//!
//! The smaller side serves neither writes nor linearizable reads once its leases are over, the larger side serves all of
//! them, and what either acknowledged is there when they are one again.

use std::time::Duration;

use chaos_tests::faults::network::Links;
use chaos_tests::history::{Action, End};
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::{Ask, Client, Mix};
use tokio::time::Instant;

use crate::play::Play;

const NODES: usize = 5;
/// After so long a leader that was cut off has no lease, and the others have elected.
const SETTLES: Duration = Duration::from_secs(4);
/// How long the cut lasts after that.
const LASTS: Duration = Duration::from_secs(5);
/// The client number of what is asked of one side only.
const PROBE: usize = 7000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_minority_serves_nothing_and_a_majority_everything() {
    let seed = crate::seed("4");
    let config = RigConfig {
        nodes: NODES,
        ..RigConfig::new(crate::PSPD, seed)
    };
    let mix = Mix {
        rate: 100,
        ..Mix::new(seed)
    };
    let play = Play::begin("4", config, Rules::default(), mix).await;
    for leader_is_alone in [true, false] {
        let leader = play.leader().await;
        let other = (leader + 1) % NODES;
        let minority: Vec<usize> = if leader_is_alone {
            vec![leader, other]
        } else {
            (0..NODES).filter(|node| *node != leader).take(2).collect()
        };
        let mut cut = Links::split(&minority, NODES);
        play.inject(&mut cut);
        play.scenario.until_passed(SETTLES).await;
        let served = probe(&play, &minority).await;
        assert_eq!(served, 0, "the smaller side served {served} requests");
        let majority: Vec<usize> = (0..NODES).filter(|node| !minority.contains(node)).collect();
        let served = probe(&play, &majority).await;
        assert_eq!(served, 2 * SESSIONS, "the larger side served {served} only");
        play.scenario.until_passed(LASTS).await;
        play.heal(&mut cut);
        play.until_serves().await;
    }
    play.finish().await;
}

/// Sessions that are asked for.
const SESSIONS: usize = 12;

/// Reads and writes of some sessions through the gateways of one side; how many succeeded.
async fn probe(play: &Play, side: &[usize]) -> usize {
    let gateways = play.rig.target().gateways();
    let client = Client {
        budget: Duration::from_secs(3),
        ..play
            .scenario
            .client(side.iter().map(|node| gateways[*node].clone()).collect())
    };
    let history = play.scenario.history().operations();
    let live = history
        .iter()
        .rev()
        .filter(|operation| operation.is_acknowledged() && operation.action == Action::Patch);
    let mut sessions: Vec<String> = live.map(|operation| operation.session.clone()).collect();
    sessions.sort();
    sessions.dedup();
    let number = history.len() as u64;
    let asks = sessions.iter().cycle().take(SESSIONS).enumerate();
    let asks = asks.flat_map(|(at, session)| {
        [Action::Patch, Action::Read].map(|action| Ask {
            client: PROBE + at,
            number: number + u64::from(action == Action::Read),
            action,
            session: session.clone(),
            bytes: 200,
            expires: None,
            seen: None,
            due: Instant::now(),
        })
    });
    let ended = futures::future::join_all(asks.map(|ask| client.perform(ask))).await;
    let ok = |(operation, _): &&(chaos_tests::history::Operation, _)| operation.outcome == End::Ok;
    ended.iter().filter(ok).count()
}
