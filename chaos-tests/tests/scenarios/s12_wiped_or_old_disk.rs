//! Scenario 12: a node comes back with an empty disk under its old id, then another with an old image of its disk.
//!
//! Neither may vote or acknowledge with a memory that it does not have: it is refused, and learns everything again under a
//! new id. Nobody panics, and nothing acknowledged is lost.

use std::time::Duration;

use chaos_tests::faults::disk::{OldDisk, Wiped};
use chaos_tests::rig::RigConfig;
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;

use crate::play::Play;

/// How long the load goes on between what is kept of a disk and its return.
const AGES: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn an_empty_or_an_old_disk_neither_votes_nor_acknowledges() {
    let seed = crate::seed("12");
    let config = RigConfig::new(&crate::pspd(), seed);
    let play = Play::begin("12", config, Rules::default(), Mix::new(seed)).await;
    let victim = play.leader().await;
    let mut wiped = Wiped(victim);
    play.inject(&mut wiped);
    play.until_refused_and_rejoined(victim).await;
    play.heal(&mut wiped);
    play.until_serves().await;
    // Another one, whose id is still the first.
    let victim = (victim + 1) % 3;
    play.rig.stop(victim);
    let saved = play.rig.disk(victim).save("old");
    saved.expect("the disk can be copied");
    play.rig.begin(victim);
    play.until_serves().await;
    play.scenario.until_passed(AGES).await;
    let mut old = OldDisk {
        node: victim,
        saved: "old".to_owned(),
    };
    play.inject(&mut old);
    play.until_refused_and_rejoined(victim).await;
    play.heal(&mut old);
    play.until_serves().await;
    play.finish().await;
}
