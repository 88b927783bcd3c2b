//! Reading a body: one pass that checks it, cuts it into fields and counts what a list shows.
//!
//! Knows JavaScript's rule for a key that is there twice (the last value counts, and only it is checked), and that a
//! field which the client has encrypted may hold anything.

use std::borrow::Cow;

use bytes::Bytes;

use crate::time::UnixMillis;

use super::compact::{part, push_raw};
use super::date::parse_date;
use super::error::DocumentError;
use super::field::{COOKIE, Field, Shape, check_field};
use super::members::{begin_member, end_object, push_key};
use super::sections::Part;
use super::token::{Kind, Place, Raw};
use super::tokenizer::Reader;

/// What a body says of one thing.
#[derive(Clone, Debug, Default)]
pub(super) enum Given<T> {
    /// Nothing.
    #[default]
    Absent,
    /// `null`.
    Null,
    Value(T),
}

impl<T> Given<T> {
    /// The value, if there is one.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }
}

/// A body, cut into its fields.
#[derive(Default)]
pub(super) struct Parsed {
    fields: [Given<Part>; Field::COUNT],
    pub(super) times: Given<Times>,
    /// An object of the members that we do not know; empty without any.
    pub(super) rest: Vec<u8>,
    pub(super) cookies: Cookies,
    pub(super) origin_count: u64,
    /// Fields of a wrong type: refused, unless they turn out to be encrypted.
    pub(super) refused: Vec<(Field, DocumentError)>,
}

/// What `timestamps` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// A JSON string.
    pub(super) captured: Option<Bytes>,
    pub(super) expires: Option<UnixMillis>,
    /// An object of the members that we do not know; empty without any.
    pub(super) rest: Vec<u8>,
}

/// What a list shows of the cookies.
#[derive(Clone, Debug, Default)]
pub(super) struct Cookies {
    pub(super) count: u64,
    /// Without a leading dot, each once, in order: the first ones.
    pub(super) domains: Vec<String>,
    pub(super) domain_count: u64,
}

/// How many domains are collected for the list.
const DOMAINS: usize = 64;

/// Where a body comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client sent it.
    Client,
    /// It was made here of a client's body that was checked.
    Made,
}

impl Parsed {
    /// Reads a body. An empty one and an array are as good as an object without members.
    ///
    /// # Errors
    /// When it is not JSON, or a field that nobody can encrypt has a wrong type.
    pub(super) fn read(body: &Bytes, origin: Origin) -> Result<Self, DocumentError> {
        let mut reader = match origin {
            Origin::Client => Reader::new(body)?,
            Origin::Made => Reader::again(body, ""),
        };
        let mut parsed = Self::default();
        if reader.is_at_end() {
            return Ok(parsed);
        }
        if reader.kind()? == Kind::Array {
            reader.skip()?;
        } else {
            reader.enter_object()?;
            while let Some(key) = reader.next_key()? {
                if let Some(field) = Field::of_key(key) {
                    parsed.read_field(&mut reader, body, field)?;
                } else if key.is("timestamps") {
                    parsed.times = Times::read(&mut reader, body)?;
                } else if MADE_HERE.iter().any(|name| key.is(name)) {
                    reader.skip()?;
                } else {
                    begin_member(&mut parsed.rest);
                    push_key(&mut parsed.rest, key);
                    push_raw(&mut parsed.rest, reader.capture()?);
                }
            }
            end_object(&mut parsed.rest);
        }
        reader.end()?;
        Ok(parsed)
    }

    /// Gives a field a value.
    pub(super) fn give(&mut self, field: Field, part: Part) {
        if let Some(slot) = self.fields.get_mut(field as usize) {
            *slot = Given::Value(part);
        }
    }

    /// Takes what the body says of a field.
    pub(super) fn take(&mut self, field: Field) -> Given<Part> {
        self.fields
            .get_mut(field as usize)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn read_field(
        &mut self,
        reader: &mut Reader<'_>,
        body: &Bytes,
        field: Field,
    ) -> Result<(), DocumentError> {
        self.refused.retain(|(refused, _)| *refused != field);
        let null = reader.kind()? == Kind::Null;
        let place = reader.place();
        let read = if null {
            reader.capture()
        } else {
            self.read_value(reader, field)
        };
        let raw = match read {
            Ok(raw) => raw,
            Err(refused @ DocumentError::WrongType { .. }) => {
                self.refused.push((field, refused));
                self.forget_counts(field);
                untyped(reader, place)?
            }
            Err(error) => return Err(error),
        };
        if let Some(slot) = self.fields.get_mut(field as usize) {
            *slot = if null {
                Given::Null
            } else {
                Given::Value(part(body, raw))
            };
        }
        Ok(())
    }

    fn read_value<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        field: Field,
    ) -> Result<Raw<'a>, DocumentError> {
        let shape = field.shape();
        if field == Field::Cookies {
            let (raw, cookies) = reader.capture_with(read_cookies)?;
            self.cookies = cookies;
            Ok(raw)
        } else if let (Field::Origins, Shape::List(origin)) = (field, shape) {
            let (raw, count) = reader.capture_with(|reader| read_list(reader, origin))?;
            self.origin_count = count;
            Ok(raw)
        } else {
            reader
                .capture_with(|reader| shape.check(reader))
                .map(|(raw, ())| raw)
        }
    }

    fn forget_counts(&mut self, field: Field) {
        match field {
            Field::Cookies => self.cookies = Cookies::default(),
            Field::Origins => self.origin_count = 0,
            Field::Name
            | Field::Description
            | Field::Tags
            | Field::IndexedDb
            | Field::ServiceWorkers
            | Field::BrowserContext
            | Field::Source
            | Field::Encryption
            | Field::Playwright => {}
        }
    }
}

