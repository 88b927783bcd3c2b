//! What a list shows of a document, small enough to be kept apart from it. Never a cookie's value.

use std::fmt;

use bincode::{Decode, Encode};

use crate::id::{SessionId, Version};
use crate::time::UnixMillis;

use super::date::format_date;
use super::serve::DEFAULT_SOURCE;
use super::text::push_json;

/// Most bytes of a name or a description that a list shows.
const MAX_TEXT_BYTES: usize = 1024;
/// Most tags that a list shows and finds, and most bytes of one.
const MAX_TAGS: usize = 64;
const MAX_TAG_BYTES: usize = 256;
/// Most domains that a list shows, and most bytes of one.
const MAX_DOMAINS: usize = 64;
const MAX_DOMAIN_BYTES: usize = 256;
/// Most bytes of the source that a list shows; of a larger one it shows the default.
const MAX_SOURCE_BYTES: usize = 4096;
/// Most bytes of `timestamps.captured` that are kept here.
const MAX_DATE_BYTES: usize = 64;

/// What a list shows of a document. Texts are cut at a bound, so that no summary exceeds 64 KiB.
///
/// [`Default`] is the summary of the document that an empty body makes.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Summary {
    /// The session's name, cut at 1,024 bytes.
    pub name: String,
    /// Its description, cut likewise.
    pub description: Option<String>,
    /// Its tags: the first 64, without those above 256 bytes.
    pub tags: Vec<String>,
    /// How many cookies it has.
    pub cookie_count: u64,
    /// How many origins it has.
    pub origin_count: u64,
    /// The domains of its cookies without a leading dot, each once, in order: the first 64.
    pub domains: Vec<String>,
    /// How many domains there are in all.
    pub domain_count: u64,
    /// `source` as JSON text; `None` for the default.
    pub source: Option<String>,
    /// `timestamps.captured`, if the client gave it.
    pub captured: Option<String>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            description: None,
            tags: Vec::new(),
            cookie_count: 0,
            origin_count: 0,
            domains: Vec::new(),
            domain_count: 0,
            source: None,
            captured: None,
        }
    }
}

/// The name of a session that was given none.
pub(super) const DEFAULT_NAME: &str = "Untitled Session";

impl fmt::Debug for Summary {
    /// Counts only: the texts are the client's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summary")
            .field("cookies", &self.cookie_count)
            .field("origins", &self.origin_count)
            .finish_non_exhaustive()
    }
}

/// A session's record, as far as a line of a list shows it.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
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
    /// Whether that time has come.
    pub expired: bool,
    /// Bytes of the document's parts.
    pub size: u64,
    /// The rest.
    pub summary: &'a Summary,
}

/// Appends the object that a list has for a session.
pub fn write_line(out: &mut Vec<u8>, line: &Line<'_>) {
    let Summary {
        name,
        description,
        tags,
        domains,
        source,
        captured,
        ..
    } = line.summary;
    out.extend_from_slice(b"{\"id\":");
    push_json(out, &line.id.to_string());
    out.extend_from_slice(b",\"name\":");
    push_json(out, name);
    if let Some(description) = description {
        out.extend_from_slice(b",\"description\":");
        push_json(out, description);
    }
    out.extend_from_slice(b",\"tags\":");
    push_list(out, tags);
    push_number(out, "cookieCount", line.summary.cookie_count);
    push_number(out, "originCount", line.summary.origin_count);
    out.extend_from_slice(b",\"domains\":");
    push_list(out, domains);
    push_number(out, "domainCount", line.summary.domain_count);
    out.extend_from_slice(b",\"source\":");
    out.extend_from_slice(
        source
            .as_ref()
            .map_or(DEFAULT_SOURCE, |source| source.as_str())
            .as_bytes(),
    );
    let (created, updated) = (format_date(line.created), format_date(line.updated));
    let captured = captured.as_ref().unwrap_or(&created);
    let times = [
        ("{\"created\":", &created),
        (",\"updated\":", &updated),
        (",\"captured\":", captured),
    ];
    out.extend_from_slice(b",\"timestamps\":");
    for (before, time) in times {
        out.extend_from_slice(before.as_bytes());
        push_json(out, time);
    }
    if let Some(expires) = line.expires {
        out.extend_from_slice(b",\"expires\":");
        push_json(out, &format_date(expires));
    }
    out.extend_from_slice(b"},\"created\":");
    push_json(out, &created);
    out.extend_from_slice(b",\"updated\":");
    push_json(out, &updated);
    out.extend_from_slice(if line.expired {
        b",\"expired\":true"
    } else {
        b",\"expired\":false"
    });
    out.extend_from_slice(b",\"version\":");
    push_json(out, &line.version.to_string());
    push_number(out, "size", line.size);
    out.push(b'}');
}

/// Appends a list of strings.
pub(super) fn push_list(out: &mut Vec<u8>, texts: &[String]) {
    out.push(b'[');
    for (place, text) in texts.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        push_json(out, text);
    }
    out.push(b']');
}

/// Appends `,"name":number`.
pub(super) fn push_number(out: &mut Vec<u8>, name: &str, number: u64) {
    out.extend_from_slice(format!(",\"{name}\":{number}").as_bytes());
}

impl Summary {
    pub(super) fn set_name(&mut self, name: &str) {
        self.name = cut(name, MAX_TEXT_BYTES);
    }

    pub(super) fn set_description(&mut self, description: Option<&str>) {
        self.description = description.map(|text| cut(text, MAX_TEXT_BYTES));
    }

    pub(super) fn set_tags<'a>(&mut self, tags: impl Iterator<Item = impl AsRef<str> + 'a>) {
        self.tags = tags
            .filter(|tag| tag.as_ref().len() <= MAX_TAG_BYTES)
            .take(MAX_TAGS)
            .map(|tag| tag.as_ref().to_owned())
            .collect();
    }

    pub(super) fn set_domains<'a>(&mut self, domains: impl Iterator<Item = &'a str>, count: u64) {
        self.domains = domains
            .filter(|domain| domain.len() <= MAX_DOMAIN_BYTES)
            .take(MAX_DOMAINS)
            .map(str::to_owned)
            .collect();
        self.domain_count = count;
    }

    pub(super) fn set_source(&mut self, source: Option<&[u8]>) {
        self.source = source
            .filter(|source| source.len() <= MAX_SOURCE_BYTES)
            .and_then(|source| String::from_utf8(source.to_vec()).ok());
    }

    pub(super) fn set_captured(&mut self, captured: Option<&str>) {
        self.captured = captured
            .filter(|text| text.len() <= MAX_DATE_BYTES)
            .map(str::to_owned);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, bincode::config::standard())
            .expect("a summary holds only texts and numbers, and memory takes them")
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let config = bincode::config::standard().with_limit::<{ 128 * 1024 }>();
        let (summary, used) = bincode::decode_from_slice(bytes, config).ok()?;
        (used == bytes.len()).then_some(summary)
    }
}

fn cut(text: &str, bytes: usize) -> String {
    text.get(..text.floor_char_boundary(bytes))
        .unwrap_or_default()
        .to_owned()
}
