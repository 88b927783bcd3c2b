//! Scenario 2: the node that leads most is killed every two seconds, and started again as a supervisor does.
//!
//! Clients try through other gateways for up to 5 seconds: none of them sees a failed request, and no shard is without a
//! successful write for a second.

use std::time::Duration;

use chaos_tests::faults::process::Killed;
use chaos_tests::rig::RigConfig;
use chaos_tests::run::number;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;
use tokio::time::Instant;

use crate::play::Play;

const PERIOD: Duration = Duration::from_secs(2);
/// What a supervisor takes to start a process again.
const RESTART: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn no_client_sees_a_failed_request_while_leaders_are_killed() {
    let seed = crate::seed("2");
    let rules = Rules {
        longest_gap: Some(Duration::from_secs(1)),
        failures_allowed: false,
        ..Rules::default()
    };
    let config = RigConfig::new(&crate::pspd(), seed);
    let play = Play::begin("2", config, rules, Mix::new(seed)).await;
    for _ in 0..number("KILLS", 10) {
        let from = Instant::now();
        let victim = play.leader().await;
        let led = play.leads(victim).await;
        play.scenario.cover("the victim led a shard", led > 0);
        let mut kill = Killed(vec![victim]);
        play.inject(&mut kill);
        play.scenario.until_passed(RESTART).await;
        play.heal(&mut kill);
        play.until_serves().await;
        let rest = PERIOD.saturating_sub(from.elapsed());
        play.scenario.until_passed(rest).await;
    }
    play.finish().await;
}
