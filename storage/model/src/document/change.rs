//! Making a document, and changing one: what `POST`, `PUT` and `PATCH` do to it.
//!
//! A section that a change leaves alone is neither read nor copied; its counts are taken over from the summary, and the
//! checksum is computed anew only if one of its three parts has changed.

use bytes::Bytes;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::time::UnixMillis;

use super::compact::part;
use super::date::format_date;
use super::error::DocumentError;
use super::field::Field;
use super::members::{Rule, begin_member, end_object, inner, lay_over, members, push_key};
use super::parse::{Cookies, Given, MADE_HERE, Origin, Parsed, Times, is_encrypted};
use super::sections::{Part, Sections};
use super::serve::{DEFAULT_BROWSER_CONTEXT, DEFAULT_SOURCE};
use super::summary::{DEFAULT_NAME, Summary};
use super::text::push_json;
use super::token::Kind;
use super::tokenizer::Reader;

/// A conversion may add this much to a body of the largest size.
const CONVERSION_BYTES: usize = 1024 * 1024;

/// A document ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its parts, with the summary in them.
    pub sections: Sections,
    /// What a list shows of it.
    pub summary: Summary,
    /// When it says that it expires.
    pub expires: Option<UnixMillis>,
}

/// A new document from a version 2 body. An empty body and an array give the defaults; for a body that is not JSON by
/// its content type, pass an empty one.
///
/// # Errors
/// When the body is not JSON, a known field has a wrong type, or it is too large.
pub fn create(body: &Bytes) -> Result<Input, DocumentError> {
    created(Parsed::read(body, Origin::Client)?)
}

/// The document after a `PUT`: for each of name, description, tags, cookies, origins, indexedDB, serviceWorkers,
/// browserContext, encryption, playwright, `timestamps.expires` and the fields that we do not know, the body's value if
/// it is there and not null, else the old.
///
/// # Errors
/// As [`create`], and when the document would become too large.
pub fn put(current: &Sections, body: &Bytes) -> Result<Input, DocumentError> {
    replaced(current.clone(), Parsed::read(body, Origin::Client)?)
}

/// The document after a JSON merge patch (RFC 7396). What is made when the document is served (id, checksum, schema,
/// version, times of creation and change) cannot be patched: it is ignored.
///
/// # Errors
/// As [`put`]; an empty body, and one that is not an object, is refused.
pub fn patch(current: &Sections, body: &Bytes) -> Result<Input, DocumentError> {
    let body = checked_patch(body)?;
    // The fields that change, with their new values, and the members that we do not know.
    let mut known = Vec::with_capacity(body.len());
    let mut unknown = Vec::new();
    for (key, value) in members(&body)? {
        let field = Field::of_key(key);
        let times = key.is("timestamps");
        if MADE_HERE.iter().any(|name| key.is(name)) {
            continue;
        }
        if field.is_none() && !times {
            begin_member(&mut unknown);
            push_key(&mut unknown, key);
            unknown.extend_from_slice(value);
            continue;
        }
        begin_member(&mut known);
        push_key(&mut known, key);
        if value.starts_with(b"{") {
            let times = if times {
                times_text(current)
            } else {
                Vec::new()
            };
            let under = field.map_or(&*times, |field| served_text(current, field));
            known.extend_from_slice(&lay_over(under, value, Rule::Merge)?);
        } else {
            known.extend_from_slice(value);
        }
    }
    end_object(&mut known);
    end_object(&mut unknown);
    let mut sections = current.clone();
    if !unknown.is_empty() {
        let rest = lay_over(&sections.rest, &unknown, Rule::Merge)?;
        sections.rest = stored_object(rest);
    }
    patched(sections, Parsed::read(&known.into(), Origin::Made)?)
}

/// What a body makes that was read before.
pub(super) fn created(mut parsed: Parsed) -> Result<Input, DocumentError> {
    let mut change = Change::of(Sections::default());
    for field in Field::ALL {
        if let Some(part) = parsed.take(field).value() {
            change.set(field, Some(part), &parsed);
        }
    }
    if change.sections.text(Field::Name) == Some(b"\"\"") {
        change.set(Field::Name, None, &parsed);
    }
    if let Some(times) = std::mem::take(&mut parsed.times).value() {
        change.set_times(times);
    }
    change.sections.rest = std::mem::take(&mut parsed.rest).into();
    change.finish(&parsed)
}