impl Times {
    fn read(reader: &mut Reader<'_>, body: &Bytes) -> Result<Given<Self>, DocumentError> {
        if reader.kind()? == Kind::Null {
            reader.skip()?;
            return Ok(Given::Null);
        }
        let mut times = Self::default();
        reader.enter_object()?;
        while let Some(key) = reader.next_key()? {
            let null = reader.kind()? == Kind::Null;
            if key.is("created") || key.is("updated") {
                reader.skip()?;
            } else if key.is("captured") {
                let (raw, _) = match null {
                    true => (reader.capture()?, None),
                    false => reader
                        .capture_with(Reader::text)
                        .map(|(raw, text)| (raw, Some(text)))?,
                };
                times.captured = (!null).then(|| part(body, raw).text);
            } else if key.is("expires") {
                times.expires = None;
                if null {
                    reader.skip()?;
                } else {
                    let text = reader.text()?.lossy();
                    let date = parse_date(&text);
                    times.expires = Some(date.ok_or_else(|| DocumentError::BadDate {
                        path: reader.path(),
                    })?);
                }
            } else {
                begin_member(&mut times.rest);
                push_key(&mut times.rest, key);
                push_raw(&mut times.rest, reader.capture()?);
            }
        }
        end_object(&mut times.rest);
        Ok(Given::Value(times))
    }
}

/// Whether `encryption` (JSON text) says that the client has encrypted a field, or something in it.
pub(super) fn is_encrypted(encryption: Option<&[u8]>, field: Field) -> bool {
    let Some(encryption) = encryption else {
        return false;
    };
    let names = |text: Cow<'_, str>| {
        let inside = text.strip_prefix(field.name())?;
        Some(inside.is_empty() || inside.starts_with(['.', '[']))
    };
    encrypted_fields(encryption)
        .is_ok_and(|fields| fields.into_iter().any(|name| names(name) == Some(true)))
}

fn encrypted_fields(encryption: &[u8]) -> Result<Vec<Cow<'_, str>>, DocumentError> {
    let mut fields = Vec::new();
    let mut reader = Reader::again(encryption, "encryption");
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        if key.is("encryptedFields") && reader.kind()? == Kind::Array {
            fields.clear();
            reader.enter_array()?;
            while reader.next_item()? {
                fields.push(reader.text()?.lossy());
            }
        } else {
            reader.skip()?;
        }
    }
    Ok(fields)
}

/// Fields that are made when a document is served, and ignored when it is sent.
pub(super) const MADE_HERE: [&str; 4] = ["id", "checksum", "$schema", "protocolVersion"];

fn read_cookies(reader: &mut Reader<'_>) -> Result<Cookies, DocumentError> {
    let mut count = 0_u64;
    let mut domains: Vec<Cow<'_, str>> = Vec::new();
    reader.enter_array()?;
    while reader.next_item()? {
        count = count.saturating_add(1);
        let mut domain = None;
        reader.enter_object()?;
        while let Some(key) = reader.next_key()? {
            if !key.is("domain") {
                check_field(reader, COOKIE, key)?;
            } else if reader.kind()? == Kind::Null {
                reader.skip()?;
                domain = None;
            } else {
                domain = Some(reader.text()?.lossy());
            }
        }
        domains.extend(domain);
    }
    Ok(Cookies::count(count, &domains))
}

impl Cookies {
    fn count(count: u64, domains: &[Cow<'_, str>]) -> Self {
        let mut bare: Vec<&str> = domains
            .iter()
            .map(|domain| domain.strip_prefix('.').unwrap_or(domain))
            .collect();
        let mut first: Vec<&str> = Vec::new();
        for domain in &bare {
            if first.len() == DOMAINS {
                break;
            }
            if !first.contains(domain) {
                first.push(domain);
            }
        }
        let domains = first.into_iter().map(str::to_owned).collect();
        bare.sort_unstable();
        bare.dedup();
        Self {
            count,
            domains,
            domain_count: bare.len() as u64,
        }
    }
}

/// Checks a list and counts its elements.
fn read_list(reader: &mut Reader<'_>, element: &Shape) -> Result<u64, DocumentError> {
    let mut count = 0_u64;
    reader.enter_array()?;
    while reader.next_item()? {
        count = count.saturating_add(1);
        element.check(reader)?;
    }
    Ok(count)
}

/// Reads a value again, whatever its type.
fn untyped<'a>(reader: &mut Reader<'a>, place: Place) -> Result<Raw<'a>, DocumentError> {
    reader.rewind(place);
    reader.capture()
}
