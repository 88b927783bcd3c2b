//! The state of one group's replica: a tablet, transactions on it, views of it, and where it lives.
//!
//! - [`txn`]: changes that are collected, and shown to their own reads, before they are committed.
//! - [`digest`]: a hash of what the replicas of a group have in common.
//! - [`flush`]: how much a restart would have to replay, and which tablet to flush to bound it.
//! - [`store`]: a group's place: its current tablet, its snapshots, installing one, removing all.
//!
//! [`Tablet`] has two implementations with the same guarantees: RocksDB (`db`) and memory (`memory`).
//! Everything here blocks the calling thread: reads and commits for the time of a disk read at most; flush, checkpoint,
//! scrub and install for long, so they belong on a thread that may block.

pub mod digest;
pub mod flush;
pub mod store;
pub mod txn;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use model::state::StateRead;

use crate::error::TabletError;

pub use flush::{FlushPolicy, Unflushed};
pub use store::{StateEngine, TabletStore};
pub use txn::Txn;

/// What a tablet held at one moment. Later commits do not change what it shows, however many keys are read; it can be kept
/// as long as needed, at the price of the space of what has been overwritten since.
pub type View = Arc<dyn StateRead + Send + Sync>;

/// The state of one replica.
///
/// - One writer at a time: `begin`, change, `commit`. A second transaction begun meanwhile is refused at its commit.
/// - Any number of readers, which never wait for the writer.
/// - A commit makes all changes and the applied mark real together. It is durable only when flushed: after a crash the
///   tablet is at some earlier commit, mark and data alike, never between two.
/// - Each value's checksum holds when it is returned; damage is an error and is counted.
pub trait Tablet: Send + Sync + fmt::Debug + 'static {
    /// The group's number.
    fn group(&self) -> u32;

    /// A consistent view of the last commit.
    fn view(&self) -> View;

    /// Begins a transaction upon the last commit.
    fn begin(&self) -> Txn;

    /// Makes a transaction's changes and the mark real together. After an error nothing of it is visible, and the same
    /// transaction may be committed again.
    ///
    /// # Errors
    /// When the store cannot take it; [`TabletError::Conflict`] when another transaction was committed since it began.
    fn commit(&self, txn: &Txn, applied: &[u8]) -> Result<(), TabletError>;

    /// The mark of the last commit; `None` before the first.
    fn applied(&self) -> Option<Bytes>;

    /// The mark of the last commit that a crash cannot undo.
    ///
    /// # Errors
    /// When it cannot be read.
    fn durable_applied(&self) -> Result<Option<Bytes>, TabletError>;

    /// Makes all commits until now durable. Blocks for as long as writing them takes.
    ///
    /// # Errors
    /// When the disk does not take them; they stay visible, and a later flush tries again.
    fn flush(&self) -> Result<(), TabletError>;

    /// Rewrites all of it, so that nothing but what is current takes place; says whether it came to the end. Reads and commits go on. For as
    /// long as a snapshot has the old files, both take place. Once `goes_on` says no it ends within a moment, and the tablet does
    /// nothing in the background any more: only a process that ends says no. Where nothing is kept for long, there is nothing to do.
    ///
    /// # Errors
    /// When the disk does not take it or is damaged; what is current stays what it was.
    fn compact(&self, goes_on: &(dyn Fn() -> bool + Sync)) -> Result<bool, TabletError> {
        Ok(goes_on())
    }

    /// What a crash now would undo.
    ///
    /// # Errors
    /// When what is durable cannot be read.
    fn unflushed(&self) -> Result<Unflushed, TabletError>;

    /// Reads on from a place, about `max_bytes`, and checks every key and value. What is in the cache is not read from the disk again:
    /// for that, scrub [`store::TabletStore::cold`].
    ///
    /// # Errors
    /// When the store cannot be read at all; damaged values are counted instead.
    fn scrub(&self, from: &ScrubCursor, max_bytes: u64) -> Result<ScrubStep, TabletError>;

    /// Reads that met damage since the tablet was opened; cheap. Above zero, the replica is to be repaired from another one.
    fn damaged_reads(&self) -> u64;

    /// Figures for operators.
    fn stats(&self) -> TabletStats;
}

/// Where a scrub goes on; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor(pub(crate) Vec<u8>);

/// What one step of a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where to go on; `None` at the end.
    pub next: Option<ScrubCursor>,
    /// Values read.
    pub values: u64,
    /// Bytes of keys and values read.
    pub bytes: u64,
    /// Values that are damaged.
    pub damaged: u64,
}

/// Figures about one tablet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TabletStats {
    /// Bytes of live files on disk.
    pub disk_bytes: u64,
    /// About how many keys there are.
    pub keys: u64,
    /// Bytes in memory that were not flushed.
    pub memtable_bytes: u64,
    /// Bytes that background work has yet to rewrite.
    pub compaction_debt_bytes: u64,
    /// Reads that found damage since the tablet was opened.
    pub damaged_reads: u64,
}

/// Reads a whole tablet and fails at the first damage.
///
/// # Errors
/// [`TabletError::Damaged`] when a key or a value is not what was written.
pub fn verify(tablet: &dyn Tablet) -> Result<ScrubStep, TabletError> {
    const STEP_BYTES: u64 = 64 * 1024 * 1024;
    let mut total = ScrubStep::default();
    let mut cursor = ScrubCursor::default();
    loop {
        let step = tablet.scrub(&cursor, STEP_BYTES)?;
        total.values += step.values;
        total.bytes += step.bytes;
        total.damaged += step.damaged;
        if total.damaged > 0 {
            return Err(TabletError::damaged(format!(
                "{} values of group {:08x}",
                total.damaged,
                tablet.group()
            )));
        }
        match step.next {
            Some(next) => cursor = next,
            None => return Ok(total),
        }
    }
}
