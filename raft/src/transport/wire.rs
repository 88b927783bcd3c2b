//! Frames: how calls, replies and greetings look as bytes.
//!
//! A frame is a fixed header of 24 bytes, numbers big-endian, and a body:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | length of the body |
//! | 4 | 1 | [`VERSION`] |
//! | 5 | 1 | [`FrameType`] |
//! | 6 | 2 | kind: of the call, or of the stream that is opened |
//! | 8 | 8 | request id; a reply repeats its call's |
//! | 16 | 4 | raw group id |
//! | 20 | 2 | status of a reply, 0 is success |
//! | 22 | 2 | zero |
//!
//! Guarantees: whatever the peer sends, [`Decoder`] gives frames or an error and never panics; it holds at
//! most one unfinished body, of at most the size that its stream allows; a body that arrived in one piece is
//! a slice of the read buffer, one that did not is copied once.
//!
//! This file knows neither QUIC nor the model, so that the fuzz target can be built from it alone. A change
//! of the bytes is a new protocol version, which the connection's ALPN names.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The version of the frame layout. The ALPN of node connections carries the same number.
pub const VERSION: u8 = 1;

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 24;

/// Bodies up to this size are copied next to their header, so that many small frames become one buffer.
const INLINE_BYTES: usize = 8 << 10;

/// A received body that fills less than this part of the read buffer is copied out of it, so that a small
/// body which is kept for long does not keep a large buffer with it.
const PINNED_PART: usize = 8;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// A request that expects one [`FrameType::Reply`] with its id.
    Call = 1,
    /// The answer to a call.
    Reply = 2,
    /// The first frame of a connection, from the dialer.
    Hello = 3,
    /// The acceptor's answer to [`FrameType::Hello`].
    Welcome = 4,
    /// The first frame of a stream that carries a lane or raw bytes.
    Open = 5,
}

impl FrameType {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Call),
            2 => Some(Self::Reply),
            3 => Some(Self::Hello),
            4 => Some(Self::Welcome),
            5 => Some(Self::Open),
            _ => None,
        }
    }
}

/// What stands in front of a body, except its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub frame: FrameType,
    /// Which call, or which stream.
    pub kind: u16,
    /// Number of the request, unique within its stream.
    pub id: u64,
    /// Raw id of the group it is for.
    pub group: u32,
    /// Outcome, in replies.
    pub status: u16,
}

impl Header {
    /// A header with a type and a kind only.
    #[must_use]
    pub const fn bare(frame: FrameType, kind: u16) -> Self {
        Self { frame, kind, id: 0, group: 0, status: 0 }
    }

    /// The bytes of this header in front of a body of `length` bytes.
    #[must_use]
    pub fn encode(&self, length: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        rest.put_u32(length);
        rest.put_u8(VERSION);
        rest.put_u8(self.frame as u8);
        rest.put_u16(self.kind);
        rest.put_u64(self.id);
        rest.put_u32(self.group);
        rest.put_u16(self.status);
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, u32), WireError> {
        let mut rest = &bytes[..];
        let length = rest.get_u32();
        let version = rest.get_u8();
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let frame = rest.get_u8();
        let frame = FrameType::from_byte(frame).ok_or(WireError::Type(frame))?;
        let header = Self {
            frame,
            kind: rest.get_u16(),
            id: rest.get_u64(),
            group: rest.get_u32(),
            status: rest.get_u16(),
        };
        if rest.get_u16() != 0 {
            return Err(WireError::Reserved);
        }
        Ok((header, length))
    }
}

/// A header with its body.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub header: Header,
    /// What it carries; opaque here.
    pub body: Bytes,
}

impl fmt::Debug for Frame {
    /// Bodies may hold what must not be logged: only the length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("length", &self.body.len())
            .finish()
    }
}

/// Bytes that are not a frame. The connection that sent them is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another layout.
    #[error("frame version {0} is not known")]
    Version(u8),
    /// A type that this version does not have.
    #[error("frame type {0} is not known")]
    Type(u8),
    /// The reserved bytes are not zero.
    #[error("reserved bytes of a frame are not zero")]
    Reserved,
    /// A body above the limit of its stream.
    #[error("a frame body of {length} bytes is above the limit of {limit}")]
    TooLarge {
        /// Announced length in bytes.
        length: usize,
        /// What the stream allows, in bytes.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// A frame of a type that has no place here.
    #[error("a frame of this type is not expected here")]
    Unexpected,
}

