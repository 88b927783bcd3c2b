//! The load: clients that ask one after the other, on a schedule or as fast as they are answered.
//!
//! **Closed**: each client asks again when it has its answer; what is measured is throughput, and latency at that throughput. A
//! system that stalls is asked less meanwhile, so these latencies flatter it ("coordinated omission", G. Tene 2013). **Open**:
//! requests are due at times that do not depend on answers, and a latency counts from when its request was due, however long its
//! client was busy with the one before. Compare latencies of open loads only.
//!
//! All clients run in one thread: the machine's other processors are the servers'.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::data::{self, Text};
use crate::procs::{self, Usage};
use crate::store::{Connection, Fresh, Store};

/// Different bodies that are written, and bytes of all of them together; more would only take memory.
const BODIES: usize = 256;
const FEWEST_BODIES: usize = 8;
const BODY_BYTES: usize = 64 << 20;
/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_mins(1);

/// When requests are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the client's last one was answered.
    Closed,
    /// So many a second, over all clients.
    Open(f64),
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many ask, each one thing at a time.
    pub clients: usize,
    /// When they ask.
    pub pace: Pace,
    /// Of 1,000 requests, how many read.
    pub reads: u32,
    /// What reads must show.
    pub fresh: Fresh,
    /// How many keys there are.
    pub keys: usize,
    /// Bytes of a value.
    pub bytes: usize,
    /// What values are like.
    pub text: Text,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// While it is counted.
    pub time: Duration,
    /// Chooses keys and values.
    pub seed: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Answered as wanted.
    pub done: u64,
    /// Answered otherwise, or not.
    pub failed: u64,
    /// Of those that were answered, in microseconds.
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let latency = Histogram::new_with_bounds(1, longest, 3);
        Self {
            done: 0,
            failed: 0,
            latency: latency.expect("the bounds are in order"),
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.latency
            .add(&other.latency)
            .expect("all have the same bounds");
    }

    /// Latency at a quantile, in milliseconds.
    #[must_use]
    pub fn millis(&self, quantile: f64) -> f64 {
        let micros = u32::try_from(self.latency.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(micros) / 1000.0
    }
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long it was counted.
    pub time: Duration,
    /// Reads.
    pub reads: Tally,
    /// Writes.
    pub writes: Tally,
    /// The longest time in which no write ended well, over all clients; zero without writes.
    pub gap: Duration,
    /// The longest time in which no write of one client ended well. Where a fault meets a part of the keys only, others' writes hide it
    /// from [`Self::gap`]; each client soon meets it, and then waits.
    pub gap_of_one: Duration,
    /// What the servers took meanwhile, and have at the end; nothing when no process was named.
    pub usage: Usage,
    /// The first failure, in words.
    pub failure: Option<String>,
}

impl Outcome {
    /// Processor time of all servers for 1,000 requests that were answered as wanted, in seconds.
    #[must_use]
    pub fn cpu_per_thousand(&self) -> f64 {
        let thousands = self.per_second() * self.time.as_secs_f64() / 1000.0;
        self.usage.cpu.as_secs_f64() / thousands.max(f64::EPSILON)
    }

    /// Requests of both kinds that were answered as wanted, in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let done = u32::try_from(self.reads.done + self.writes.done).unwrap_or(u32::MAX);
        f64::from(done) / self.time.as_secs_f64().max(f64::EPSILON)
    }
}

/// What all clients share.
struct Shared {
    load: Load,
    bodies: Vec<bytes::Bytes>,
    /// When it is counted.
    from: Instant,
    to: Instant,
}

struct Client<C> {
    connection: C,
    number: usize,
    dice: ChaCha8Rng,
    shared: Rc<Shared>,
    reads: Tally,
    writes: Tally,
    /// When writes ended well.
    ends: Vec<Instant>,
    failure: Option<String>,
}

