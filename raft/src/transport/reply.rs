//! The two ends of a reply: [`Reply`] in the handler's hands, [`ReplyFuture`] in the caller's.
//!
//! Every call gets exactly one reply: a [`Reply`] that is dropped answers
//! [`RemoteError::DROPPED`](super::RemoteError::DROPPED). A [`ReplyFuture`] that is dropped takes its call back if it
//! was not yet written.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::api::{CallError, RemoteError};

/// Where replies go, by the id of their call. Called once for each call.
pub(super) trait ReplySink: Send + Sync {
    fn reply(&self, id: u64, outcome: Result<Bytes, RemoteError>);
}

enum To {
    Sink(Arc<dyn ReplySink>, u64),
    One(oneshot::Sender<Result<Bytes, RemoteError>>),
}

/// The handler's duty to answer. May be sent to another task.
#[must_use = "dropping it answers with an error"]
pub struct Reply {
    to: Option<To>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn to_sink(sink: Arc<dyn ReplySink>, id: u64) -> Self {
        Self {
            to: Some(To::Sink(sink, id)),
        }
    }

    /// A reply that arrives in a channel: for calls that a node makes to itself.
    pub fn channel() -> (Self, oneshot::Receiver<Result<Bytes, RemoteError>>) {
        let (sender, receiver) = oneshot::channel();
        (
            Self {
                to: Some(To::One(sender)),
            },
            receiver,
        )
    }

    /// Answers. A caller that no longer waits is no error.
    pub fn send(mut self, outcome: Result<Bytes, RemoteError>) {
        self.deliver(outcome);
    }

    fn deliver(&mut self, outcome: Result<Bytes, RemoteError>) {
        match self.to.take() {
            Some(To::Sink(sink, id)) => sink.reply(id, outcome),
            Some(To::One(sender)) => drop(sender.send(outcome)),
            None => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.deliver(Err(RemoteError::code(RemoteError::DROPPED)));
    }
}

/// Takes a call back.
pub(super) trait Cancel: Send + Sync {
    /// Forgets the call; says whether it may have been sent.
    fn cancel(&self, id: u64) -> bool;
}

/// The reply to a call that was queued. Dropping it gives the call up.
pub struct ReplyFuture {
    receiver: oneshot::Receiver<Result<Bytes, CallError>>,
    deadline: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    call: Option<(Arc<dyn Cancel>, u64)>,
}

impl std::fmt::Debug for ReplyFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyFuture")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl ReplyFuture {
    pub(super) fn new(
        receiver: oneshot::Receiver<Result<Bytes, CallError>>,
        deadline: Instant,
        call: (Arc<dyn Cancel>, u64),
    ) -> Self {
        Self {
            receiver,
            deadline,
            sleep: None,
            call: Some(call),
        }
    }

    fn give_up(&mut self) -> CallError {
        match self.call.take() {
            Some((queue, id)) if !queue.cancel(id) => {
                CallError::Unreachable("not written before its time was up")
            }
            Some(_) | None => CallError::Timeout,
        }
    }
}

impl Future for ReplyFuture {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.receiver).poll(context) {
            self.call = None;
            // A queue that is gone without a word took its calls with it after they may have been sent.
            return Poll::Ready(outcome.unwrap_or(Err(CallError::Closed)));
        }
        let deadline = self.deadline;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(Err(self.give_up()))
    }
}

impl Drop for ReplyFuture {
    fn drop(&mut self) {
        if let Some((queue, id)) = self.call.take() {
            queue.cancel(id);
        }
    }
}