/// Cuts a stream of bytes into frames.
///
/// [`Decoder::push`] takes what was read; [`Decoder::next`] is then called until it gives `None`.
#[derive(Debug)]
pub struct Decoder {
    max_body: usize,
    chunk: Bytes,
    chunk_bytes: usize,
    head: BytesMut,
    partial: Option<(Header, usize, BytesMut)>,
}

impl Decoder {
    /// A decoder that refuses bodies of more than `max_body` bytes.
    #[must_use]
    pub fn new(max_body: usize) -> Self {
        Self {
            max_body,
            chunk: Bytes::new(),
            chunk_bytes: 0,
            head: BytesMut::new(),
            partial: None,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
        self.chunk_bytes = self.chunk.len();
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the bytes are no frame; the stream cannot be read on.
    pub fn next(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some((header, length, mut body)) = self.partial.take() {
            let missing = length - body.len();
            let taken = self.chunk.split_to(missing.min(self.chunk.len()));
            body.extend_from_slice(&taken);
            if body.len() < length {
                self.partial = Some((header, length, body));
                return Ok(None);
            }
            return Ok(Some(Frame { header, body: body.freeze() }));
        }
        let Some((header, length)) = self.header()? else {
            return Ok(None);
        };
        if self.chunk.len() >= length {
            let slice = self.chunk.split_to(length);
            let body = if length * PINNED_PART < self.chunk_bytes {
                Bytes::copy_from_slice(&slice)
            } else {
                slice
            };
            return Ok(Some(Frame { header, body }));
        }
        let mut body = BytesMut::with_capacity(length);
        body.extend_from_slice(&self.chunk);
        self.chunk.clear();
        self.partial = Some((header, length, body));
        Ok(None)
    }

    fn header(&mut self) -> Result<Option<(Header, usize)>, WireError> {
        let missing = HEADER_BYTES - self.head.len();
        let mut bytes = [0; HEADER_BYTES];
        if self.chunk.len() < missing {
            self.head.extend_from_slice(&self.chunk);
            self.chunk.clear();
            return Ok(None);
        }
        let (kept, read) = bytes.split_at_mut(self.head.len());
        kept.copy_from_slice(&self.head);
        self.chunk.copy_to_slice(read);
        self.head.clear();
        let (header, length) = Header::decode(&bytes)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.max_body {
            return Err(WireError::TooLarge { length, limit: self.max_body });
        }
        Ok(Some((header, length)))
    }

    /// Length in bytes of the body that is half read, if one is.
    #[must_use]
    pub fn expected(&self) -> Option<usize> {
        self.partial.as_ref().map(|(_, length, _)| *length)
    }

    /// Whether the stream may end here: no frame is half read.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.chunk.is_empty() && self.head.is_empty() && self.partial.is_none()
    }

    /// Bytes after the last frame, for a stream that goes on without frames.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.chunk
    }
}

/// Frames on their way out: small ones in one buffer, large bodies as they are.
#[derive(Debug, Default)]
pub struct Batch {
    small: BytesMut,
    chunks: Vec<Bytes>,
    bytes: usize,
    frames: usize,
}

impl Batch {
    /// Adds a frame.
    ///
    /// # Panics
    ///
    /// Panics if the body has 4 GiB or more: every lane's limit is far below.
    pub fn push(&mut self, header: &Header, body: Bytes) {
        let length = u32::try_from(body.len()).expect("a lane's limit is far below 4 GiB");
        self.small.extend_from_slice(&header.encode(length));
        self.bytes += HEADER_BYTES + body.len();
        self.frames += 1;
        if body.len() <= INLINE_BYTES {
            self.small.extend_from_slice(&body);
        } else {
            self.chunks.push(self.small.split().freeze());
            self.chunks.push(body);
        }
    }

    /// Bytes of all frames in it.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many frames are in it.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Takes the buffers, in order, and leaves the batch empty.
    pub fn take(&mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
        self.bytes = 0;
        self.frames = 0;
        std::mem::take(&mut self.chunks)
    }
}
