//! [`Sessions`]: the one seam between the gateway and the replicated store.
//!
//! The gateway knows only this; `raft` implements it; `node` joins them. A call ends in one of three ways:
//! an answer, a refusal that is final ([`Refused`]), or a failure that says whether anything may have been
//! changed ([`Failure`]).

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bincode::{Decode, Encode};
use futures::Stream;

use crate::codec::Blob;
use crate::document::{CleanReport, Sections, Summary};
use crate::id::{RegionId, RequestId, SessionId, TenantId, Version};
use crate::shard::IdempotencyTag;
use crate::time::UnixMillis;

/// What a write is to do. The body is the client's bytes, decoded from their content coding, not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WriteOp {
    /// A new session from a version 2 body.
    Create(Blob),
    /// A new session from a version 1 body.
    CreateV1(Blob),
    /// The fields that the body has replace the session's.
    Put(Blob),
    /// JSON merge patch (RFC 7396) of the whole document.
    Patch(Blob),
    /// Remove cookies that have expired.
    Clean,
    /// The end of the session.
    Delete,
}

/// A write, as the gateway hands it over; also sent as it is to the leader's node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WriteRequest {
    /// Whose session.
    pub tenant: TenantId,
    /// Which session; for a create, the id that the gateway made.
    pub session: SessionId,
    /// The same for every retry.
    pub request: RequestId,
    /// The client waits until then, by the gateway's wall clock; at most `limits::MAX_NOT_AFTER` ahead.
    pub not_after: UnixMillis,
    /// What to do.
    pub op: WriteOp,
    /// `If-Match`: the session must have one of these versions.
    pub if_match: Option<Vec<Version>>,
    /// The client's idempotency key, hashed.
    pub idempotency: Option<IdempotencyTag>,
    /// Whether the answer carries the document.
    pub want_document: bool,
}

/// A session as it is stored, ready to be spliced into an answer.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The session.
    pub session: SessionId,
    /// Its version.
    pub version: Version,
    /// Log time of its creation.
    pub created: UnixMillis,
    /// Log time of its last change.
    pub updated: UnixMillis,
    /// When it expires, if ever.
    pub expires: Option<UnixMillis>,
    /// Its document, cut into parts.
    pub sections: Sections,
}

/// What a write did.
#[derive(Clone, Debug)]
pub struct WriteReply {
    /// The session; another one than asked for when an idempotency key remembered it.
    pub session: SessionId,
    /// The version that the request made. For a deletion, the version deleted.
    pub version: Version,
    /// The document, if it was wanted, as it is at `version` or, for a replayed request, newer.
    pub stored: Option<Stored>,
    /// What a clean did.
    pub clean: Option<CleanReport>,
    /// Whether an earlier try, or an earlier request with the same idempotency key, did it.
    pub replayed: bool,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consistency {
    /// Shows every write that was acknowledged before the read began.
    Linearizable,
    /// What the nearest replica has, not older than the version named, if one is.
    Local {
        /// From the client's `PSP-Consistency` token.
        at_least: Option<Version>,
    },
}

/// A read of one session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadRequest {
    /// Whose session.
    pub tenant: TenantId,
    /// Which session.
    pub session: SessionId,
    /// How fresh.
    pub consistency: Consistency,
    /// The client has these versions: an answer without a document will do.
    pub known: Vec<Version>,
    /// How long to try.
    pub timeout: Duration,
}

/// An answer to a read.
#[derive(Clone, Debug)]
pub enum ReadReply {
    /// The session.
    Found {
        /// Its document.
        stored: Box<Stored>,
        /// For a local read: how old the answer may be. `None` for a linearizable one.
        staleness: Option<Duration>,
    },
    /// The session has this version, which the client knows.
    Unchanged {
        /// The version.
        version: Version,
        /// See [`ReadReply::Found`].
        staleness: Option<Duration>,
    },
}

/// A page of a tenant's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListRequest {
    /// Whose sessions.
    pub tenant: TenantId,
    /// Begin after this session (in order of shard, then id).
    pub after: Option<SessionId>,
    /// Skip this many after that.
    pub offset: usize,
    /// At most this many, at most `limits::MAX_LIST`.
    pub limit: usize,
    /// Only sessions with this tag.
    pub tag: Option<String>,
    /// Only sessions with this name.
    pub name: Option<String>,
    /// How long to try.
    pub timeout: Duration,
}

