//! Scenario 3: the leader stands still for longer than its lease, and goes on with requests that it had not answered.
//!
//! Nobody may read from it what is no longer so, and what it was writing happens once or never: the checkers see the
//! requests that were sent to it while it stood still, and that it answers when it goes on.

use std::time::Duration;

use chaos_tests::faults::process::Paused;
use chaos_tests::history::Action;
use chaos_tests::rig::RigConfig;
use chaos_tests::run::number;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::{Ask, Client, Mix};
use rand::Rng as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::play::Play;

/// Requests sent to the paused node.
const PROBES: u64 = 40;
/// The first client number of these.
const PROBE: usize = 7000;
/// Longer than any request of the load, so that the paused node is what answers.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_leader_that_stood_still_serves_nothing_stale() {
    let seed = crate::seed("3");
    let config = RigConfig::new(&crate::pspd(), seed);
    let mut play = Play::begin("3", config, Rules::default(), Mix::new(seed)).await;
    for round in 0..number("PAUSES", 3) {
        play.rig.until_balanced(Duration::from_secs(30)).await;
        let victim = play.leader().await;
        let before = play.rig.target().leaders().await;
        let mut pause = Paused(victim);
        play.inject(&mut pause);
        let mut probes = probes(&play, victim, PROBE + round);
        let time = Duration::from_millis(play.random.random_range(3000..6000));
        play.scenario.until_passed(time).await;
        let now = play.rig.target().leaders().await;
        let moved = |(group, node): (&String, &usize)| {
            *node == victim && now.get(group).is_some_and(|leader| leader != node)
        };
        play.scenario
            .cover("others took its shards", before.iter().any(moved));
        play.heal(&mut pause);
        let mut answered = 0;
        while let Some(ended) = probes.join_next().await {
            answered += usize::from(ended.expect("a probe ends"));
        }
        println!("{answered} of {PROBES} requests were answered after the pause");
        play.scenario
            .cover("requests in flight were answered", answered > 0);
        play.until_serves().await;
    }
    play.finish().await;
}

/// Reads and writes sent to this node only.
fn probes(play: &Play, node: usize, number: usize) -> JoinSet<bool> {
    let gateway = play.rig.target().gateways()[node].clone();
    let client = Client {
        budget: PATIENCE,
        attempt: PATIENCE,
        ..play.scenario.client(vec![gateway])
    };
    let written = play.scenario.history().operations();
    let mut sessions = written
        .iter()
        .rev()
        .filter(|operation| operation.is_acknowledged() && operation.action == Action::Put)
        .map(|operation| operation.session.clone())
        .collect::<Vec<_>>();
    sessions.dedup();
    let mut probes = JoinSet::new();
    for probe in 0..PROBES {
        let at = usize::try_from(probe).expect("few") % sessions.len();
        let ask = Ask {
            client: number,
            number: probe,
            action: if probe % 4 == 0 {
                Action::Put
            } else {
                Action::Read
            },
            session: sessions[at].clone(),
            bytes: 200,
            expires: None,
            seen: None,
            due: Instant::now(),
        };
        let client = client.clone();
        probes.spawn(async move { client.perform(ask).await.0.status.is_some() });
    }
    probes
}
