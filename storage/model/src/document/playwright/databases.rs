//! One IndexedDB database, both ways.
//!
//! The shapes differ in names (`stores` and `objectStores`, `keyPathArray` and a `keyPath` of several) and in records:
//! what Playwright encodes has its plain form beside it for those who do not know the encoding. If the way back does not
//! give the original, the original travels along, and counts for as long as the rest of the database is as it was made.

use super::super::canonical::canonical;
use super::super::error::DocumentError;
use super::super::members::{begin_member, end_object, members, push_key};
use super::super::text::Text;
use super::super::token::Kind;
use super::super::tokenizer::Reader;
use super::encoded::decode;
use super::notes::{Members, field, text_field};
use super::storage::close_list;

/// Whether encoded values get their plain form beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Beside,
    Left,
}

/// Appends a database of Playwright as one of the protocol. `origin` is the JSON text of its origin. Plain forms are left
/// out of a database for which they would take more than `budget` bytes; what they take is taken off.
pub(super) fn import_database(
    original: &[u8],
    origin: &[u8],
    budget: &mut usize,
    out: &mut Vec<u8>,
) -> Result<(), DocumentError> {
    let mut database = converted(original, origin, Plain::Beside)?;
    let grown = database.len().saturating_sub(original.len());
    match budget.checked_sub(grown) {
        Some(left) => *budget = left,
        None => database = converted(original, origin, Plain::Left)?,
    }
    let mut back = Vec::with_capacity(original.len());
    export_database(&members(&database)?, &mut back)?;
    if back != original {
        database.pop();
        database.extend_from_slice(b",\"playwright\":");
        database.extend_from_slice(original);
        database.push(b'}');
    }
    out.extend_from_slice(&database);
    Ok(())
}

