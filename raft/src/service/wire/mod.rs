//! How a request and its answer travel to another node's service.
//!
//! A frame is: version (1), length of the head (4, big-endian), head (`model::codec`), then the body as it is: a
//! client's document, or an answer's sections. So a large document is copied once and decoded never. What does not
//! decode is refused; nothing here panics on any bytes.

use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};
use model::codec::{self, Blob};
use model::document::{CleanReport, Sections};
use model::id::{SessionId, TenantId, Version};
use model::limits::MAX_DOCUMENT_BYTES;
use model::service::{ReadReply, ReadRequest, Stored, WriteOp, WriteReply, WriteRequest};
use model::time::UnixMillis;

use crate::service::client::body_bytes;
use crate::service::error::TryError;
use crate::service::list::{Part, PartRequest};

/// The version of the encoding that this build writes and reads.
const FORMAT: u8 = 1;
const PREFIX_BYTES: usize = 5;
/// Most bytes of a body: the largest document, and what a gateway's conversion may add.
pub(super) const MAX_BODY_BYTES: usize = MAX_DOCUMENT_BYTES + 4 * 1024 * 1024;

/// What another node is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Request {
    /// Carry out a write if it leads, within the time.
    Write(WriteRequest, Duration),
    /// Read, within the time that the request names.
    Read(ReadRequest),
    /// How many live sessions the tenant has in the group, within the time.
    Count(TenantId, Duration),
    /// A group's part of a list.
    List(PartRequest),
}

/// What it answers.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Written(Box<WriteReply>),
    Read(ReadReply),
    Counted(u64),
    Listed(Part),
    Failed(TryError),
}

/// Bytes that are not a frame of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame that this build knows")]
pub(super) struct NotUnderstood;

#[derive(Encode, Decode)]
struct StoredHead {
    session: SessionId,
    version: Version,
    created: UnixMillis,
    updated: UnixMillis,
    expires: Option<UnixMillis>,
}

#[derive(Encode, Decode)]
struct WrittenHead {
    session: SessionId,
    version: Version,
    stored: Option<StoredHead>,
    clean: Option<CleanReport>,
    replayed: bool,
}

#[derive(Encode, Decode)]
enum ReplyHead {
    Written(WrittenHead),
    Found(StoredHead, Option<Duration>),
    Unchanged(Version, Option<Duration>),
    Counted(u64),
    Listed(Part),
    Failed(TryError),
}

fn frame(head: &Bytes, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + head.len() + body.len());
    out.put_u8(FORMAT);
    out.put_u32(u32::try_from(head.len()).expect("heads are within MAX_VALUE_BYTES"));
    out.put_slice(head);
    out.put_slice(body);
    out.freeze()
}

fn unframe<T: Decode<()>>(frame: &Bytes) -> Result<(T, Bytes), NotUnderstood> {
    let &[format, a, b, c, d] = frame.first_chunk::<PREFIX_BYTES>().ok_or(NotUnderstood)?;
    let head =
        usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_too_large| NotUnderstood)?;
    let rest = frame.len() - PREFIX_BYTES;
    if format != FORMAT || head > rest || rest - head > MAX_BODY_BYTES {
        return Err(NotUnderstood);
    }
    let body = frame.slice(PREFIX_BYTES + head..);
    let head = codec::decode(&frame[PREFIX_BYTES..PREFIX_BYTES + head])
        .map_err(|_content| NotUnderstood)?;
    Ok((head, body))
}

const fn body_of(op: &mut WriteOp) -> Option<&mut Blob> {
    match op {
        WriteOp::Create(body)
        | WriteOp::CreateV1(body)
        | WriteOp::Put(body)
        | WriteOp::Patch(body) => Some(body),
        WriteOp::Clean | WriteOp::Delete => None,
    }
}

impl Request {
    /// About how many bytes are copied to encode it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Write(request, _) => body_bytes(&request.op),
            Self::Read(_) | Self::Count(..) | Self::List(_) => 0,
        }
    }

    pub(super) fn encode(mut self) -> Bytes {
        let mut body = Blob::default();
        if let Self::Write(request, _) = &mut self
            && let Some(place) = body_of(&mut request.op)
        {
            body = std::mem::take(place);
        }
        frame(&codec::encode(&self), &body.0)
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, NotUnderstood> {
        let (mut request, body) = unframe::<Self>(bytes)?;
        if let Self::Write(request, _) = &mut request
            && let Some(place) = body_of(&mut request.op)
        {
            *place = Blob(body);
        } else if !body.is_empty() {
            return Err(NotUnderstood);
        }
        Ok(request)
    }
}

const fn head_of(stored: &Stored) -> StoredHead {
    StoredHead {
        session: stored.session,
        version: stored.version,
        created: stored.created,
        updated: stored.updated,
        expires: stored.expires,
    }
}

fn stored_of(head: &StoredHead, body: &Bytes) -> Result<Stored, NotUnderstood> {
    Ok(Stored {
        session: head.session,
        version: head.version,
        created: head.created,
        updated: head.updated,
        expires: head.expires,
        sections: Sections::decode(body).map_err(|_content| NotUnderstood)?,
    })
}

impl Reply {
    /// About how many bytes are copied to encode it.
    pub(super) fn weight(&self) -> usize {
        let stored = match self {
            Self::Written(reply) => reply.stored.as_ref(),
            Self::Read(ReadReply::Found { stored, .. }) => Some(&**stored),
            Self::Read(ReadReply::Unchanged { .. })
            | Self::Counted(_)
            | Self::Listed(_)
            | Self::Failed(_) => None,
        };
        stored.map_or(0, |stored| stored.sections.len())
    }

    pub(super) fn encode(self) -> Bytes {
        let (head, body) = match self {
            Self::Written(reply) => {
                let body = reply.stored.as_ref().map(|stored| stored.sections.encode());
                let head = WrittenHead {
                    session: reply.session,
                    version: reply.version,
                    stored: reply.stored.as_ref().map(head_of),
                    clean: reply.clean,
                    replayed: reply.replayed,
                };
                (ReplyHead::Written(head), body)
            }
            Self::Read(ReadReply::Found { stored, staleness }) => (
                ReplyHead::Found(head_of(&stored), staleness),
                Some(stored.sections.encode()),
            ),
            Self::Read(ReadReply::Unchanged { version, staleness }) => {
                (ReplyHead::Unchanged(version, staleness), None)
            }
            Self::Counted(count) => (ReplyHead::Counted(count), None),
            Self::Listed(part) => (ReplyHead::Listed(part), None),
            Self::Failed(error) => (ReplyHead::Failed(error), None),
        };
        frame(&codec::encode(&head), &body.unwrap_or_default())
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, NotUnderstood> {
        let (head, body) = unframe::<ReplyHead>(bytes)?;
        Ok(match head {
            ReplyHead::Written(head) => Self::Written(Box::new(WriteReply {
                session: head.session,
                version: head.version,
                stored: head
                    .stored
                    .map(|stored| stored_of(&stored, &body))
                    .transpose()?,
                clean: head.clean,
                replayed: head.replayed,
            })),
            ReplyHead::Found(head, staleness) => Self::Read(ReadReply::Found {
                stored: Box::new(stored_of(&head, &body)?),
                staleness,
            }),
            ReplyHead::Unchanged(version, staleness) => {
                Self::Read(ReadReply::Unchanged { version, staleness })
            }
            ReplyHead::Counted(count) => Self::Counted(count),
            ReplyHead::Listed(part) => Self::Listed(part),
            ReplyHead::Failed(error) => Self::Failed(error),
        })
    }
}

#[cfg(test)]
mod tests;
