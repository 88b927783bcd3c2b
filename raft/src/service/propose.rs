//! A change on its way from the leader to its end: chunks first, then the proposal, then what it came to.
//!
//! A small change passes its session's turn on as soon as it is in the group's queue, so that the next is made on top of it
//! (`queue.rs`); one that waits for chunks keeps the turn. The outcome decides; nothing here says "no" by itself.

use std::sync::Arc;

use futures::future::{FutureExt, try_join_all};
use model::codec::Blob;
use model::document::CleanReport;
use model::id::{SessionId, TenantId, Version};
use model::service::{Refused, Stored, WriteReply};
use model::shard::{Command, Live, Outcome, Record, Rejection};

use crate::service::Inner;
use crate::service::cache::Plain;
use crate::service::content::{Chunk, Prepared};
use crate::service::error::{TryError, Why};
use crate::service::leader::{Base, Change, Job, Round, no_turn, too_many};
use crate::service::queue::{Ahead, Turn, UnderWay};
use crate::service::view::View;
use crate::shard::{ProposeError, ShardGroup};

/// Chunks that are proposed at a time.
const CHUNKS_IN_FLIGHT: usize = 4;

impl Inner {
    pub(super) async fn propose(
        &self,
        job: &Job<'_>,
        change: Change,
        turn: Turn,
    ) -> Result<Round, TryError> {
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
        let plain = Arc::new(Plain { key, sections });
        let mut next = None;
        let command = match base {
            Base::New(wrapped) => Command::Create {
                tenant,
                session,
                request,
                idempotency,
                key: Blob(wrapped),
                content,
            },
            Base::Version(expected, after) => {
                next = Some(Ahead {
                    version: expected.next(),
                    by: request.id,
                    plain: Arc::clone(&plain),
                });
                Command::Update {
                    tenant,
                    session,
                    request,
                    idempotency,
                    expected,
                    after,
                    content,
                }
            }
        };
        let made = Some((plain, clean));
        if let Some(ahead) = next.filter(|_| chunks.is_empty()) {
            let outcome = self
                .propose_and_pass_on(job, command, (turn, ahead))
                .await?;
            return self.ended(job, outcome, made).await;
        }
        // What waits for chunks keeps the turn.
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
        drop(turn);
        self.ended(job, outcome, made).await
    }

    /// Proposes a change, and lets the next be made on top of it at once.
    async fn propose_and_pass_on(
        &self,
        job: &Job<'_>,
        command: Command,
        (turn, ahead): (Turn, Ahead),
    ) -> Result<Outcome, TryError> {
        let room = turn.place(job.deadline).await.map_err(no_turn)?;
        let version = ahead.version;
        let mut outcome = job.group.propose(command, job.deadline);
        // The first poll puts it into the group's queue, in the order of the turns.
        let first = (&mut outcome).now_or_never();
        let under_way: UnderWay = turn.proposed(ahead, room);
        let outcome = match first {
            Some(outcome) => outcome?,
            None => outcome.await?,
        };
        if matches!(outcome, Outcome::Written { version: made, replayed: false, .. } if made == version)
        {
            under_way.written();
        }
        Ok(outcome)
    }

    pub(super) async fn delete(&self, job: &Job<'_>, current: Version) -> Result<Round, TryError> {
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
    pub(super) async fn ended(
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
                Ok(Round::Done(Box::new(WriteReply {
                    session,
                    version,
                    stored,
                    clean: made.and_then(|(_, clean)| clean),
                    replayed,
                })))
            }
            Outcome::Deleted { session, replayed } => {
                self.cache.remove(&(tenant, session));
                Ok(Round::Done(Box::new(WriteReply {
                    session,
                    version: deleted_version(job, session)
                        .map_err(|_applied_but_not_readable| TryError::Unknown)?,
                    stored: None,
                    clean: None,
                    replayed,
                })))
            }
            Outcome::Done { .. } => Err(TryError::Unknown),
            Outcome::Rejected(rejection) => rejected(&rejection),
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
        let view = View::of(group)?;
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
    let record = Record::load(&View::of(job.group)?, job.request.tenant, session)?;
    Ok(match record {
        Some(Record::Tombstone(tombstone)) => Version {
            epoch: tombstone.version.epoch,
            revision: tombstone.version.revision.saturating_sub(1),
        },
        Some(Record::Live(live)) => live.version,
        None => Version::FIRST,
    })
}

fn rejected(rejection: &Rejection) -> Result<Round, TryError> {
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
