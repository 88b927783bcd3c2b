//! The replies of one lane of an accepted connection, from the handlers' hands to the stream.
//!
//! Guarantees: a lane has at most a fixed number of calls without a written reply, and of their bytes; past it
//! the lane is not read, so that the sender's flow control holds the rest. A reply that would make the waiting
//! replies too large becomes [`RemoteError::OVERLOADED`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::api::{Lane, RemoteError};
use super::reply::ReplySink;
use super::wire::{Batch, FrameType, HEADER_BYTES, Header};

/// The most that is handed to the connection at once, in bytes.
const BATCH_BYTES: usize = 256 << 10;

/// How much one lane of an accepted connection may hold.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimits {
    /// Calls whose reply is not yet written.
    pub calls: usize,
    /// Bytes of replies that wait to be written.
    pub waiting_bytes: usize,
}

struct State {
    /// Calls handed to the handlers whose reply is not yet written.
    open: usize,
    waiting: VecDeque<(u64, Result<Bytes, RemoteError>)>,
    waiting_bytes: usize,
    closed: bool,
}

/// The replies of one lane.
pub(super) struct Answers {
    lane: Lane,
    limits: AnswerLimits,
    state: Mutex<State>,
    ready: Notify,
    room: Notify,
}

impl Answers {
    pub(super) fn new(lane: Lane, limits: AnswerLimits) -> Arc<Self> {
        let state = State {
            open: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            closed: false,
        };
        Arc::new(Self {
            lane,
            limits,
            state: Mutex::new(state),
            ready: Notify::new(),
            room: Notify::new(),
        })
    }

    /// Waits until one more call may be open, and counts it. Cancel-safe. One caller at a time.
    pub(super) async fn admit(&self) {
        loop {
            {
                let mut state = self.state.lock();
                if state.open < self.limits.calls {
                    state.open += 1;
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// Waits until replies wait, and moves those that fit into `batch`. Cancel-safe.
    pub(super) async fn fill(&self, batch: &mut Batch) {
        loop {
            if self.take_waiting(batch) {
                return;
            }
            self.ready.notified().await;
            // As with calls: replies that are about to be given share the write and the packet.
            tokio::task::yield_now().await;
        }
    }

    fn take_waiting(&self, batch: &mut Batch) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while batch.bytes() < BATCH_BYTES {
            let Some((id, outcome)) = state.waiting.pop_front() else {
                break;
            };
            let (status, body) = match outcome {
                Ok(body) => (0, body),
                Err(error) => (error.code.max(1), error.detail),
            };
            state.waiting_bytes -= HEADER_BYTES + body.len();
            state.open -= 1;
            let header = Header {
                frame: FrameType::Reply,
                kind: 0,
                id,
                group: 0,
                status,
            };
            batch.push(&header, body);
        }
        if !state.waiting.is_empty() {
            self.ready.notify_one();
        }
        let taken = batch.frames() > 0;
        drop(guard);
        if taken {
            self.room.notify_one();
        }
        taken
    }

    /// The connection is gone: what comes is dropped.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting = VecDeque::new();
        state.waiting_bytes = 0;
    }
}

fn length(outcome: &Result<Bytes, RemoteError>) -> usize {
    match outcome {
        Ok(body) => body.len(),
        Err(error) => error.detail.len(),
    }
}

impl ReplySink for Answers {
    fn reply(&self, id: u64, outcome: Result<Bytes, RemoteError>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let bytes = HEADER_BYTES + length(&outcome);
        let fits = length(&outcome) <= self.lane.max_body()
            && state.waiting_bytes + bytes <= self.limits.waiting_bytes;
        let (outcome, bytes) = if fits {
            (outcome, bytes)
        } else {
            (
                Err(RemoteError::code(RemoteError::OVERLOADED)),
                HEADER_BYTES,
            )
        };
        state.waiting_bytes += bytes;
        state.waiting.push_back((id, outcome));
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AnswerLimits = AnswerLimits {
        calls: 2,
        waiting_bytes: 1000,
    };

    #[tokio::test]
    async fn the_lane_is_not_read_while_too_many_calls_are_open() {
        let answers = Answers::new(Lane::Data, LIMITS);
        answers.admit().await;
        answers.admit().await;
        let mut third = Box::pin(answers.admit());
        assert!(futures::poll!(&mut third).is_pending());
        answers.reply(0, Ok(Bytes::new()));
        assert!(
            futures::poll!(&mut third).is_pending(),
            "a reply counts until it is written"
        );
        answers.fill(&mut Batch::default()).await;
        third.await;
    }

    #[tokio::test]
    async fn replies_that_would_hold_too_much_memory_become_an_error() {
        let answers = Answers::new(Lane::Data, LIMITS);
        answers.admit().await;
        answers.admit().await;
        answers.reply(0, Ok(Bytes::from(vec![0; 900])));
        answers.reply(1, Ok(Bytes::from(vec![0; 900])));
        let mut batch = Batch::default();
        answers.fill(&mut batch).await;
        assert_eq!(batch.frames(), 2);
        assert_eq!(batch.bytes(), 900 + 2 * HEADER_BYTES);
    }
}
