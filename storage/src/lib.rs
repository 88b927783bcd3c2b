//! What a node keeps on its disks.
//!
//! The state of a group ([`state`]) is read and written through `model::state`'s narrow door; [`snapshot`] moves it to
//! another node. RocksDB is known here and nowhere else.

pub mod db;
pub mod error;
pub mod format;
pub mod keys;
pub mod memory;
pub mod snapshot;
pub mod state;
