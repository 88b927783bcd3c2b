//! Scenario 4: five nodes, cut into two and three, the leader first on the smaller side, then on the larger.
//!
//! The smaller side serves neither writes nor linearizable reads once its leases are over, the larger side serves all of
//! them, and what either acknowledged is there when they are one again.

use std::time::Duration;

use chaos_tests::faults::network::Links;
use chaos_tests::history::{Action, End, Operation};
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::own::Own;
use crate::play::Play;

const NODES: usize = 5;
/// After so long a leader that was cut off has no lease, and the others have elected.
const SETTLES: Duration = Duration::from_secs(4);
/// How long the cut lasts after that.
const LASTS: Duration = Duration::from_secs(5);
/// Sessions of each shard that are asked for on one side only.
const EACH: usize = 2;
/// How long that is tried.
const BUDGET: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_minority_serves_nothing_and_a_majority_everything() {
    let seed = crate::seed("4");
    let config = RigConfig {
        nodes: NODES,
        ..RigConfig::new(&crate::pspd(), seed)
    };
    let mix = Mix {
        rate: 100,
        ..Mix::new(seed)
    };
    let play = Play::begin("4", config, Rules::default(), mix).await;
    let own = Own::new(&play);
    let mut sessions = Vec::new();
    for _ in 0..EACH {
        sessions.extend(own.in_each_shard(None).await.into_values());
    }
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
        let (served, _) = probe(&own, &sessions, &minority).await;
        assert!(served.is_empty(), "the smaller side served {served:?}");
        let majority: Vec<usize> = (0..NODES).filter(|node| !minority.contains(node)).collect();
        let (served, failed) = probe(&own, &sessions, &majority).await;
        assert!(
            failed.is_empty(),
            "the larger side did not serve {failed:?}"
        );
        assert_eq!(served.len(), 2 * sessions.len());
        play.scenario.until_passed(LASTS).await;
        play.heal(&mut cut);
        play.until_serves().await;
    }
    play.finish().await;
}

/// Writes and reads a session of each shard through the gateways of one side; those requests that were answered as wanted, and those
/// that were not.
async fn probe(own: &Own, sessions: &[String], side: &[usize]) -> (Vec<Operation>, Vec<Operation>) {
    let asks = sessions.iter().flat_map(|session| {
        let ask = |action| own.ask_among(side, BUDGET, action, session);
        [Action::Patch, Action::Read].map(ask)
    });
    let ended = futures::future::join_all(asks).await;
    ended.into_iter().partition(|it| it.outcome == End::Ok)
}
