//! The two images of a simulated disk, and what of them a crash keeps.
//!
//! Every file has the bytes that a running process sees and the bytes that are durable; between them stand the writes
//! since the last sync. A crash keeps of those nothing, everything, or a random part: whole writes, or single sectors
//! of them, and of the changes of names a prefix, as a journaling file system does. It knows nothing of handles,
//! waiting or faults; those are in `sim.rs`.

use std::collections::BTreeMap;

/// A device writes a sector whole or not at all. Bytes.
const SECTOR: usize = 512;

/// What a crash keeps of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKeeps {
    /// None of them.
    Nothing,
    /// All of them, as when only the process dies.
    Everything,
    /// A part by the disk's seed: each write whole, or not at all, or some sectors of it.
    Random,
}

/// A small deterministic generator (splitmix64), so that a seed alone repeats a run.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.next() % bound).expect("the remainder is below a usize")
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Grow { to: usize },
}

/// One file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set { name: String, inode: u64 },
    Remove { name: String },
}

/// All files and names.
#[derive(Debug, Clone, Default)]
pub(super) struct Images {
    pub(super) names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
}

impl Inode {
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.seen, at, bytes);
        self.unsynced.push(Change::Write {
            at,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn grow(&mut self, to: usize) {
        if self.seen.len() < to {
            self.seen.resize(to, 0);
            self.unsynced.push(Change::Grow { to });
        }
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { at, bytes } => put(&mut self.durable, at, &bytes),
                Change::Grow { to } => grow(&mut self.durable, to),
            }
        }
    }

    /// The system takes the bytes for written, and they are not.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// Changes a byte in both images, as rot does.
    pub(super) fn rot(&mut self, at: usize, mask: u8) {
        for image in [&mut self.seen, &mut self.durable] {
            if let Some(byte) = image.get_mut(at) {
                *byte ^= mask;
            }
        }
    }

    fn crash(&mut self, keeps: CrashKeeps, dice: &mut Dice) {
        for change in std::mem::take(&mut self.unsynced) {
            let whole = match keeps {
                CrashKeeps::Nothing => continue,
                CrashKeeps::Everything => true,
                CrashKeeps::Random => match dice.below(3) {
                    0 => continue,
                    1 => true,
                    _ => false,
                },
            };
            match change {
                Change::Grow { to } => grow(&mut self.durable, to),
                Change::Write { at, bytes } if whole => put(&mut self.durable, at, &bytes),
                Change::Write { at, bytes } => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.below(2) == 0 {
                            put(&mut self.durable, at + number * SECTOR, sector);
                        }
                    }
                }
            }
        }
        self.seen = self.durable.clone();
    }
}

impl Images {
    pub(super) fn create(&mut self, name: &str) -> u64 {
        self.next_inode += 1;
        let inode = self.next_inode;
        self.inodes.insert(inode, Inode::default());
        self.change_name(NameChange::Set {
            name: name.to_owned(),
            inode,
        });
        inode
    }

    /// Gives the file of `from` the name `to`; false if there is no `from`.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(&inode) = self.names.get(from) else {
            return false;
        };
        self.change_name(NameChange::Set {
            name: to.to_owned(),
            inode,
        });
        self.change_name(NameChange::Remove {
            name: from.to_owned(),
        });
        true
    }

    /// Removes a name; false if there is none.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let known = self.names.contains_key(name);
        if known {
            self.change_name(NameChange::Remove {
                name: name.to_owned(),
            });
        }
        known
    }

    pub(super) fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.unsynced_names) {
            change.apply(&mut self.durable_names);
        }
    }

    /// Makes a file vanish from both images, as a lost file does.
    pub(super) fn lose(&mut self, name: &str) {
        self.names.remove(name);
        self.durable_names.remove(name);
    }

    pub(super) fn used(&self) -> usize {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|file| file.seen.len())
            .sum()
    }

    pub(super) fn crash(&mut self, keeps: CrashKeeps, dice: &mut Dice) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let kept = match keeps {
            CrashKeeps::Nothing => 0,
            CrashKeeps::Everything => changes.len(),
            CrashKeeps::Random => dice.below(changes.len() + 1),
        };
        for change in changes.into_iter().take(kept) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        for file in self.inodes.values_mut() {
            file.crash(keeps, dice);
        }
        let named: Vec<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    grow(image, at + bytes.len());
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn grow(image: &mut Vec<u8>, to: usize) {
    if image.len() < to {
        image.resize(to, 0);
    }
}
