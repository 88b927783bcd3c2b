//! Version 1 of the API: its body becomes a document of version 2, and a document shows its fields.
//!
//! A `localStorage` entry `{domain, data}` is the origin `https://domain`; `data` keeps its shape.

use std::borrow::Cow;

use bytes::Bytes;

use super::change::{Input, created};
use super::compact::push_raw;
use super::date::format_date;
use super::error::DocumentError;
use super::field::{Field, Shape, VIEWPORT};
use super::members::{Rule, begin_member, end_object, lay_over, members, push_key};
use super::parse::{Origin, Parsed};
use super::serve::{DEFAULT_BROWSER_CONTEXT, Served};
use super::text::{Text, push_json};
use super::token::Kind;
use super::tokenizer::Reader;

const SCHEME: &str = "https://";

/// A new document from a version 1 body: `{name, cookies, localStorage[{domain, data}], userAgent, viewport}`, and
/// whatever version 2 knows besides.
///
/// # Errors
/// As [`create`](super::create).
pub fn create_v1(body: &Bytes) -> Result<Input, DocumentError> {
    let mut reader = Reader::new(body)?;
    if reader.is_at_end() || reader.kind()? == Kind::Array {
        return super::create(body);
    }
    let mut v1 = Body::default();
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        v1.read_member(&mut reader, key)?;
    }
    reader.end()?;
    created(Parsed::read(&v1.into_v2()?.into(), Origin::Made)?)
}

/// A version 1 body, taken apart.
#[derive(Default)]
struct Body {
    /// An object of the members that version 2 has too, or that nobody knows; not closed.
    shared: Vec<u8>,
    /// Elements of `origins`, without brackets: those that the body has, and those made of `localStorage`.
    origins: Vec<u8>,
    made_origins: Vec<u8>,
    /// The browser context that the body has, and an object of what version 1 says of it; not closed.
    context: Vec<u8>,
    made_context: Vec<u8>,
}

impl Body {
    fn read_member(&mut self, reader: &mut Reader<'_>, key: Text<'_>) -> Result<(), DocumentError> {
        let shape = |shape: &'static Shape| move |reader: &mut Reader<'_>| shape.check(reader);
        if reader.kind()? == Kind::Null && REPLACED.iter().any(|name| key.is(name)) {
            reader.skip()
        } else if key.is("localStorage") {
            self.made_origins.clear();
            read_storage(reader, &mut self.made_origins)
        } else if key.is("userAgent") || key.is("viewport") {
            let shape = if key.is("userAgent") {
                &Shape::Text
            } else {
                &Shape::Fields(VIEWPORT)
            };
            begin_member(&mut self.made_context);
            push_key(&mut self.made_context, key);
            let (raw, ()) = reader.capture_with(|reader| shape.check(reader))?;
            push_raw(&mut self.made_context, raw);
            Ok(())
        } else if key.is("browserContext") {
            let (raw, ()) = reader.capture_with(shape(Field::BrowserContext.shape()))?;
            self.context.clear();
            push_raw(&mut self.context, raw);
            Ok(())
        } else if key.is("origins") {
            let (raw, ()) = reader.capture_with(shape(Field::Origins.shape()))?;
            self.origins.clear();
            push_raw(&mut self.origins, raw);
            Ok(())
        } else if key.is("createdAt") || key.is("updatedAt") {
            reader.skip()
        } else {
            begin_member(&mut self.shared);
            push_key(&mut self.shared, key);
            push_raw(&mut self.shared, reader.capture()?);
            Ok(())
        }
    }

    fn into_v2(self) -> Result<Vec<u8>, DocumentError> {
        let mut v2 = self.shared;
        let mut made_context = self.made_context;
        end_object(&mut made_context);
        if !made_context.is_empty() || !self.context.is_empty() {
            let under = if self.context.is_empty() {
                DEFAULT_BROWSER_CONTEXT.as_bytes()
            } else {
                &self.context
            };
            begin_member(&mut v2);
            v2.extend_from_slice(b"\"browserContext\":");
            v2.extend_from_slice(&lay_over(under, &made_context, Rule::Replace)?);
        }
        let own = self
            .origins
            .strip_prefix(b"[")
            .and_then(|own| own.strip_suffix(b"]"));
        let origins = [own.unwrap_or_default(), &self.made_origins];
        begin_member(&mut v2);
        v2.extend_from_slice(b"\"origins\":[");
        v2.extend_from_slice(
            &origins
                .into_iter()
                .filter(|list| !list.is_empty())
                .collect::<Vec<_>>()
                .join(&b','),
        );
        v2.extend_from_slice(b"]}");
        Ok(v2)
    }
}

