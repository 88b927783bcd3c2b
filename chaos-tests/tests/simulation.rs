//! Seeds of the simulation: for a minute, those that found bugs, and twice for one trace.
//!
//! The seeds are the same in each run, from 1 on. `SEED=n` begins elsewhere, `SECONDS=600` goes on for longer; `simulate` is for
//! campaigns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chaos_tests::sim::{self, Credentials, Outcome};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Events that a failure shows.
const TAIL: usize = 4_000;
/// How long seeds are run when nobody says otherwise.
const SECONDS: u64 = 60;

#[expect(
    clippy::disallowed_methods,
    reason = "a test's length is its caller's to choose"
)]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed that must hold; `what` it once found.
fn holds(seed: u64, credentials: &Arc<Credentials>, what: &str) -> Outcome {
    let outcome = sim::run(seed, credentials, TAIL);
    let violation = &outcome.violation;
    assert!(
        violation.is_none(),
        "{}\nseed {seed} ({what}): {violation:?}\nrepeat it: cargo run -p chaos-tests --bin simulate -- --seeds {seed} --trace",
        outcome.tail
    );
    outcome
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let credentials = Credentials::make();
    for seed in [11, 12, 13, 14] {
        let one = sim::run(seed, &credentials, 0);
        let other = sim::run(seed, &credentials, 0);
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert!(one.trace.1 > 1_000, "a run of next to nothing");
    }
    let (one, other) = (sim::run(11, &credentials, 0), sim::run(12, &credentials, 0));
    assert_ne!(one.trace, other.trace, "seeds differ");
}

/// A test for each bug that seeds found, with all of these. A seed's course changes with the code, so that one of them may find
/// something else by now: the bug's own test is where the bug was. The list with the commits is in `chaos-tests/README.md`.
macro_rules! found {
    ($($bug:ident: $($seed:literal)+;)+) => {
        $(#[test]
        fn $bug() {
            let credentials = Credentials::make();
            for seed in [$($seed),+] {
                holds(seed, &credentials, stringify!($bug));
            }
        })+
    };
}

found! {
    a_machine_that_was_replaced_answers_clients: 428;
    a_wiped_disk_comes_back_under_its_id: 60 203 214 394;
    log_time_starts_from_the_clock_of_a_leader_that_heard_no_other: 88 153 228 236 258 270;
    a_probe_from_before_a_restart_refuses_the_restarted_node: 322;
    a_joint_membership_that_nobody_ends: 2 53 71 78 103 111;
    a_leader_that_is_no_voter_any_more_holds_a_lease: 39 44 201 464 881;
    an_old_disk_whose_start_raised_its_life_votes: 4469 4499;
    a_greeting_that_was_overtaken_refuses_a_node: 77 101;
    a_vote_waits_for_room_in_a_log_whose_purge_waits_for_the_vote: 112 118 202 260 310 474 621 770;
    log_time_slews_back_from_an_early_clock: 24 136 305 346;
    two_wrong_clocks_of_five_decide: 437;
    openraft_panics_without_the_snapshot_that_it_must_have: 764;
    openraft_panics_when_a_stop_that_somebody_waits_for_is_dropped: 469;
    a_clock_that_was_wrong_and_one_that_is_make_a_majority: 2799 3578 3616;
    a_node_that_a_dialer_refused_is_not_told: 4800 1638 1727;
    a_purge_waits_for_a_batch_that_waits_for_its_room: 4731;
    a_leader_trusts_its_lease_while_its_offer_is_under_way: 6669;
    what_became_durable_is_not_marked_while_a_disk_is_full: 3685;
    a_leader_answers_without_what_a_follower_has_shown: 231 1668 2388;
    a_log_begins_after_the_newest_snapshot: 20316;
    a_replica_that_is_opened_again_answers_for_what_is_not_durable: 4289;
    a_replica_that_is_closed_shows_an_older_state: 7091;
    the_simulation_itself_was_wrong: 3225 6808;
}

#[test]
fn seeds_hold() {
    let span = Duration::from_secs(number("SECONDS").unwrap_or(SECONDS));
    let first = number("SEED").unwrap_or(1);
    let credentials = Credentials::make();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let operations = AtomicU64::new(0);
    let faults: Mutex<BTreeSet<String>> = Mutex::default();
    let began = Instant::now();
    let work = || {
        while began.elapsed() < span {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let outcome = holds(seed, &credentials, "nothing yet");
            done.fetch_add(1, Ordering::Relaxed);
            let count = outcome.coverage.get("operations").copied().unwrap_or(0);
            operations.fetch_add(count, Ordering::Relaxed);
            let seen = outcome.coverage.into_keys();
            faults
                .lock()
                .extend(seen.filter(|what| what.starts_with("fault")));
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    println!("seeds from {first} on, {threads} at a time");
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (done, operations) = (done.into_inner(), operations.into_inner());
    println!("{done} seeds, {operations} operations");
    assert!(
        done > 0 && operations > 50 * done,
        "clients did next to nothing"
    );
    let faults = faults.into_inner();
    let missing = sim::missing_faults(done, |fault| faults.contains(fault));
    assert!(missing.is_empty(), "{done} seeds never had {missing:?}");
}
