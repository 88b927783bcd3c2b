//! What the clients of a run did and saw.
//!
//! A write that a client sends again under the same request id is one operation: it ends with the answer of its last try, but is
//! *unknown* as long as an earlier try is and the last one does not settle it. Times are virtual.

use std::time::Duration;

use model::id::{NodeId, RequestId, SessionId, Version};
use model::service::{Refused, Stored};
use model::time::UnixMillis;

/// What is looked at of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Its name: the mark of the create or put that set it.
    pub(super) name: String,
    /// Its only tag: the mark of the patch that set it.
    pub(super) tag: String,
    /// When it expires.
    pub(super) expires: Option<UnixMillis>,
}

impl Content {
    /// What an answer shows.
    #[must_use]
    pub(super) fn of(stored: &Stored) -> Self {
        let summary = stored.sections.summary();
        Self {
            name: summary.name.clone(),
            tag: summary
                .tags
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
            expires: stored.expires,
        }
    }
}

/// How a write changes a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A new session with this content.
    Create(Content),
    /// The name becomes this; the expiry too if it is given.
    Put(String, Option<UnixMillis>),
    /// The tag becomes this.
    Patch(String),
    /// The session goes.
    Delete,
}

/// An operation.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A write.
    Write {
        /// Its ids: one for all tries, or several under one idempotency key.
        requests: Vec<RequestId>,
        /// What it does.
        form: Form,
        /// The version that it names.
        if_match: Option<Version>,
    },
    /// A linearizable read.
    Read,
    /// A local read, of at least this version.
    Local(Option<Version>),
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// A write is done.
    Written {
        /// The session; another one than asked for if an idempotency key remembered it.
        session: SessionId,
        /// The version it made.
        version: Version,
        /// The content at that version, unless it may be a newer one.
        content: Option<Content>,
        /// An earlier try did it.
        replayed: bool,
    },
    /// A read found this.
    Found {
        /// The version.
        version: Version,
        /// The content.
        content: Content,
        /// Of a local read: how old it may be.
        staleness: Option<Duration>,
    },
    /// A final no.
    Refused(Refused),
    /// Nothing was changed.
    Unavailable,
    /// It may have happened, or happen yet.
    Unknown,
    /// An answer that no fault of the simulation explains.
    Wrong(String),
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// Who asked.
    pub(super) client: u64,
    /// Whom, the last time.
    pub(super) node: NodeId,
    /// Of which session.
    pub(super) session: SessionId,
    /// What.
    pub(super) kind: Kind,
    /// When it was first sent.
    pub(super) began: Duration,
    /// When its end was known.
    pub(super) ended: Duration,
    /// Its end.
    pub(super) end: End,
}
