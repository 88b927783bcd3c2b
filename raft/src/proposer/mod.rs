//! From commands to entries: what arrives while one entry is being proposed goes into the next.
//!
//! One task for each group takes what waits, up to `limits::MAX_BATCH_COMMANDS` and `limits::MAX_BATCH_BYTES`, and proposes it
//! as one entry; it has one entry under way, and more only while full batches wait. After it the next one may wait a moment for those that
//! it answered (see [`company`]). Bulk commands (chunks) have
//! entries of their own, one under way, so that a small one never waits for more than one of them; and while small ones come,
//! each bulk entry is followed by a pause as long as it took, so that bulk takes at most half of the machine.
//!
//! A command has exactly one end: its outcome, "not appended" (`NotLeader`, `Busy`), or `Unknown`. One that still waits when its
//! deadline passes is taken back and was not appended.

mod company;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::id::NodeId;
use model::limits::{MAX_BATCH_BYTES, MAX_BATCH_COMMANDS};
use model::meta::{MetaCommand, MetaEntry, MetaOutcome};
use model::shard::{self, Command, Outcome, ShardEntry};
use model::time::UnixMillis;
use openraft::error::ClientWriteError;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::company::Company;
use crate::log_time::LogTime;
use crate::machine::Entries;
use crate::shard::ProposeError;
use crate::types::{Callback, Raft, Reply, WriteResult};

/// Commands that may wait for an entry.
const MAX_WAITING: usize = 8192;
/// Bytes of commands that may wait for an entry.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// The longest pause after a bulk entry.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// Entries under way when full batches wait.
const MAX_ENTRIES: usize = 4;

/// The commands of one kind of group.
pub(crate) trait Kind: Send + Sync + 'static {
    /// What is proposed.
    type Command: Send + 'static;
    /// What comes of it.
    type Outcome: Send + 'static;

    /// About how many bytes it takes.
    fn weight(command: &Self::Command) -> usize;
    /// Whether it may wait for others.
    fn is_bulk(command: &Self::Command) -> bool;
    /// An entry of these.
    fn entry(log_time: UnixMillis, commands: Vec<Self::Command>) -> Entries;
    /// The outcomes in an answer.
    fn outcomes(reply: Reply) -> Vec<Self::Outcome>;
}

/// A shard's group.
pub(crate) struct ShardKind;

impl Kind for ShardKind {
    type Command = Command;
    type Outcome = Outcome;

    fn weight(command: &Command) -> usize {
        command.weight()
    }

    fn is_bulk(command: &Command) -> bool {
        matches!(command, Command::PutChunk { .. })
    }

    fn entry(log_time: UnixMillis, commands: Vec<Command>) -> Entries {
        let behavior = shard::BEHAVIOR;
        Entries::Shard(ShardEntry {
            behavior,
            log_time,
            commands,
        })
    }

    fn outcomes(reply: Reply) -> Vec<Outcome> {
        match reply {
            Reply::Shard(outcomes) => outcomes,
            Reply::None | Reply::Meta(_) => Vec::new(),
        }
    }
}

/// The meta group.
pub(crate) struct MetaKind;

impl Kind for MetaKind {
    type Command = MetaCommand;
    type Outcome = MetaOutcome;

    fn weight(_: &MetaCommand) -> usize {
        1024
    }

    fn is_bulk(_: &MetaCommand) -> bool {
        false
    }

    fn entry(log_time: UnixMillis, commands: Vec<MetaCommand>) -> Entries {
        let behavior = shard::BEHAVIOR;
        Entries::Meta(MetaEntry {
            behavior,
            log_time,
            commands,
        })
    }

    fn outcomes(reply: Reply) -> Vec<MetaOutcome> {
        match reply {
            Reply::Meta(outcomes) => outcomes,
            Reply::None | Reply::Shard(_) => Vec::new(),
        }
    }
}

type Answer<K> = Result<Option<<K as Kind>::Outcome>, ProposeError>;

struct Waiting<K: Kind> {
    /// `None` is a tick: it only moves log time.
    command: Option<K::Command>,
    weight: usize,
    /// Set by whoever is first: the proposer that takes it, or the caller that gives up.
    claimed: Arc<AtomicBool>,
    answer: oneshot::Sender<Answer<K>>,
}

struct Queues<K: Kind> {
    small: VecDeque<Waiting<K>>,
    bulk: VecDeque<Waiting<K>>,
    bytes: usize,
    small_bytes: usize,
    entries: usize,
    company: Company,
    /// When the bulk entry under way began.
    bulk_since: Option<Instant>,
    /// No bulk entry before this.
    bulk_after: Option<Instant>,
    /// Whether small ones were proposed since the last bulk entry landed.
    shared: bool,
    closed: bool,
}

