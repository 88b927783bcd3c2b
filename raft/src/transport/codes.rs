//! Why a connection or stream is closed, as numbers on the wire. They are never given another meaning.

use quinn::VarInt;

/// Nothing is wrong: the end of use, or of the process.
pub(super) const DONE: VarInt = VarInt::from_u32(0);
/// The peer sent what is no frame, or a frame where it has no place. The reason says which.
pub(super) const MALFORMED: VarInt = VarInt::from_u32(1);
/// One side will not talk to the other; the reason is an encoded [`super::Refusal`].
pub(super) const REFUSED: VarInt = VarInt::from_u32(2);
/// The same node has made a newer connection.
pub(super) const REPLACED: VarInt = VarInt::from_u32(3);
/// The dialer has no certificate of this cluster that names one node.
pub(super) const NO_CERTIFICATE: VarInt = VarInt::from_u32(4);
/// The node has no room for the connection.
pub(super) const FULL: VarInt = VarInt::from_u32(5);
/// The peer's main connection is gone, and with it the peer.
pub(super) const LOST: VarInt = VarInt::from_u32(6);
/// On a stream: its writer gave up before the end.
pub(super) const GAVE_UP: VarInt = VarInt::from_u32(7);
