//! What a node keeps on its disk, and what may be relied on after a crash.
//!
//! # The durability contract
//! - The **log** ([`log`]) is the truth: votes and entries are durable when their callback says so, in the order of
//!   the calls. It proves its own completeness at every start; a log that lost something acknowledged does not open.
//! - The **state** is what applying the log gives. It may be lost back to an earlier applied index, never beside the
//!   log: while a truncate is not yet durable ([`log::GroupLog::truncating`]) nothing is applied.
//! - Damage is found when it is read and is never served.
//! - A full disk pauses; every other write error ends the process.
//!
//! # On the disk
//! | where | what | durable |
//! |---|---|---|
//! | `log/segment-NNNNNNNN` | batches of all groups, 64 MiB each, used again under a new generation | with each batch |
//! | `log/watermark` | the last batch known to be durable | every 100 ms while writing |
//! | `log/log.lock` | held by the process that has the log open | - |
//! | `log/life` | the node's life counter ([`life`]) | at each raise |
//! | `groups/<group>/` | the tablet of a replica ([`state`]), its newest snapshot and what is being received ([`snapshot`]) | at each flush |

pub mod db;
pub mod disk;
pub mod error;
pub mod format;
pub mod keys;
pub mod life;
pub mod log;
pub mod memory;
mod slots;
pub mod snapshot;
pub mod state;
