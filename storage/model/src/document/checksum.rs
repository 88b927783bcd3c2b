//! The checksum that clients verify: `sha256(JSON.stringify({cookies, origins, indexedDB}))`.
//!
//! A section that JavaScript would print as it is stored goes straight into the hash; only others are printed anew.

use sha2::{Digest, Sha256};

use super::canonical;
use super::error::DocumentError;

/// SHA-256 of what `JSON.stringify` prints. Shown in lower-case hexadecimal.
pub type Checksum = [u8; 32];

/// The checksum of a document without cookies, origins and databases.
pub(super) const EMPTY: Checksum = [
    0xdc, 0xbf, 0xcd, 0xab, 0x99, 0x89, 0xed, 0xdc, 0xd6, 0x8f, 0xdf, 0xe1, 0x31, 0xc7, 0x19, 0x28,
    0x3e, 0x19, 0x60, 0xb8, 0x66, 0xb6, 0x00, 0xa3, 0xd3, 0x6d, 0x6d, 0xaf, 0xf2, 0x54, 0xf3, 0x2b,
];

/// One of the three parts of the checksum: its JSON text, without whitespace between tokens, and whether
/// `JSON.stringify` would print it otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) text: &'a [u8],
    pub(super) odd: bool,
}

impl Part<'_> {
    /// An array with nothing in it.
    pub(super) const EMPTY: Part<'static> = Part {
        text: b"[]",
        odd: false,
    };
}

/// The checksum of a document.
///
/// # Errors
/// When a part is not JSON.
pub(super) fn checksum(
    cookies: Part<'_>,
    origins: Part<'_>,
    indexed_db: Option<Part<'_>>,
) -> Result<Checksum, DocumentError> {
    let mut hash = Sha256::new();
    hash.update(b"{\"cookies\":");
    feed(&mut hash, cookies)?;
    hash.update(b",\"origins\":");
    feed(&mut hash, origins)?;
    if let Some(indexed_db) = indexed_db {
        hash.update(b",\"indexedDB\":");
        feed(&mut hash, indexed_db)?;
    }
    hash.update(b"}");
    Ok(hash.finalize().into())
}

fn feed(hash: &mut Sha256, part: Part<'_>) -> Result<(), DocumentError> {
    if part.odd {
        canonical::stream(part.text, |printed| hash.update(printed))
    } else {
        hash.update(part.text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, checksum};

    #[test]
    fn an_empty_session_has_the_checksum_that_every_client_knows() {
        let empty = checksum(Part::EMPTY, Part::EMPTY, None).unwrap();
        assert_eq!(empty, super::EMPTY);
        assert_eq!(
            hex::encode(empty),
            "dcbfcdab9989eddcd68fdfe131c719283e1960b866b600a3d36d6daff254f32b"
        );
    }

    #[test]
    fn an_odd_part_is_hashed_as_javascript_prints_it() {
        let odd = Part {
            text: br#"[{"b":1.0,"1":2}]"#,
            odd: true,
        };
        let printed = Part {
            text: br#"[{"1":2,"b":1}]"#,
            odd: false,
        };
        assert_eq!(
            checksum(odd, Part::EMPTY, Some(odd)).unwrap(),
            checksum(printed, Part::EMPTY, Some(printed)).unwrap()
        );
    }
}
