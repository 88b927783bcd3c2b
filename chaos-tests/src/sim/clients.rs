//! The clients of a run: a handful of tasks that share a few sessions, and note what they ask and hear.
//!
//! Each goes to a node of its own most of the time, whatever happens to that node; a stale read needs a client that stays with
//! an old leader. A write whose end is unknown is often sent again, to another node, under the same request id or under the
//! same idempotency key. What a node that died was asked has no answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::codec::Blob;
use model::document::format_date;
use model::id::{NodeId, RequestId, SessionId, Slot, TenantId, Version};
use model::limits::MAX_NOT_AFTER;
use model::service::{
    Consistency, Failure, ReadReply, ReadRequest, Refused, Sessions as _, WriteOp, WriteReply,
    WriteRequest,
};
use model::shard::IdempotencyTag;
use model::time::{Clock as _, UnixMillis};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::lab::{Door, Lab, region};
use super::plan::dice;
use super::record::{Content, End, Form, Kind, Op};
use parking_lot::Mutex;

/// Whose sessions.
pub(super) const TENANT: TenantId = TenantId::DEFAULT;
/// By how much an answer may be later than its time.
const OVERTIME: Duration = Duration::from_secs(3);

/// A session that clients share.
#[derive(Clone, Copy, Debug)]
struct Shared {
    session: SessionId,
    /// Somebody was told that it was made, or could not be.
    made: bool,
    /// The newest version that somebody saw.
    seen: Option<Version>,
}

/// The sessions that clients share.
#[derive(Default)]
pub(super) struct Pool {
    slots: Mutex<Vec<Shared>>,
    marks: Mutex<u64>,
}

impl Pool {
    pub(super) fn new(lab: &Lab) -> Arc<Self> {
        let mut dice = dice(lab.plan.seed, 2);
        let pool = Self::default();
        for _ in 0..lab.plan.sessions {
            let session = fresh(&mut dice);
            pool.slots.lock().push(Shared {
                session,
                made: false,
                seen: None,
            });
        }
        Arc::new(pool)
    }

    fn mark(&self) -> u64 {
        let mut marks = self.marks.lock();
        *marks += 1;
        *marks
    }
}

/// A new session's id.
pub(super) fn fresh(dice: &mut StdRng) -> SessionId {
    let slot = Slot::wrapping(dice.random_range(0..Slot::COUNT));
    SessionId::new(region(), slot, dice.random())
}

/// One client.
pub(super) struct Client {
    pub(super) lab: Arc<Lab>,
    pub(super) pool: Arc<Pool>,
    pub(super) number: u64,
    pub(super) dice: StdRng,
    pub(super) stop: CancellationToken,
}

