//! A document becomes a storage state.

use std::collections::{BTreeMap, VecDeque};

use super::super::error::DocumentError;
use super::super::field::Field;
use super::super::members::members;
use super::super::sections::Sections;
use super::super::text::Text;
use super::super::token::Kind;
use super::super::tokenizer::Reader;
use super::cookies::export_cookie;
use super::databases::export_database;
use super::notes::{
    COOKIE_IDENTITY, Members, Note, Notes, ORIGIN_IDENTITY, field, identity_of, text_field,
};
use super::storage::{close_list, export_storage, push_members};

/// The document's state for Playwright. What came from Playwright and was not changed comes out as it went in; see
/// the module for the rest.
///
/// # Errors
/// [`DocumentError::Stored`] when the stored document cannot be read.
pub fn to_playwright(sections: &Sections) -> Result<Vec<u8>, DocumentError> {
    let text = |field| sections.text(field).unwrap_or(b"[]");
    let notes = members(sections.text(Field::Playwright).unwrap_or_default())?;
    let list = |name| field(&notes, name).unwrap_or(b"[]");
    let cookies = export_cookies(
        text(Field::Cookies),
        Notes::read(list("cookies"), COOKIE_IDENTITY)?,
    )?;
    let databases = Databases::read(text(Field::IndexedDb))?;
    let origins = export_origins(
        text(Field::Origins),
        databases,
        Notes::read(list("origins"), ORIGIN_IDENTITY)?,
    )?;
    let note = Note::read(&notes)?;
    let mut state: Members<'_> = Vec::new();
    for (name, list) in [("cookies", &cookies), ("origins", &origins)] {
        // What a state did not have, it does not get, unless there is something in it now.
        let noted = note
            .order
            .as_ref()
            .is_none_or(|order| order.iter().any(|key| key.is(name)));
        let null = field(&note.extra, name).is_some();
        if (noted && !null) || list != b"[]" {
            state.push((Text::new(name.as_bytes(), false), list));
        }
    }
    note.complete(&mut state);
    let mut out = Vec::with_capacity(
        cookies
            .len()
            .saturating_add(origins.len())
            .saturating_add(64),
    );
    push_members(&state, &mut out);
    Ok(out)
}

fn export_cookies(cookies: &[u8], mut notes: Notes<'_>) -> Result<Vec<u8>, DocumentError> {
    let mut out = Vec::with_capacity(cookies.len());
    let mut separator = b'[';
    let mut reader = Reader::again(cookies, Field::Cookies.name());
    if reader.kind()? == Kind::Array {
        reader.enter_array()?;
        while reader.next_item()? {
            let cookie = members(reader.capture()?.text)?;
            let note = notes
                .take(&identity_of(&cookie, COOKIE_IDENTITY)?)
                .unwrap_or_default();
            out.push(separator);
            if export_cookie(cookie, &note, &mut out) {
                separator = b',';
            } else {
                out.pop();
            }
        }
    }
    close_list(&mut out, separator);
    Ok(out)
}

/// The databases that no origin has taken yet.
#[derive(Default)]
struct Databases<'a> {
    by_origin: BTreeMap<Vec<u8>, VecDeque<Members<'a>>>,
    /// The origins in the order in which they were met.
    order: Vec<Vec<u8>>,
}

impl<'a> Databases<'a> {
    fn read(list: &'a [u8]) -> Result<Self, DocumentError> {
        let mut databases = Self::default();
        let mut reader = Reader::again(list, Field::IndexedDb.name());
        if reader.kind()? == Kind::Array {
            reader.enter_array()?;
            while reader.next_item()? {
                let database = members(reader.capture()?.text)?;
                if text_field(&database, "origin").is_some() {
                    let identity = identity_of(&database, ORIGIN_IDENTITY)?;
                    let of_origin =
                        databases
                            .by_origin
                            .entry(identity.clone())
                            .or_insert_with(|| {
                                databases.order.push(identity);
                                VecDeque::new()
                            });
                    of_origin.push_back(database);
                }
            }
        }
        Ok(databases)
    }

