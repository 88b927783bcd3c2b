//! Why a log cannot be opened, and what counts as damage.
//!
//! A torn last batch is not here: it boots. Everything here means that the node may have lost what it acknowledged,
//! so it must neither vote nor acknowledge until it is rebuilt under a new id.

use std::io;

/// Why [`LogEngine::open`](super::LogEngine::open) failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused; trying again may help.
    #[error("the log cannot be opened")]
    Io(#[from] io::Error),
    /// Another process, or another engine of this one, has the log open.
    #[error("the log is open elsewhere")]
    Locked,
    /// A value of the configuration is out of range.
    #[error("the log's configuration is wrong: {0}")]
    Config(&'static str),
    /// The log is not what was written: the node must be rebuilt.
    #[error("the log is damaged")]
    Damaged(#[from] Damage),
}

/// What is wrong with a damaged log.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// An invalid batch is followed by a valid one.
    #[error(
        "an invalid batch at byte {offset} of {file}, with a valid one after it at byte {next}"
    )]
    Batch {
        /// The segment file.
        file: String,
        /// Where the invalid batch begins.
        offset: u32,
        /// Where a valid one begins.
        next: u32,
    },
    /// A segment that is still needed is not there, or its beginning is not valid.
    #[error("the segment of generation {generation} is missing")]
    Segment {
        /// Which one.
        generation: u64,
    },
    /// Two files claim the same generation.
    #[error("{file} has a generation that another segment has")]
    Twice {
        /// One of the files.
        file: String,
    },
    /// A valid segment does not continue the one before it.
    #[error("{file} does not continue the segment before it")]
    Chain {
        /// The later segment file.
        file: String,
    },
    /// The log ends before, or differs from, what the watermark says was durable.
    #[error("the log ends at batch {found}, but batch {expected} was durable")]
    Behind {
        /// The last batch found.
        found: u64,
        /// The batch in the watermark.
        expected: u64,
    },
    /// The watermark file is missing or not valid.
    #[error("the watermark is missing or damaged")]
    Watermark,
    /// What was replayed contradicts itself: entries missing, or a checkpoint that differs.
    #[error("the replayed state of group {group} is wrong: {what}")]
    State {
        /// The group.
        group: u32,
        /// In words.
        what: &'static str,
    },
    /// A segment cannot be read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// The segment file.
        file: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}
