//! What the clients do, whatever the answers do.
//!
//! | module | what |
//! |---|---|
//! | [`document`] | values that name themselves, so that a read shows who wrote it, and planted secrets |
//! | [`client`] | a careful client: one request, tried through any gateway under one `Idempotency-Key` |
//! | [`mix`] | many clients over many sessions, all kinds of operations, some sessions with a short end |
//! | [`writer`] | one writer for each session, without a second try, for tests that count failures |
//!
//! All loads are open-loop: what is due is sent, also when nothing comes back.

pub mod client;
pub mod document;
pub mod mix;
pub mod writer;

pub use client::{Ask, Client};
pub use document::Document;
pub use mix::{Mix, Running};
pub use writer::{Writer, create};

use model::id::Version;

/// The version in an entity tag like `"1.7"` or `"1.7-zstd"`.
#[must_use]
pub fn version(tag: &str) -> Option<Version> {
    let tag = tag.trim_matches('"');
    tag.split('-').next()?.parse().ok()
}