impl<K: Kind> Queues<K> {
    /// Whether small ones may be proposed now; if not, when, unless something happens before.
    fn small_may(&self, now: Instant) -> Result<(), Option<Instant>> {
        if self.small.len() >= MAX_BATCH_COMMANDS || self.small_bytes >= MAX_BATCH_BYTES {
            return if self.entries < MAX_ENTRIES {
                Ok(())
            } else {
                Err(None)
            };
        }
        if self.entries > 0 || self.small.is_empty() {
            return Err(None);
        }
        match self.company.wait(self.small.len(), now) {
            None => Ok(()),
            until => Err(until),
        }
    }

    /// When something may be proposed, if nothing happens before.
    fn next(&self, now: Instant) -> Option<Instant> {
        let bulk = self.bulk_after.filter(|_| !self.bulk.is_empty());
        let small = self.small_may(now).err().flatten();
        bulk.into_iter().chain(small).min()
    }
}

struct Shared<K: Kind> {
    queues: Mutex<Queues<K>>,
    work: Notify,
}

/// Takes commands of one group. Clones share the queue.
pub(crate) struct Proposer<K: Kind>(Arc<Shared<K>>);

impl<K: Kind> Clone for Proposer<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Kind> Proposer<K> {
    /// A queue; [`Self::run`] empties it.
    pub(crate) fn new() -> Self {
        let queues = Queues {
            small: VecDeque::new(),
            bulk: VecDeque::new(),
            bytes: 0,
            small_bytes: 0,
            entries: 0,
            company: Company::default(),
            bulk_since: None,
            bulk_after: None,
            shared: false,
            closed: false,
        };
        Self(Arc::new(Shared {
            queues: Mutex::new(queues),
            work: Notify::new(),
        }))
    }

    /// Proposes a command, or a tick, and waits for what comes of it.
    pub(crate) async fn propose(
        &self,
        command: Option<K::Command>,
        deadline: Instant,
    ) -> Answer<K> {
        let weight = command.as_ref().map_or(64, K::weight);
        let bulk = command.as_ref().is_some_and(K::is_bulk);
        let (answer, outcome) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let waiting = Waiting {
            command,
            weight,
            claimed: Arc::clone(&claimed),
            answer,
        };
        self.push(waiting, bulk)?;
        match timeout_at(deadline, outcome).await {
            Ok(Ok(answer)) => answer,
            // The group stopped after it took the command.
            Ok(Err(_gone)) => Err(ProposeError::Unknown),
            Err(_late) if !claimed.swap(true, Ordering::AcqRel) => Err(ProposeError::Busy),
            Err(_late) => Err(ProposeError::Unknown),
        }
    }

    fn push(&self, waiting: Waiting<K>, bulk: bool) -> Result<(), ProposeError> {
        let now = Instant::now();
        let mut queues = self.0.queues.lock();
        let full = queues.small.len() + queues.bulk.len() >= MAX_WAITING
            || queues.bytes + waiting.weight > MAX_WAITING_BYTES;
        if queues.closed {
            return Err(ProposeError::NotLeader { leader: None });
        }
        if full {
            return Err(ProposeError::Busy);
        }
        queues.bytes += waiting.weight;
        if bulk {
            queues.bulk.push_back(waiting);
        } else {
            queues.small_bytes += waiting.weight;
            queues.small.push_back(waiting);
            queues.company.arrived(now);
        }
        let due = bulk
            || match queues.small_may(now) {
                Ok(()) => true,
                // The first one sets the alarm; the others wait with it.
                Err(until) => until.is_some() && queues.small.len() == 1,
            };
        drop(queues);
        if due {
            self.0.work.notify_one();
        }
        Ok(())
    }

    /// Takes no more, and answers all that wait: not appended.
    pub(crate) fn close(&self) {
        let mut queues = self.0.queues.lock();
        queues.closed = true;
        let small = std::mem::take(&mut queues.small);
        let bulk = std::mem::take(&mut queues.bulk);
        queues.bytes = 0;
        queues.small_bytes = 0;
        drop(queues);
        self.0.work.notify_one();
        refuse(
            small.into_iter().chain(bulk).collect(),
            &ProposeError::NotLeader { leader: None },
        );
    }

    /// Makes entries of what waits, until the group stops.
    pub(crate) async fn run(&self, raft: Raft, time: Arc<LogTime>) {
        loop {
            let Some(batch) = self.take() else {
                let pause = {
                    let queues = self.0.queues.lock();
                    if queues.closed {
                        return;
                    }
                    queues.next(Instant::now())
                };
                tokio::select! {
                    biased;
                    () = self.0.work.notified() => {}
                    () = until(pause) => {}
                }
                continue;
            };
            let Some(log_time) = time.next() else {
                let leader = raft.current_leader().await.map(NodeId);
                batch.flight.land();
                refuse(batch.waiting, &ProposeError::NotLeader { leader });
                continue;
            };
            let Batch { waiting, flight } = batch;
            let (commands, answers) = split(waiting);
            let data = K::entry(log_time, commands).encode();
            let done = Callback::new(move |result: WriteResult| {
                drop(flight);
                answer::<K>(answers, result);
            });
            if raft.client_write_ff(data, Some(done)).await.is_err() {
                self.close();
                return;
            }
        }
    }

