//! The one table from what went wrong to HTTP status, `code` word and text.
//!
//! Guarantees: every error answer is `{"error", "code", "requestId"}` and what its row adds; `code` words are stable;
//! 504 `outcome_unknown` is the only answer to a write that leaves open whether it was applied; a 503 says that it was
//! not. No text contains a value of a document or a credential. Lower layers know no status.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use model::document::{DocumentError, format_date};
use model::service::{Failure, Refused};
use serde_json::{Map, Value};

use crate::etag;

macro_rules! codes {
    ($($name:ident $status:literal $word:literal $text:literal)*) => {
        /// What can go wrong, each with its status, its word and its usual text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $(#[doc = $text] $name),* }

        impl Code {
            /// All of them, in order of status.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status),* } }

            /// The stable word of the `code` field.
            #[must_use]
            pub const fn word(self) -> &'static str { match self { $(Self::$name => $word),* } }

            /// The usual text of the `error` field.
            #[must_use]
            pub const fn text(self) -> &'static str { match self { $(Self::$name => $text),* } }
        }
    };
}

codes! {
    InvalidDocument 400 "invalid_document" "The body is not a valid document"
    InvalidRequest 400 "invalid_request" "The request is malformed"
    InvalidQuery 400 "invalid_query" "A query parameter is not valid"
    InvalidHeader 400 "invalid_header" "A request header is not valid"
    InvalidToken 400 "invalid_consistency_token" "The PSP-Consistency token is not one of this cluster"
    InvalidCursor 400 "invalid_cursor" "The cursor is not one of this cluster"
    InvalidCoding 400 "invalid_content_coding" "The body is not what its Content-Encoding says"
    BodyIncomplete 400 "body_incomplete" "The body ended early"
    Unauthorized 401 "unauthorized" "A valid API key is required"
    Forbidden 403 "forbidden" "The API key does not permit this"
    RouteNotFound 404 "route_not_found" "No such route"
    SessionNotFound 404 "session_not_found" "Session not found"
    BrowserNotFound 404 "browser_not_found" "Browser not found"
    MethodNotAllowed 405 "method_not_allowed" "The method is not allowed here"
    RequestTimeout 408 "request_timeout" "The body did not arrive in time"
    BranchLost 409 "branch_lost" "The version named belongs to a branch of history that was lost"
    SessionExpired 410 "session_expired" "Session has expired"
    VersionMismatch 412 "version_mismatch" "The session has another version than If-Match names"
    BodyTooLarge 413 "body_too_large" "The body is larger than 52428800 bytes after decoding"
    TargetTooLong 414 "target_too_long" "The request target is too long"
    UnsupportedMediaType 415 "unsupported_media_type" "The Content-Type is not one that this route takes"
    UnsupportedCoding 415 "unsupported_content_coding" "The Content-Encoding is not one of gzip, zstd, identity"
    ChecksumMismatch 422 "checksum_mismatch" "Session checksum validation failed"
    KeyReused 422 "idempotency_key_reused" "The idempotency key was used for another request"
    UpgradeRequired 426 "upgrade_required" "This route speaks WebSocket"
    TooManyRequests 429 "too_many_requests" "Too many requests"
    HeadersTooLarge 431 "headers_too_large" "The request has too many or too large header fields"
    Internal 500 "internal" "Internal error"
    BrowserUnavailable 501 "browser_unavailable" "Browser automation not available"
    Unavailable 503 "unavailable" "The session's shard cannot answer now; nothing was changed"
    Overloaded 503 "overloaded" "The gateway has too much in hand; nothing was changed"
    Draining 503 "draining" "The gateway is shutting down; nothing was changed"
    OutcomeUnknown 504 "outcome_unknown" "The write may or may not have been applied"
    StorageFull 507 "storage_full" "The disk is full; nothing was changed"
}

/// An error answer, made where the fault is seen and rendered once, when the request's id is at hand.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    text: Cow<'static, str>,
    fields: Map<String, Value>,
    headers: HeaderMap,
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self(Box::new(Inner {
            code,
            text: Cow::Borrowed(code.text()),
            fields: Map::new(),
            headers: HeaderMap::new(),
        }))
    }
}

impl ApiError {
    /// An error with a text of its own.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::from(code);
        error.0.text = text.into();
        error
    }

    /// An error that says when it is worth to try again; whole seconds, rounded up, at least one.
    #[must_use]
    pub fn retry(code: Code, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        let value = HeaderValue::from_str(&seconds.to_string()).expect("digits are a header value");
        Self::from(code).header(header::RETRY_AFTER, value)
    }

    /// With one more member in the body.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.fields.insert(name.to_owned(), value.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Which row of the table this is.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.0.code
    }

    /// The text for the client.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The members of the body without the request's id.
    pub(crate) fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("error".to_owned(), self.0.text.as_ref().into());
        members.insert("code".to_owned(), self.0.code.word().into());
        members.extend(self.0.fields.clone());
        members
    }

    /// The answer.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let mut members = self.members();
        members.insert("requestId".to_owned(), request_id.into());
        let mut response = Response::new(Body::from(Value::Object(members).to_string()));
        *response.status_mut() = status(self.0.code);
        *response.headers_mut() = self.0.headers;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        response
    }
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).expect("the table has valid statuses")
}

impl IntoResponse for ApiError {
    /// The status, and the error itself for whoever knows the request's id.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(self.0.code);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Code::SessionNotFound.into(),
            Refused::Expired { at } => {
                Self::from(Code::SessionExpired).field("expired", format_date(at))
            }
            Refused::VersionMismatch { current } => Self::from(Code::VersionMismatch)
                .field("version", current.to_string())
                .header(header::ETAG, etag::plain(current)),
            Refused::BadDocument { text, path } => {
                let error = Self::new(Code::InvalidDocument, text);
                match path {
                    Some(path) => error.field("path", path),
                    None => error,
                }
            }
            Refused::TooLarge => Code::BodyTooLarge.into(),
            Refused::KeyReused => Code::KeyReused.into(),
            Refused::TooManyRequests { retry_after } => {
                Self::retry(Code::TooManyRequests, retry_after)
            }
            Refused::BranchLost => Code::BranchLost.into(),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refused) => refused.into(),
            Failure::Unavailable {
                reason,
                retry_after,
            } => Self::retry(Code::Unavailable, retry_after).field("details", reason),
            Failure::Unknown => Code::OutcomeUnknown.into(),
            Failure::DiskFull => Self::retry(Code::StorageFull, Duration::from_secs(5)),
            Failure::Damaged => Self::from(Code::ChecksumMismatch)
                .field("details", "the stored session is damaged and is not served"),
        }
    }
}

impl From<DocumentError> for ApiError {
    fn from(error: DocumentError) -> Self {
        if let DocumentError::TooLarge { .. } = error {
            return Code::BodyTooLarge.into();
        }
        if !error.is_of_client() {
            return Failure::Damaged.into();
        }
        Refused::BadDocument {
            text: error.to_string(),
            path: error.path().map(str::to_owned),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_word_is_used_once_and_every_status_is_an_error() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(
            Code::ALL
                .iter()
                .all(|code| (400..600).contains(&code.status()))
        );
        assert!(Code::ALL.is_sorted_by_key(|code| code.status()));
    }

    #[test]
    fn a_retry_is_at_least_a_second_and_rounded_up() {
        let after = |millis| {
            let error = ApiError::retry(Code::Unavailable, Duration::from_millis(millis));
            error.0.headers[header::RETRY_AFTER].clone()
        };
        assert_eq!(after(0), "1");
        assert_eq!(after(1000), "1");
        assert_eq!(after(1001), "2");
    }
}
