//! A write, from the node that the client spoke to: carried out here or at the leader's node, tried again until it has
//! an end or the client's time is over.
//!
//! Guarantees: every try carries the same request id, so the write is applied at most once. When any try may have been
//! applied and none has told, the answer is [`Failure::Unknown`], never "no". Bounded: requests and bytes in
//! flight, past which a request is refused at once.

use std::sync::Arc;
use std::time::Duration;

use model::limits::MAX_NOT_AFTER;
use model::service::{Failure, Refused, WriteOp, WriteReply, WriteRequest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::service::Inner;
use crate::service::error::{RETRY_AFTER, TryError, Why};
use crate::service::route::{Links, Target, pause};
use crate::service::wire::{MAX_BODY_BYTES, Reply, Request};

/// Requests and bytes in flight.
pub(super) struct Admission {
    requests: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
}

/// A place in flight; free again when dropped.
pub(super) struct Admitted {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(requests: usize, bytes: usize) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            requests: permits(requests),
            kibibytes: permits(bytes / 1024),
        }
    }

    /// A place for a request with this many bytes, at once or not at all.
    pub(super) fn admit(&self, bytes: usize) -> Option<Admitted> {
        let kibibytes = u32::try_from(bytes / 1024 + 1).ok()?;
        Some(Admitted {
            _request: Arc::clone(&self.requests).try_acquire_owned().ok()?,
            _bytes: Arc::clone(&self.kibibytes)
                .try_acquire_many_owned(kibibytes)
                .ok()?,
        })
    }
}

pub(super) fn busy() -> Failure {
    Failure::Unavailable {
        reason: "too many requests are in flight".to_owned(),
        retry_after: RETRY_AFTER,
    }
}

/// Length of the client's body in bytes.
pub(super) const fn body_bytes(op: &WriteOp) -> usize {
    match op {
        WriteOp::Create(body)
        | WriteOp::CreateV1(body)
        | WriteOp::Put(body)
        | WriteOp::Patch(body) => body.0.len(),
        WriteOp::Clean | WriteOp::Delete => 0,
    }
}

impl Inner {
    /// See [`model::service::Sessions::write`].
    pub(super) async fn write(&self, mut request: WriteRequest) -> Result<WriteReply, Failure> {
        let Some(_admitted) = self.clients.admit(body_bytes(&request.op)) else {
            self.metrics.refused_busy.increment(1);
            return Err(busy());
        };
        if body_bytes(&request.op) > MAX_BODY_BYTES {
            return Err(Refused::TooLarge.into());
        }
        let now = self.clock.now();
        request.not_after = request.not_after.min(now.plus(MAX_NOT_AFTER));
        let deadline = Instant::now() + request.not_after.since(now);
        let begun = Instant::now();
        let result = self.write_until(&request, deadline).await;
        self.metrics.write_ended(begun.elapsed(), &result);
        result
    }

    async fn write_until(
        &self,
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteReply, Failure> {
        let mut uncertain = false;
        let mut avoid = Vec::new();
        let mut told = false;
        loop {
            let error = match self.try_write(request, deadline, &mut avoid).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            uncertain |= error == TryError::Unknown;
            let again = error.may_retry()
                || uncertain
                    && matches!(
                        error,
                        TryError::Busy | TryError::DiskFull | TryError::Damaged
                    );
            // Who was told the leader's name goes there at once, but not in circles.
            told = matches!(error, TryError::NotLeader(Some(_))) && !told;
            let pause = if told { Duration::ZERO } else { pause() };
            if !again || !self.is_attached() || Instant::now() + pause >= deadline {
                return Err(error.into_failure(uncertain));
            }
            self.metrics.retries.increment(1);
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_write(
        &self,
        request: &WriteRequest,
        deadline: Instant,
        avoid: &mut Vec<model::id::NodeId>,
    ) -> Result<WriteReply, TryError> {
        let links = self.links()?;
        let group = self.group_of(&links, request.session)?;
        let deadline = self.try_deadline(deadline, body_bytes(&request.op));
        match self.leader(&links, group, avoid)? {
            Target::Here(local) => self.write_here(&local, request, deadline).await,
            Target::Node(node) => {
                let result = self
                    .write_there(&links, (node, group), request, deadline)
                    .await;
                match &result {
                    Ok(_) => self.learn_leader(group, Some(node)),
                    Err(TryError::NotLeader(leader)) => {
                        self.learn_leader(group, *leader);
                        avoid.clear();
                        avoid.push(node);
                    }
                    Err(TryError::NotReady(_) | TryError::Unknown) => avoid.push(node),
                    Err(_) => {}
                }
                result
            }
        }
    }

    async fn write_there(
        &self,
        links: &Links,
        to: (model::id::NodeId, model::id::GroupId),
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteReply, TryError> {
        let budget = deadline.saturating_duration_since(Instant::now());
        let request = Request::Write(request.clone(), budget);
        match self.ask(links, to, request, deadline).await {
            Ok(Reply::Written(reply)) => Ok(*reply),
            Ok(_) => Err(TryError::Unknown),
            Err(error) => Err(error.of_a_write()),
        }
    }

    /// The end of the time that a caller gives, not further than a request may live.
    pub(super) fn deadline_in(timeout: Duration) -> Instant {
        Instant::now() + timeout.min(MAX_NOT_AFTER)
    }

    /// What is left until then.
    pub(super) fn left(deadline: Instant) -> Result<Duration, TryError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(TryError::NotReady(Why::TimeOver))
        } else {
            Ok(left)
        }
    }
}
