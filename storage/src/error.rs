//! What can go wrong with a group's state, and what the caller may do about it.
//!
//! Guarantees: a full disk is told from any other failure ([`TabletError::is_disk_full`]: pause and try again), and
//! damage from both (never serve it, repair from another replica). Messages name files and keys' kinds, never values.

use std::io;
use std::path::Path;

use model::state::StateError;

/// Why an operation on a tablet or a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum TabletError {
    /// No space is left on the disk. Nothing of the operation is visible; it may be tried again.
    #[error("no space left for {what}")]
    DiskFull {
        /// What was being done.
        what: String,
    },
    /// The disk, or the file system, answered with an error.
    #[error("{what} failed: {cause}")]
    Io {
        /// What was being done.
        what: String,
        /// The answer.
        cause: String,
    },
    /// What is stored is not what was written. It must be repaired from another replica.
    #[error("damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// A transaction was begun before the last commit: two writers, which is a fault of the caller.
    #[error("the transaction was begun before the last commit")]
    Conflict,
    /// A snapshot that does not belong here: another group, another kind of store, a newer format.
    #[error("the snapshot is refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// Pieces of the snapshot have not arrived.
    #[error("the snapshot is incomplete: {files} files are missing or not whole")]
    Incomplete {
        /// How many.
        files: usize,
    },
    /// The group's directory was removed.
    #[error("the group was removed")]
    Removed,
}

impl TabletError {
    /// Whether it failed for want of space: the caller pauses, and tries the same again.
    #[must_use]
    pub const fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }

    /// Whether stored bytes are not what was written: the replica must be repaired from another one.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
        }
    }

    /// Classifies an error of the file system.
    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let what = format!("{what} of {}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { what },
            _ => Self::Io {
                what,
                cause: error.to_string(),
            },
        }
    }

    /// Classifies an error of RocksDB. The binding keeps nothing of a status but its text, whose beginning is made from
    /// code and subcode (`Status::ToString`): that beginning decides, what follows it does not.
    pub(crate) fn rocksdb(what: &str, error: &rocksdb::Error) -> Self {
        let text: &str = error.as_ref();
        let what = what.to_owned();
        if says_no_space(text) {
            return Self::DiskFull { what };
        }
        if error.kind() == rocksdb::ErrorKind::Corruption {
            return Self::Damaged {
                what: format!("{what}: {text}"),
            };
        }
        Self::Io {
            what,
            cause: text.to_owned(),
        }
    }

    /// Classifies an error of a read: what the disk cannot give back any more is damage, too. Of a write it would be the
    /// disk that fails.
    pub(crate) fn rocksdb_read(what: &str, error: &rocksdb::Error) -> Self {
        match Self::rocksdb(what, error) {
            Self::Io { what, cause } if says_lost(&cause) => Self::Damaged {
                what: format!("{what}: {cause}"),
            },
            other => other,
        }
    }
}

/// Whether the text of a RocksDB status says that a file's bytes cannot be had any more: a bad sector, or the file is gone.
fn says_lost(text: &str) -> bool {
    const ENDS: [&str; 2] = ["Input/output error", "No such file or directory"];
    text.starts_with("IO error") && ENDS.iter().any(|end| text.ends_with(end))
}

/// Whether the text of a RocksDB status begins with code `IOError` and subcode `NoSpace` or `SpaceLimit`.
fn says_no_space(text: &str) -> bool {
    const STARTS: [&str; 2] = [
        "IO error: No space left on device",
        "IO error: Space limit reached",
    ];
    STARTS.iter().any(|start| text.starts_with(start))
}

impl From<TabletError> for StateError {
    fn from(error: TabletError) -> Self {
        match error {
            TabletError::Damaged { what } => Self::Damaged(what),
            TabletError::DiskFull { .. }
            | TabletError::Io { .. }
            | TabletError::Conflict
            | TabletError::Refused { .. }
            | TabletError::Incomplete { .. }
            | TabletError::Removed => Self::Io(error.to_string()),
        }
    }
}

impl From<StateError> for TabletError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damaged(what) => Self::Damaged { what },
            StateError::Io(cause) => Self::Io {
                what: "read of state".to_owned(),
                cause,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let path = Path::new("groups/x");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(TabletError::io("write", path, &full).is_disk_full());
        let broken = io::Error::other("input/output error");
        let error = TabletError::io("write", path, &broken);
        assert!(!error.is_disk_full() && !error.is_damage());
    }

    #[test]
    fn a_full_disk_is_known_by_the_status_and_not_by_a_file_name() {
        let full = "IO error: No space left on device: While appending to file: 000009.sst: No space left on device";
        assert!(says_no_space(full));
        let other = "IO error: While open a file for appending: No space left on device/000009.sst: Permission denied";
        assert!(!says_no_space(other));
    }

    #[test]
    fn a_bad_sector_and_a_file_that_is_gone_are_damage_to_a_reader() {
        assert!(says_lost(
            "IO error: While pread offset 0 len 8192: /d/000009.sst: Input/output error"
        ));
        assert!(says_lost(
            "IO error: No such file or directory: While open a file for random read: /d/000009.sst: No such file or directory"
        ));
        assert!(!says_lost(
            "IO error: While open a file for random read: /d/000009.sst: Too many open files"
        ));
        assert!(!says_lost("Corruption: block checksum mismatch"));
    }

    #[test]
    fn damage_stays_damage_on_its_way_to_the_model_and_back() {
        let there = StateError::from(TabletError::damaged("block"));
        assert!(matches!(there, StateError::Damaged(_)));
        assert!(TabletError::from(there).is_damage());
    }
}