/// What a body makes of a document, by the rule of `PUT`.
pub(super) fn replaced(current: Sections, mut parsed: Parsed) -> Result<Input, DocumentError> {
    let mut change = Change::of(current);
    for field in Field::ALL
        .into_iter()
        .filter(|field| *field != Field::Source)
    {
        if let Some(part) = parsed.take(field).value() {
            change.set(field, Some(part), &parsed);
        }
    }
    let sections = &mut change.sections;
    if let Given::Value(times) = &parsed.times {
        sections.expires = times.expires.or(sections.expires);
        if !times.rest.is_empty() {
            sections.times = stored_object(lay_over(&sections.times, &times.rest, Rule::Replace)?);
        }
    }
    if !parsed.rest.is_empty() {
        sections.rest = stored_object(lay_over(&sections.rest, &parsed.rest, Rule::Replace)?);
    }
    change.finish(&parsed)
}

fn patched(current: Sections, mut parsed: Parsed) -> Result<Input, DocumentError> {
    let mut change = Change::of(current);
    for field in Field::ALL {
        match parsed.take(field) {
            Given::Absent => {}
            Given::Null => change.set(field, None, &parsed),
            Given::Value(part) => change.set(field, Some(part), &parsed),
        }
    }
    match std::mem::take(&mut parsed.times) {
        Given::Absent => {}
        Given::Null => change.set_times(Times::default()),
        Given::Value(times) => change.set_times(times),
    }
    change.finish(&parsed)
}

/// A document while it is changed.
struct Change {
    sections: Sections,
    /// A part of the checksum is another one now.
    hashed: bool,
}

impl Change {
    const fn of(sections: Sections) -> Self {
        Self {
            sections,
            hashed: false,
        }
    }

    /// Gives a field a value, or takes it away, and keeps the summary in step.
    fn set(&mut self, field: Field, part: Option<Part>, parsed: &Parsed) {
        let text = part.as_ref().map(|part| &*part.text);
        let summary = &mut self.sections.summary;
        match field {
            Field::Name => {
                summary.set_name(text.and_then(string).as_deref().unwrap_or(DEFAULT_NAME));
            }
            Field::Description => summary.set_description(text.and_then(string).as_deref()),
            Field::Tags => summary.set_tags(text.map(strings).unwrap_or_default().iter()),
            Field::Cookies => {
                let cookies = if text.is_some() {
                    parsed.cookies.clone()
                } else {
                    Cookies::default()
                };
                summary.cookie_count = cookies.count;
                summary.set_domains(
                    cookies.domains.iter().map(String::as_str),
                    cookies.domain_count,
                );
                self.hashed = true;
            }
            Field::Origins => {
                summary.origin_count = if text.is_some() {
                    parsed.origin_count
                } else {
                    0
                };
                self.hashed = true;
            }
            Field::IndexedDb => self.hashed = true,
            Field::ServiceWorkers
            | Field::BrowserContext
            | Field::Source
            | Field::Encryption
            | Field::Playwright => {}
        }
        self.sections.set(field, part);
    }

    fn set_times(&mut self, times: Times) {
        let captured = times.captured.as_deref().and_then(string);
        self.sections.summary.set_captured(captured.as_deref());
        self.sections.captured = times.captured;
        self.sections.expires = times.expires;
        self.sections.times = stored_object(times.rest);
    }

    fn finish(mut self, parsed: &Parsed) -> Result<Input, DocumentError> {
        let encryption = self.sections.text(Field::Encryption);
        if let Some((_, error)) = parsed
            .refused
            .iter()
            .find(|(field, _)| !is_encrypted(encryption, *field))
        {
            return Err(error.clone());
        }
        self.complete_source()?;
        if self.sections.len() > MAX_DOCUMENT_BYTES.saturating_add(CONVERSION_BYTES) {
            return Err(DocumentError::TooLarge {
                limit: MAX_DOCUMENT_BYTES,
            });
        }
        if self.hashed {
            self.sections.recompute()?;
        }
        let Sections {
            summary, expires, ..
        } = &self.sections;
        Ok(Input {
            summary: summary.clone(),
            expires: *expires,
            sections: self.sections,
        })
    }