/// Appends a database of the protocol as one of Playwright. `false`, and nothing, for one without a name.
pub(super) fn export_database(
    database: &[(Text<'_>, &[u8])],
    out: &mut Vec<u8>,
) -> Result<bool, DocumentError> {
    if let Some(original) =
        field(database, "playwright").filter(|original| original.starts_with(b"{"))
    {
        let origin = field(database, "origin").unwrap_or(b"null");
        let made = without(database, "playwright");
        for plain in [Plain::Beside, Plain::Left] {
            if same_json(&converted(original, origin, plain)?, &made)? {
                out.extend_from_slice(original);
                return Ok(true);
            }
        }
    }
    if text_field(database, "name").is_none() {
        return Ok(false);
    }
    let mut object = Vec::new();
    for (key, value) in database {
        if key.is("origin") || key.is("playwright") {
            continue;
        }
        begin_member(&mut object);
        if key.is("objectStores") {
            object.extend_from_slice(b"\"stores\":");
            push_list(value, &mut object, |store, out| export_store(&store, out))?;
        } else {
            push_key(&mut object, *key);
            object.extend_from_slice(value);
        }
    }
    push_default(database, "version", b"\"version\":1", &mut object);
    push_default(database, "objectStores", b"\"stores\":[]", &mut object);
    end_object(&mut object);
    out.extend_from_slice(&object);
    Ok(true)
}

fn converted(original: &[u8], origin: &[u8], plain: Plain) -> Result<Vec<u8>, DocumentError> {
    let mut object = b"{\"origin\":".to_vec();
    object.extend_from_slice(origin);
    for (key, value) in members(original)? {
        // Names that mean something else here; with one of them the original travels along.
        if key.is("origin") || key.is("objectStores") || key.is("playwright") {
            continue;
        }
        begin_member(&mut object);
        if key.is("stores") {
            object.extend_from_slice(b"\"objectStores\":");
            push_list(value, &mut object, |store, out| {
                import_store(&store, plain, out)
            })?;
        } else {
            push_key(&mut object, key);
            object.extend_from_slice(value);
        }
    }
    end_object(&mut object);
    Ok(object)
}

fn import_store(
    store: &Members<'_>,
    plain: Plain,
    out: &mut Vec<u8>,
) -> Result<bool, DocumentError> {
    let mut object = Vec::new();
    for (key, value) in store {
        begin_member(&mut object);
        if key.is("records") {
            push_key(&mut object, *key);
            push_list(value, &mut object, |record, out| {
                import_record(&record, plain, out);
                Ok(true)
            })?;
        } else if key.is("indexes") {
            push_key(&mut object, *key);
            push_list(value, &mut object, |index, out| {
                import_key_path(&index, out);
                Ok(true)
            })?;
        } else {
            push_key(
                &mut object,
                if key.is("keyPathArray") {
                    KEY_PATH
                } else {
                    *key
                },
            );
            object.extend_from_slice(value);
        }
    }
    push_no_key_path(store, &mut object);
    close_object(&object, out);
    Ok(true)
}

const KEY_PATH: Text<'static> = Text::new(b"keyPath", false);
const KEY_PATH_ARRAY: Text<'static> = Text::new(b"keyPathArray", false);

fn import_key_path(index: &Members<'_>, out: &mut Vec<u8>) {
    let mut object = Vec::new();
    for (key, value) in index {
        begin_member(&mut object);
        push_key(
            &mut object,
            if key.is("keyPathArray") {
                KEY_PATH
            } else {
                *key
            },
        );
        object.extend_from_slice(value);
    }
    push_no_key_path(index, &mut object);
    close_object(&object, out);
}

/// The protocol says `null` where Playwright says nothing.
fn push_no_key_path(from: &Members<'_>, object: &mut Vec<u8>) {
    if field(from, "keyPath").is_none() && field(from, "keyPathArray").is_none() {
        begin_member(object);
        object.extend_from_slice(b"\"keyPath\":null");
    }
}

fn import_record(record: &Members<'_>, plain: Plain, out: &mut Vec<u8>) {
    let mut object = Vec::new();
    for (key, value) in record {
        let pair = ENCODED.iter().find(|(encoded, _)| key.is(encoded));
        if let Some((_, name)) = pair.filter(|_| plain == Plain::Beside)
            && field(record, name).is_none()
            && let Some(decoded) = decode(value)
        {
            begin_member(&mut object);
            push_key(&mut object, Text::new(name.as_bytes(), false));
            object.extend_from_slice(&decoded);
        }
        begin_member(&mut object);
        push_key(&mut object, *key);
        object.extend_from_slice(value);
    }
    close_object(&object, out);
}

/// An encoded member of a record, and its plain form.
const ENCODED: [(&str, &str); 2] = [("keyEncoded", "key"), ("valueEncoded", "value")];

fn export_store(store: &Members<'_>, out: &mut Vec<u8>) -> Result<bool, DocumentError> {
    if text_field(store, "name").is_none() {
        return Ok(false);
    }
    let inline = field(store, "keyPath").is_some_and(|path| path != b"null");
    let mut object = Vec::new();
    for (key, value) in store {
        if key.is("records") {
            begin_member(&mut object);
            push_key(&mut object, *key);
            push_list(value, &mut object, |record, out| {
                export_record(&record, inline, out)
            })?;
        } else if key.is("indexes") {
            begin_member(&mut object);
            push_key(&mut object, *key);
            push_list(value, &mut object, |index, out| export_index(&index, out))?;
        } else {
            export_key_path(*key, value, &mut object);
        }
    }
    push_default(
        store,
        "autoIncrement",
        b"\"autoIncrement\":false",
        &mut object,
    );
    push_default(store, "records", b"\"records\":[]", &mut object);
    push_default(store, "indexes", b"\"indexes\":[]", &mut object);
    close_object(&object, out);
    Ok(true)
}

fn export_index(index: &Members<'_>, out: &mut Vec<u8>) -> Result<bool, DocumentError> {
    if text_field(index, "name").is_none() {
        return Ok(false);
    }
    let mut object = Vec::new();
    for (key, value) in index {
        export_key_path(*key, value, &mut object);
    }
    push_default(index, "multiEntry", b"\"multiEntry\":false", &mut object);
    push_default(index, "unique", b"\"unique\":false", &mut object);
    close_object(&object, out);
    Ok(true)
}

fn export_key_path(key: Text<'_>, value: &[u8], object: &mut Vec<u8>) {
    let path = key.is("keyPath");
    if path && value == b"null" {
        return;
    }
    begin_member(object);
    push_key(
        object,
        if path && value.starts_with(b"[") {
            KEY_PATH_ARRAY
        } else {
            key
        },
    );
    object.extend_from_slice(value);
}

fn export_record(
    record: &Members<'_>,
    inline: bool,
    out: &mut Vec<u8>,
) -> Result<bool, DocumentError> {
    let mut object = Vec::new();
    for (key, value) in record {
        let left_out = match ENCODED
            .iter()
            .find(|(encoded, plain)| key.is(encoded) || key.is(plain))
        {
            Some((encoded, plain)) => {
                let is_plain = key.is(plain);
                match (field(record, encoded), field(record, plain)) {
                    // The encoded form counts for as long as the plain one is what was made of it.
                    (Some(encoded), Some(plain)) => is_plain == is_plain_form(encoded, plain)?,
                    // With a key path, the key is in the value, and IndexedDB refuses another.
                    (None, Some(_)) => inline && *plain == "key",
                    (_, None) => false,
                }
            }
            None => false,
        };
        if !left_out {
            begin_member(&mut object);
            push_key(&mut object, *key);
            object.extend_from_slice(value);
        }
    }
    close_object(&object, out);
    Ok(true)
}

fn is_plain_form(encoded: &[u8], plain: &[u8]) -> Result<bool, DocumentError> {
    decode(encoded).map_or(Ok(false), |decoded| same_json(&decoded, plain))
}

/// Whether two texts are the same for JavaScript, however they are spelled.
fn same_json(one: &[u8], other: &[u8]) -> Result<bool, DocumentError> {
    Ok(one == other || canonical(one)? == canonical(other)?)
}

/// Appends a list in which each object is what `push` makes of it; one for which that says `false` is left out. What is
/// not a list is an empty one.
fn push_list(
    list: &[u8],
    out: &mut Vec<u8>,
    mut push: impl FnMut(Members<'_>, &mut Vec<u8>) -> Result<bool, DocumentError>,
) -> Result<(), DocumentError> {
    let mut separator = b'[';
    let mut reader = Reader::again(list, "");
    if reader.kind()? == Kind::Array {
        reader.enter_array()?;
        while reader.next_item()? {
            let before = out.len();
            out.push(separator);
            if push(members(reader.capture()?.text)?, out)? {
                separator = b',';
            } else {
                out.truncate(before);
            }
        }
    }
    close_list(out, separator);
    Ok(())
}

/// Appends a member if none of that name is there.
fn push_default(there: &[(Text<'_>, &[u8])], name: &str, member: &[u8], object: &mut Vec<u8>) {
    if field(there, name).is_none() {
        begin_member(object);
        object.extend_from_slice(member);
    }
}

fn without(from: &[(Text<'_>, &[u8])], name: &str) -> Vec<u8> {
    let mut object = Vec::new();
    for (key, value) in from.iter().filter(|(key, _)| !key.is(name)) {
        begin_member(&mut object);
        push_key(&mut object, *key);
        object.extend_from_slice(value);
    }
    end_object(&mut object);
    object
}

fn close_object(members: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(if members.is_empty() { b"{" } else { members });
    out.push(b'}');
}