/// Writes each of these keys once, so that they are there, with as many clients as the load has. It must run in a `LocalSet`.
///
/// # Errors
/// The first failure, in words.
pub async fn fill<S: Store>(store: &S, load: &Load, keys: Range<usize>) -> Result<(), String> {
    let (seed, bytes, text) = (load.seed, load.bytes, load.text);
    let next = Rc::new(Cell::new(keys.start));
    let mut clients: JoinSet<Result<(), String>> = JoinSet::new();
    for client in 0..load.clients.min(keys.len()) {
        let (next, end) = (Rc::clone(&next), keys.end);
        let mut connection = store.connect(client).await?;
        clients.spawn_local(async move {
            loop {
                let key = next.get();
                if key >= end {
                    return Ok(());
                }
                next.set(key + 1);
                let number = u64::try_from(key).unwrap_or(0);
                let body = data::state(seed, number, bytes, text);
                connection.fill(key, body).await?;
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Carries a load out, and measures the processes `servers` and all below them. It must run in a `LocalSet`.
///
/// # Errors
/// When a client cannot connect.
pub async fn run<S: Store>(store: &S, load: &Load, servers: &[u32]) -> Result<Outcome, String> {
    let body = |number| data::state(load.seed ^ 0xb0d1e5, number, load.bytes, load.text);
    let bodies: Vec<_> = (0..bodies(load)).map(body).collect();
    let mut connections = Vec::with_capacity(load.clients);
    for number in 0..load.clients {
        connections.push(store.connect(number).await?);
    }
    let from = Instant::now() + load.warm_up;
    let shared = Rc::new(Shared {
        load: load.clone(),
        bodies,
        from,
        to: from + load.time,
    });
    let usage = tokio::task::spawn_local(used(servers.to_vec(), from, shared.to));
    let mut clients = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        let seed = load.seed.wrapping_add(u64::try_from(number).unwrap_or(0));
        let client = Client {
            connection,
            number,
            dice: ChaCha8Rng::seed_from_u64(seed),
            shared: Rc::clone(&shared),
            reads: Tally::default(),
            writes: Tally::default(),
            ends: Vec::new(),
            failure: None,
        };
        clients.spawn_local(client.run());
    }
    let mut outcome = Outcome {
        time: load.time,
        ..Outcome::default()
    };
    let mut ends = Vec::new();
    while let Some(client) = clients.join_next().await {
        let client = client.map_err(|error| format!("a client ended: {error}"))?;
        outcome.reads.add(&client.reads);
        outcome.writes.add(&client.writes);
        outcome.failure = outcome.failure.or(client.failure);
        ends.extend_from_slice(&client.ends);
        if load.reads < 1000 {
            outcome.gap_of_one = outcome.gap_of_one.max(longest(client.ends, &shared));
        }
    }
    if load.reads < 1000 {
        outcome.gap = longest(ends, &shared);
    }
    outcome.usage = usage.await.map_err(|error| error.to_string())?;
    Ok(outcome)
}

/// How many bodies are made for a load.
fn bodies(load: &Load) -> u64 {
    let many = match load.reads {
        1000 => 0,
        _ => (BODY_BYTES / load.bytes.max(1)).clamp(FEWEST_BODIES, BODIES),
    };
    u64::try_from(many).unwrap_or(0)
}

/// What these processes take from one moment to another.
async fn used(servers: Vec<u32>, from: Instant, to: Instant) -> Usage {
    sleep_until(from).await;
    let before = procs::usage(&servers);
    sleep_until(to).await;
    let after = procs::usage(&servers);
    Usage {
        cpu: after.cpu.saturating_sub(before.cpu),
        ..after
    }
}

fn longest(mut ends: Vec<Instant>, shared: &Shared) -> Duration {
    ends.push(shared.to);
    ends.sort_unstable();
    let mut before = shared.from;
    let gaps = ends.into_iter().map(|end| {
        let gap = end.saturating_duration_since(before);
        before = end;
        gap
    });
    gaps.max().unwrap_or_default()
}

impl<C: Connection> Client<C> {
    async fn run(mut self) -> Self {
        let mut turn = 0_u32;
        loop {
            let due = match self.shared.load.pace {
                Pace::Closed => Instant::now(),
                Pace::Open(per_second) => self.due(turn, per_second),
            };
            turn += 1;
            if due >= self.shared.to {
                return self;
            }
            if Instant::now() >= self.shared.to + LONGEST {
                self.give_up(due);
                continue;
            }
            if due > Instant::now() {
                sleep_until(due).await;
            }
            self.ask(due).await;
        }
    }

    /// Clients take turns, each at its own place between two requests of the one before it.
    fn due(&self, turn: u32, per_second: f64) -> Instant {
        let clients = u32::try_from(self.shared.load.clients).unwrap_or(u32::MAX);
        let number = u32::try_from(self.number).unwrap_or(0);
        let place = f64::from(turn) * f64::from(clients) + f64::from(number);
        self.shared.from - self.shared.load.warm_up + Duration::from_secs_f64(place / per_second)
    }

    /// So far behind, what was due is not asked any more: it has failed.
    fn give_up(&mut self, due: Instant) {
        if due >= self.shared.from {
            let reads = self.shared.load.reads == 1000;
            let tally = if reads {
                &mut self.reads
            } else {
                &mut self.writes
            };
            tally.failed += 1;
        }
        let why = || format!("{LONGEST:?} after the end the load is still behind");
        self.failure.get_or_insert_with(why);
    }

    async fn ask(&mut self, due: Instant) {
        let shared = Rc::clone(&self.shared);
        let key = self.dice.random_range(0..shared.load.keys.max(1));
        let reads = self.dice.random_range(0..1000) < shared.load.reads;
        let outcome = if reads {
            self.connection.get(key, shared.load.fresh).await
        } else {
            let body = self.dice.random_range(0..shared.bodies.len());
            self.connection.put(key, shared.bodies[body].clone()).await
        };
        let now = Instant::now();
        let counted = match shared.load.pace {
            // What ends in the time; a stall at its end shows in the longest gap only.
            Pace::Closed => now >= shared.from && now < shared.to,
            // What was due in the time, whenever it ends.
            Pace::Open(_) => due >= shared.from,
        };
        if !counted {
            return;
        }
        let tally = if reads {
            &mut self.reads
        } else {
            &mut self.writes
        };
        match outcome {
            Ok(()) => {
                let took = now.saturating_duration_since(due).as_micros();
                tally.done += 1;
                tally
                    .latency
                    .saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
                if !reads {
                    self.ends.push(now);
                }
            }
            Err(why) => {
                tally.failed += 1;
                self.failure.get_or_insert(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    use super::*;

    /// Answers after a millisecond; once, for a while, not at all.
    #[derive(Clone)]
    struct Stalls {
        from: Instant,
        to: Instant,
        asked: Rc<Cell<u64>>,
    }

    impl Store for Stalls {
        type Connection = Self;

        async fn connect(&self, _client: usize) -> Result<Self, String> {
            Ok(self.clone())
        }
    }

    impl Connection for Stalls {
        async fn fill(&mut self, _key: usize, _body: Bytes) -> Result<(), String> {
            Ok(())
        }

        async fn put(&mut self, _key: usize, body: Bytes) -> Result<(), String> {
            assert_eq!(body.len(), 2048);
            self.asked.set(self.asked.get() + 1);
            if Instant::now() >= self.from {
                sleep_until(self.to).await;
            }
            sleep(Duration::from_millis(1)).await;
            Ok(())
        }

        async fn get(&mut self, _key: usize, _fresh: Fresh) -> Result<(), String> {
            Err("there is nothing to read".to_owned())
        }
    }

    async fn measured(pace: Pace, reads: u32) -> (Outcome, u64) {
        let begin = Instant::now();
        let store = Stalls {
            from: begin + Duration::from_secs(3),
            to: begin + Duration::from_secs(4),
            asked: Rc::default(),
        };
        let load = Load {
            clients: 4,
            pace,
            reads,
            fresh: Fresh::Linearizable,
            keys: 10,
            bytes: 2048,
            text: Text::Real,
            warm_up: Duration::from_secs(1),
            time: Duration::from_secs(5),
            seed: 1,
        };
        let outcome = LocalSet::new().run_until(run(&store, &load, &[])).await;
        (outcome.expect("it runs"), store.asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_load_counts_the_wait_for_a_stall_and_a_closed_one_hides_it() {
        let (open, asked) = measured(Pace::Open(1000.0), 0).await;
        // All that was due in five seconds, and in the second before.
        assert_eq!((open.writes.done, asked), (5000, 6000));
        // A fifth of them was due in the stall, and those after it waited until it was made up for.
        assert!(open.writes.millis(0.5) < 3.0);
        let late = open.writes.millis(0.9);
        assert!((400.0..1000.0).contains(&late), "{late}");
        assert!(open.gap >= Duration::from_millis(990), "{:?}", open.gap);
        assert!(open.gap_of_one >= open.gap, "{:?}", open.gap_of_one);
        let (closed, _) = measured(Pace::Closed, 0).await;
        assert!(
            closed.writes.millis(0.99) < 3.0,
            "it asks nothing meanwhile"
        );
        assert!(closed.writes.millis(1.0) > 900.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_counted_and_said() {
        let (outcome, _) = measured(Pace::Open(100.0), 1000).await;
        assert_eq!((outcome.reads.done, outcome.reads.failed), (0, 500));
        assert_eq!(outcome.failure.as_deref(), Some("there is nothing to read"));
        assert!(outcome.gap.is_zero(), "nothing was written");
    }
}
