//! What a snapshot consists of, and its bytes on the wire and on disk.
//!
//! Guarantees: [`SnapshotManifest::decode`] takes only what [`SnapshotManifest::encode`] makes: names are plain file names,
//! each once, counts are bounded, a checksum holds. It comes from another node: nothing in it is trusted beyond that.
//! Layout, integers little-endian: version, store, group u32, mark (u32 length), count u32, then for each file its name
//! (u16 length), length u64 and hash; CRC-32C of all before.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::TabletError;

/// The version of the layout that this build writes.
pub const VERSION: u8 = 1;
/// Most files of a snapshot.
pub const MAX_FILES: usize = 65_536;
/// Longest applied mark, in bytes.
pub const MAX_APPLIED_BYTES: usize = 1024 * 1024;
/// Longest file name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest encoded manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 16 * 1024 * 1024;

const HASH_BYTES: usize = 32;
const _: () = assert!(
    MAX_FILES * (MAX_NAME_BYTES + 2 + 8 + HASH_BYTES) + MAX_APPLIED_BYTES + 64 < MAX_MANIFEST_BYTES
);

/// What kind of store made a snapshot; only the same kind can install it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Files of a RocksDB checkpoint.
    RocksDb,
    /// A sorted dump.
    Memory,
}

/// One file of a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// A plain file name.
    pub name: String,
    /// In bytes.
    pub length: u64,
    /// BLAKE3 of the content.
    pub hash: [u8; HASH_BYTES],
}

impl std::fmt::Debug for FileEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.length)
    }
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotManifest {
    /// What made it.
    pub store: StoreKind,
    /// The group's number.
    pub group: u32,
    /// The applied mark of the commit that it holds; `None` for an empty tablet.
    pub applied: Option<Bytes>,
    /// Its files, by name.
    pub files: Vec<FileEntry>,
}

impl SnapshotManifest {
    /// Names this snapshot, and no other.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.length))
    }

    /// The manifest as bytes.
    ///
    /// # Panics
    /// When it exceeds the bounds of this file, which nothing that a store makes does.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let store = match self.store {
            StoreKind::RocksDb => 1,
            StoreKind::Memory => 2,
        };
        let mut out = vec![VERSION, store];
        out.extend_from_slice(&self.group.to_le_bytes());
        // A mark is never empty on its way: an absent one has length zero, a present one its length and one.
        match &self.applied {
            Some(mark) => {
                out.extend_from_slice(&length32(mark.len() + 1).to_le_bytes());
                out.extend_from_slice(mark);
            }
            None => out.extend_from_slice(&0_u32.to_le_bytes()),
        }
        out.extend_from_slice(&length32(self.files.len()).to_le_bytes());
        for file in &self.files {
            let name = u16::try_from(file.name.len()).expect("names are short");
            out.extend_from_slice(&name.to_le_bytes());
            out.extend_from_slice(file.name.as_bytes());
            out.extend_from_slice(&file.length.to_le_bytes());
            out.extend_from_slice(&file.hash);
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        Bytes::from(out)
    }

    /// The manifest that these bytes are.
    ///
    /// # Errors
    /// [`TabletError::Refused`] when they are not what [`Self::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, TabletError> {
        let refuse = || TabletError::refused("its manifest is malformed");
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or_else(refuse)?;
        if bytes.len() > MAX_MANIFEST_BYTES
            || crc32c::crc32c(content) != u32::from_le_bytes(*checksum)
        {
            return Err(refuse());
        }
        if let Some(&version) = content.first()
            && version != VERSION
        {
            return Err(TabletError::refused(format!(
                "its format {version} is not known to this build"
            )));
        }
        let mut reader = Reader(content.get(1..).ok_or_else(refuse)?);
        let manifest = reader.manifest().ok_or_else(refuse)?;
        let names: BTreeSet<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
        if !reader.0.is_empty() || names.len() != manifest.files.len() {
            return Err(refuse());
        }
        Ok(manifest)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn length(&mut self, most: usize) -> Option<usize> {
        let length = usize::try_from(u32::from_le_bytes(self.take()?)).ok()?;
        (length <= most).then_some(length)
    }

    fn manifest(&mut self) -> Option<SnapshotManifest> {
        let store = match self.take()? {
            [1] => StoreKind::RocksDb,
            [2] => StoreKind::Memory,
            _ => return None,
        };
        let group = u32::from_le_bytes(self.take()?);
        let applied = match self.length(MAX_APPLIED_BYTES + 1)? {
            0 => None,
            length => Some(Bytes::copy_from_slice(self.slice(length - 1)?)),
        };
        let count = self.length(MAX_FILES)?;
        let mut files = Vec::new();
        for _ in 0..count {
            files.push(self.file()?);
        }
        Some(SnapshotManifest {
            store,
            group,
            applied,
            files,
        })
    }

    fn file(&mut self) -> Option<FileEntry> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let name = std::str::from_utf8(self.slice(length)?).ok()?;
        is_plain(name).then_some(())?;
        Some(FileEntry {
            name: name.to_owned(),
            length: u64::from_le_bytes(self.take()?),
            hash: self.take()?,
        })
    }
}

/// Whether a name can only mean a file in the directory itself.
fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn length32(length: usize) -> u32 {
    u32::try_from(length).expect("lengths in a manifest are bounded far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_manifest() -> impl Strategy<Value = SnapshotManifest> {
        let files = prop::collection::btree_map(
            "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}",
            any::<(u64, [u8; 32])>(),
            0..6,
        );
        (any::<bool>(), any::<u32>(), any::<Option<Vec<u8>>>(), files).prop_map(
            |(memory, group, applied, files)| SnapshotManifest {
                store: if memory {
                    StoreKind::Memory
                } else {
                    StoreKind::RocksDb
                },
                group,
                applied: applied.map(Bytes::from),
                files: files
                    .into_iter()
                    .map(|(name, (length, hash))| FileEntry { name, length, hash })
                    .collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_manifest_comes_back(manifest in any_manifest()) {
            prop_assert_eq!(SnapshotManifest::decode(&manifest.encode()).unwrap(), manifest);
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_refused(manifest in any_manifest(), at: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = manifest.encode().to_vec();
            let at = at.index(bytes.len());
            prop_assert!(SnapshotManifest::decode(&bytes[..at]).is_err());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(SnapshotManifest::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_with_a_right_checksum_are_refused_or_come_back(mut bytes in prop::collection::vec(0..4_u8, 0..80)) {
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            if let Ok(manifest) = SnapshotManifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_name_that_could_mean_another_place_is_refused() {
        for name in [
            "", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\0b", "a b", "ä",
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in [
            "CURRENT",
            "MANIFEST-000004",
            "000012.sst",
            "000013.blob",
            "dump",
        ] {
            assert!(is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn the_bytes_of_a_manifest_are_those_of_version_one() {
        let manifest = SnapshotManifest {
            store: StoreKind::RocksDb,
            group: 0x8001_0002,
            applied: Some(Bytes::from_static(b"m")),
            files: vec![FileEntry {
                name: "a".to_owned(),
                length: 5,
                hash: [7; 32],
            }],
        };
        let mut golden = vec![
            1, 1, 2, 0, 1, 0x80, 2, 0, 0, 0, b'm', 1, 0, 0, 0, 1, 0, b'a', 5, 0, 0, 0, 0, 0, 0, 0,
        ];
        golden.extend_from_slice(&[7; 32]);
        golden.extend_from_slice(&crc32c::crc32c(&golden).to_le_bytes());
        assert_eq!(manifest.encode(), golden);
    }
}
