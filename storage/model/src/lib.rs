//! What a session store is, without a disk, a network or a clock.
//!
//! Everything that all replicas must agree on is decided here, by pure functions: `apply(state, entry)` and nothing
//! else. Time comes in as an argument, state through [`state::StateRead`] and [`state::StateWrite`], documents as bytes.
//!
//! | module | what |
//! |---|---|
//! | [`id`], [`time`], [`limits`] | names, points in time, bounds |
//! | [`document`] | the PSP document: tokenizer, checksum, merge, conversions |
//! | [`shard`] | a shard's commands and their `apply` |
//! | [`meta`] | the meta group's commands and their `apply` |
//! | [`placement`] | session to slot to shard |
//! | [`rebalance`] | from wanted to actual replicas |
//! | [`state`], [`codec`] | what is stored, and how it becomes bytes |
//! | [`service`] | the seam between gateway and store |
//! | [`status`] | the schema of a cluster's status |
//!
//! # Invariants
//! - **S-1** A request id changes a session at most once, for as long as its `not_after` has not passed.
//! - **S-2** A version never names two contents: each write makes a higher one.
//! - **S-3** A write made from a version is applied to that version or refused.
//! - **S-4** Log time never goes back; nothing in `apply` reads another clock.
//! - **S-5** Nothing is purged less than [`limits::PURGE_AFTER`] of log time after it expired.
//! - **S-6** A chunk that a body refers to is there; one without a reference goes after [`limits::CHUNK_TTL`].
//! - **S-7** The same state and entry give the same state, outcomes and events on every replica.
//! - **M-1** A node id is given out once.

#![warn(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm
)]

pub mod codec;
pub mod document;
pub mod id;
pub mod limits;
pub mod meta;
pub mod placement;
pub mod rebalance;
pub mod service;
pub mod shard;
pub mod state;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