    /// Takes an origin's databases, at most so many, and writes them as a list; `None` when there are none.
    fn export(
        &mut self,
        identity: &[u8],
        most: Option<usize>,
    ) -> Result<Option<Vec<u8>>, DocumentError> {
        let Some(of_origin) = self.by_origin.get_mut(identity) else {
            return Ok(None);
        };
        let count = most.unwrap_or(usize::MAX).min(of_origin.len());
        let mut out = Vec::new();
        let mut separator = b'[';
        for database in of_origin.drain(..count) {
            out.push(separator);
            if export_database(&database, &mut out)? {
                separator = b',';
            } else {
                out.pop();
            }
        }
        Ok((separator == b',').then(|| {
            close_list(&mut out, separator);
            out
        }))
    }
}

fn export_origins(
    origins: &[u8],
    mut databases: Databases<'_>,
    mut notes: Notes<'_>,
) -> Result<Vec<u8>, DocumentError> {
    let mut out = Vec::with_capacity(origins.len());
    let mut separator = b'[';
    let mut reader = Reader::again(origins, Field::Origins.name());
    if reader.kind()? == Kind::Array {
        reader.enter_array()?;
        while reader.next_item()? {
            let origin = members(reader.capture()?.text)?;
            if text_field(&origin, "origin").is_none() {
                continue;
            }
            let identity = identity_of(&origin, ORIGIN_IDENTITY)?;
            let note = notes.take(&identity).unwrap_or_default();
            let of_origin = databases.export(&identity, note.databases)?;
            out.push(std::mem::replace(&mut separator, b','));
            export_origin(&origin, of_origin, &note, &mut out)?;
        }
    }
    // Databases of origins that have nothing else.
    for identity in std::mem::take(&mut databases.order) {
        let first = databases.by_origin.get(&identity).and_then(VecDeque::front);
        let Some(origin) = first.and_then(|database| text_field(database, "origin")) else {
            continue;
        };
        let origin = vec![(Text::new(b"origin", false), origin)];
        if let Some(of_origin) = databases.export(&identity, None)? {
            out.push(std::mem::replace(&mut separator, b','));
            let note = notes.take(&identity).unwrap_or_default();
            export_origin(&origin, Some(of_origin), &note, &mut out)?;
        }
    }
    close_list(&mut out, separator);
    Ok(out)
}

fn export_origin(
    origin: &Members<'_>,
    databases: Option<Vec<u8>>,
    note: &Note<'_>,
    out: &mut Vec<u8>,
) -> Result<(), DocumentError> {
    let noted = |name: &str| {
        note.order
            .as_ref()
            .is_some_and(|order| order.iter().any(|key| key.is(name)))
    };
    let null = |name: &str| field(&note.extra, name).is_some();
    let mut storage = Vec::new();
    let sent = field(origin, "localStorage").filter(|storage| *storage != b"null");
    if let Some(sent) = sent {
        export_storage(sent, &mut storage)?;
    } else if note.order.is_none() || (noted("localStorage") && !null("localStorage")) {
        storage.extend_from_slice(b"[]");
    }
    let mut databases = databases.unwrap_or_default();
    if databases.is_empty() && noted("indexedDB") && !null("indexedDB") {
        databases.extend_from_slice(b"[]");
    }
    let mut exported: Members<'_> = Vec::new();
    for (key, value) in origin {
        if key.is("origin") {
            exported.push((*key, value));
        } else if key.is("localStorage") && !storage.is_empty() {
            exported.push((*key, &storage));
        }
    }
    if !storage.is_empty() && field(&exported, "localStorage").is_none() {
        exported.push((Text::new(b"localStorage", false), &storage));
    }
    if !databases.is_empty() {
        exported.push((Text::new(b"indexedDB", false), &databases));
    }
    note.complete(&mut exported);
    push_members(&exported, out);
    Ok(())
}
