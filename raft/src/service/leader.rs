//! A write at the node of the shard's leader: read, modify, seal, propose with the version it was made from.
//!
//! Guarantees: writes of one session are made one after another here, each from what the one before it makes, also while
//! that one is on its way to a quorum (`queue.rs`); what another leader writes meanwhile is met by the expected version,
//! and the write is made again from the newer one. A request that was carried out before is answered from what the
//! session remembers. A refusal is given only when nothing is under way, and after a barrier has shown that the view it was
//! decided on is not an old leader's.

use std::sync::Arc;

use bytes::Bytes;
use model::document::{self, CleanReport, DocumentError, Input};
use model::id::{RequestId, SessionId, TenantId, Version};
use model::service::{Refused, WriteOp, WriteReply, WriteRequest};
use model::shard::{self, Live, Record, RequestTag};
use model::time::UnixMillis;
use tokio::time::Instant;

use crate::service::Inner;
use crate::service::cache::Plain;
use crate::service::content::{self, Prepared};
use crate::service::error::{RETRY_AFTER, TryError, Why};
use crate::service::keys::SessionKey;
use crate::service::queue::{Ahead, NoTurn, Turn};
use crate::service::view::{View, weight};
use crate::shard::ShardGroup;

/// One write being carried out.
pub(super) struct Job<'a> {
    pub(super) group: &'a Arc<dyn ShardGroup>,
    pub(super) request: &'a WriteRequest,
    pub(super) deadline: Instant,
}

impl Job<'_> {
    pub(super) const fn who(&self) -> (TenantId, SessionId) {
        (self.request.tenant, self.request.session)
    }

    pub(super) const fn tag(&self) -> RequestTag {
        RequestTag {
            id: self.request.request,
            not_after: self.request.not_after,
        }
    }

    /// Whether this may be made from what is not applied yet: it cannot be refused for what the session is.
    const fn may_run_ahead(&self) -> bool {
        let merges = matches!(self.request.op, WriteOp::Put(_) | WriteOp::Patch(_));
        merges && self.request.if_match.is_none()
    }

    /// Whether the client's condition holds for this version.
    fn permits(&self, current: Version) -> Result<(), Refused> {
        match &self.request.if_match {
            Some(versions) if !versions.contains(&current) => {
                Err(Refused::VersionMismatch { current })
            }
            _ => Ok(()),
        }
    }
}

/// What one round came to.
pub(super) enum Round {
    Done(Box<WriteReply>),
    /// Someone else was faster: read again.
    Again,
    /// "No", if the view was fresh.
    Refuse(Refused),
}

/// A change that is ready to be proposed.
pub(super) struct Change {
    pub(super) prepared: Prepared,
    pub(super) key: SessionKey,
    pub(super) clean: Option<CleanReport>,
    pub(super) base: Base,
}

pub(super) enum Base {
    /// A new session, with its wrapped key.
    New(Bytes),
    /// The version that the content was made from, and the request that makes it if it is not applied yet.
    Version(Version, Option<RequestId>),
}

