//! What callers and handlers say to the transport: lanes, calls, errors, and the handler's side.
//!
//! Nothing here knows QUIC: the real transport and the in-process one of the tests share these types.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use model::id::{GroupId, NodeId};

use super::reply::Reply;
use super::stream::ByteStream;

/// How a call travels. Calls of one (peer, lane) are sent in the order of [`super::Peer::send_call`], except
/// on [`Lane::Bulk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes, read index: small, and never behind data.
    Control,
    /// Appends and small forwarded requests, first in, first out.
    Data,
    /// Large bodies, each on a stream of its own over a connection of its own. No order among them.
    Bulk,
}

impl Lane {
    /// The largest body of a call or reply on this lane, in bytes.
    #[must_use]
    pub const fn max_body(self) -> usize {
        match self {
            Self::Control => 256 << 10,
            Self::Data => 8 << 20,
            Self::Bulk => 64 << 20,
        }
    }

    /// The number of this lane in an `Open` frame.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Control => 1,
            Self::Data => 2,
            Self::Bulk => 3,
        }
    }
}

/// What a call or stream asks for; the numbers belong to the crate's other modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

/// A call to another node.
#[derive(Clone)]
pub struct Call {
    /// How it travels.
    pub lane: Lane,
    /// What it asks for.
    pub kind: Kind,
    /// The group it is for.
    pub group: GroupId,
    /// Its arguments, at most [`Lane::max_body`] bytes.
    pub body: Bytes,
    /// How long to wait for the reply.
    pub timeout: Duration,
}

impl fmt::Debug for Call {
    /// Without the body, which may hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("lane", &self.lane)
            .field("kind", &self.kind)
            .field("group", &self.group)
            .field("length", &self.body.len())
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// A call that arrived.
#[derive(Clone)]
pub struct Request {
    /// The node that sent it, as its certificate says.
    pub from: NodeId,
    /// How it came.
    pub lane: Lane,
    /// What it asks for.
    pub kind: Kind,
    /// The group it is for.
    pub group: GroupId,
    /// Its arguments.
    pub body: Bytes,
}

impl fmt::Debug for Request {
    /// Without the body, which may hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("from", &self.from)
            .field("lane", &self.lane)
            .field("kind", &self.kind)
            .field("group", &self.group)
            .field("length", &self.body.len())
            .finish()
    }
}

/// A stream of raw bytes that is opened, both ways.
#[derive(Clone)]
pub struct StreamOpen {
    /// What it is for.
    pub kind: Kind,
    /// The group it is for.
    pub group: GroupId,
    /// What the other side must know first, at most [`Lane::Control`]'s size.
    pub header: Bytes,
}

impl fmt::Debug for StreamOpen {
    /// Without the header's bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOpen")
            .field("kind", &self.kind)
            .field("group", &self.group)
            .field("length", &self.header.len())
            .finish()
    }
}

/// Why a call has no reply. [`CallError::outcome_unknown`] says what the caller may conclude.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call was not sent: no connection, or none soon.
    #[error("the peer is not reachable: {0}")]
    Unreachable(&'static str),
    /// It was sent, and no reply came in time. It may have been carried out.
    #[error("no reply in time")]
    Timeout,
    /// It was sent, and the connection broke. It may have been carried out.
    #[error("the connection broke after the call was sent")]
    Closed,
    /// One of the two nodes will not talk to the other. The call was not sent.
    #[error("the nodes do not talk: {0}")]
    Refused(Refusal),
    /// The handler answered with an error.
    #[error(transparent)]
    Remote(RemoteError),
    /// A bound is reached: too many calls or bytes wait for this peer. The call was not sent.
    #[error("too many calls wait for this peer")]
    TooBusy,
    /// The body is larger than its lane allows. The call was not sent.
    #[error("the body is larger than its lane allows")]
    TooLarge,
}

impl CallError {
    /// Whether the call may have been carried out although there is no reply.
    #[must_use]
    pub const fn outcome_unknown(&self) -> bool {
        match self {
            Self::Timeout | Self::Closed => true,
            Self::Unreachable(_)
            | Self::Refused(_)
            | Self::Remote(_)
            | Self::TooBusy
            | Self::TooLarge => false,
        }
    }
}

/// A handler's error as it travels: a code, and bytes that the code explains.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer answered with error {code}")]
pub struct RemoteError {
    /// Never zero. Codes below 16 are the transport's.
    pub code: u16,
    /// What the code says it is. Opaque here.
    pub detail: Bytes,
}

