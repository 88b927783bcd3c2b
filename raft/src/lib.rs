//! Raft groups over QUIC, and the replicated session service on top of them.

pub mod service;
pub mod shard;

pub mod transport;
