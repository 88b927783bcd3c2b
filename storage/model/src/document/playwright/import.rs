//! A storage state becomes the body of a document.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::limits::MAX_DOCUMENT_BYTES;

use super::super::compact::part;
use super::super::error::DocumentError;
use super::super::field::{COOKIE, Shape, check_field};
use super::super::members::{begin_member, end_object, members, push_key};
use super::super::text::Text;
use super::super::token::{Kind, Place};
use super::super::tokenizer::Reader;
use super::cookies::{Imported, import_cookie};
use super::databases::import_database;
use super::notes::{COOKIE_IDENTITY, Members, Note, ORIGIN_IDENTITY, identity_of};
use super::storage::{import_storage, push_members};

/// The body of a document that holds all of a storage state: cookies, origins, `indexedDB`, `playwright` and the source.
/// All of these are there, if need be empty, so that a `PUT` of the body leaves nothing of another state behind.
///
/// # Errors
/// When the body is not JSON, not a storage state, or too large.
pub fn from_playwright(body: &Bytes) -> Result<Vec<u8>, DocumentError> {
    converted(body, Nothing::IsEmpty)
}

/// How the body of a document says that a state has no databases, or that there is nothing to note of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// With an empty value.
    IsEmpty,
    /// By leaving the field out.
    IsAbsent,
}

/// See [`from_playwright`].
pub(super) fn converted(body: &Bytes, nothing: Nothing) -> Result<Vec<u8>, DocumentError> {
    let state = checked(body)?;
    let budget = MAX_DOCUMENT_BYTES.saturating_sub(state.len());
    let mut work = Work {
        budget,
        ..Work::default()
    };
    let mut note = Note::default();
    let mut order = Vec::new();
    for (key, value) in members(&state)? {
        order.push(key);
        match value {
            cookies if key.is("cookies") && cookies != b"null" => work.import_cookies(cookies)?,
            origins if key.is("origins") && origins != b"null" => work.import_origins(origins)?,
            other => note.extra.push((key, other)),
        }
    }
    let mut usual = vec![Text::new(b"cookies", false), Text::new(b"origins", false)];
    usual.extend(note.extra.iter().map(|(key, _)| *key));
    note.order = (order != usual).then_some(order);
    Ok(work.finish(&note, nothing))
}

/// What is made of a storage state so far. Lists are without brackets.
#[derive(Default)]
struct Work {
    cookies: Vec<u8>,
    origins: Vec<u8>,
    databases: Vec<u8>,
    cookie_notes: Vec<u8>,
    origin_notes: Vec<u8>,
    /// How many entries there are for each origin.
    entries: BTreeMap<Vec<u8>, usize>,
    /// Bytes that plain forms of encoded values may still take.
    budget: usize,
}

impl Work {
    fn import_cookies(&mut self, cookies: &[u8]) -> Result<(), DocumentError> {
        let mut imported = Vec::new();
        let mut like: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut reader = Reader::again(cookies, "cookies");
        reader.enter_array()?;
        while reader.next_item()? {
            let cookie = import_cookie(reader.capture()?.text)?;
            let identity = identity_of(&cookie.identity, COOKIE_IDENTITY)?;
            let count = like.entry(identity.clone()).or_insert(0);
            *count = count.saturating_add(1);
            imported.push((identity, cookie));
        }
        for (
            identity,
            Imported {
                cookie,
                identity: of,
                note,
            },
        ) in imported
        {
            separate(&mut self.cookies);
            push_members(&cookie, &mut self.cookies);
            // Of several that are alike each has a note, so that each gets its own back.
            if !note.is_empty() || like.get(&identity).is_some_and(|count| *count > 1) {
                separate(&mut self.cookie_notes);
                note.write(&of, &mut self.cookie_notes);
            }
        }
        Ok(())
    }

