//! What is stored for a session: its record or tombstone, and its body.
//!
//! The record is small and is read by every request; the body stands under its own key, sealed. What says
//! something about a person (body, summary) is sealed before it reaches `apply`; lengths, times and versions are not.

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::{self, Blob};
use crate::id::{ChunkId, RegionId, SessionId, TenantId, Version};
use crate::shard::{Outcome, Requests};
use crate::state::{Key, StateError, StateRead};
use crate::time::UnixMillis;

/// Room for all of a record but its summary and the requests that it remembers.
const FIELDS_BYTES: usize = 96;

/// A body as it is stored: sealed, whole or in pieces.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    /// All of it.
    Inline(Blob),
    /// A sealed manifest, and the chunks it names, in order.
    Chunked {
        /// Ids, lengths, keys and hashes of the chunks, sealed under the session's key.
        manifest: Blob,
        /// The chunks that this body holds a reference to.
        chunks: Vec<ChunkId>,
    },
}

impl Body {
    /// The chunks that this body refers to.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkId] {
        match self {
            Self::Inline(_) => &[],
            Self::Chunked { chunks, .. } => chunks,
        }
    }
}

/// A session's content, as a command brings it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Content {
    /// The sealed summary, for lists.
    pub summary: Blob,
    /// The sealed body.
    pub body: Body,
    /// Length of the document's sections before compression, in bytes.
    pub plain_bytes: u64,
    /// When the session expires, if ever.
    pub expires: Option<UnixMillis>,
}

impl Content {
    pub(super) fn weight(&self) -> usize {
        let body = match &self.body {
            Body::Inline(blob) => blob.0.len(),
            Body::Chunked { manifest, chunks } => manifest
                .0
                .len()
                .saturating_add(chunks.len().saturating_mul(16)),
        };
        body.saturating_add(self.summary.0.len())
    }
}

/// How a remembered request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ending {
    /// It made this version.
    Written(Version),
    /// It deleted the session.
    Deleted,
}

impl Ending {
    pub(super) const fn replay(self, session: SessionId) -> Outcome {
        match self {
            Self::Written(version) => Outcome::Written {
                session,
                version,
                replayed: true,
            },
            Self::Deleted => Outcome::Deleted {
                session,
                replayed: true,
            },
        }
    }
}

/// A session that is there, expired or not.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Live {
    /// The region that may write the session.
    pub home: RegionId,
    /// Its version.
    pub version: Version,
    /// Log time of its creation.
    pub created: UnixMillis,
    /// Log time of its last change.
    pub updated: UnixMillis,
    /// When it expires, if ever.
    pub expires: Option<UnixMillis>,
    /// The sealed summary.
    pub summary: Blob,
    /// Length of the document's sections before compression, in bytes.
    pub plain_bytes: u64,
    /// How many chunks its body refers to: without any, whoever replaces the body need not read it.
    pub chunks: u32,
    /// The newest requests, oldest first.
    pub remembered: Requests,
}

/// What is left of a session that was deleted or purged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tombstone {
    /// The version that the deletion made.
    pub version: Version,
    /// Log time of the deletion.
    pub deleted: UnixMillis,
    /// The newest requests, oldest first.
    pub remembered: Requests,
}

/// What stands under a session's key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// The session is there.
    Live(Live),
    /// The session was there.
    Tombstone(Tombstone),
}

impl Record {
    /// The record of a session.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn load(
        state: &impl StateRead,
        tenant: TenantId,
        session: SessionId,
    ) -> Result<Option<Self>, StateError> {
        let bytes = state.get(&Key::Session(tenant, session))?;
        Ok(bytes.map(|bytes| codec::decode(&bytes)).transpose()?)
    }

    /// The requests it remembers.
    #[must_use]
    pub const fn remembered(&self) -> &Requests {
        match self {
            Self::Live(live) => &live.remembered,
            Self::Tombstone(tombstone) => &tombstone.remembered,
        }
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Bytes {
        let summary = match self {
            Self::Live(live) => live.summary.0.len(),
            Self::Tombstone(_) => 0,
        };
        let bytes = self.remembered().weight().saturating_add(summary);
        codec::encode_about(self, bytes.saturating_add(FIELDS_BYTES))
    }
}
