//! The JSON shapes of answers, built around documents without parsing or copying them.
//!
//! Guarantees: a shape is one of `psp-api.md`; a document stands in it as the model served it.

use bytes::Bytes;
use model::document::{self, CleanReport, Line, Served};
use model::id::SessionId;
use model::service::{ListReply, Listed, Stored};
use serde_json::json;

use crate::error::ApiError;
use crate::etag::Format;

/// A stored session in one of its forms.
pub(crate) fn document(stored: &Stored, format: Format) -> Result<Bytes, ApiError> {
    let served = served(stored);
    let text = match format {
        Format::Psp => document::serve(&served),
        Format::V1 => document::serve_v1(&served),
        Format::Playwright => document::to_playwright(&stored.sections)?,
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
