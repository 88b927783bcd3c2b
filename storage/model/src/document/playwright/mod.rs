//! Playwright's storage state, both ways.
//!
//! | file | what |
//! |---|---|
//! | `import` | a storage state becomes the body of a document |
//! | `export` | a document becomes a storage state |
//! | `cookies`, `storage`, `databases` | one cookie, one origin's localStorage, one IndexedDB database, both ways |
//! | `encoded` | what a value in Playwright's encoding looks like as plain JSON |
//! | `notes` | the document's field `playwright`: what the protocol has no place for |
//!
//! There and back is equal as JSON, keys in their order, for every state that is taken. In between, a client of the
//! protocol sees cookies, localStorage and databases in the protocol's shape and may change them: what it changed
//! comes out changed, and what it could not see stays with the cookie, origin or record it belongs to.
//!
//! - **Cookies** have the fields that the protocol knows; others (`_crHasCrossSiteAncestor`) are noted, by the cookie's
//!   name, domain, path and partition key. Notes hold no value of a cookie, so a cookie that is removed is gone.
//! - **Origins**: `localStorage` entries `{name, value}` are `{key, value}`; `opfs` and whatever else an origin has is
//!   noted by origin.
//! - **Databases** are the document's `indexedDB`. A record that Playwright encodes has its plain form in `value` (`key`)
//!   and the encoded one beside it, in `valueEncoded` (`keyEncoded`), which counts for as long as `value` is what it
//!   was. A database of which the protocol's shape would lose something carries the original in its own `playwright`.
//! - **Credentials** and other members of the state are noted as they are.
//!
//! A document that Playwright never saw becomes a state that Playwright takes: what Playwright requires is filled in, and
//! what it would refuse (a cookie without domain, an origin without a name) is left out.

mod cookies;
mod databases;
mod encoded;
mod export;
mod import;
mod notes;
mod storage;

use bytes::Bytes;

use super::change::{Input, created, replaced};
use super::error::DocumentError;
use super::field::Field;
use super::parse::{Given, Origin, Parsed};
use super::sections::Sections;

pub use export::to_playwright;
pub use import::from_playwright;
use import::{Nothing, converted};

/// A new document from a storage state.
///
/// # Errors
/// As [`create`](super::create); the paths in errors are those of the state.
pub fn create_playwright(body: &Bytes) -> Result<Input, DocumentError> {
    created(Parsed::read(
        &converted(body, Nothing::IsAbsent)?.into(),
        Origin::Made,
    )?)
}

/// The document with the storage state in place of the one it had. What a state does not have, as name and tags, stays.
///
/// # Errors
/// As [`put`](super::put); the paths in errors are those of the state.
pub fn put_playwright(current: &Sections, body: &Bytes) -> Result<Input, DocumentError> {
    let mut parsed = Parsed::read(&converted(body, Nothing::IsAbsent)?.into(), Origin::Made)?;
    let mut current = current.clone();
    for field in [Field::IndexedDb, Field::Playwright] {
        match parsed.take(field) {
            Given::Value(part) => parsed.give(field, part),
            Given::Absent | Given::Null => current.set(field, None),
        }
    }
    replaced(current, parsed)
}
