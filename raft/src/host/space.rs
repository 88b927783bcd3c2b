//! The rule of the filling disk: writes are refused while there is still room for what makes room.
//!
//! A disk without any room stops RocksDB's flushes: what is committed cannot be applied then, and reads wait with it. So below
//! a reserve only deletions, expiry and what Raft itself needs go on; all else is answered as on a full disk. Looked at once a
//! second; the reserve is far more than a second's writes.
//!
//! One disk of three stops nobody's writes: its node hands its leaderships to those that have room (`balance.rs`), and what is
//! committed needs a majority only. A group refuses writes when fewer of its voters have room than that, by what they say in the
//! probe: to go on would fill the last byte of disks without which nothing can be committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use model::id::NodeId;
use parking_lot::Mutex;

/// The reserve is this part of the file system, ...
const PART: u64 = 10;
/// ... but at most this many bytes: a tenth of a large disk is no emergency.
const AT_MOST: u64 = 4 << 30;

/// Whose disks are short of space.
#[derive(Debug, Default)]
pub(crate) struct Space {
    own: AtomicBool,
    peers: Mutex<BTreeSet<NodeId>>,
    /// Whether there are such peers: looked at by every write.
    any_peer: AtomicBool,
}

impl Space {
    /// Whether this node's is.
    pub(crate) fn is_short(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// A peer says whether its own is.
    pub(crate) fn heard(&self, node: NodeId, short: bool) {
        let mut peers = self.peers.lock();
        if short {
            peers.insert(node);
        } else {
            peers.remove(&node);
        }
        self.any_peer.store(!peers.is_empty(), Ordering::Relaxed);
    }

    /// Whether a group of these voters, `me` among them, is to refuse writes: a majority of them could not keep its reserve.
    pub(crate) fn refuses(&self, me: NodeId, voters: impl FnOnce() -> Vec<NodeId>) -> bool {
        if !self.is_short() && !self.any_peer.load(Ordering::Relaxed) {
            return false;
        }
        let (voters, peers) = (voters(), self.peers.lock());
        let short = |node: &NodeId| match *node == me {
            true => self.is_short(),
            false => peers.contains(node),
        };
        let with_room = voters.iter().filter(|node| !short(node)).count();
        with_room <= voters.len() / 2
    }

    /// Looks at the file system of this folder. Where that cannot be told, all stays as it was.
    pub(crate) fn look(&self, folder: &Path) {
        if let Some((size, free)) = room(folder) {
            self.judge(size, free);
        }
    }

    /// Takes note of a file system's size and free bytes. A little more must be free again than was missed, so that writes
    /// do not come and go with every file.
    pub(crate) fn judge(&self, size: u64, free: u64) {
        let reserve = reserve(size);
        let was = self.is_short();
        let wanted = if was { reserve + reserve / 8 } else { reserve };
        let short = free < wanted;
        self.own.store(short, Ordering::Relaxed);
        if short && !was {
            tracing::warn!(
                free,
                reserve,
                "the disk is short of space: this node leads nothing more"
            );
        } else if was && !short {
            tracing::info!(free, "the disk has space again");
        }
    }
}

/// Bytes that are free on the file system of this folder above the reserve, where that can be told.
pub(crate) fn spare(folder: &Path) -> Option<u64> {
    room(folder).map(|(size, free)| free.saturating_sub(reserve(size)))
}

fn reserve(size: u64) -> u64 {
    (size / PART).min(AT_MOST)
}

/// Size and free bytes of the file system of this folder.
fn room(folder: &Path) -> Option<(u64, u64)> {
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            Some((bytes(found.f_blocks), bytes(found.f_bavail)))
        }
        Err(error) => {
            tracing::debug!(%error, "free space is not known");
            None
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
    fn a_group_refuses_when_a_majority_has_no_room() {
        let (space, me) = (Space::default(), NodeId(1));
        let three = || vec![NodeId(1), NodeId(2), NodeId(3)];
        assert!(!space.refuses(me, three));
        space.judge(1000, 0);
        assert!(!space.refuses(me, three), "two have room");
        assert!(space.refuses(me, || vec![me]), "it is alone");
        space.heard(NodeId(2), true);
        space.heard(NodeId(2), true);
        assert!(space.refuses(me, three));
        assert!(space.refuses(me, || vec![NodeId(1), NodeId(2), NodeId(3), NodeId(4)]));
        space.judge(1000, 1000);
        assert!(!space.refuses(me, three));
        space.heard(NodeId(3), true);
        assert!(space.refuses(me, three), "it is the only one with room");
        space.heard(NodeId(2), false);
        assert!(!space.refuses(me, three));
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
