//! Cross-origin requests: any origin may ask, because a request is worth what its key is worth; cookies are no
//! credential here.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};

const METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Location, Preference-Applied, Idempotency-Replayed, PSP-Consistency, PSP-Staleness-Ms, \
     RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-Id, WWW-Authenticate",
);
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What a request asks for.
pub(crate) enum Asked {
    /// An answer that the page may see.
    Answer,
    /// Whether a request with these headers may be sent.
    Preflight(Option<HeaderValue>),
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        if request.method() == Method::OPTIONS {
            let headers = request
                .headers()
                .get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            Self::Preflight(headers.cloned())
        } else {
            Self::Answer
        }
    }

    /// Allows it.
    pub(crate) fn allow(self, headers: &mut HeaderMap) {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        match self {
            Self::Answer => {
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            Self::Preflight(asked) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
                let vary = HeaderValue::from_name(header::ACCESS_CONTROL_REQUEST_HEADERS);
                headers.append(header::VARY, vary);
                if let Some(asked) = asked {
                    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
                }
            }
        }
    }
}
