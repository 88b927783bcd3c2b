//! The rule of the filling disk: writes are refused while there is still room for what makes room.
//!
//! A disk without any room stops RocksDB's flushes: what is committed cannot be applied then, and reads wait with it. So below
//! a reserve only deletions, expiry and what Raft itself needs go on; all else is answered as on a full disk. Looked at once a
//! second; the reserve is far more than a second's writes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The reserve is this part of the file system, ...
const PART: u64 = 10;
/// ... but at most this many bytes: a tenth of a large disk is no emergency.
const AT_MOST: u64 = 4 << 30;

/// Whether the disk is short of space.
#[derive(Debug, Default)]
pub(crate) struct Space(AtomicBool);

impl Space {
    /// Whether writes are to be refused.
    pub(crate) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks at the file system of this folder. Where that cannot be told, all stays as it was.
    pub(crate) fn look(&self, folder: &Path) {
        match rustix::fs::statvfs(folder) {
            Ok(found) => {
                let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
                self.judge(bytes(found.f_blocks), bytes(found.f_bavail));
            }
            Err(error) => tracing::debug!(%error, "free space is not known"),
        }
    }

    /// Takes note of a file system's size and free bytes. A little more must be free again than was missed, so that writes
    /// do not come and go with every file.
    pub(crate) fn judge(&self, size: u64, free: u64) {
        let reserve = (size / PART).min(AT_MOST);
        let was = self.is_short();
        let wanted = if was { reserve + reserve / 8 } else { reserve };
        let short = free < wanted;
        self.0.store(short, Ordering::Relaxed);
        if short && !was {
            tracing::warn!(
                free,
                reserve,
                "the disk is short of space: writes are refused"
            );
        } else if was && !short {
            tracing::info!(free, "the disk has space again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_tenth_or_four_gibibytes_and_ends_a_little_above() {
        let space = Space::default();
        space.judge(1000, 100);
        assert!(!space.is_short());
        space.judge(1000, 99);
        assert!(space.is_short());
        space.judge(1000, 111);
        assert!(space.is_short(), "not yet enough");
        space.judge(1000, 112);
        assert!(!space.is_short());
        space.judge(1 << 40, AT_MOST);
        assert!(!space.is_short(), "far below a tenth of a large disk");
        space.judge(1 << 40, AT_MOST - 1);
        assert!(space.is_short());
    }

    #[test]
    fn a_real_file_system_is_read_and_an_absent_one_changes_nothing() {
        let (space, folder) = (Space::default(), tempfile::tempdir().unwrap());
        space.judge(1000, 0);
        space.look(&folder.path().join("absent"));
        assert!(space.is_short());
        let found = rustix::fs::statvfs(folder.path()).unwrap();
        let room = found.f_bavail.saturating_mul(found.f_frsize) > 2 * AT_MOST;
        space.look(folder.path());
        assert!(!room || !space.is_short());
    }
}