    /// A source says at least of which type it is and how it was captured.
    fn complete_source(&mut self) -> Result<(), DocumentError> {
        let Some(source) = self
            .sections
            .text(Field::Source)
            .filter(|source| source.starts_with(b"{"))
        else {
            self.sections.summary.set_source(None);
            return Ok(());
        };
        let given = members(source)?;
        let has = |name: &str| {
            let value = given
                .iter()
                .find(|(key, _)| key.is(name))
                .map(|(_, value)| *value);
            value.is_some_and(|value| value != b"null" && value != b"\"\"")
        };
        let defaults = match (has("type"), has("captureMethod")) {
            (true, true) => "",
            (false, true) => DEFAULT_TYPE,
            (true, false) => DEFAULT_METHOD,
            (false, false) => DEFAULT_SOURCE,
        };
        if !defaults.is_empty() {
            let text = lay_over(source, defaults.as_bytes(), Rule::Replace)?.into();
            self.sections
                .set(Field::Source, Some(Part { text, odd: false }));
        }
        let Sections {
            fields, summary, ..
        } = &mut self.sections;
        let source = fields.get(Field::Source as usize).and_then(Option::as_ref);
        summary.set_source(source.map(|part| &*part.text));
        Ok(())
    }
}

const DEFAULT_TYPE: &str = r#"{"type":"api"}"#;
const DEFAULT_METHOD: &str = r#"{"captureMethod":"manual"}"#;

/// A patch without whitespace between tokens, checked as JSON.
fn checked_patch(body: &Bytes) -> Result<Bytes, DocumentError> {
    let mut reader = Reader::new(body)?;
    if reader.kind()? != Kind::Object {
        return Err(reader.wrong_type("an object"));
    }
    let raw = reader.capture()?;
    reader.end()?;
    Ok(part(body, raw).text)
}

/// A field as it is served, as far as a patch can merge with it.
fn served_text(sections: &Sections, field: Field) -> &[u8] {
    sections.text(field).unwrap_or(match field {
        Field::BrowserContext => DEFAULT_BROWSER_CONTEXT.as_bytes(),
        Field::Source => DEFAULT_SOURCE.as_bytes(),
        Field::Name
        | Field::Description
        | Field::Tags
        | Field::Cookies
        | Field::Origins
        | Field::IndexedDb
        | Field::ServiceWorkers
        | Field::Encryption
        | Field::Playwright => b"",
    })
}

/// What of `timestamps` is stored, as an object.
fn times_text(sections: &Sections) -> Vec<u8> {
    let mut times = Vec::new();
    if let Some(captured) = &sections.captured {
        begin_member(&mut times);
        times.extend_from_slice(b"\"captured\":");
        times.extend_from_slice(captured);
    }
    if let Some(expires) = sections.expires {
        begin_member(&mut times);
        times.extend_from_slice(b"\"expires\":");
        push_json(&mut times, &format_date(expires));
    }
    if let Some(unknown) = inner(&sections.times) {
        begin_member(&mut times);
        times.extend_from_slice(unknown);
    }
    end_object(&mut times);
    times
}

/// An object without members is not stored.
fn stored_object(object: Vec<u8>) -> Bytes {
    if inner(&object).is_some() {
        object.into()
    } else {
        Bytes::new()
    }
}

fn string(text: &[u8]) -> Option<String> {
    Reader::again(text, "")
        .text()
        .ok()
        .map(|text| text.lossy().into_owned())
}

fn strings(list: &[u8]) -> Vec<String> {
    let mut strings = Vec::new();
    let mut reader = Reader::again(list, "");
    if reader.enter_array().is_ok() {
        while reader.next_item() == Ok(true) {
            let Ok(text) = reader.text() else { break };
            strings.push(text.lossy().into_owned());
        }
    }
    strings
}
