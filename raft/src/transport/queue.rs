//! The calls of one lane to one peer, from the caller's hands to their replies.
//!
//! A call is *waiting* until the lane's writer takes it, then *sent* until its reply comes. Guarantees: calls
//! are written in the order in which they were queued; waiting calls and bytes have a bound, past which a call
//! is [`CallError::TooBusy`] at once; when the connection ends, waiting calls fail as not sent and sent ones as
//! [`CallError::Closed`]; a call that its caller gave up frees its memory at once and is never written.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::api::{Call, CallError, RemoteError};
use super::reply::Cancel;
use super::wire::{Batch, Frame, FrameType, HEADER_BYTES, Header};

/// How much one lane to one peer may hold.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Calls that wait to be written or for their reply.
    pub calls: usize,
    /// Bytes of calls that wait to be written.
    pub waiting_bytes: usize,
}

/// The most that is handed to the connection at once, in bytes: what comes after it (a control frame has a
/// stream of its own) waits at most for this.
const BATCH_BYTES: usize = 256 << 10;

type Outcome = Result<Bytes, CallError>;

struct Pending {
    header: Header,
    /// `None` once written.
    body: Option<Bytes>,
    reply: oneshot::Sender<Outcome>,
}

struct State {
    /// Why calls are turned away at once, if they are.
    down: Option<CallError>,
    waiting: VecDeque<u64>,
    waiting_bytes: usize,
    calls: HashMap<u64, Pending>,
    next: u64,
}

/// Counts of one lane, or of one peer's large calls.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) too_busy: AtomicU64,
}

impl Counts {
    pub(super) fn sent(&self, calls: usize, bytes: usize) {
        self.calls.fetch_add(calls as u64, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn turned_away(&self) {
        self.too_busy.fetch_add(1, Ordering::Relaxed);
    }
}

/// The calls of one lane.
pub(super) struct CallQueue {
    limits: LaneLimits,
    state: Mutex<State>,
    ready: Notify,
    pub(super) counts: Counts,
}

impl CallQueue {
    pub(super) fn new(limits: LaneLimits) -> Self {
        let state = State {
            down: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            calls: HashMap::new(),
            next: 0,
        };
        Self { limits, state: Mutex::new(state), ready: Notify::new(), counts: Counts::default() }
    }

    /// Queues a call behind all earlier ones. Gives its number and where its outcome will be.
    pub(super) fn push(&self, call: Call) -> Result<(u64, oneshot::Receiver<Outcome>), CallError> {
        let bytes = HEADER_BYTES + call.body.len();
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if let Some(error) = &state.down {
            return Err(error.clone());
        }
        if state.calls.len() >= self.limits.calls
            || state.waiting_bytes + bytes > self.limits.waiting_bytes
        {
            drop(state);
            self.counts.turned_away();
            return Err(CallError::TooBusy);
        }
        let id = state.next;
        state.next += 1;
        let header = Header {
            frame: FrameType::Call,
            kind: call.kind.0,
            id,
            group: call.group.to_raw(),
            status: 0,
        };
        state.calls.insert(id, Pending { header, body: Some(call.body), reply: sender });
        state.waiting.push_back(id);
        state.waiting_bytes += bytes;
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.ready.notify_one();
        }
        Ok((id, receiver))
    }

    /// Waits until calls wait, and moves those that fit into `batch`. Cancel-safe.
    pub(super) async fn fill(&self, batch: &mut Batch) {
        loop {
            if self.take_waiting(batch) {
                return;
            }
            self.ready.notified().await;
            // Whoever woke this task may have company: let what is ready run first, so that its calls share the
            // write and the packet.
            tokio::task::yield_now().await;
        }
    }

    fn take_waiting(&self, batch: &mut Batch) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while batch.bytes() < BATCH_BYTES {
            let Some(id) = state.waiting.pop_front() else { break };
            let Some(pending) = state.calls.get_mut(&id) else { continue };
            let Some(body) = pending.body.take() else { continue };
            state.waiting_bytes -= HEADER_BYTES + body.len();
            batch.push(&pending.header, body);
        }
        if !state.waiting.is_empty() {
            self.ready.notify_one();
        }
        drop(guard);
        self.counts.sent(batch.frames(), batch.bytes());
        batch.frames() > 0
    }

    /// Gives a reply to its caller. One for a call that was given up is ignored.
    pub(super) fn complete(&self, frame: Frame) {
        self.counts.received(HEADER_BYTES + frame.body.len());
        let Some(pending) = self.state.lock().calls.remove(&frame.header.id) else {
            return;
        };
        // A caller that no longer waits needs no answer.
        drop(pending.reply.send(outcome(frame)));
    }

