//! Seeds of the simulation: for a minute, and twice for one trace.
//!
//! The seeds are the same in each run, from 1 on: those of them that are known not to hold are listed in [`OPEN`]. `SEED=n` begins
//! elsewhere, `SECONDS=600` goes on for longer; `simulate` is for campaigns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chaos_tests::sim::{self, Credentials};
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

fn holds(seed: u64) {
    let outcome = sim::run(seed, &Credentials::make(), TAIL);
    let violation = outcome.violation;
    assert!(
        violation.is_none(),
        "{}\nseed {seed}: {violation:?}",
        outcome.tail
    );
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

/// Seeds from 1 to 119 that do not hold today: findings whose causes are not mended yet (`chaos-tests/README.md` says what each shows).
/// They are left out here so that a seed that held and holds no more is seen; `simulate` runs them like all others.
const OPEN: [u64; 18] = [
    2, 8, 11, 39, 44, 46, 53, 71, 77, 78, 87, 95, 101, 103, 105, 111, 112, 118,
];

#[test]
fn seeds_that_held_hold() {
    let span = Duration::from_secs(number("SECONDS").unwrap_or(SECONDS));
    let first = number("SEED").unwrap_or(1);
    let credentials = Credentials::make();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let operations = AtomicU64::new(0);
    let began = Instant::now();
    let work = || {
        while began.elapsed() < span {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Beyond these nobody has looked yet: that is a campaign's work, not a test's.
            if seed >= 120 && number("SEED").is_none() {
                return;
            }
            if OPEN.contains(&seed) {
                continue;
            }
            let outcome = sim::run(seed, &credentials, TAIL);
            let violation = outcome.violation;
            assert!(
                violation.is_none(),
                "{}\nseed {seed}: {violation:?}\nrepeat it: cargo run -p chaos-tests --bin simulate -- --seeds {seed} --trace",
                outcome.tail
            );
            done.fetch_add(1, Ordering::Relaxed);
            let count = outcome.coverage.get("operations").copied().unwrap_or(0);
            operations.fetch_add(count, Ordering::Relaxed);
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    println!(
        "seeds from {first} on, {threads} at a time, without {} open ones",
        OPEN.len()
    );
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
}

#[test]
fn the_first_seed_holds() {
    holds(1);
}
