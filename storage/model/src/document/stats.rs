//! The numbers that describe a document: those of the reference server, and those of its lite sibling.

use std::collections::BTreeSet;

use crate::time::UnixMillis;

use super::clean::lifetime;
use super::date::format_date;
use super::error::DocumentError;
use super::field::Field;
use super::members::members;
use super::sections::Sections;
use super::serve::{DEFAULT_SOURCE, Served};
use super::summary::{push_list, push_number};
use super::text::push_json;
use super::token::Kind;
use super::tokenizer::Reader;

#[derive(Default)]
struct CookieStats {
    total: u64,
    http_only: u64,
    secure: u64,
    session: u64,
    persistent: u64,
    /// As sent, each once.
    raw_domains: u64,
    /// Without a leading dot, each once, in order.
    domains: Vec<String>,
}

#[derive(Default)]
struct StorageStats {
    origins: u64,
    entries: u64,
    /// UTF-16 units of keys and values.
    size: u64,
}

/// The answer to a request for statistics, as JSON.
///
/// # Errors
/// [`DocumentError::Stored`] when the stored document cannot be read.
pub fn stats(served: &Served<'_>, now: UnixMillis) -> Result<Vec<u8>, DocumentError> {
    let sections = served.sections;
    let cookies = cookie_stats(sections.text(Field::Cookies).unwrap_or(b"[]"))?;
    let storage = storage_stats(sections.text(Field::Origins).unwrap_or(b"[]"))?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"id\":");
    push_json(&mut out, &served.id.to_string());
    out.extend_from_slice(b",\"name\":");
    out.extend_from_slice(
        sections
            .text(Field::Name)
            .unwrap_or(b"\"Untitled Session\""),
    );
    out.extend_from_slice(format!(",\"cookies\":{{\"total\":{}", cookies.total).as_bytes());
    push_number(&mut out, "httpOnly", cookies.http_only);
    push_number(&mut out, "secure", cookies.secure);
    push_number(&mut out, "sessionCookies", cookies.session);
    push_number(&mut out, "persistentCookies", cookies.persistent);
    push_number(&mut out, "domains", cookies.raw_domains);
    out.extend_from_slice(
        format!("}},\"localStorage\":{{\"origins\":{}", storage.origins).as_bytes(),
    );
    push_number(&mut out, "totalEntries", storage.entries);
    push_number(&mut out, "totalSize", storage.size);
    out.extend_from_slice(b"},\"domains\":");
    push_list(&mut out, &cookies.domains);
    let expired = served.expires.is_some_and(|expires| expires <= now);
    push_flag(&mut out, "expired", expired);
    push_flag(&mut out, "checksumValid", checksum_is_valid(sections)?);
    push_number(&mut out, "cookieCount", cookies.total);
    push_number(&mut out, "originCount", storage.origins);
    push_number(&mut out, "domainCount", cookies.domains.len() as u64);
    push_number(&mut out, "localStorageCount", storage.entries);
    push_number(&mut out, "size", sections.len() as u64);
    out.extend_from_slice(b",\"source\":");
    out.extend_from_slice(
        sections
            .text(Field::Source)
            .unwrap_or(DEFAULT_SOURCE.as_bytes()),
    );
    let times = [
        ("created", Some(served.created)),
        ("updated", Some(served.updated)),
        ("expires", served.expires),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            push_json(&mut out, &format_date(time));
        }
    }
    out.push(b'}');
    Ok(out)
}

fn cookie_stats(cookies: &[u8]) -> Result<CookieStats, DocumentError> {
    let mut stats = CookieStats::default();
    let mut raw = BTreeSet::new();
    let mut bare = BTreeSet::new();
    let mut reader = Reader::again(cookies, Field::Cookies.name());
    if reader.kind()? != Kind::Array {
        return Ok(stats);
    }
    reader.enter_array()?;
    while reader.next_item()? {
        let cookie = reader.capture()?.text;
        count(&mut stats.total, true);
        let persistent = lifetime(cookie)?.is_some();
        count(&mut stats.persistent, persistent);
        count(&mut stats.session, !persistent);
        for (key, value) in members(cookie)? {
            if key.is("httpOnly") {
                count(&mut stats.http_only, value == b"true");
            } else if key.is("secure") {
                count(&mut stats.secure, value == b"true");
            } else if key.is("domain") && value.starts_with(b"\"") {
                let domain = Reader::again(value, "").text()?.lossy();
                let dotless = domain.strip_prefix('.').unwrap_or(&domain).to_owned();
                if bare.insert(dotless.clone()) {
                    stats.domains.push(dotless);
                }
                raw.insert(domain);
            }
        }
    }
    stats.raw_domains = raw.len() as u64;
    Ok(stats)
}

fn storage_stats(origins: &[u8]) -> Result<StorageStats, DocumentError> {
    let mut stats = StorageStats::default();
    let mut reader = Reader::again(origins, Field::Origins.name());
    if reader.kind()? != Kind::Array {
        return Ok(stats);
    }
    reader.enter_array()?;
    while reader.next_item()? {
        count(&mut stats.origins, true);
        for (key, value) in members(reader.capture()?.text)? {
            if key.is("localStorage") {
                count_storage(&mut stats, value)?;
            }
        }
    }
    Ok(stats)
}

fn count_storage(stats: &mut StorageStats, storage: &[u8]) -> Result<(), DocumentError> {
    let mut reader = Reader::again(storage, "");
    match reader.kind()? {
        Kind::Object => {
            for (key, value) in members(storage)? {
                count(&mut stats.entries, true);
                stats.size = stats
                    .size
                    .saturating_add(key.units())
                    .saturating_add(units(value)?);
            }
        }
        Kind::Array => {
            reader.enter_array()?;
            while reader.next_item()? {
                count(&mut stats.entries, true);
                let entry = members(reader.capture()?.text)?;
                let field = |name: &str| {
                    entry
                        .iter()
                        .find(|(key, _)| key.is(name))
                        .map(|(_, value)| *value)
                };
                for text in [field("key").or_else(|| field("name")), field("value")]
                    .into_iter()
                    .flatten()
                {
                    stats.size = stats.size.saturating_add(units(text)?);
                }
            }
        }
        Kind::Text | Kind::Number | Kind::Boolean | Kind::Null => {}
    }
    Ok(())
}

/// JavaScript's `length` of a string; zero of anything else.
fn units(text: &[u8]) -> Result<u64, DocumentError> {
    if text.starts_with(b"\"") {
        Ok(Reader::again(text, "").text()?.units())
    } else {
        Ok(0)
    }
}

fn checksum_is_valid(sections: &Sections) -> Result<bool, DocumentError> {
    let mut computed = sections.clone();
    computed.recompute()?;
    Ok(computed.checksum == sections.checksum)
}

fn count(counter: &mut u64, that: bool) {
    *counter = counter.saturating_add(u64::from(that));
}

fn push_flag(out: &mut Vec<u8>, name: &str, flag: bool) {
    out.extend_from_slice(format!(",\"{name}\":{flag}").as_bytes());
}
