//! What calls between nodes ask for. The numbers are on the wire and are never given another meaning.

use crate::transport::{Kind, RemoteError};

/// Entries or a heartbeat for a group's follower.
pub(crate) const APPEND: Kind = Kind(1);
/// A candidate asks for a vote.
pub(crate) const VOTE: Kind = Kind(2);
/// A candidate asks whether it would get a vote.
pub(crate) const PRE_VOTE: Kind = Kind(3);
/// A leader hands over.
pub(crate) const TRANSFER: Kind = Kind(4);
/// A snapshot, as a stream.
pub(crate) const SNAPSHOT: Kind = Kind(5);
/// A replica's state for one that lost its own, as a stream.
pub(crate) const FETCH: Kind = Kind(6);
/// Up to which index must be read, for several groups at once.
pub(crate) const READ_INDEX: Kind = Kind(16);
/// Life counter, wall clock and read indices, both ways.
pub(crate) const PROBE: Kind = Kind(17);
/// Which groups have anything in their log: asked before a region is made.
pub(crate) const CENSUS: Kind = Kind(18);
/// A change of the meta group, for its leader.
pub(crate) const META: Kind = Kind(19);
/// A call for the service of the node.
pub(crate) const SERVICE: Kind = Kind(32);

/// The group exists but cannot answer now: it stops, or is not opened yet.
pub(crate) const NOT_READY: u16 = RemoteError::FIRST_FREE;
/// The log of this node may not take what was sent; later it may.
pub(crate) const NO_ROOM: u16 = RemoteError::FIRST_FREE + 4;
/// The message does not decode.
pub(crate) const BAD_MESSAGE: u16 = RemoteError::FIRST_FREE + 1;
/// This node promised a leader not to vote yet (`gate.rs`).
pub(crate) const GATED: u16 = RemoteError::FIRST_FREE + 2;
/// This node does not lead the meta group, or the proposal failed.
pub(crate) const NOT_DONE: u16 = RemoteError::FIRST_FREE + 3;