    /// The next batch, if one may be proposed now.
    fn take(&self) -> Option<Batch<K>> {
        let mut queues = self.0.queues.lock();
        let queues = &mut *queues;
        let now = Instant::now();
        let may = queues.small_may(now).is_ok();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        while may && waiting.len() < MAX_BATCH_COMMANDS {
            let Some(first) = queues.small.front() else {
                break;
            };
            if !waiting.is_empty() && bytes + first.weight > MAX_BATCH_BYTES {
                break;
            }
            let Some(first) = queues.small.pop_front() else {
                break;
            };
            queues.bytes -= first.weight;
            queues.small_bytes -= first.weight;
            if !first.claimed.swap(true, Ordering::AcqRel) {
                bytes += first.weight;
                waiting.push(first);
            }
        }
        if !waiting.is_empty() {
            queues.entries += 1;
            queues.shared = true;
            return Some(self.batch(waiting, now, false));
        }
        if queues.bulk_since.is_some() || queues.bulk_after.is_some_and(|after| now < after) {
            return None;
        }
        queues.bulk_after = None;
        loop {
            let first = queues.bulk.pop_front()?;
            queues.bytes -= first.weight;
            if !first.claimed.swap(true, Ordering::AcqRel) {
                queues.bulk_since = Some(now);
                return Some(self.batch(vec![first], now, true));
            }
        }
    }

    fn batch(&self, waiting: Vec<Waiting<K>>, since: Instant, bulk: bool) -> Batch<K> {
        let flight = Flight {
            shared: Arc::clone(&self.0),
            commands: waiting.len(),
            since,
            bulk,
        };
        Batch { waiting, flight }
    }
}

struct Batch<K: Kind> {
    waiting: Vec<Waiting<K>>,
    flight: Flight<K>,
}

/// An entry that is under way; gives its place back when dropped.
struct Flight<K: Kind> {
    shared: Arc<Shared<K>>,
    commands: usize,
    since: Instant,
    bulk: bool,
}

impl<K: Kind> Flight<K> {
    fn land(self) {
        drop(self);
    }
}

impl<K: Kind> Drop for Flight<K> {
    fn drop(&mut self) {
        let mut queues = self.shared.queues.lock();
        let now = Instant::now();
        if self.bulk {
            let took = queues.bulk_since.take().map(|since| now - since);
            queues.bulk_after = took
                .filter(|_| std::mem::take(&mut queues.shared))
                .map(|took| now + took.min(MAX_PAUSE));
        } else {
            queues.entries -= 1;
            let (waiting, took) = (queues.small.len(), now - self.since);
            queues.company.landed(self.commands, waiting, took, now);
        }
        drop(queues);
        self.shared.work.notify_one();
    }
}

/// The end of a pause; without one, never.
async fn until(pause: Option<Instant>) {
    match pause {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Who waits for an entry: for each, whether it has a command in it.
type Answers<K> = Vec<(bool, oneshot::Sender<Answer<K>>)>;

fn split<K: Kind>(waiting: Vec<Waiting<K>>) -> (Vec<K::Command>, Answers<K>) {
    let mut commands = Vec::with_capacity(waiting.len());
    let mut answers = Vec::with_capacity(waiting.len());
    for one in waiting {
        answers.push((one.command.is_some(), one.answer));
        commands.extend(one.command);
    }
    (commands, answers)
}

// A caller that no longer waits is no error in either of these.

fn refuse<K: Kind>(waiting: Vec<Waiting<K>>, error: &ProposeError) {
    for one in waiting {
        one.claimed.store(true, Ordering::Release);
        drop(one.answer.send(Err(error.clone())));
    }
}

fn answer<K: Kind>(answers: Answers<K>, result: WriteResult) {
    match result {
        Ok(response) => {
            let mut outcomes = K::outcomes(response.data).into_iter();
            for (has_command, answer) in answers {
                let outcome = if has_command { outcomes.next() } else { None };
                drop(answer.send(Ok(outcome)));
            }
        }
        Err(error) => {
            let error = match error {
                // Not appended: it can be tried elsewhere.
                ClientWriteError::ForwardToLeader(forward) => ProposeError::NotLeader {
                    leader: forward.leader_id.map(NodeId),
                },
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
            };
            for (_, answer) in answers {
                drop(answer.send(Err(error.clone())));
            }
        }
    }
}
