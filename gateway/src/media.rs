//! Content types of request bodies.
//!
//! JSON is taken by any of its names. Where a type is missing the body is read as JSON. A `POST` with a text, or with
//! no type and something that is not JSON, makes a session with defaults, as the reference server does; a text that
//! begins like a JSON object is read as one, so that nothing is dropped in silence. Anything else is 415.

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderValue};
use http::request::Parts;

use crate::body::Received;
use crate::error::{ApiError, Code};

/// `Accept-Patch` (RFC 5789).
const ACCEPT_PATCH: header::HeaderName = header::HeaderName::from_static("accept-patch");

/// What a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// JSON.
    Json,
    /// JSON, and text for defaults.
    JsonOrText,
    /// JSON, also under the name of RFC 7396.
    MergePatch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Missing,
    Json,
    MergePatch,
    Text,
    Other,
}

fn media(parts: &Parts) -> Media {
    let Some(value) = parts.headers.get(header::CONTENT_TYPE) else {
        return Media::Missing;
    };
    let Ok(value) = value.to_str() else {
        return Media::Other;
    };
    let name = value
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    match name.as_str() {
        "" => Media::Missing,
        "application/merge-patch+json" => Media::MergePatch,
        "application/json" => Media::Json,
        name if name.starts_with("application/") && name.ends_with("+json") => Media::Json,
        name if name.starts_with("text/") => Media::Text,
        _ => Media::Other,
    }
}

/// Refuses a content type that a route does not take.
pub(crate) fn check(parts: &Parts, accepts: Accepts) -> Result<(), ApiError> {
    let taken = match media(parts) {
        Media::Missing | Media::Json => true,
        Media::MergePatch => accepts == Accepts::MergePatch,
        Media::Text => accepts == Accepts::JsonOrText,
        Media::Other => false,
    };
    if taken {
        return Ok(());
    }
    let error = ApiError::from(Code::UnsupportedMediaType);
    let names = HeaderValue::from_static("application/merge-patch+json, application/json");
    Err(if parts.method == Method::PATCH {
        error.header(ACCEPT_PATCH, names)
    } else {
        error
    })
}

/// The body of a `POST`, or none where it is a text that says nothing about a session.
pub(crate) fn text_is_empty(parts: &Parts, body: Received) -> Received {
    let plain = matches!(media(parts), Media::Missing | Media::Text);
    let like_json = matches!(body.bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    if plain && !like_json {
        return Received {
            bytes: Bytes::new(),
            ..body
        };
    }
    body
}