    fn import_origins(&mut self, origins: &[u8]) -> Result<(), DocumentError> {
        // Databases are found again by their origin, so it matters whether an origin is there more than once.
        let mut reader = Reader::again(origins, "origins");
        reader.enter_array()?;
        while reader.next_item()? {
            let identity = identity_of(&members(reader.capture()?.text)?, ORIGIN_IDENTITY)?;
            let count = self.entries.entry(identity).or_insert(0);
            *count = count.saturating_add(1);
        }
        let mut reader = Reader::again(origins, "origins");
        reader.enter_array()?;
        while reader.next_item()? {
            self.import_origin(&members(reader.capture()?.text)?)?;
        }
        Ok(())
    }

    fn import_origin(&mut self, original: &Members<'_>) -> Result<(), DocumentError> {
        let mut origin = Vec::new();
        let mut usual = Vec::new();
        let mut note = Note::default();
        let mut databases = None;
        for (key, value) in original {
            let null = *value == b"null";
            if key.is("origin") && !null {
                begin_member(&mut origin);
                push_key(&mut origin, *key);
                origin.extend_from_slice(value);
                usual.push(*key);
            } else if key.is("localStorage") && !null {
                begin_member(&mut origin);
                push_key(&mut origin, *key);
                import_storage(value, &mut origin)?;
                usual.push(*key);
            } else if key.is("indexedDB") && !null {
                databases = Some((*key, *value));
            } else {
                note.extra.push((*key, *value));
            }
        }
        let has_storage = usual.len() > 1;
        end_object(&mut origin);
        separate(&mut self.origins);
        self.origins.extend_from_slice(&origin);
        let identity: Members<'_> = original
            .iter()
            .filter(|(key, _)| key.is("origin"))
            .copied()
            .collect();
        let count = match databases {
            Some((_, list)) => self.import_databases(list, &identity)?,
            None => 0,
        };
        usual.extend(databases.filter(|_| count > 0).map(|(key, _)| key));
        usual.extend(note.extra.iter().map(|(key, _)| *key));
        let order: Vec<_> = original.iter().map(|(key, _)| *key).collect();
        if usual != order || !has_storage {
            note.order = Some(order);
        }
        if self
            .entries
            .get(&identity_of(&identity, ORIGIN_IDENTITY)?)
            .is_some_and(|count| *count > 1)
        {
            note.databases = Some(count);
        }
        if !note.is_empty() {
            separate(&mut self.origin_notes);
            note.write(&identity, &mut self.origin_notes);
        }
        Ok(())
    }

    fn import_databases(
        &mut self,
        list: &[u8],
        identity: &Members<'_>,
    ) -> Result<usize, DocumentError> {
        let origin = identity.first().map_or(&b"null"[..], |(_, origin)| *origin);
        let mut count: usize = 0;
        let mut reader = Reader::again(list, "");
        reader.enter_array()?;
        while reader.next_item()? {
            separate(&mut self.databases);
            import_database(
                reader.capture()?.text,
                origin,
                &mut self.budget,
                &mut self.databases,
            )?;
            count = count.saturating_add(1);
        }
        Ok(count)
    }

    fn finish(self, note: &Note<'_>, nothing: Nothing) -> Vec<u8> {
        let mut body = SOURCE.as_bytes().to_vec();
        body.extend_from_slice(b",\"cookies\":[");
        body.extend_from_slice(&self.cookies);
        body.extend_from_slice(b"],\"origins\":[");
        body.extend_from_slice(&self.origins);
        body.push(b']');
        if !self.databases.is_empty() || nothing == Nothing::IsEmpty {
            body.extend_from_slice(b",\"indexedDB\":[");
            body.extend_from_slice(&self.databases);
            body.push(b']');
        }
        let mut notes = Vec::new();
        for (name, list) in [
            ("cookies", &self.cookie_notes),
            ("origins", &self.origin_notes),
        ] {
            if !list.is_empty() {
                begin_member(&mut notes);
                push_key(&mut notes, Text::new(name.as_bytes(), false));
                notes.push(b'[');
                notes.extend_from_slice(list);
                notes.push(b']');
            }
        }
        note.write_members(&mut notes);
        end_object(&mut notes);
        if !notes.is_empty() || nothing == Nothing::IsEmpty {
            body.extend_from_slice(b",\"playwright\":");
            body.extend_from_slice(if notes.is_empty() { b"{}" } else { &notes });
        }
        body.push(b'}');
        body
    }
}

