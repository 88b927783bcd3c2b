//! Seeds of the simulation: for a minute, those that found bugs, and twice for one trace.
//!
//! The seeds are the same in each run, from 1 on. `SEED=n` begins elsewhere, `SECONDS=600` goes on for longer; `simulate` is for
//! campaigns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chaos_tests::sim::{self, Credentials, Outcome};
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

/// Seeds beyond the first ones that found what was mended since, and what that was. A seed's course changes with the code, so that
/// one of these may find something else by now: the bug's own test is where the bug was.
const FOUND: [(u64, &str); 25] = [
    (1, "nothing: it is the first"),
    (
        4499,
        "an old disk whose start raised its life to what its peers know votes",
    ),
    (4469, "the same"),
    (
        136,
        "a session is served after its time by a leader that knows no other clock",
    ),
    (
        202,
        "a vote waits for room in a log whose purge waits for the vote",
    ),
    (260, "the same"),
    (
        310,
        "the same, with an entry that is applied only after the start",
    ),
    (
        437,
        "two wrong clocks of five decide while two are not known",
    ),
    (
        464,
        "four voters that survive one loss are taken for five that survive two",
    ),
    (
        469,
        "openraft panics when a stop that somebody waits for is dropped",
    ),
    (
        474,
        "entries are admitted by their length and written in whole blocks",
    ),
    (621, "the same"),
    (
        764,
        "openraft panics without the snapshot that it must have, on a full disk",
    ),
    (
        770,
        "a log without room for a vote, in a process that runs on",
    ),
    (
        201,
        "a leader that is no voter any more holds a lease while another leads",
    ),
    (881, "the same"),
    (428, "a machine that was replaced answers clients"),
    (
        4731,
        "a purge waits for a batch that waits for the room that it would make",
    ),
    (
        3578,
        "a clock that was wrong and one that is wrong now are taken for a majority",
    ),
    (4800, "a node that a dialer refused is not told"),
    (
        1638,
        "the same, where the dialer is gone before all of the answer is sent",
    ),
    (1727, "the same"),
    (
        6669,
        "a leader trusts its lease again while its offer of leadership is on its way",
    ),
    (
        20316,
        "a log that begins after the newest snapshot, as the state was ahead of it after a crash",
    ),
    (
        231,
        "a leader answers a read without what a follower has shown already",
    ),
];

#[test]
fn seeds_that_found_bugs_hold() {
    let credentials = Credentials::make();
    for (seed, what) in FOUND {
        holds(seed, &credentials, what);
    }
}

#[test]
fn seeds_hold() {
    let span = Duration::from_secs(number("SECONDS").unwrap_or(SECONDS));
    let first = number("SEED").unwrap_or(1);
    let credentials = Credentials::make();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let operations = AtomicU64::new(0);
    let began = Instant::now();
    let work = || {
        while began.elapsed() < span {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let outcome = holds(seed, &credentials, "nothing yet");
            done.fetch_add(1, Ordering::Relaxed);
            let count = outcome.coverage.get("operations").copied().unwrap_or(0);
            operations.fetch_add(count, Ordering::Relaxed);
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
}
