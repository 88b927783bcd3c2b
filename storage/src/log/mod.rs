//! The log of all Raft groups of a process: segment files, one writer, one sync for many groups.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | [`LogEngine`]: opens, closes, hands out groups |
//! | `handle.rs` | [`GroupLog`]: append, vote, truncate, purge, read |
//! | `group.rs` | a group in memory: marks, recent entries, places of older ones |
//! | `marks.rs` | the small state of a group and its rules |
//! | `queue.rs`, `shared.rs` | what callers and the writer share |
//! | `writer.rs`, `build.rs`, `batch.rs` | from the queue to one write and one sync |
//! | `segment.rs` | the files: in use, free, needed by whom |
//! | `format.rs` | the bytes |
//! | `recover.rs`, `scan.rs`, `replay.rs` | opening: torn tail or damage, and the state rebuilt |
//! | `read.rs` | entries that are no longer in memory |
//! | `scrub.rs` | cold segments read again, to find damage early |
//! | `room.rs` | what a nearly full log still takes, asked before the queue |
//! | `watermark.rs` | how far the log was durable at the least |
//! | `config.rs`, `types.rs`, `error.rs`, `stats.rs` | as named |
//!
//! # What it guarantees
//! - An operation whose callback got `Ok` is there after any crash, with all operations of its group before it.
//! - What is there after a crash is a prefix of what was asked for, by the order of the calls of each group; batches
//!   are whole or not there.
//! - A log that lost or changed something it had acknowledged does not open ([`OpenError::Damaged`]), with two
//!   exceptions that only others can see: a loss after the last watermark, at most 100 ms before the crash, that also
//!   left no trace in a file; and an old image of the whole disk, for which there is [`crate::life`].
//! - A damaged entry is an error at its read, never served.
//! - After an error of a write or a sync, other than a full disk, nothing is acknowledged any more. The process
//!   should end.
//!
//! # What it does not
//! It knows nothing of elections or of what is committed; who appends must keep Raft's rules. It does not repair. It
//! does not bound how much of the log a group keeps: [`GroupLog::bytes`] and
//! [`LogEngine::oldest_segment_groups`] tell the layer above whom to purge.

mod batch;
mod build;
mod config;
mod engine;
mod error;
mod format;
mod group;
mod handle;
mod marks;
mod queue;
mod read;
mod recover;
mod replay;
mod room;
mod scan;
mod scrub;
mod segment;
mod shared;
mod stats;
mod types;
mod watermark;
mod writer;

pub use config::LogConfig;
pub use engine::LogEngine;
#[cfg(any(test, feature = "testing"))]
pub use engine::ManualWriter;
pub use error::{Damage, OpenError};
pub use handle::GroupLog;
pub use recover::Recovery;
pub use room::Admission;
pub use scrub::{ColdLog, LogCursor, LogScrub};
pub use stats::{LogStats, SYNC_BUCKETS};
pub use types::{Callback, Entry, LogId, LogState, Vote};
pub use writer::Turn;

#[cfg(test)]
mod tests;