    /// Fails all calls: waiting ones with `error`, sent ones with [`CallError::Closed`]. New ones get `error` until
    /// [`Self::reopen`].
    pub(super) fn shut(&self, error: &CallError) {
        let mut state = self.state.lock();
        state.down = Some(error.clone());
        state.waiting.clear();
        state.waiting_bytes = 0;
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        // In the order of the calls, so that a seeded test repeats.
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_unstable_by_key(|(id, _)| *id);
        for (_, pending) in calls {
            let sent = pending.body.is_none();
            let error = if sent { CallError::Closed } else { error.clone() };
            drop(pending.reply.send(Err(error)));
        }
    }

    /// Lets calls wait again.
    pub(super) fn reopen(&self) {
        self.state.lock().down = None;
    }

    /// Calls without a reply, and bytes that wait to be written.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.calls.len(), state.waiting_bytes)
    }
}

/// What a reply frame says.
pub(super) fn outcome(frame: Frame) -> Outcome {
    match frame.header.status {
        0 => Ok(frame.body),
        code => Err(CallError::Remote(RemoteError { code, detail: frame.body })),
    }
}

impl Cancel for CallQueue {
    fn cancel(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let Some(pending) = state.calls.remove(&id) else { return true };
        match pending.body {
            Some(body) => {
                state.waiting_bytes -= HEADER_BYTES + body.len();
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::id::GroupId;

    use super::*;
    use crate::transport::api::{Kind, Lane};

    fn call(length: usize) -> Call {
        Call {
            lane: Lane::Data,
            kind: Kind(7),
            group: GroupId::Meta,
            body: Bytes::from(vec![0; length]),
            timeout: Duration::from_secs(1),
        }
    }

    fn queue() -> CallQueue {
        CallQueue::new(LaneLimits { calls: 4, waiting_bytes: 4096 })
    }

    fn reply(id: u64) -> Frame {
        let header = Header { frame: FrameType::Reply, kind: 7, id, group: 0, status: 0 };
        Frame { header, body: Bytes::from_static(b"yes") }
    }

    #[test]
    fn calls_past_the_count_or_the_bytes_are_turned_away() {
        let calls = queue();
        let kept: Vec<_> = (0..4).map(|_| calls.push(call(1)).unwrap()).collect();
        assert_eq!(calls.push(call(1)).unwrap_err(), CallError::TooBusy);
        assert_eq!(kept.len(), 4);

        let bytes = queue();
        bytes.push(call(4000)).unwrap();
        assert_eq!(bytes.push(call(100)).unwrap_err(), CallError::TooBusy);
        assert_eq!(bytes.counts.too_busy.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_call_that_is_given_up_before_it_is_written_leaves_nothing() {
        let queue = queue();
        let (id, _receiver) = queue.push(call(4000)).unwrap();
        assert!(!queue.cancel(id));
        assert_eq!(queue.load(), (0, 0));
        let (second, _receiver) = queue.push(call(4000)).unwrap();
        let mut batch = Batch::default();
        assert!(queue.take_waiting(&mut batch));
        assert_eq!(batch.frames(), 1);
        assert!(queue.cancel(second), "it was written");
    }

    #[test]
    fn a_broken_connection_tells_sent_from_unsent_calls() {
        let queue = queue();
        let (_, mut sent) = queue.push(call(1)).unwrap();
        assert!(queue.take_waiting(&mut Batch::default()));
        let (_, mut unsent) = queue.push(call(1)).unwrap();
        let gone = CallError::Unreachable("gone");
        queue.shut(&gone);
        assert_eq!(sent.try_recv().unwrap(), Err(CallError::Closed));
        assert_eq!(unsent.try_recv().unwrap(), Err(gone.clone()));
        assert_eq!(queue.push(call(1)).unwrap_err(), gone);
        queue.reopen();
        assert!(queue.push(call(1)).is_ok());
    }

    #[test]
    fn replies_find_their_calls_in_any_order() {
        let queue = queue();
        let (one, mut first) = queue.push(call(1)).unwrap();
        let (two, mut second) = queue.push(call(1)).unwrap();
        assert!(queue.take_waiting(&mut Batch::default()));
        queue.complete(reply(two));
        assert!(first.try_recv().is_err());
        queue.complete(reply(one));
        queue.complete(reply(99));
        assert_eq!(first.try_recv().unwrap().unwrap(), "yes");
        assert_eq!(second.try_recv().unwrap().unwrap(), "yes");
    }

    #[test]
    fn a_batch_ends_at_its_size_and_the_rest_follows() {
        let queue = CallQueue::new(LaneLimits { calls: 100, waiting_bytes: 10 << 20 });
        for _ in 0..3 {
            queue.push(call(BATCH_BYTES)).unwrap();
        }
        let mut batch = Batch::default();
        for _ in 0..3 {
            assert!(queue.take_waiting(&mut batch));
            assert_eq!(batch.frames(), 1);
            batch.take();
        }
        assert!(!queue.take_waiting(&mut batch));
    }
}
