//! A read: from the replica on this node if it can be made fresh, else from another node's.
//!
//! Guarantees of a linearizable read: it shows every write acknowledged before it began; "expired" is only said when the
//! shard's own time has passed the expiry, so it stays true unless the session is renewed. Of a local read: never older
//! than the version named by the client, and it says how old it may be. What is damaged here is asked of another replica.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use model::id::{GroupId, NodeId, Version};
use model::service::{Consistency, Failure, ReadReply, ReadRequest, Refused};
use model::shard::{Live, Record, ShardHead};
use tokio::time::Instant;

use crate::log_time::LeaderTime;
use crate::service::Inner;
use crate::service::client::busy;
use crate::service::error::{TryError, Why};
use crate::service::propose::stored_of;
use crate::service::route::{AskError, Links, Target, pause};
use crate::service::view::View;
use crate::service::wire::{Reply, Request};
use crate::shard::{ProposeError, ShardGroup};

/// What a replica's version is to the one that a client has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Covers {
    Yes,
    Behind,
    /// The client has seen a branch of history that is no more.
    Lost,
}

fn covers(current: Version, wanted: Version) -> Covers {
    match current.epoch.cmp(&wanted.epoch) {
        Ordering::Less => Covers::Behind,
        Ordering::Equal if current.revision < wanted.revision => Covers::Behind,
        Ordering::Greater if current.revision < wanted.revision => Covers::Lost,
        Ordering::Equal | Ordering::Greater => Covers::Yes,
    }
}

/// The version that a request must at least be answered with.
const fn floor(request: &ReadRequest) -> Option<Version> {
    match request.consistency {
        Consistency::Linearizable => None,
        Consistency::Local { at_least } => at_least,
    }
}

/// Tries of damaged replicas before damage is the answer: a group has seldom more replicas.
const MAX_DAMAGED: usize = 4;

impl Inner {
    /// See [`model::service::Sessions::read`].
    pub(super) async fn read(&self, request: &ReadRequest) -> Result<ReadReply, Failure> {
        let Some(_admitted) = self.clients.admit(0) else {
            self.metrics.refused_busy.increment(1);
            return Err(busy());
        };
        let begun = Instant::now();
        let deadline = Self::deadline_in(request.timeout);
        let result = self.read_until(request, deadline).await;
        self.metrics.read_ended(begun.elapsed(), &result);
        result
    }

