//! The JSON shapes of answers, built around documents without parsing or copying them.
//!
//! Guarantees: a shape is one of `psp-api.md`; a document stands in it as the model served it.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use model::document::{self, CleanReport, Line, Served, playwright};
use model::id::SessionId;
use model::service::{ListReply, Listed, Stored};
use serde_json::json;
use serde_json::value::RawValue;

use crate::error::{ApiError, Code};
use crate::etag::Format;

/// A stored session in one of its forms.
pub(crate) fn document(stored: &Stored, format: Format) -> Result<Bytes, ApiError> {
    let served = served(stored);
    let text = match format {
        Format::Psp => document::serve(&served),
        Format::V1 => document::serve_v1(&served),
        Format::Playwright => playwright::to_playwright(&stored.sections)?,
    };
    Ok(text.into())
}

/// A stored session, as the model's functions take it.
pub(crate) const fn served(stored: &Stored) -> Served<'_> {
    Served {
        id: stored.session,
        version: stored.version,
        created: stored.created,
        updated: stored.updated,
        expires: stored.expires,
        sections: &stored.sections,
    }
}

/// `{id, status, session}`; without a document `{id, status}`.
pub(crate) fn written(id: SessionId, status: &str, document: Option<Bytes>) -> Vec<Bytes> {
    let head = json!({"id": id.to_string(), "status": status}).to_string();
    let Some(document) = document else {
        return vec![head.into()];
    };
    let head = head.strip_suffix('}').expect("an object ends with a brace");
    let head = format!("{head},\"session\":");
    vec![head.into(), document, Bytes::from_static(b"}")]
}

/// `{id, status, removedCookies, remainingCookies}`.
pub(crate) fn cleaned(id: SessionId, report: CleanReport) -> Bytes {
    let shape = json!({
        "id": id.to_string(),
        "status": "cleaned",
        "removedCookies": report.removed,
        "remainingCookies": report.remaining,
    });
    shape.to_string().into()
}

/// What a list was asked for, as its answer repeats it.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) offset: usize,
}

/// `{count, total, limit, offset, nextCursor, sessions}`.
pub(crate) fn list(reply: &ListReply, page: Page, next: Option<&str>) -> Bytes {
    let head = json!({
        "count": reply.sessions.len(),
        "total": reply.total,
        "limit": page.limit,
        "offset": page.offset,
        "nextCursor": next,
    })
    .to_string();
    let head = head.strip_suffix('}').expect("an object ends with a brace");
    let mut out = Vec::with_capacity(512_usize.saturating_mul(reply.sessions.len().max(1)));
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b",\"sessions\":[");
    for (place, listed) in reply.sessions.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        document::write_line(&mut out, &line(listed));
    }
    out.extend_from_slice(b"]}");
    out.into()
}

const fn line(listed: &Listed) -> Line<'_> {
    Line {
        id: listed.session,
        version: listed.version,
        created: listed.created,
        updated: listed.updated,
        expires: listed.expires,
        expired: listed.expired,
        size: listed.bytes,
        summary: &listed.summary,
    }
}

/// A JSON object with members that it does not have yet.
pub(crate) fn with_defaults(object: &Bytes, defaults: &[(&str, &str)]) -> Result<Bytes, ApiError> {
    let members: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(object).map_err(|_not_an_object| ApiError::from(Code::Internal))?;
    let mut out = Vec::with_capacity(object.len() + 64);
    let inside = object
        .trim_ascii_end()
        .strip_suffix(b"}")
        .ok_or(Code::Internal)?;
    out.extend_from_slice(inside);
    let mut empty = members.is_empty();
    for (name, value) in defaults
        .iter()
        .filter(|(name, _)| !members.contains_key(*name))
    {
        let comma = if empty { "" } else { "," };
        empty = false;
        out.extend_from_slice(format!("{comma}\"{name}\":{value}").as_bytes());
    }
    out.push(b'}');
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fill_what_is_missing_and_nothing_else() {
        let fill = |text: &'static str| {
            let object = Bytes::from_static(text.as_bytes());
            let filled = with_defaults(&object, &[("a", "[]"), ("b", "{}")]).expect("an object");
            String::from_utf8(filled.to_vec()).expect("utf-8")
        };
        assert_eq!(fill("{}"), r#"{"a":[],"b":{}}"#);
        assert_eq!(
            fill(r#"{"b":1.0,"x":"\ud800"} "#),
            r#"{"b":1.0,"x":"\ud800","a":[]}"#
        );
    }
}
