//! The document's field `playwright`: what a storage state has and the protocol has no place for.
//!
//! ```json
//! {"cookies": [{"name", "domain", "path", "partitionKey", "extra": {..}, "order": [..], "asIs": true}],
//!  "origins": [{"origin", "extra": {"opfs": [..]}, "order": [..], "databases": 1}],
//!  "extra": {"credentials": [..]}, "order": [..]}
//! ```
//! A note is there only if it says something. `extra` are the members that are nowhere else; `order` are the names of all
//! members, if they do not stand as usual; `asIs` marks a cookie that is not to be completed for Playwright; `databases`
//! says how many databases belong to this one of several entries for the same origin.
//!
//! A client may have written anything here. What is not a note is passed over.

use std::collections::{BTreeMap, VecDeque};

use super::super::canonical::canonical;
use super::super::error::DocumentError;
use super::super::members::{begin_member, end_object, members, push_key};
use super::super::text::Text;
use super::super::token::Kind;
use super::super::tokenizer::Reader;
use super::storage::close_list;

/// Members of an object.
pub(super) type Members<'a> = Vec<(Text<'a>, &'a [u8])>;

/// What is noted of a cookie, an origin or the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Note<'a> {
    pub(super) extra: Members<'a>,
    pub(super) order: Option<Vec<Text<'a>>>,
    pub(super) as_is: bool,
    pub(super) databases: Option<usize>,
}

/// The fields by which a cookie is found again.
pub(super) const COOKIE_IDENTITY: &[&str] = &["name", "domain", "path", "partitionKey"];
/// The field by which an origin is found again.
pub(super) const ORIGIN_IDENTITY: &[&str] = &["origin"];

impl<'a> Note<'a> {
    /// Whether there is nothing to note.
    pub(super) fn is_empty(&self) -> bool {
        self.extra.is_empty() && self.order.is_none() && !self.as_is && self.databases.is_none()
    }

    /// Appends the note on what `of` names.
    pub(super) fn write(&self, of: &[(Text<'_>, &[u8])], out: &mut Vec<u8>) {
        let mut object = Vec::new();
        for (key, value) in of {
            begin_member(&mut object);
            push_key(&mut object, *key);
            object.extend_from_slice(value);
        }
        self.write_members(&mut object);
        end_object(&mut object);
        out.extend_from_slice(if object.is_empty() { b"{}" } else { &object });
    }

    /// Appends the note's own members to an object that is being made.
    pub(super) fn write_members(&self, object: &mut Vec<u8>) {
        if !self.extra.is_empty() {
            begin_member(object);
            object.extend_from_slice(b"\"extra\":");
            super::storage::push_members(&self.extra, object);
        }
        if let Some(order) = &self.order {
            begin_member(object);
            object.extend_from_slice(b"\"order\":");
            let mut separator = b'[';
            for name in order {
                object.push(std::mem::replace(&mut separator, b','));
                object.push(b'"');
                object.extend_from_slice(name.raw());
                object.push(b'"');
            }
            close_list(object, separator);
        }
        if self.as_is {
            begin_member(object);
            object.extend_from_slice(b"\"asIs\":true");
        }
        if let Some(databases) = self.databases {
            begin_member(object);
            object.extend_from_slice(format!("\"databases\":{databases}").as_bytes());
        }
    }

    /// The note in these members.
    pub(super) fn read(note: &[(Text<'a>, &'a [u8])]) -> Result<Self, DocumentError> {
        let mut read = Self::default();
        for (key, value) in note {
            if key.is("extra") {
                read.extra = members(value)?;
            } else if key.is("order") {
                read.order = names(value)?;
            } else if key.is("asIs") {
                read.as_is = *value == b"true";
            } else if key.is("databases") && value.first().is_some_and(u8::is_ascii_digit) {
                read.databases = std::str::from_utf8(value)
                    .ok()
                    .and_then(|count| count.parse().ok());
            }
        }
        Ok(read)
    }

    /// Adds the extra members to those that are there, and puts all in order: the names noted first, then the rest.
    pub(super) fn complete(&self, members: &mut Members<'a>) {
        for (key, value) in &self.extra {
            if !members
                .iter()
                .any(|(there, _)| there.content() == key.content())
            {
                members.push((*key, *value));
            }
        }
        if let Some(order) = &self.order {
            members.sort_by_key(|(key, _)| {
                let place = order
                    .iter()
                    .position(|name| name.content() == key.content());
                place.unwrap_or(usize::MAX)
            });
        }
    }
}

/// Notes on several things of one kind, to be found by what each names.
#[derive(Debug, Default)]
pub(super) struct Notes<'a> {
    by_identity: BTreeMap<Vec<u8>, VecDeque<Note<'a>>>,
}

impl<'a> Notes<'a> {
    /// The notes in a list.
    pub(super) fn read(list: &'a [u8], identity: &[&str]) -> Result<Self, DocumentError> {
        let mut notes = Self::default();
        let mut reader = Reader::again(list, "");
        if reader.kind()? != Kind::Array {
            return Ok(notes);
        }
        reader.enter_array()?;
        while reader.next_item()? {
            let note = members(reader.capture()?.text)?;
            let of = identity_of(&note, identity)?;
            notes
                .by_identity
                .entry(of)
                .or_default()
                .push_back(Note::read(&note)?);
        }
        Ok(notes)
    }

    /// The first note that was not taken yet on something with this identity.
    pub(super) fn take(&mut self, identity: &[u8]) -> Option<Note<'a>> {
        self.by_identity.get_mut(identity)?.pop_front()
    }
}

/// What makes a cookie or an origin the same one: its identifying fields, however they are spelled.
pub(super) fn identity_of(
    members: &[(Text<'_>, &[u8])],
    identity: &[&str],
) -> Result<Vec<u8>, DocumentError> {
    let mut of = Vec::new();
    for name in identity {
        let value = field(members, name).filter(|value| *value != b"null");
        of.extend_from_slice(&canonical(value.unwrap_or(b"0"))?);
        of.push(b',');
    }
    Ok(of)
}

/// The value of a member.
pub(super) fn field<'a>(members: &[(Text<'_>, &'a [u8])], name: &str) -> Option<&'a [u8]> {
    members
        .iter()
        .find(|(key, _)| key.is(name))
        .map(|(_, value)| *value)
}

/// A value that is there and is a string.
pub(super) fn text_field<'a>(members: &[(Text<'_>, &'a [u8])], name: &str) -> Option<&'a [u8]> {
    field(members, name).filter(|value| value.starts_with(b"\""))
}

/// The strings of a list; `None` for anything else.
fn names(list: &[u8]) -> Result<Option<Vec<Text<'_>>>, DocumentError> {
    let mut names = Vec::new();
    let mut reader = Reader::again(list, "");
    if reader.kind()? != Kind::Array {
        return Ok(None);
    }
    reader.enter_array()?;
    while reader.next_item()? {
        if reader.kind()? != Kind::Text {
            return Ok(None);
        }
        names.push(reader.text()?);
    }
    Ok(Some(names))
}
