//! Dropping the cookies whose time is over.

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::time::UnixMillis;

use super::change::{Input, replaced};
use super::error::DocumentError;
use super::field::Field;
use super::members::members;
use super::number;
use super::parse::{Origin, Parsed};
use super::sections::Sections;
use super::token::Kind;
use super::tokenizer::Reader;

/// What a clean did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct CleanReport {
    /// Cookies removed.
    pub removed: u64,
    /// Cookies left.
    pub remaining: u64,
}

/// The document without the cookies that have expired at `now`. A cookie without `expires`, and one with 0 or -1 there,
/// lives as long as the browser and stays. What stays is kept as it stands.
///
/// # Errors
/// [`DocumentError::Stored`] when the stored cookies cannot be read.
pub fn clean(current: &Sections, now: UnixMillis) -> Result<(Input, CleanReport), DocumentError> {
    let cookies = current.text(Field::Cookies).unwrap_or(b"[]");
    let now = seconds(now);
    let mut report = CleanReport::default();
    let mut kept = Vec::with_capacity(cookies.len());
    kept.extend_from_slice(b"{\"cookies\":[");
    let mut reader = Reader::again(cookies, Field::Cookies.name());
    // Cookies that the client has encrypted are no list, and stay.
    if reader.kind()? == Kind::Array {
        reader.enter_array()?;
        while reader.next_item()? {
            let cookie = reader.capture()?;
            if lifetime(cookie.text)?.is_some_and(|expires| expires <= now) {
                report.removed = report.removed.saturating_add(1);
                continue;
            }
            if report.remaining > 0 {
                kept.push(b',');
            }
            kept.extend_from_slice(cookie.text);
            report.remaining = report.remaining.saturating_add(1);
        }
    }
    kept.extend_from_slice(b"]}");
    let kept = if report.removed > 0 {
        kept.into()
    } else {
        Bytes::new()
    };
    Ok((
        replaced(current.clone(), Parsed::read(&kept, Origin::Made)?)?,
        report,
    ))
}

/// When a cookie expires, in seconds; `None` for one that lives as long as the browser.
pub(super) fn lifetime(cookie: &[u8]) -> Result<Option<f64>, DocumentError> {
    let members = members(cookie)?;
    let expires = members
        .iter()
        .find(|(key, _)| key.is("expires"))
        .map(|(_, value)| *value);
    let number = expires.filter(|value| {
        value
            .first()
            .is_some_and(|first| matches!(first, b'-' | b'0'..=b'9'))
    });
    Ok(number
        .map(number::value)
        .filter(|expires| *expires != 0.0 && *expires != -1.0))
}

/// Seconds with a fraction, the nearest double.
pub(super) fn seconds(time: UnixMillis) -> f64 {
    let text = format!("{}.{:03}", time.0 / 1000, time.0 % 1000);
    number::value(text.as_bytes())
}
