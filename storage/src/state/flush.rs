//! How much a restart would have to replay, for each tablet and for the process, and what to flush to bound it.
//!
//! Guarantees: [`FlushPolicy`] names the tablet with the oldest commit that a crash would undo, as long as the process has
//! more than the limit. RocksDB also flushes by itself when a memtable is full: what is durable is therefore read back from
//! the store, never assumed. Starts no task and reads no clock: the process asks as often as it likes (every second, or
//! every MiB committed).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::TabletError;
use crate::state::Tablet;

/// What a restart of a process replays at most, in bytes, before a flush is due (`design.md`, section 7).
pub const DEFAULT_REPLAY_BYTES: u64 = 64 * 1024 * 1024;

/// What a crash now would undo in one tablet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unflushed {
    /// Bytes of commits that are not durable.
    pub bytes: u64,
    /// When the oldest of them was made, counted in bytes that all tablets of the process had committed by then.
    pub oldest: Option<u64>,
}

/// Keeps the replay of a process within a bound.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// Bytes of commits of all tablets together that need not be durable.
    pub limit_bytes: u64,
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self {
            limit_bytes: DEFAULT_REPLAY_BYTES,
        }
    }
}

impl FlushPolicy {
    /// The tablet to flush now, if the process has more than the limit.
    ///
    /// # Errors
    /// When a tablet cannot say what is durable; with its group.
    pub fn choose<'a>(
        &self,
        tablets: &'a [Arc<dyn Tablet>],
    ) -> Result<Option<&'a Arc<dyn Tablet>>, (u32, TabletError)> {
        let mut total = 0_u64;
        let mut oldest: Option<(u64, &Arc<dyn Tablet>)> = None;
        for tablet in tablets {
            let unflushed = tablet
                .unflushed()
                .map_err(|error| (tablet.group(), error))?;
            total = total.saturating_add(unflushed.bytes);
            if let Some(since) = unflushed.oldest
                && oldest.is_none_or(|(best, _)| since < best)
            {
                oldest = Some((since, tablet));
            }
        }
        Ok(oldest
            .filter(|_| total > self.limit_bytes)
            .map(|(_, tablet)| tablet))
    }

    /// Flushes tablets until the process is within the limit; says how many. Blocks.
    ///
    /// # Errors
    /// The first failure of a flush, with the group.
    pub fn run(&self, tablets: &[Arc<dyn Tablet>]) -> Result<usize, (u32, TabletError)> {
        let mut flushed = 0;
        // Commits go on meanwhile: one round over all tablets is enough for one call.
        while flushed < tablets.len() {
            let Some(tablet) = self.choose(tablets)? else {
                break;
            };
            tablet.flush().map_err(|error| (tablet.group(), error))?;
            flushed += 1;
        }
        Ok(flushed)
    }
}

/// Bytes that all tablets of a process have committed: the order of commits between tablets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Odometer(Arc<AtomicU64>);

impl Odometer {
    fn advance(&self, bytes: u64) -> u64 {
        self.0.fetch_add(bytes, Ordering::Relaxed)
    }
}

/// One tablet's commits that may not be durable, in pieces of [`Ledger::PIECE_BYTES`].
#[derive(Debug)]
pub(crate) struct Ledger {
    odometer: Odometer,
    written: u64,
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
struct Piece {
    start: u64,
    position: u64,
}

impl Ledger {
    const PIECE_BYTES: u64 = 64 * 1024;

    /// Begins where the store left off: `written` is what it says to have taken so far, all of it durable.
    pub(crate) const fn new(odometer: Odometer, written: u64) -> Self {
        Self {
            odometer,
            written,
            pieces: VecDeque::new(),
        }
    }

    /// What the store will have taken after a commit of `bytes`.
    pub(crate) const fn after(&self, bytes: u64) -> u64 {
        self.written.saturating_add(bytes)
    }

    /// A commit of `bytes` was made.
    pub(crate) fn committed(&mut self, bytes: u64) {
        let position = self.odometer.advance(bytes);
        let full = |piece: &Piece| self.written.saturating_sub(piece.start) >= Self::PIECE_BYTES;
        if self.pieces.back().is_none_or(full) {
            self.pieces.push_back(Piece {
                start: self.written,
                position,
            });
        }
        self.written = self.after(bytes);
    }

    /// What is not durable, when the store holds `durable` for good.
    pub(crate) fn unflushed(&mut self, durable: u64) -> Unflushed {
        while self.pieces.get(1).is_some_and(|next| next.start <= durable) {
            self.pieces.pop_front();
        }
        let bytes = self.written.saturating_sub(durable);
        if bytes == 0 {
            self.pieces.clear();
        }
        Unflushed {
            bytes,
            oldest: self.pieces.front().map(|piece| piece.position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_knows_what_is_left_and_since_when() {
        let odometer = Odometer::default();
        let mut one = Ledger::new(odometer.clone(), 0);
        let mut other = Ledger::new(odometer, 500);
        one.committed(100_000);
        other.committed(10);
        one.committed(100_000);
        assert_eq!(
            one.unflushed(0),
            Unflushed {
                bytes: 200_000,
                oldest: Some(0)
            }
        );
        assert_eq!(
            other.unflushed(500),
            Unflushed {
                bytes: 10,
                oldest: Some(100_000)
            }
        );
        assert_eq!(
            one.unflushed(100_000),
            Unflushed {
                bytes: 100_000,
                oldest: Some(100_010)
            }
        );
        assert_eq!(one.unflushed(200_000), Unflushed::default());
        one.committed(1);
        assert_eq!(
            one.unflushed(200_000),
            Unflushed {
                bytes: 1,
                oldest: Some(200_010)
            }
        );
    }

    #[test]
    fn a_ledger_of_small_commits_stays_small() {
        let mut ledger = Ledger::new(Odometer::default(), 0);
        for _ in 0..100_000 {
            ledger.committed(100);
        }
        assert!(ledger.pieces.len() < 200);
    }
}