/// Fields that become something else in version 2; null in them says nothing.
const REPLACED: [&str; 5] = [
    "localStorage",
    "userAgent",
    "viewport",
    "browserContext",
    "origins",
];

/// Reads `[{domain, data}]` and appends the origins, without brackets.
fn read_storage(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DocumentError> {
    reader.enter_array()?;
    while reader.next_item()? {
        let mut domain = Cow::Borrowed("");
        let mut data = None;
        let mut unknown = Vec::new();
        reader.enter_object()?;
        while let Some(key) = reader.next_key()? {
            let null = reader.kind()? == Kind::Null;
            if key.is("domain") && !null {
                domain = reader.text()?.lossy();
            } else if key.is("data") && !null {
                data = Some(
                    reader
                        .capture_with(|reader| Shape::Storage.check(reader))?
                        .0,
                );
            } else {
                unknown.push(b',');
                push_key(&mut unknown, key);
                push_raw(&mut unknown, reader.capture()?);
            }
        }
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"origin\":");
        push_json(out, &origin_of(&domain));
        out.extend_from_slice(b",\"localStorage\":");
        match data {
            Some(data) => push_raw(out, data),
            None => out.extend_from_slice(b"{}"),
        }
        out.extend_from_slice(&unknown);
        out.push(b'}');
    }
    Ok(())
}

fn origin_of(domain: &str) -> String {
    if domain.contains("://") {
        return domain.to_owned();
    }
    format!("{SCHEME}{}", domain.strip_prefix('.').unwrap_or(domain))
}

/// Appends the fields of version 1, each with a comma before it.
pub(super) fn push_v1(out: &mut Vec<u8>, served: &Served<'_>) {
    out.extend_from_slice(b",\"localStorage\":[");
    if let Some(origins) = served.sections.text(Field::Origins) {
        push_storage(out, origins);
    }
    out.push(b']');
    let context = served
        .sections
        .text(Field::BrowserContext)
        .unwrap_or(DEFAULT_BROWSER_CONTEXT.as_bytes());
    for (key, value) in members(context).unwrap_or_default() {
        if key.is("userAgent") || key.is("viewport") {
            out.push(b',');
            push_key(out, key);
            out.extend_from_slice(value);
        }
    }
    for (name, time) in [("createdAt", served.created), ("updatedAt", served.updated)] {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        push_json(out, &format_date(time));
    }
}

fn push_storage(out: &mut Vec<u8>, origins: &[u8]) {
    let mut reader = Reader::again(origins, "origins");
    if reader.enter_array().is_err() {
        return;
    }
    let mut first = true;
    while reader.next_item() == Ok(true) {
        let Ok(origin) = reader.capture() else { break };
        let members = members(origin.text).unwrap_or_default();
        let field = |name: &str| {
            members
                .iter()
                .find(|(key, _)| key.is(name))
                .map(|(_, value)| *value)
        };
        let name = field("origin")
            .and_then(|text| Reader::again(text, "").text().ok())
            .map(Text::lossy);
        let name = name.unwrap_or_default();
        if !std::mem::replace(&mut first, false) {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"domain\":");
        push_json(
            out,
            name.split_once("://").map_or(&*name, |(_, domain)| domain),
        );
        out.extend_from_slice(b",\"data\":");
        match field("localStorage") {
            Some(storage) if storage.starts_with(b"[") => push_entries(out, storage),
            Some(storage) if storage.starts_with(b"{") => out.extend_from_slice(storage),
            _ => out.extend_from_slice(b"{}"),
        }
        out.push(b'}');
    }
}

/// Entries with key and value, as an object.
fn push_entries(out: &mut Vec<u8>, entries: &[u8]) {
    let mut object = Vec::with_capacity(entries.len());
    let mut reader = Reader::again(entries, "");
    if reader.enter_array().is_ok() {
        while reader.next_item() == Ok(true) {
            let Ok(entry) = reader.capture() else { break };
            let members = members(entry.text).unwrap_or_default();
            let field = |name: &str| {
                members
                    .iter()
                    .find(|(key, _)| key.is(name))
                    .map(|(_, value)| *value)
            };
            let key = field("key")
                .or_else(|| field("name"))
                .filter(|key| key.starts_with(b"\""));
            if let (Some(key), Some(value)) = (key, field("value")) {
                begin_member(&mut object);
                object.extend_from_slice(key);
                object.push(b':');
                object.extend_from_slice(value);
            }
        }
    }
    end_object(&mut object);
    out.extend_from_slice(if object.is_empty() { b"{}" } else { &object });
}