impl Client {
    /// Works until it is stopped.
    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let think = self.dice.random_range(self.lab.plan.think.clone());
            sleep(Duration::from_millis(think)).await;
            let Some((node, door)) = self.door() else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let place = self.dice.random_range(0..self.lab.plan.sessions);
            let shared = {
                let slots = self.pool.slots.lock();
                slots.get(place).copied()
            };
            let Some(shared) = shared else { continue };
            match self.dice.random_range(0..100) {
                _ if !shared.made => self.write(place, shared, (node, door)).await,
                0..=49 => self.write(place, shared, (node, door)).await,
                50..=79 => self.read(place, shared, (node, door), false).await,
                _ => self.read(place, shared, (node, door), true).await,
            }
        }
    }

    /// The node that this client goes to now.
    fn door(&mut self) -> Option<(NodeId, Door)> {
        let doors = self.lab.doors.lock();
        let favorite = NodeId(self.number % self.lab.plan.nodes + 1);
        if self.dice.random_ratio(3, 4)
            && let Some(door) = doors.get(&favorite)
        {
            return Some((favorite, door.clone()));
        }
        let nodes: Vec<NodeId> = doors.keys().copied().collect();
        let node = *nodes.choose(&mut self.dice)?;
        Some((node, doors.get(&node)?.clone()))
    }

    async fn write(&mut self, place: usize, shared: Shared, (mut node, mut door): (NodeId, Door)) {
        let (form, if_match) = self.form(&shared);
        let key = self
            .dice
            .random_ratio(1, 6)
            .then(|| self.dice.random::<u64>());
        let mut request = WriteRequest {
            tenant: TENANT,
            session: shared.session,
            request: RequestId(self.dice.random()),
            not_after: UnixMillis(0),
            op: op(&form),
            if_match: if_match.map(|version| vec![version]),
            idempotency: key.map(|key| tag(key, &form)),
            want_document: self.dice.random_ratio(1, 2),
        };
        let budget = Duration::from_millis(self.dice.random_range(300..=4000));
        request.not_after = door.clock.now().plus(budget);
        let began = self.lab.trace.now();
        let mut requests = vec![request.request];
        let (mut unknown, mut tries) = (false, 0);
        loop {
            tries += 1;
            let end = self.ask(&door, &request).await;
            let again = matches!(end, End::Unknown) && tries < 3 && self.dice.random_ratio(2, 3);
            if again && let Some((other, next)) = self.door() {
                unknown = true;
                (node, door) = (other, next);
                self.lab.coverage.count("write sent again");
                if key.is_some() && self.dice.random_ratio(1, 2) {
                    // As a client that only has its key.
                    request.request = RequestId(self.dice.random());
                    requests.push(request.request);
                }
                continue;
            }
            let settled = !unknown || matches!(end, End::Written { .. } | End::Wrong(_));
            let end = if settled { end } else { End::Unknown };
            self.learn(place, &shared, &form, &end);
            let kind = Kind::Write {
                requests,
                form,
                if_match,
            };
            self.record((node, shared.session), kind, began, end);
            return;
        }
    }

    /// What to write.
    fn form(&mut self, shared: &Shared) -> (Form, Option<Version>) {
        let mark = self.pool.mark().to_string();
        let expires = self
            .dice
            .random_ratio(self.lab.plan.expiring, 100)
            .then(|| {
                let millis = self.dice.random_range(300..=5000);
                self.lab.true_time().plus(Duration::from_millis(millis))
            });
        if !shared.made {
            let (name, tag) = (mark, String::new());
            return (Form::Create(Content { name, tag, expires }), None);
        }
        let form = match self.dice.random_range(0..100) {
            0..=64 => Form::Put(mark, expires),
            65..=95 => Form::Patch(mark),
            _ => Form::Delete,
        };
        let named = shared.seen.filter(|_| self.dice.random_ratio(1, 4));
        (form, named)
    }

    async fn ask(&self, door: &Door, request: &WriteRequest) -> End {
        // What the request leaves to this node, by its own clock: a wrong one had stamped it perhaps.
        let budget = request.not_after.since(door.clock.now()).min(MAX_NOT_AFTER);
        let answer = timeout(budget + OVERTIME, door.service.write(request.clone()));
        let answer = tokio::select! {
            biased;
            () = door.dead.cancelled() => return End::Unknown,
            answer = answer => answer,
        };
        match answer {
            Err(_elapsed) => End::Wrong(format!(
                "no answer to a write within {OVERTIME:?} after its time"
            )),
            Ok(Ok(reply)) => written(&reply),
            Ok(Err(failure)) => failed(&self.lab, failure),
        }
    }

    async fn read(
        &mut self,
        place: usize,
        shared: Shared,
        (node, door): (NodeId, Door),
        local: bool,
    ) {
        let at_least = shared
            .seen
            .filter(|_| local && self.dice.random_ratio(1, 3));
        let budget = Duration::from_millis(self.dice.random_range(200..=2500));
        let request = ReadRequest {
            tenant: TENANT,
            session: shared.session,
            consistency: if local {
                Consistency::Local { at_least }
            } else {
                Consistency::Linearizable
            },
            known: Vec::new(),
            timeout: budget,
        };
        let began = self.lab.trace.now();
        let answer = timeout(budget + OVERTIME, door.service.read(request));
        let answer = tokio::select! {
            biased;
            () = door.dead.cancelled() => return,
            answer = answer => answer,
        };
        let end = match answer {
            Err(_elapsed) => End::Wrong(format!(
                "no answer to a read within {OVERTIME:?} after its time"
            )),
            Ok(answer) => read_end(&self.lab, answer),
        };
        if let End::Found { version, .. } = &end {
            self.saw(place, shared.session, *version);
        }
        let kind = if local {
            Kind::Local(at_least)
        } else {
            Kind::Read
        };
        self.record((node, shared.session), kind, began, end);
    }

    /// Makes use of what came of a write.
    fn learn(&mut self, place: usize, shared: &Shared, form: &Form, end: &End) {
        match (form, end) {
            (Form::Delete, End::Written { .. }) | (_, End::Refused(Refused::NotFound)) => {
                let next = Shared {
                    session: fresh(&mut self.dice),
                    made: false,
                    seen: None,
                };
                let mut slots = self.pool.slots.lock();
                if let Some(slot) = slots.get_mut(place)
                    && slot.session == shared.session
                {
                    *slot = next;
                }
            }
            (
                _,
                End::Written {
                    session, version, ..
                },
            ) => {
                self.saw(place, shared.session, *version);
                debug_assert_eq!(*session, shared.session, "keys are not shared yet");
            }
            (Form::Create(_), End::Unknown) => self.saw_nothing(place, shared.session),
            _ => {}
        }
    }

    fn saw(&self, place: usize, session: SessionId, version: Version) {
        let mut slots = self.pool.slots.lock();
        if let Some(slot) = slots.get_mut(place)
            && slot.session == session
        {
            slot.made = true;
            slot.seen = slot.seen.max(Some(version));
        }
    }

    /// It may have been made: what is asked of it next tells.
    fn saw_nothing(&self, place: usize, session: SessionId) {
        let mut slots = self.pool.slots.lock();
        if let Some(slot) = slots.get_mut(place)
            && slot.session == session
        {
            slot.made = true;
        }
    }

    fn record(&self, (node, session): (NodeId, SessionId), kind: Kind, began: Duration, end: End) {
        let ended = self.lab.trace.now();
        self.lab.coverage.count(outcome(&kind, &end));
        let op = Op {
            client: self.number,
            node,
            session,
            kind,
            began,
            ended,
            end,
        };
        self.lab.trace.say("client", told(&op));
        self.lab.ops.lock().push(op);
    }
}