    pub(super) async fn read_until(
        &self,
        request: &ReadRequest,
        deadline: Instant,
    ) -> Result<ReadReply, Failure> {
        let mut avoid = Vec::new();
        let mut damaged = 0;
        loop {
            let error = match self.try_read(request, deadline, &mut avoid).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            damaged += usize::from(error == TryError::Damaged);
            let other_replica = error == TryError::Damaged && damaged < MAX_DAMAGED;
            let pause = pause();
            let again = (error.may_retry() || other_replica) && self.is_attached();
            if !again || Instant::now() + pause >= deadline {
                return Err(error.into_failure(false));
            }
            self.metrics.retries.increment(1);
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_read(
        &self,
        request: &ReadRequest,
        deadline: Instant,
        avoid: &mut Vec<NodeId>,
    ) -> Result<ReadReply, TryError> {
        let links = self.links()?;
        let group = self.group_of(&links, request.session)?;
        let mut request = request.clone();
        let floor = floor(&request);
        if let Some(local) = links.directory.local(group) {
            // A local read waits here for half its time, and leaves the other half for the leader.
            let until = Instant::now() + Self::left(deadline)? / 2;
            match self.read_here(&local, &request, until).await {
                Err(TryError::NotLeader(_) | TryError::NotReady(_) | TryError::Damaged) => {}
                end => return end,
            }
            request.consistency = Consistency::Linearizable;
        }
        let reply = self
            .read_there(&links, group, request, (deadline, avoid))
            .await?;
        let version = match &reply {
            ReadReply::Found { stored, .. } => stored.version,
            ReadReply::Unchanged { version, .. } => *version,
        };
        match floor.map_or(Covers::Yes, |floor| covers(version, floor)) {
            Covers::Yes => Ok(reply),
            Covers::Behind => Err(TryError::NotReady(Why::Stale)),
            Covers::Lost => Err(Refused::BranchLost.into()),
        }
    }

    /// Asks another node: the leader's if it is known.
    async fn read_there(
        &self,
        links: &Links,
        group: GroupId,
        mut request: ReadRequest,
        (deadline, avoid): (Instant, &mut Vec<NodeId>),
    ) -> Result<ReadReply, TryError> {
        let node = match self.leader(links, group, avoid)? {
            Target::Node(node) => node,
            // This replica leads and could not answer: another one may lead by now.
            Target::Here(_) => self.any_other(links, group, avoid)?,
        };
        let until = self.try_deadline(deadline, 0);
        request.timeout = Self::left(until)?;
        let asked = Instant::now();
        let reply = match self
            .ask(links, (node, group), Request::Read(request), until)
            .await
        {
            Ok(Reply::Read(reply)) => reply,
            Ok(_) => return Err(TryError::NotReady(Why::NotUnderstood)),
            Err(error) => {
                if let AskError::Failed(TryError::NotLeader(leader)) = &error {
                    self.learn_leader(group, *leader);
                    avoid.clear();
                }
                avoid.push(node);
                return Err(error.of_a_read());
            }
        };
        Ok(aged(reply, asked.elapsed()))
    }

    /// Reads from the replica on this node.
    pub(super) async fn read_here(
        &self,
        group: &Arc<dyn ShardGroup>,
        request: &ReadRequest,
        deadline: Instant,
    ) -> Result<ReadReply, TryError> {
        match request.consistency {
            Consistency::Linearizable => {
                let timeout = Self::left(deadline)?.min(self.config.barrier_timeout);
                group.barrier(timeout).await?;
                let mut view = View::of(group)?;
                let mut live = live(&view, request)?;
                if self.must_advance(group, (&view, &live))? {
                    let at = live.expires.unwrap_or_default();
                    group.advance(at, deadline).await.map_err(of_a_tick)?;
                    // The session may have been renewed meanwhile.
                    view = View::of(group)?;
                    live = self::live(&view, request)?;
                }
                self.answer((&view, &live), request, None).await
            }
            Consistency::Local { at_least } => {
                let view = reach(group, request, at_least, deadline).await?;
                let age = group.staleness().ok_or(TryError::NotReady(Why::Stale))?;
                let live = live(&view, request)?;
                self.answer((&view, &live), request, Some(age)).await
            }
        }
    }

    /// Whether the session's time is over by the leader's time, but not yet by what is applied: then applied time must
    /// pass the expiry first, or "expired" would not be final. A follower that cannot tell sends the reader to the leader.
    fn must_advance(
        &self,
        group: &Arc<dyn ShardGroup>,
        (view, live): (&View, &Live),
    ) -> Result<bool, TryError> {
        let Some(at) = live.expires else {
            return Ok(false);
        };
        if at <= ShardHead::load(view)?.log_time {
            return Ok(false);
        }
        match group.time_of(at) {
            LeaderTime::ToCome => Ok(false),
            LeaderTime::Over => Ok(true),
            LeaderTime::Unclear if group.is_leader() => Err(TryError::NotReady(Why::Clocks)),
            LeaderTime::Unclear => Err(TryError::NotLeader(group.leader())),
        }
    }

    /// What a view says of a session that is there.
    async fn answer(
        &self,
        (view, live): (&View, &Live),
        request: &ReadRequest,
        staleness: Option<Duration>,
    ) -> Result<ReadReply, TryError> {
        if let Some(at) = live.expires
            && at <= ShardHead::load(view)?.log_time
        {
            return Err(Refused::Expired { at }.into());
        }
        let version = live.version;
        if request.known.contains(&version) {
            return Ok(ReadReply::Unchanged { version, staleness });
        }
        let who = (request.tenant, request.session);
        let plain = self.open(view, who, live).await?;
        Ok(ReadReply::Found {
            stored: Box::new(stored_of(who.1, live, &plain)),
            staleness,
        })
    }
}

/// The session's record, if it is there.
fn live(view: &View, request: &ReadRequest) -> Result<Live, TryError> {
    match Record::load(view, request.tenant, request.session)? {
        Some(Record::Live(live)) => Ok(live),
        Some(Record::Tombstone(_)) | None => Err(Refused::NotFound.into()),
    }
}

/// An empty entry changes no session, so nothing is unknown to a reader.
fn of_a_tick(error: ProposeError) -> TryError {
    match error {
        ProposeError::Unknown => TryError::NotReady(Why::NoQuorum),
        error => error.into(),
    }
}

/// A view that has the version asked for, waiting for it until the deadline.
async fn reach(
    group: &Arc<dyn ShardGroup>,
    request: &ReadRequest,
    at_least: Option<Version>,
    deadline: Instant,
) -> Result<View, TryError> {
    let mut applied = group.applied();
    loop {
        applied.mark_unchanged();
        let view = View::of(group)?;
        let Some(wanted) = at_least else {
            return Ok(view);
        };
        let current = match Record::load(&view, request.tenant, request.session)? {
            Some(Record::Live(live)) => Some(live.version),
            Some(Record::Tombstone(tombstone)) => Some(tombstone.version),
            None => None,
        };
        match current.map_or(Covers::Behind, |current| covers(current, wanted)) {
            Covers::Yes => return Ok(view),
            Covers::Lost => return Err(Refused::BranchLost.into()),
            Covers::Behind => {}
        }
        let change = tokio::time::timeout_at(deadline, applied.changed()).await;
        if !matches!(change, Ok(Ok(()))) {
            return Err(TryError::NotReady(Why::Stale));
        }
    }
}

/// An answer from elsewhere is older by the time it took.
fn aged(mut reply: ReadReply, by: Duration) -> ReadReply {
    let (ReadReply::Found { staleness, .. } | ReadReply::Unchanged { staleness, .. }) = &mut reply;
    if let Some(staleness) = staleness {
        *staleness = staleness.saturating_add(by);
    }
    reply
}
