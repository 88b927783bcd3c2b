//! The PSP document, cut into the parts that are stored.

use bincode::{Decode, Encode};
use bytes::Bytes;

/// A document cut into the parts that are stored, each the JSON text as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// Name, description, tags, browser context, source and the like.
    pub head: Bytes,
    /// The cookies.
    pub cookies: Bytes,
    /// The origins with their storage.
    pub origins: Bytes,
    /// The databases, if any.
    pub indexed_db: Option<Bytes>,
    /// Fields that we do not know.
    pub rest: Bytes,
    /// See `psp-api.md`, section 4.
    pub checksum: [u8; 32],
}

/// What a list shows of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Summary {
    /// The session's name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// What a clean did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct CleanReport {
    /// Cookies removed.
    pub removed: u64,
    /// Cookies left.
    pub remaining: u64,
}