/// One line of a trace about an operation.
pub(super) fn told(op: &Op) -> String {
    let session = op.session.as_bytes();
    let short = u16::from_be_bytes([session[14], session[15]]);
    let what = match &op.kind {
        Kind::Write { form, if_match, .. } => format!("{form:?} if {if_match:?}"),
        kind => format!("{kind:?}"),
    };
    let (client, node, began) = (op.client, op.node, op.began.as_secs_f64());
    format!(
        "{client} at {node} of {short:04x} since {began:.3}: {what} -> {:?}",
        op.end
    )
}

fn outcome(kind: &Kind, end: &End) -> &'static str {
    let write = matches!(kind, Kind::Write { .. });
    match (write, end) {
        (true, End::Written { replayed: true, .. }) => "write replayed",
        (true, End::Written { .. }) => "write ok",
        (true, End::Refused(_)) => "write refused",
        (true, End::Unavailable) => "write unavailable",
        (true, _) => "write unknown",
        (false, End::Found { .. }) => "read ok",
        (false, End::Refused(_)) => "read refused",
        (false, _) => "read failed",
    }
}

pub(super) fn written(reply: &WriteReply) -> End {
    let stored = reply.stored.as_ref();
    // A replayed answer may show a newer document than the version that it names.
    let exact = stored.filter(|stored| stored.version == reply.version);
    End::Written {
        session: reply.session,
        version: reply.version,
        content: exact.map(Content::of),
        replayed: reply.replayed,
    }
}

/// How a read ended.
pub(super) fn read_end(lab: &Lab, answer: Result<ReadReply, Failure>) -> End {
    match answer {
        Ok(ReadReply::Found { stored, staleness }) => End::Found {
            version: stored.version,
            content: Content::of(&stored),
            staleness,
        },
        Ok(ReadReply::Unchanged { .. }) => End::Wrong("no version was known".to_owned()),
        Err(failure) => failed(lab, failure),
    }
}

fn failed(lab: &Lab, failure: Failure) -> End {
    match failure {
        Failure::Refused(
            refused @ (Refused::BadDocument { .. } | Refused::TooLarge | Refused::BranchLost),
        ) => End::Wrong(format!("refused: {refused}")),
        Failure::Refused(refused) => End::Refused(refused),
        Failure::Unavailable { .. } | Failure::DiskFull => End::Unavailable,
        Failure::Unknown => End::Unknown,
        // Right, or an error: whoever met it cannot know what became of a write.
        Failure::Damaged if lab.coverage.has(super::decay::DECAY) => End::Unknown,
        Failure::Damaged => End::Wrong("stored data is damaged".to_owned()),
    }
}

/// What to send.
pub(super) fn op(form: &Form) -> WriteOp {
    let times = |expires: &Option<UnixMillis>| {
        expires.map_or_else(String::new, |at| {
            format!(r#","timestamps":{{"expires":"{}"}}"#, format_date(at))
        })
    };
    let blob = |text: String| Blob(Bytes::from(text));
    match form {
        Form::Create(Content { name, expires, .. }) => {
            WriteOp::Create(blob(format!(r#"{{"name":"{name}"{}}}"#, times(expires))))
        }
        Form::Put(name, expires) => {
            WriteOp::Put(blob(format!(r#"{{"name":"{name}"{}}}"#, times(expires))))
        }
        Form::Patch(tag) => WriteOp::Patch(blob(format!(r#"{{"tags":["{tag}"]}}"#))),
        Form::Delete => WriteOp::Delete,
    }
}

fn tag(key: u64, form: &Form) -> IdempotencyTag {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    let mut fingerprint = [0; 32];
    let what = match form {
        Form::Create(content) => content.name.as_bytes(),
        Form::Put(mark, _) | Form::Patch(mark) => mark.as_bytes(),
        Form::Delete => b"delete",
    };
    let length = what.len().min(32);
    fingerprint[..length].copy_from_slice(&what[..length]);
    IdempotencyTag {
        key: bytes,
        fingerprint,
    }
}