/// Where a storage state comes from, without the end of the object.
const SOURCE: &str = r#"{"source":{"type":"playwright","captureMethod":"storage-state"}"#;

/// What Playwright says its states are.
const ORIGIN: &[(&str, Shape)] = &[
    ("origin", Shape::Text),
    ("indexedDB", Shape::List(&Shape::Fields(DATABASE))),
];
/// With the types that the protocol gives to further fields, because they become fields of the protocol.
const STORAGE_ENTRY: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("value", Shape::Text),
    ("key", Shape::Text),
    ("size", Shape::Number),
    ("truncated", Shape::Boolean),
];
const DATABASE: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("version", Shape::Number),
    ("stores", Shape::List(&Shape::Fields(STORE))),
];
const STORE: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("autoIncrement", Shape::Boolean),
    ("keyPath", Shape::Text),
    ("keyPathArray", Shape::List(&Shape::Text)),
    ("records", Shape::List(&Shape::Fields(&[]))),
    ("indexes", Shape::List(&Shape::Fields(INDEX))),
];
const INDEX: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("keyPath", Shape::Text),
    ("keyPathArray", Shape::List(&Shape::Text)),
    ("multiEntry", Shape::Boolean),
    ("unique", Shape::Boolean),
];

/// The state without whitespace between tokens, checked.
fn checked(body: &Bytes) -> Result<Bytes, DocumentError> {
    let mut reader = Reader::new(body)?;
    let (raw, ()) = reader.capture_with(|reader| {
        reader.enter_object()?;
        while let Some(key) = reader.next_key()? {
            if reader.kind()? != Kind::Null && key.is("origins") {
                reader.enter_array()?;
                while reader.next_item()? {
                    check_origin(reader)?;
                }
            } else {
                check_field(
                    reader,
                    &[("cookies", Shape::List(&Shape::Fields(COOKIE)))],
                    key,
                )?;
            }
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(part(body, raw).text)
}

fn check_origin(reader: &mut Reader<'_>) -> Result<(), DocumentError> {
    let expected = "an object with an origin";
    let mut named = false;
    let place = reader.place();
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        let null = reader.kind()? == Kind::Null;
        named = if key.is("origin") { !null } else { named };
        if key.is("localStorage") && !null {
            reader.enter_array()?;
            while reader.next_item()? {
                check_entry(reader)?;
            }
        } else {
            check_field(reader, ORIGIN, key)?;
        }
    }
    if named {
        Ok(())
    } else {
        Err(refused(reader, place, expected))
    }
}

/// Playwright wants both; the way back would make up a value, and takes an entry without a name for the protocol's.
fn check_entry(reader: &mut Reader<'_>) -> Result<(), DocumentError> {
    let expected = "an object with a name and a value";
    let (mut named, mut valued) = (false, false);
    let place = reader.place();
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        let there = reader.kind()? != Kind::Null;
        // Of a field that is there twice, the last one counts.
        named = if key.is("name") { there } else { named };
        valued = if key.is("value") { there } else { valued };
        check_field(reader, STORAGE_ENTRY, key)?;
    }
    if named && valued {
        Ok(())
    } else {
        Err(refused(reader, place, expected))
    }
}

fn refused(reader: &mut Reader<'_>, place: Place, expected: &'static str) -> DocumentError {
    reader.rewind(place);
    reader.wrong_type(expected)
}

/// Appends the comma before an element that is not the first of its list.
fn separate(list: &mut Vec<u8>) {
    if !list.is_empty() {
        list.push(b',');
    }
}
