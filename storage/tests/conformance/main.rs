//! One suite for both stores: what `Tablet` and `TabletStore` promise, and what only a disk can break.
//!
//! - `fixture`: a store that can be opened, crashed and looked into.
//! - `tablet`: transactions, views, marks, crashes, replay.
//! - `transfer`: checkpoints, arrival, install, removal.
//! - `damage`: flipped bytes, lost pointers and half-made directories; RocksDB only.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of it is test code, also what is not inside a test function"
)]

mod damage;
mod fixture;
mod tablet;
mod transfer;
