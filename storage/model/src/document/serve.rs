//! The document as a client gets it: the stored parts, and what is made anew each time, in a fixed order.

use crate::id::{SessionId, Version};
use crate::time::UnixMillis;

use super::date::format_date;
use super::field::Field;
use super::members::inner;
use super::sections::Sections;
use super::text::push_json;
use super::v1::push_v1;

/// The browser context of a session that was given none.
pub(super) const DEFAULT_BROWSER_CONTEXT: &str =
    r#"{"userAgent":"","viewport":{"width":1920,"height":1080}}"#;
/// The source of a session that was given none.
pub(super) const DEFAULT_SOURCE: &str = r#"{"type":"api","captureMethod":"manual"}"#;
const DEFAULT_NAME_JSON: &str = r#""Untitled Session""#;

/// Room for all that is put in when a document is served.
const MADE_BYTES: usize = 1024;

/// A document, and what its session's record knows.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The session.
    pub id: SessionId,
    /// Its version.
    pub version: Version,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was changed last.
    pub updated: UnixMillis,
    /// When it expires, if ever.
    pub expires: Option<UnixMillis>,
    /// The document's parts.
    pub sections: &'a Sections,
}

/// The version 2 document.
#[must_use]
pub fn serve(served: &Served<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(served.sections.len().saturating_add(MADE_BYTES));
    push_document(&mut out, served);
    push_checksum(&mut out, served.sections);
    out
}

/// The version 2 document with the fields of version 1 in it.
#[must_use]
pub fn serve_v1(served: &Served<'_>) -> Vec<u8> {
    let room = served
        .sections
        .len()
        .saturating_mul(2)
        .saturating_add(MADE_BYTES);
    let mut out = Vec::with_capacity(room);
    push_document(&mut out, served);
    push_v1(&mut out, served);
    push_checksum(&mut out, served.sections);
    out
}

fn push_document(out: &mut Vec<u8>, served: &Served<'_>) {
    let sections = served.sections;
    out.extend_from_slice(
        b"{\"$schema\":\"https://psp.dev/schema/v2.json\",\"protocolVersion\":\"2.0.0\",\"id\":",
    );
    push_json(out, &served.id.to_string());
    push_field(out, sections, Field::Name, Some(DEFAULT_NAME_JSON));
    push_field(out, sections, Field::Description, None);
    push_field(out, sections, Field::Tags, Some("[]"));
    push_field(out, sections, Field::Cookies, Some("[]"));
    push_field(out, sections, Field::Origins, Some("[]"));
    push_field(out, sections, Field::IndexedDb, None);
    push_field(out, sections, Field::ServiceWorkers, None);
    push_field(
        out,
        sections,
        Field::BrowserContext,
        Some(DEFAULT_BROWSER_CONTEXT),
    );
    push_field(out, sections, Field::Source, Some(DEFAULT_SOURCE));
    push_times(out, served);
    push_field(out, sections, Field::Encryption, None);
    push_field(out, sections, Field::Playwright, None);
    if let Some(rest) = inner(&sections.rest) {
        out.push(b',');
        out.extend_from_slice(rest);
    }
}

fn push_field(out: &mut Vec<u8>, sections: &Sections, field: Field, default: Option<&str>) {
    let text = sections.text(field).or_else(|| default.map(str::as_bytes));
    if let Some(text) = text {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.name().as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(text);
    }
}

fn push_times(out: &mut Vec<u8>, served: &Served<'_>) {
    let created = format_date(served.created);
    out.extend_from_slice(b",\"timestamps\":{\"created\":");
    push_json(out, &created);
    out.extend_from_slice(b",\"updated\":");
    push_json(out, &format_date(served.updated));
    out.extend_from_slice(b",\"captured\":");
    match &served.sections.captured {
        Some(captured) => out.extend_from_slice(captured),
        None => push_json(out, &created),
    }
    if let Some(expires) = served.expires {
        out.extend_from_slice(b",\"expires\":");
        push_json(out, &format_date(expires));
    }
    if let Some(times) = inner(&served.sections.times) {
        out.push(b',');
        out.extend_from_slice(times);
    }
    out.push(b'}');
}

fn push_checksum(out: &mut Vec<u8>, sections: &Sections) {
    out.extend_from_slice(b",\"checksum\":\"");
    out.extend_from_slice(hex::encode(sections.checksum).as_bytes());
    out.extend_from_slice(b"\"}");
}