impl fmt::Debug for RemoteError {
    /// Without the detail's bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteError")
            .field("code", &self.code)
            .field("length", &self.detail.len())
            .finish()
    }
}

impl RemoteError {
    /// The handler went away without an answer. The call may have been carried out.
    pub const DROPPED: u16 = 1;
    /// The handler's node has no room for the call or for its reply.
    pub const OVERLOADED: u16 = 2;
    /// The group's number is none, or the node has no such group.
    pub const NO_GROUP: u16 = 3;
    /// The node does not know this kind of call.
    pub const NO_KIND: u16 = 4;
    /// The first code that handlers may define.
    pub const FIRST_FREE: u16 = 16;

    /// An error without detail.
    #[must_use]
    pub const fn code(code: u16) -> Self {
        Self {
            code,
            detail: Bytes::new(),
        }
    }
}

/// Why one node will not talk to another, such as an old disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (code {code})")]
pub struct Refusal {
    /// What the two nodes agree that it means.
    pub code: u16,
    /// For people; at most [`Refusal::MAX_REASON`] bytes of it travel.
    pub reason: String,
}

impl Refusal {
    /// How much of a reason travels, in bytes.
    pub const MAX_REASON: usize = 512;

    /// The bytes of a refusal in a connection's close.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut end = self.reason.len().min(Self::MAX_REASON);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = self.code.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.reason.as_bytes()[..end]);
        bytes
    }

    /// Reads what [`Self::encode`] wrote; a stranger's bytes give an odd refusal, never a panic.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let (code, reason) = match bytes {
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
            short => (0, short),
        };
        let reason = &reason[..reason.len().min(Self::MAX_REASON)];
        Self {
            code,
            reason: String::from_utf8_lossy(reason).into_owned(),
        }
    }
}

/// The handlers of a node. None of these may block: they hand the work on and return.
pub trait Inbound: Send + Sync + 'static {
    /// A call. Calls of one (peer, lane) come in the order in which they were sent, except on
    /// [`Lane::Bulk`]. The reply may be given later and from anywhere.
    fn call(&self, request: Request, reply: Reply);

    /// A stream of raw bytes was opened by `from`.
    fn stream(&self, from: NodeId, open: StreamOpen, stream: ByteStream);

    /// What this node says first on every connection that it dials. At most 64 KiB.
    fn hello_out(&self, to: NodeId) -> Bytes;

    /// `from` dialed and said `hello`: the bytes to answer, or why not to talk.
    ///
    /// # Errors
    ///
    /// A refusal closes the connection; `from` sees [`CallError::Refused`].
    fn hello(&self, from: NodeId, hello: Bytes) -> Result<Bytes, Refusal>;

    /// This node dialed `from`, which answered with `welcome`.
    ///
    /// # Errors
    ///
    /// A refusal closes the connection; callers on both sides see [`CallError::Refused`].
    fn welcome(&self, from: NodeId, welcome: Bytes) -> Result<(), Refusal>;

    /// A connection with `peer` ended because one of the two refuses the other; the reason says whom. Told whoever dialed, and
    /// whether or not anybody waits for a call: a node that is refused must hear of it.
    fn refused(&self, peer: NodeId, refusal: &Refusal) {
        tracing::debug!(%peer, %refusal, "refused");
    }

    /// A process asks to join. The request must prove its right (a token), unless it is a node that showed its certificate,
    /// `from`, and asks for its own place.
    fn join(&self, from: Option<NodeId>, request: Bytes, reply: Reply) {
        drop((from, request));
        reply.send(Err(RemoteError::code(RemoteError::NO_KIND)));
    }
}

/// Figures about the way to one peer, for metrics. Counters start with the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerStats {
    /// Whether the main connection stands.
    pub connected: bool,
    /// Smoothed round-trip time of the main connection.
    pub rtt: Option<Duration>,
    /// Calls sent, all lanes.
    pub calls: u64,
    /// Bytes of calls sent, headers included.
    pub bytes_out: u64,
    /// Bytes of replies received, headers included.
    pub bytes_in: u64,
    /// Calls that wait for their reply or to be written, now.
    pub in_flight: u64,
    /// Bytes of calls that wait to be written, now.
    pub queued_bytes: u64,
    /// Connections made, main and others.
    pub connects: u64,
    /// Attempts that failed.
    pub dial_failures: u64,
    /// Calls turned away by a bound.
    pub too_busy: u64,
    /// Packets of the present main connection that were lost.
    pub lost_packets: u64,
    /// Largest datagram of the present main connection, in bytes.
    pub mtu: u16,
}