impl Inner {
    /// Carries out a write on the local replica, which leads.
    pub(super) async fn write_here(
        &self,
        group: &Arc<dyn ShardGroup>,
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteReply, TryError> {
        let job = Job {
            group,
            request,
            deadline,
        };
        let mut fresh = false;
        loop {
            let turn = self.queues.enter(job.who(), deadline).await;
            let turn = turn.map_err(no_turn)?;
            if !group.is_leader() {
                return Err(TryError::NotLeader(group.leader()));
            }
            let left = Self::left(deadline)?;
            match self.round(&job, turn).await? {
                Round::Done(reply) => return Ok(*reply),
                Round::Again => self.metrics.races.increment(1),
                Round::Refuse(refused) if fresh => return Err(refused.into()),
                Round::Refuse(_) => {
                    group.barrier(left.min(self.config.barrier_timeout)).await?;
                    fresh = true;
                }
            }
        }
    }

    async fn round(&self, job: &Job<'_>, turn: Turn) -> Result<Round, TryError> {
        if job.may_run_ahead()
            && let Some(ahead) = turn.ahead()
            && let Some(change) = self.made_ahead(job, ahead).await?
        {
            return self.propose(job, change, turn).await;
        }
        turn.settled(job.deadline).await.map_err(no_turn)?;
        let view = View::of(job.group)?;
        let now = job.group.log_time();
        let idempotency = job.request.idempotency.as_ref();
        let (tenant, session) = job.who();
        let record = Record::load(&view, tenant, session)?;
        let place = (tenant, session, record.as_ref());
        if let Some(outcome) = shard::decided(&view, place, job.tag(), idempotency, now)? {
            return self.ended(job, outcome, None).await;
        }
        if let WriteOp::Create(body) | WriteOp::CreateV1(body) = &job.request.op {
            let v1 = matches!(job.request.op, WriteOp::CreateV1(_));
            let change = self.new_session(job, body.0.clone(), v1).await?;
            return self.propose(job, change, turn).await;
        }
        let Some(Record::Live(live)) = record else {
            return Ok(Round::Refuse(Refused::NotFound));
        };
        if let Err(refused) = job.permits(live.version) {
            return Ok(Round::Refuse(refused));
        }
        if job.request.op == WriteOp::Delete {
            return self.delete(job, live.version).await;
        }
        match self.changed(job, &view, (&live, now)).await? {
            Ok(change) => self.propose(job, change, turn).await,
            Err(refused) => Ok(Round::Refuse(refused)),
        }
    }

    /// The change that this makes of what the session becomes. `None` if only the applied state can tell what comes of it.
    async fn made_ahead(&self, job: &Job<'_>, ahead: Ahead) -> Result<Option<Change>, TryError> {
        let view = View::of(job.group)?;
        let now = job.group.log_time();
        let who = job.who();
        let record = Record::load(&view, who.0, who.1)?;
        let place = (who.0, who.1, record.as_ref());
        let idempotency = job.request.idempotency.as_ref();
        if shard::decided(&view, place, job.tag(), idempotency, now)?.is_some() {
            return Ok(None);
        }
        let (op, Ahead { version, by, plain }) = (job.request.op.clone(), ahead);
        let bytes = super::client::body_bytes(&op).saturating_add(plain.sections.len());
        let key = plain.key.clone();
        let work = move || {
            merge(&plain, &op, now).map(|(input, _)| content::prepare(&plain.key, who, input))
        };
        let made = self.work.run(bytes, work).await?;
        Ok(made.ok().map(|prepared| Change {
            prepared,
            key,
            clean: None,
            base: Base::Version(version, Some(by)),
        }))
    }

    async fn new_session(&self, job: &Job<'_>, body: Bytes, v1: bool) -> Result<Change, TryError> {
        let who = job.who();
        let (key, wrapped) = self.keys.create(who.0, who.1);
        let sealing = key.clone();
        let work = move || -> Result<Prepared, DocumentError> {
            let input = if v1 {
                document::create_v1(&body)?
            } else {
                document::create(&body)?
            };
            Ok(content::prepare(&sealing, who, input))
        };
        let bytes = super::client::body_bytes(&job.request.op);
        let prepared = self
            .work
            .run(bytes, work)
            .await?
            .map_err(|error| of_document(&error))?;
        Ok(Change {
            prepared,
            key,
            clean: None,
            base: Base::New(wrapped),
        })
    }

    /// What the session becomes. The inner error refuses what the client asked for.
    async fn changed(
        &self,
        job: &Job<'_>,
        view: &View,
        (live, now): (&Live, UnixMillis),
    ) -> Result<Result<Change, Refused>, TryError> {
        if let Some(at) = live.expires.filter(|at| *at <= now)
            && job.request.op == WriteOp::Clean
        {
            return Ok(Err(Refused::Expired { at }));
        }
        let who = job.who();
        let plain = self.open(view, who, live).await?;
        let (op, key) = (job.request.op.clone(), plain.key.clone());
        let bytes = super::client::body_bytes(&op).saturating_add(weight(live.plain_bytes));
        let work = move || -> Result<(Prepared, Option<CleanReport>), DocumentError> {
            let (input, clean) = merge(&plain, &op, now)?;
            Ok((content::prepare(&plain.key, who, input), clean))
        };
        match self
            .work
            .run(bytes, work)
            .await?
            .map_err(|error| of_document(&error))
        {
            Ok((prepared, clean)) => Ok(Ok(Change {
                prepared,
                key,
                clean,
                base: Base::Version(live.version, None),
            })),
            Err(TryError::Refused(refused)) => Ok(Err(refused)),
            Err(error) => Err(error),
        }
    }
}

/// The document that an operation makes of another.
fn merge(
    plain: &Plain,
    op: &WriteOp,
    now: UnixMillis,
) -> Result<(Input, Option<CleanReport>), DocumentError> {
    match op {
        WriteOp::Put(body) => Ok((document::put(&plain.sections, &body.0)?, None)),
        WriteOp::Patch(body) => Ok((document::patch(&plain.sections, &body.0)?, None)),
        WriteOp::Clean => {
            document::clean(&plain.sections, now).map(|(input, report)| (input, Some(report)))
        }
        WriteOp::Create(_) | WriteOp::CreateV1(_) | WriteOp::Delete => {
            unreachable!("only operations that change a document are merged")
        }
    }
}

pub(super) fn no_turn(no_turn: NoTurn) -> TryError {
    match no_turn {
        NoTurn::Full => too_many(),
        NoTurn::TimeOver => TryError::NotReady(Why::TimeOver),
    }
}

pub(super) fn too_many() -> TryError {
    let retry_after = RETRY_AFTER;
    Refused::TooManyRequests { retry_after }.into()
}

fn of_document(error: &DocumentError) -> TryError {
    match error {
        DocumentError::TooLarge { .. } => Refused::TooLarge.into(),
        DocumentError::Stored { .. } => TryError::Damaged,
        DocumentError::Malformed { .. }
        | DocumentError::InvalidUtf8 { .. }
        | DocumentError::TooDeep { .. }
        | DocumentError::WrongType { .. }
        | DocumentError::BadDate { .. } => Refused::BadDocument {
            text: error.to_string(),
            path: error.path().map(str::to_owned),
        }
        .into(),
    }
}
