//! Raft groups over QUIC, and the replicated session service on top of them.

mod coalesce;
mod group;
mod inbound;
mod kinds;
mod lease;
mod log_store;
mod log_time;
mod machine;
mod message;
mod network;
mod proposer;
mod reads;
mod replica;
pub mod service;
pub mod shard;
mod snapshot;
pub mod store;
pub mod transport;
mod types;
