//! Raft groups over QUIC, and the replicated session service on top of them.
//!
//! | module | what |
//! |---|---|
//! | [`host`] | a node's groups, from start to stop |
//! | [`shard`] | the seam between a group and the service on it |
//! | [`transport`] | calls and streams between nodes |
//! | `replica`, `group`, `proposer`, `reads`, `coalesce` | one replica: proposals and reads |
//! | `log_time`, `lease`, `life`, `timing` | time, promises, old disks |
//! | [`chance`], [`blocking`], [`watch`] | what is random, what blocks, who is woken first; a simulation has them in its hands |
//! | `log_store`, `machine`, `snapshot`, `network`, `inbound` | openraft's five sides |
//! | `fetch` | state for a replica that lost its own |
//! | `types`, `message`, `kinds` | openraft's generics, fixed; bytes; numbers on the wire |
//!
//! # What holds, and who keeps it
//! - **R-1** A write that was acknowledged is on a quorum's disks and in every later leader's log (openraft, `log_store`).
//! - **R-2** A linearizable read shows every write acknowledged before it began (`replica`, `lease`, `reads`).
//! - **R-3** State is never beside the log after a crash (`machine`).
//! - **R-4** A node that lost something it promised is refused (`life`, `host::hello`) and ends its process.
//! - **R-5** A command is appended at most once for each proposal, and its end is known or `Unknown` (`proposer`).
//! - **R-6** Log time never goes back (`log_time`).

pub mod blocking;
pub mod chance;
mod coalesce;
pub mod error;
mod fetch;
mod group;
pub mod host;
mod inbound;
mod kinds;
mod lease;
mod life;
mod log_store;
pub mod log_time;
mod machine;
mod message;
mod metrics;
mod network;
mod proposer;
mod reads;
mod replica;
pub mod service;
pub mod shard;
mod snapshot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod transport;
mod types;
pub mod watch;
