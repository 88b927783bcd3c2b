//! What is stored for a session: its record or tombstone, its body, and the requests it remembers.
//!
//! The record is small and is read by every request; the body stands under its own key, sealed. What says
//! something about a person (body, summary) is sealed before it reaches `apply`; lengths, times and versions are not.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

use crate::codec::{self, Blob};
use crate::id::{ChunkId, RegionId, RequestId, SessionId, TenantId, Version};
use crate::limits::{MAX_REMEMBERED, MIN_REMEMBERED};
use crate::shard::{Outcome, RequestTag};
use crate::state::{Key, StateError, StateRead};
use crate::time::UnixMillis;

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

/// A request that changed the session.
///
/// A session that is written often remembers many, and each write reads and writes them all: they are stored as bytes of one length,
/// which costs a copy, and not field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The request.
    pub id: RequestId,
    /// Until then it must be remembered.
    pub not_after: UnixMillis,
    /// How it ended.
    pub ending: Ending,
}

/// Id, `not_after`, how it ended, epoch and revision; numbers are big-endian.
const REMEMBERED_BYTES: usize = 16 + 8 + 1 + 4 + 8;
const WRITTEN: u8 = 1;
const DELETED: u8 = 2;

impl Encode for Remembered {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let (kind, version) = match self.ending {
            Ending::Written(version) => (WRITTEN, version),
            Ending::Deleted => {
                let (epoch, revision) = (0, 0);
                (DELETED, Version { epoch, revision })
            }
        };
        let mut bytes = [0; REMEMBERED_BYTES];
        bytes[..16].copy_from_slice(&self.id.0);
        bytes[16..24].copy_from_slice(&self.not_after.0.to_be_bytes());
        bytes[24] = kind;
        bytes[25..29].copy_from_slice(&version.epoch.to_be_bytes());
        bytes[29..].copy_from_slice(&version.revision.to_be_bytes());
        bytes.encode(encoder)
    }
}

impl<C> Decode<C> for Remembered {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        const SHORT: &str = "a remembered request has bytes for all its fields";
        let bytes = <[u8; REMEMBERED_BYTES]>::decode(decoder)?;
        let ending = match bytes[24] {
            WRITTEN => Ending::Written(Version {
                epoch: u32::from_be_bytes(*bytes[25..].first_chunk().expect(SHORT)),
                revision: u64::from_be_bytes(*bytes[29..].first_chunk().expect(SHORT)),
            }),
            DELETED => Ending::Deleted,
            _ => return Err(DecodeError::Other("no way in which a request ends")),
        };
        Ok(Self {
            id: RequestId(*bytes.first_chunk().expect(SHORT)),
            not_after: UnixMillis(u64::from_be_bytes(*bytes[16..].first_chunk().expect(SHORT))),
            ending,
        })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Remembered {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
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
    pub remembered: Vec<Remembered>,
}

/// What is left of a session that was deleted or purged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tombstone {
    /// The version that the deletion made.
    pub version: Version,
    /// Log time of the deletion.
    pub deleted: UnixMillis,
    /// The newest requests, oldest first.
    pub remembered: Vec<Remembered>,
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
    pub fn remembered(&self) -> &[Remembered] {
        match self {
            Self::Live(live) => &live.remembered,
            Self::Tombstone(tombstone) => &tombstone.remembered,
        }
    }
}

/// Whether a session remembers as many live requests as it may.
pub(super) fn is_full(list: &[Remembered], now: UnixMillis) -> bool {
    list.iter().filter(|old| old.not_after >= now).count() >= MAX_REMEMBERED
}

/// Adds a request to those remembered, and forgets the oldest of those that may be forgotten. The caller has asked
/// [`is_full`].
pub(super) fn remember(
    list: &mut Vec<Remembered>,
    request: RequestTag,
    ending: Ending,
    now: UnixMillis,
) {
    list.push(Remembered {
        id: request.id,
        not_after: request.not_after,
        ending,
    });
    let mut surplus = list.len().saturating_sub(MIN_REMEMBERED);
    list.retain(|old| {
        let forget = surplus > 0 && old.not_after < now;
        if forget {
            surplus = surplus.saturating_sub(1);
        }
        !forget
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(ending: Ending) -> Remembered {
        Remembered {
            id: RequestId([7; 16]),
            not_after: UnixMillis(258),
            ending,
        }
    }

    #[test]
    fn a_remembered_request_has_these_bytes_and_comes_back() {
        let version = Version {
            epoch: 3,
            revision: 4,
        };
        let list = vec![
            remembered(Ending::Written(version)),
            remembered(Ending::Deleted),
        ];
        let bytes = codec::encode(&list);
        let id = "07".repeat(16);
        let written = format!("{id}0000000000000102010000000300000000000000{}", "04");
        let deleted = format!("{id}000000000000010202{}", "00".repeat(12));
        assert_eq!(hex::encode(&bytes), format!("0202{written}{deleted}"));
        assert_eq!(codec::decode::<Vec<Remembered>>(&bytes).unwrap(), list);
    }

    #[test]
    fn an_end_that_is_none_is_damage() {
        let bytes = codec::encode(&remembered(Ending::Deleted));
        let mut other = bytes.to_vec();
        *other.get_mut(1 + 24).unwrap() = 3;
        assert!(codec::decode::<Remembered>(&other).is_err());
        assert!(codec::decode::<Remembered>(&bytes.slice(..20)).is_err());
    }
}
