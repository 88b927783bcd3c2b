//! Many careful clients over many sessions: every kind of operation, several clients on one session, some sessions with a
//! short end that is renewed or not.
//!
//! Which operation comes next, from whom and to whom, follows from the seed and from which sessions are there. The rate is
//! kept whatever the answers do; only a bound on what is under way holds it up.

use std::sync::Arc;
use std::time::Duration;

use model::id::{SessionId, Version};
use model::limits::DEFAULT_SHARDS;
use model::placement::shard_of;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::client::{Ask, Client};
use crate::history::{Action, End, Operation, Shown};

/// Most operations under way: past it the load waits, and counts the time as latency.
const MOST_UNDER_WAY: usize = 2000;
/// A session with an end has one so far ahead, in milliseconds.
const ENDS_IN: std::ops::Range<u64> = 1500..6000;

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// What decides everything.
    pub seed: u64,
    /// How many clients.
    pub clients: usize,
    /// How many sessions there are at a time.
    pub sessions: usize,
    /// Operations a second.
    pub rate: u32,
    /// About how many bytes a body has.
    pub bytes: usize,
    /// Of a hundred bodies so many are `large` bytes.
    pub large_percent: u32,
    /// Bytes of a large body.
    pub large: usize,
    /// Of a hundred sessions so many have a short end.
    pub ending_percent: u32,
    /// Of a thousand operations so many delete.
    pub delete_permille: u32,
}

impl Mix {
    /// A load for everyday runs.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            clients: 12,
            sessions: 36,
            rate: 250,
            bytes: 400,
            large_percent: 2,
            large: 40_000,
            ending_percent: 20,
            delete_permille: 6,
        }
    }

    /// Creates the sessions, then goes on until it is stopped.
    pub async fn start(self, client: Client) -> Running {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            mix: self,
            client,
            pool: Mutex::new(Pool::default()),
            room: Arc::new(Semaphore::new(MOST_UNDER_WAY)),
        });
        let mut first = JoinSet::new();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        for number in 0..self.sessions as u64 {
            let plan = self.create(&mut random);
            first.spawn(Arc::clone(&shared).carry_out(plan, number, Instant::now()));
        }
        while first.join_next().await.is_some() {}
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.run(random, stop.clone()));
        Running { stop, tasks }
    }

    fn create(&self, random: &mut ChaCha8Rng) -> Plan {
        Plan {
            action: Action::Create,
            client: random.random_range(0..self.clients),
            session: None,
            bytes: self.bytes(random),
            ends: random.random_bool(f64::from(self.ending_percent) / 100.0),
            ahead: random.random_range(ENDS_IN),
        }
    }

    fn bytes(&self, random: &mut ChaCha8Rng) -> usize {
        let large = random.random_bool(f64::from(self.large_percent) / 100.0);
        if large { self.large } else { self.bytes }
    }

    fn next(&self, random: &mut ChaCha8Rng) -> Plan {
        let delete = self.delete_permille;
        let action = match random.random_range(0..1000) {
            dice if dice < delete => Action::Delete,
            dice if dice < delete + 230 => Action::Put,
            dice if dice < delete + 330 => Action::PutIfMatch,
            dice if dice < delete + 450 => Action::Patch,
            dice if dice < delete + 480 => Action::Renew,
            dice if dice < delete + 820 => Action::Read,
            _ => Action::ReadLocal,
        };
        Plan {
            action,
            client: random.random_range(0..self.clients),
            session: Some(random.random()),
            bytes: self.bytes(random),
            ends: action == Action::Renew || random.random_bool(0.1),
            ahead: random.random_range(ENDS_IN),
        }
    }
}

/// What the dice say, before the session is known.
#[derive(Clone, Copy, Debug)]
struct Plan {
    action: Action,
    client: usize,
    session: Option<u32>,
    bytes: usize,
    ends: bool,
    ahead: u64,
}

/// A running load. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    /// Sends nothing more and waits for what is under way.
    pub async fn finish(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A session that is there, as far as the clients know.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    ends: bool,
    seen: Option<(Version, String)>,
}

#[derive(Debug, Default)]
struct Pool {
    sessions: Vec<Known>,
    creating: usize,
}