/// One line of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The session.
    pub session: SessionId,
    /// Its version.
    pub version: Version,
    /// Log time of its creation.
    pub created: UnixMillis,
    /// Log time of its last change.
    pub updated: UnixMillis,
    /// When it expires, if ever.
    pub expires: Option<UnixMillis>,
    /// Whether its time is over.
    pub expired: bool,
    /// Length of its document's parts in bytes.
    pub bytes: u64,
    /// What the list shows of the document; never a cookie's value.
    pub summary: Summary,
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct ListReply {
    /// The sessions.
    pub sessions: Vec<Listed>,
    /// How many the tenant has, over all pages; with a filter, how many of those looked at match.
    pub total: u64,
    /// Where the next page begins after, if there may be one.
    pub next: Option<SessionId>,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// The session has this content now. `resync`: versions before it may be missing, because their history is gone
    /// or the subscriber was too slow.
    Updated {
        /// The content.
        stored: Box<Stored>,
        /// Whether versions may be missing before it.
        resync: bool,
    },
    /// The session is gone.
    Deleted {
        /// The version that the deletion made.
        version: Version,
    },
    /// Its time is over; it may be renewed.
    Expired {
        /// The version that expired.
        version: Version,
    },
}

/// Changes of one session, in the order of their versions.
pub type Changes = Pin<Box<dyn Stream<Item = Change> + Send>>;

/// A final "no": nothing was changed, and the same request would be refused again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refused {
    /// No such session of this tenant.
    #[error("session not found")]
    NotFound,
    /// The session's time is over; it can be renewed.
    #[error("session has expired")]
    Expired {
        /// When.
        at: UnixMillis,
    },
    /// `If-Match` names no version that the session has.
    #[error("session has version {current}")]
    VersionMismatch {
        /// The version it has.
        current: Version,
    },
    /// The body is not a document. The text names the place, never a value.
    #[error("{text}")]
    BadDocument {
        /// For the client.
        text: String,
        /// The path of the wrong field, if it is one.
        path: Option<String>,
    },
    /// The document is larger than `limits::MAX_DOCUMENT_BYTES`.
    #[error("document is too large")]
    TooLarge,
    /// The idempotency key was used for another request.
    #[error("idempotency key was used for another request")]
    KeyReused,
    /// The tenant has too many live idempotency keys, or the session too many live requests, or the tenant too much
    /// in flight.
    #[error("too many requests")]
    TooManyRequests {
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// The token names a branch of history that was lost.
    #[error("the version named belongs to a branch that was lost")]
    BranchLost,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Failure {
    /// A final "no".
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing was changed; trying again later may help.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// For the log and the client; names no secret.
        reason: String,
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// A write that may or may not have been applied.
    #[error("outcome unknown")]
    Unknown,
    /// The disk is full: nothing was changed.
    #[error("disk full")]
    DiskFull,
    /// A stored value is damaged, and no replica has it whole: nothing was changed, nothing is served.
    #[error("stored data is damaged")]
    Damaged,
}

/// The replicated store, as the gateway sees it.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// The region in which new sessions are born.
    fn birth_region(&self) -> RegionId;

    /// Carries out a write, once, and answers when it is on a quorum's disks. Tries again under the same request id
    /// until `not_after`.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn write(&self, request: WriteRequest) -> Result<WriteReply, Failure>;

    /// Reads a session.
    ///
    /// # Errors
    /// See [`Failure`]; a read changes nothing, so never [`Failure::Unknown`].
    async fn read(&self, request: ReadRequest) -> Result<ReadReply, Failure>;

    /// A page of a tenant's sessions; each shard's part shows every write acknowledged before.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn list(&self, request: ListRequest) -> Result<ListReply, Failure>;

    /// The changes of a session after the version `from`; with `None`, after now. The stream ends when the session is
    /// gone or the node stops.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn watch(
        &self,
        tenant: TenantId,
        session: SessionId,
        from: Option<Version>,
    ) -> Result<Changes, Failure>;

    /// What `/readyz` says beyond the node's own health: which groups have no leader that this node knows.
    fn leaderless(&self) -> Vec<crate::id::GroupId>;
}
