//! A write at the node of the shard's leader: read, modify, seal, propose with the version it was made from.
//!
//! Guarantees: writes of one session run one after another here; what another leader writes meanwhile is met by the
//! expected version, and the write is made again from the newer one. A request that was carried out before is
//! answered from what the session remembers. A refusal is given only after a barrier has shown that the view it
//! was decided on is not an old leader's.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use model::codec::Blob;
use model::document::{self, CleanReport, DocumentError, Input};
use model::id::{SessionId, TenantId, Version};
use model::service::{Refused, Stored, WriteOp, WriteReply, WriteRequest};
use model::shard::{self, Command, Live, Outcome, Record, Rejection, RequestTag};
use model::time::UnixMillis;
use tokio::time::Instant;

use crate::service::Inner;
use crate::service::cache::Plain;
use crate::service::content::{self, Chunk, Prepared};
use crate::service::error::{RETRY_AFTER, TryError, Why};
use crate::service::keys::SessionKey;
use crate::service::queue::NoTurn;
use crate::service::view::{View, weight};
use crate::shard::{ProposeError, ShardGroup};

/// Chunks that are proposed at a time.
const CHUNKS_IN_FLIGHT: usize = 4;

/// One write being carried out.
struct Job<'a> {
    group: &'a Arc<dyn ShardGroup>,
    request: &'a WriteRequest,
    deadline: Instant,
}

