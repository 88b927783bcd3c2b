//! A replica's state in RocksDB.
//!
//! - [`options`]: what all tablets of a process share, and how each is opened.
//! - `tablet`: one open RocksDB as a [`crate::state::Tablet`].
//! - `layer`: commits that it does not have yet, in memory.
//! - `cold`: a copy of it that is read from the disk and from nowhere else, for a scrub.
//! - `compact`: all of it rewritten, so that only what is current takes place.
//! - `home`: a group's directory: the pointer to its tablet, its snapshots, its staging area.
//!
//! RocksDB's types do not leave this folder.

pub mod options;

mod cold;
mod compact;
pub(crate) mod home;
mod layer;
pub(crate) mod tablet;

pub use options::{EngineStats, RocksEngine, StateConfig};