impl Pool {
    /// A session: first one of the shards, so that each has the same load, then one in it.
    fn pick(&self, dice: u32) -> Option<&Known> {
        let shards = u32::from(DEFAULT_SHARDS);
        let shard = |known: &&Known| {
            let id = known.id.parse::<SessionId>().ok();
            id.is_some_and(|id| u32::from(shard_of(id.slot(), DEFAULT_SHARDS).0) == dice % shards)
        };
        let own: Vec<&Known> = self.sessions.iter().filter(shard).collect();
        let all = || self.sessions.iter().collect();
        let among = if own.is_empty() { all() } else { own };
        among
            .get((dice / shards) as usize % among.len().max(1))
            .copied()
    }
}

struct Shared {
    mix: Mix,
    client: Client,
    pool: Mutex<Pool>,
    room: Arc<Semaphore>,
}

impl Shared {
    async fn run(self: Arc<Self>, mut random: ChaCha8Rng, stop: CancellationToken) {
        let mut period = tokio::time::interval(Duration::from_secs(1) / self.mix.rate);
        period.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut under_way = JoinSet::new();
        for number in self.mix.sessions as u64.. {
            let due = tokio::select! {
                () = stop.cancelled() => break,
                due = period.tick() => due,
            };
            while under_way.try_join_next().is_some() {}
            let next = self.mix.next(&mut random);
            let create = self.mix.create(&mut random);
            let plan = if self.is_short() { create } else { next };
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else {
                break;
            };
            let shared = Arc::clone(&self);
            under_way.spawn(async move {
                shared.carry_out(plan, number, due).await;
                drop(permit);
            });
        }
        while under_way.join_next().await.is_some() {}
    }

    fn is_short(&self) -> bool {
        let mut pool = self.pool.lock();
        let short = pool.sessions.len() + pool.creating < self.mix.sessions;
        pool.creating += usize::from(short);
        short
    }

    async fn carry_out(self: Arc<Self>, plan: Plan, number: u64, due: Instant) {
        let known = plan
            .session
            .and_then(|dice| self.pool.lock().pick(dice).cloned());
        if plan.action != Action::Create && known.is_none() {
            return;
        }
        let may_end = known
            .as_ref()
            .map_or(plan.ends, |known| known.ends && plan.ends);
        let renews = plan.action == Action::Renew;
        let action = if renews && !may_end {
            Action::Read
        } else {
            plan.action
        };
        let writes = matches!(action, Action::Create | Action::Put | Action::Renew);
        let expires = (writes && may_end).then(|| {
            let text = self
                .client
                .history
                .wall_in(Duration::from_millis(plan.ahead));
            let at = self.client.history.at_wall(&text).unwrap_or(0);
            (text, at)
        });
        let ends = expires.is_some();
        let ask = Ask {
            client: plan.client,
            number,
            action,
            session: known
                .as_ref()
                .map_or_else(String::new, |known| known.id.clone()),
            bytes: plan.bytes,
            expires,
            seen: known.and_then(|known| known.seen),
            due,
        };
        let (operation, token) = self.client.perform(ask).await;
        self.learn(&operation, token, ends);
    }

    fn learn(&self, operation: &Operation, token: Option<String>, ends: bool) {
        let mut pool = self.pool.lock();
        if operation.action == Action::Create {
            pool.creating = pool.creating.saturating_sub(1);
            if operation.is_acknowledged() {
                pool.sessions.push(Known {
                    id: operation.session.clone(),
                    ends,
                    seen: operation.version.zip(token),
                });
            }
            return;
        }
        let deleted = operation.action == Action::Delete && operation.outcome != End::Fail;
        if deleted || operation.shown == Some(Shown::Absent) {
            pool.sessions.retain(|known| known.id != operation.session);
            return;
        }
        let mut sessions = pool.sessions.iter_mut();
        let Some(known) = sessions.find(|known| known.id == operation.session) else {
            return;
        };
        let is_newer =
            |version: &Version| known.seen.as_ref().is_none_or(|(seen, _)| version > seen);
        if let Some((version, token)) = operation.version.zip(token)
            && is_newer(&version)
        {
            known.seen = Some((version, token));
        }
    }
}