impl Job<'_> {
    const fn who(&self) -> (TenantId, SessionId) {
        (self.request.tenant, self.request.session)
    }

    const fn tag(&self) -> RequestTag {
        RequestTag {
            id: self.request.request,
            not_after: self.request.not_after,
        }
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
enum Round {
    Done(WriteReply),
    /// Someone else was faster: read again.
    Again,
    /// "No", if the view was fresh.
    Refuse(Refused),
}

/// A change that is ready to be proposed.
struct Change {
    prepared: Prepared,
    key: SessionKey,
    clean: Option<CleanReport>,
    base: Base,
}

enum Base {
    /// A new session, with its wrapped key.
    New(Bytes),
    /// The version that the content was made from.
    Version(Version),
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
        let turn = self.queues.enter(job.who(), deadline).await;
        let _turn = turn.map_err(|no_turn| match no_turn {
            NoTurn::Full => too_many(),
            NoTurn::TimeOver => TryError::NotReady(Why::TimeOver),
        })?;
        let mut fresh = false;
        loop {
            if !group.is_leader() {
                return Err(TryError::NotLeader(group.leader()));
            }
            let left = Self::left(deadline)?;
            match self.round(&job).await? {
                Round::Done(reply) => return Ok(reply),
                Round::Again => self.metrics.races.increment(1),
                Round::Refuse(refused) if fresh => return Err(refused.into()),
                Round::Refuse(_) => {
                    group.barrier(left.min(self.config.barrier_timeout)).await?;
                    fresh = true;
                }
            }
        }
    }

    async fn round(&self, job: &Job<'_>) -> Result<Round, TryError> {
        let view = View::of(job.group);
        let now = job.group.log_time();
        let idempotency = job.request.idempotency.as_ref();
        if let Some(outcome) = shard::decided(&view, job.who(), job.tag(), idempotency, now)? {
            return self.ended(job, outcome, None).await;
        }
        if let WriteOp::Create(body) | WriteOp::CreateV1(body) = &job.request.op {
            let v1 = matches!(job.request.op, WriteOp::CreateV1(_));
            let change = self.new_session(job, body.0.clone(), v1).await?;
            return self.propose(job, change).await;
        }
        let (tenant, session) = job.who();
        let live = match Record::load(&view, tenant, session)? {
            Some(Record::Live(live)) => live,
            Some(Record::Tombstone(_)) | None => return Ok(Round::Refuse(Refused::NotFound)),
        };
        if let Err(refused) = job.permits(live.version) {
            return Ok(Round::Refuse(refused));
        }
        if job.request.op == WriteOp::Delete {
            return self.delete(job, live.version).await;
        }
        match self.changed(job, &view, (&live, now)).await? {
            Ok(change) => self.propose(job, change).await,
            Err(refused) => Ok(Round::Refuse(refused)),
        }
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
        let prepared = self.work.run(bytes, work).await?.map_err(of_document)?;
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
        match self.work.run(bytes, work).await?.map_err(of_document) {
            Ok((prepared, clean)) => Ok(Ok(Change {
                prepared,
                key,
                clean,
                base: Base::Version(live.version),
            })),
            Err(TryError::Refused(refused)) => Ok(Err(refused)),
            Err(error) => Err(error),
        }
    }

    async fn propose(&self, job: &Job<'_>, change: Change) -> Result<Round, TryError> {
        let Change {
            prepared,
            key,
            clean,
            base,
        } = change;
        let Prepared {
            content,
            chunks,
            sections,
        } = prepared;
        let (tenant, session) = job.who();
        let (request, idempotency) = (job.tag(), job.request.idempotency);
        let command = match base {
            Base::New(wrapped) => Command::Create {
                tenant,
                session,
                request,
                idempotency,
                key: Blob(wrapped),
                content,
            },
            Base::Version(expected) => Command::Update {
                tenant,
                session,
                request,
                idempotency,
                expected,
                content,
            },
        };
        self.put_chunks(job, &chunks).await?;
        let mut outcome = job.group.propose(command.clone(), job.deadline).await?;
        if let Outcome::Rejected(Rejection::ChunksMissing(missing)) = &outcome {
            let again: Vec<Chunk> = chunks
                .into_iter()
                .filter(|chunk| missing.contains(&chunk.id))
                .collect();
            self.put_chunks(job, &again).await?;
            outcome = job.group.propose(command, job.deadline).await?;
        }
        let made = (Arc::new(Plain { key, sections }), clean);
        self.ended(job, outcome, Some(made)).await
    }

    async fn delete(&self, job: &Job<'_>, current: Version) -> Result<Round, TryError> {
        let (tenant, session) = job.who();
        let command = Command::Delete {
            tenant,
            session,
            request: job.tag(),
            idempotency: job.request.idempotency,
            expected: job.request.if_match.as_ref().map(|_| current),
        };
        let outcome = job.group.propose(command, job.deadline).await?;
        self.ended(job, outcome, None).await
    }

    /// What an outcome says to the client. `made`: the document that the outcome, unless it is a replay, is about.
    async fn ended(
        &self,
        job: &Job<'_>,
        outcome: Outcome,
        made: Option<(Arc<Plain>, Option<CleanReport>)>,
    ) -> Result<Round, TryError> {
        let tenant = job.request.tenant;
        match outcome {
            Outcome::Written {
                session,
                version,
                replayed,
            } => {
                let made = made.filter(|_| !replayed);
                if let Some((plain, _)) = &made {
                    self.cache.insert((tenant, session), version, plain);
                }
                let stored = if job.request.want_document {
                    let own = made.as_ref().map(|(plain, _)| (version, plain));
                    let stored = self.stored(job.group, (tenant, session), own).await;
                    stored.map_err(|_applied_but_not_readable| TryError::Unknown)?
                } else {
                    None
                };
                Ok(Round::Done(WriteReply {
                    session,
                    version,
                    stored,
                    clean: made.and_then(|(_, clean)| clean),
                    replayed,
                }))
            }
            Outcome::Deleted { session, replayed } => {
                self.cache.remove(&(tenant, session));
                Ok(Round::Done(WriteReply {
                    session,
                    version: deleted_version(job, session)
                        .map_err(|_applied_but_not_readable| TryError::Unknown)?,
                    stored: None,
                    clean: None,
                    replayed,
                }))
            }
            Outcome::Done { .. } => Err(TryError::Unknown),
            Outcome::Rejected(rejection) => rejected(rejection),
        }
    }

    /// The session as this replica has it now, if it is there; `own` is the document of a version that need not be
    /// opened.
    async fn stored(
        &self,
        group: &Arc<dyn ShardGroup>,
        who: (TenantId, SessionId),
        own: Option<(Version, &Arc<Plain>)>,
    ) -> Result<Option<Stored>, TryError> {
        let view = View::of(group);
        let Some(Record::Live(live)) = Record::load(&view, who.0, who.1)? else {
            return Ok(None);
        };
        let plain = match own.filter(|(version, _)| *version == live.version) {
            Some((_, plain)) => Arc::clone(plain),
            None => self.open(&view, who, &live).await?,
        };
        Ok(Some(stored_of(who.1, &live, &plain)))
    }

    /// Stores chunks ahead of the body that will refer to them. Storing one again changes nothing, so an unknown
    /// outcome is simply tried again.
    async fn put_chunks(&self, job: &Job<'_>, chunks: &[Chunk]) -> Result<(), TryError> {
        for together in chunks.chunks(CHUNKS_IN_FLIGHT) {
            try_join_all(together.iter().map(|chunk| self.put_chunk(job, chunk))).await?;
        }
        Ok(())
    }

    async fn put_chunk(&self, job: &Job<'_>, chunk: &Chunk) -> Result<(), TryError> {
        loop {
            let command = Command::PutChunk {
                tenant: job.request.tenant,
                chunk: chunk.id,
                data: Blob(chunk.data.clone()),
            };
            self.metrics.chunks.increment(1);
            match job.group.propose(command, job.deadline).await {
                Ok(Outcome::Done { .. }) => return Ok(()),
                Ok(Outcome::Rejected(Rejection::TooManyLooseChunks)) => return Err(too_many()),
                Err(ProposeError::Unknown) if job.group.is_leader() => {
                    Self::left(job.deadline)?;
                    tokio::time::sleep(super::route::pause()).await;
                }
                // The write itself was not proposed yet, so nothing of it is unknown.
                Ok(_) | Err(ProposeError::Unknown) => {
                    return Err(TryError::NotReady(Why::NoQuorum));
                }
                Err(error) => return Err(error.into()),
            }
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

/// A session's answer from its record and document.
pub(super) fn stored_of(session: SessionId, live: &Live, plain: &Plain) -> Stored {
    Stored {
        session,
        version: live.version,
        created: live.created,
        updated: live.updated,
        expires: live.expires,
        sections: plain.sections.clone(),
    }
}

/// The version that a deletion deleted: the one before its tombstone's.
fn deleted_version(job: &Job<'_>, session: SessionId) -> Result<Version, TryError> {
    let record = Record::load(&View::of(job.group), job.request.tenant, session)?;
    Ok(match record {
        Some(Record::Tombstone(tombstone)) => Version {
            epoch: tombstone.version.epoch,
            revision: tombstone.version.revision.saturating_sub(1),
        },
        Some(Record::Live(live)) => live.version,
        None => Version::FIRST,
    })
}

fn too_many() -> TryError {
    let retry_after = RETRY_AFTER;
    Refused::TooManyRequests { retry_after }.into()
}

fn rejected(rejection: Rejection) -> Result<Round, TryError> {
    match rejection {
        Rejection::VersionMismatch { .. } => Ok(Round::Again),
        Rejection::NotFound => Err(Refused::NotFound.into()),
        Rejection::KeyReused => Err(Refused::KeyReused.into()),
        Rejection::TooManyRequests | Rejection::TooManyKeys | Rejection::TooManyLooseChunks => {
            Err(too_many())
        }
        // The id is taken, but not by what is remembered of this request: an earlier try is long over.
        Rejection::Late | Rejection::Exists => Err(TryError::Late),
        Rejection::ChunksMissing(_) => Err(TryError::NotReady(Why::NoQuorum)),
    }
}

fn of_document(error: DocumentError) -> TryError {
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
