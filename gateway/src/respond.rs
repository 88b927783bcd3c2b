//! Sending an answer: content coding, entity tag, admission of its bytes.
//!
//! Guarantees: the bytes of an answer are admitted before they are made longer, and held until they are sent; large
//! ones are compressed off the runtime's workers; every answer that could have been coded says so in `Vary`.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use model::id::Version;

use crate::body::Outgoing;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::etag::{Format, Tag};
use crate::limits::Hold;
use crate::negotiate::{self, Coding, INLINE_BYTES, MIN_BYTES};

/// An answer before it is coded.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) parts: Vec<Bytes>,
    /// The content's version and form, for the tag.
    pub(crate) tag: Option<(Version, Format)>,
}

impl Answer {
    /// An answer of JSON.
    pub(crate) fn json(status: StatusCode, parts: Vec<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            parts,
            tag: None,
        }
    }

    /// With the entity tag of this content.
    pub(crate) const fn tagged(mut self, version: Version, format: Format) -> Self {
        self.tag = Some((version, format));
        self
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The answer in the coding that the call asks for.
    pub(crate) async fn send(self, call: &Call) -> Result<Response, ApiError> {
        let Self {
            status,
            mut headers,
            mut parts,
            tag,
        } = self;
        let length: usize = parts.iter().map(Bytes::len).sum();
        let mut hold = Hold::default();
        call.app.admission.grow(&mut hold, length)?;
        let coding = if length < MIN_BYTES {
            Coding::Identity
        } else {
            call.coding()
        };
        if coding != Coding::Identity {
            parts = vec![encode(parts, coding, length).await?];
        }
        if let Some(name) = coding.name() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        if let Some((version, format)) = tag {
            let tag = Tag {
                version,
                format,
                coding,
                weak: false,
            };
            headers.insert(header::ETAG, tag.value());
        }
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        let mut response = Response::new(Body::new(Outgoing::new(parts, hold)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

async fn encode(parts: Vec<Bytes>, coding: Coding, length: usize) -> Result<Bytes, ApiError> {
    let encoded = if length <= INLINE_BYTES {
        negotiate::encode(&parts, coding)
    } else {
        off_the_workers(move || negotiate::encode(&parts, coding)).await?
    };
    encoded.map_err(|_no_memory| Code::Internal.into())
}

/// Work that takes long, on a thread that may.
pub(crate) async fn off_the_workers<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_panicked_or_stopping| Code::Internal.into())
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
