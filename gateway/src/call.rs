//! A request that may be carried out: authenticated, with its parts at hand.
//!
//! Guarantees: a handler that takes a [`Call`] runs only with a valid credential, and before a byte of the body is
//! read. What a call reads from headers and query is checked here, in one place.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use model::id::{RequestId, SessionId, Version};
use model::limits::MAX_DOCUMENT_BYTES;
use model::service::Consistency;
use model::shard::IdempotencyTag;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::auth::{Access, Identity};
use crate::body::{self, Received};
use crate::error::{ApiError, Code};
use crate::etag::{self, Condition, Format};
use crate::negotiate::{self, Coding};
use crate::query::Query;
use crate::server::App;
use crate::token::Seen;

/// `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `PSP-Consistency`.
pub(crate) const CONSISTENCY: HeaderName = HeaderName::from_static("psp-consistency");
/// `Prefer`.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Longest `Idempotency-Key`, in bytes.
pub(crate) const MAX_IDEMPOTENCY_KEY: usize = 255;
/// A body above this has more time, one second for each of so many bytes.
const BYTES_A_SECOND: usize = 1024 * 1024;
/// Bodies above this are hashed off the runtime's workers.
const HASH_INLINE: usize = 256 * 1024;

/// The key that stood in the path, until it is checked.
#[derive(Clone)]
pub(crate) struct PathKey(pub(crate) SecretString);

/// See the module's text.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) who: Identity,
    pub(crate) parts: Parts,
    /// Never locked: a body alone cannot be shared between threads, and a handler's future must be.
    body: Mutex<Body>,
}

impl FromRequest<Arc<App>> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        Self::new(request, app)
    }
}

/// Who a request comes from. The key in the path, if any, is gone from the request afterwards.
pub(crate) fn authenticate(app: &App, parts: &mut Parts) -> Result<Identity, ApiError> {
    let in_path = parts.extensions.remove::<PathKey>();
    app.auth
        .authenticate(in_path.as_ref().map(|key| &key.0), &parts.headers)
}

impl Call {
    pub(crate) fn new(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let who = authenticate(app, &mut parts)?;
        Ok(Self {
            app: Arc::clone(app),
            who,
            parts,
            body: Mutex::new(body),
        })
    }

    /// Refuses a credential that does not permit this.
    pub(crate) fn wants(&self, access: Access) -> Result<(), ApiError> {
        self.who.permits(access)
    }

    /// The session that the path names. A text that is no id, or no id of ours, is a session that is not there.
    pub(crate) fn session(&self) -> Result<SessionId, ApiError> {
        session_in(self.parts.uri.path()).ok_or_else(|| Code::SessionNotFound.into())
    }

    /// The query.
    pub(crate) fn query(&self) -> Result<Query<'_>, ApiError> {
        Query::parse(self.parts.uri.query().unwrap_or("")).map_err(|error| {
            ApiError::new(
                Code::InvalidQuery,
                format!("The query is not valid: {error}"),
            )
        })
    }

    /// Which form of documents is asked for.
    pub(crate) fn format(&self) -> Result<Format, ApiError> {
        match self.query()?.get("format") {
            None | Some("psp") => Ok(Format::Psp),
            Some("playwright") => Ok(Format::Playwright),
            Some(_) => Err(ApiError::new(
                Code::InvalidQuery,
                "format must be psp or playwright",
            )),
        }
    }

    /// A header as text; of a repeated one the values joined by commas, as RFC 9110 reads it.
    pub(crate) fn header(&self, name: &HeaderName) -> Result<Option<String>, ApiError> {
        let mut joined: Option<String> = None;
        for value in self.parts.headers.get_all(name) {
            let value = value.to_str().map_err(|_not_ascii| invalid(name))?;
            joined = Some(
                joined.map_or_else(|| value.to_owned(), |before| format!("{before}, {value}")),
            );
        }
        Ok(joined)
    }

    fn condition(&self, name: &HeaderName) -> Result<Option<Condition>, ApiError> {
        let value = self.header(name)?;
        value
            .map(|value| etag::parse(&value).map_err(|_bad| invalid(name)))
            .transpose()
    }

    /// The versions of `If-Match`; `None` for no header and for `*`.
    pub(crate) fn if_match(&self) -> Result<Option<Vec<Version>>, ApiError> {
        Ok(match self.condition(&header::IF_MATCH)? {
            None | Some(Condition::Any) => None,
            Some(Condition::Tags(tags)) => Some(
                tags.iter()
                    .filter(|tag| !tag.weak)
                    .map(|tag| tag.version)
                    .collect(),
            ),
        })
    }

    /// `If-None-Match`.
    pub(crate) fn if_none_match(&self) -> Result<Option<Condition>, ApiError> {
        self.condition(&header::IF_NONE_MATCH)
    }

    /// Whether the client wants no document back (RFC 7240).
    pub(crate) fn prefers_minimal(&self) -> Result<bool, ApiError> {
        let value = self.header(&PREFER)?.unwrap_or_default();
        let first = value.split([',', ';']).find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"');
            name.trim()
                .eq_ignore_ascii_case("return")
                .then(|| value.eq_ignore_ascii_case("minimal"))
        });
        Ok(first.unwrap_or(false))
    }

    /// What the client has seen, by its token.
    pub(crate) fn seen(&self) -> Result<Seen, ApiError> {
        match self.parts.headers.get(CONSISTENCY) {
            None => Ok(Seen::default()),
            Some(value) => {
                let text = value
                    .to_str()
                    .map_err(|_not_ascii| ApiError::from(Code::InvalidToken))?;
                let seen = self.app.tokens.open(self.who.tenant, text.trim());
                seen.map_err(|_bad| Code::InvalidToken.into())
            }
        }
    }

    /// The header's value after an answer.
    pub(crate) fn token(&self, seen: &Seen, session: SessionId, version: Version) -> HeaderValue {
        let text = self
            .app
            .tokens
            .seal(self.who.tenant, &seen.and(session, version));
        HeaderValue::from_str(&text).expect("base64 is a header value")
    }

    /// How fresh a read must be.
    pub(crate) fn consistency(
        &self,
        seen: &Seen,
        session: SessionId,
    ) -> Result<Consistency, ApiError> {
        match self.query()?.get("consistency") {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("local") => Ok(Consistency::Local {
                at_least: seen.version(session),
            }),
            Some(_) => Err(ApiError::new(
                Code::InvalidQuery,
                "consistency must be linearizable or local",
            )),
        }
    }

    /// The coding of the answer.
    pub(crate) fn coding(&self) -> Coding {
        let values = self.parts.headers.get_all(header::ACCEPT_ENCODING);
        let texts: Vec<_> = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        if texts.is_empty() {
            Coding::Identity
        } else {
            negotiate::choose(Some(&texts.join(",")))
        }
    }

    /// The body, decoded. Its time is over when it has arrived: the request's own time begins then.
    pub(crate) async fn body(&mut self) -> Result<Received, ApiError> {
        let body = std::mem::take(self.body.get_mut());
        let bounds = (&self.app.admission, &self.app.limits);
        body::read(bounds, &self.parts.headers, body, MAX_DOCUMENT_BYTES).await
    }

    /// Until when a request with a body of this size is tried.
    pub(crate) fn deadline(&self, body_bytes: usize) -> Deadline {
        let limits = &self.app.limits;
        let more = u64::try_from(body_bytes / BYTES_A_SECOND).unwrap_or(u64::MAX);
        let time = limits
            .request_timeout
            .saturating_add(Duration::from_secs(more));
        let time = time
            .min(limits.large_request_timeout.max(limits.request_timeout))
            .min(MOST_TIME);
        Deadline {
            time,
            at: Instant::now() + time,
        }
    }

    /// The client's idempotency key, hashed with its tenant, and what it was used for.
    pub(crate) async fn idempotency(
        &self,
        body: &Received,
    ) -> Result<Option<IdempotencyTag>, ApiError> {
        let Some(value) = self.parts.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(None);
        };
        let text = value.as_bytes().trim_ascii();
        let visible = text.iter().all(|byte| (b' '..=b'~').contains(byte));
        if text.is_empty() || text.len() > MAX_IDEMPOTENCY_KEY || !visible {
            return Err(invalid(&IDEMPOTENCY_KEY));
        }
        let mut key = blake3::Hasher::new_derive_key("psp-edge gateway 2026 idempotency key");
        key.update(&self.who.tenant.0.to_be_bytes());
        key.update(text);
        let mut asked = blake3::Hasher::new_derive_key("psp-edge gateway 2026 idempotent request");
        let uri = &self.parts.uri;
        for part in [
            self.parts.method.as_str(),
            uri.path(),
            uri.query().unwrap_or(""),
        ] {
            asked.update(&(part.len() as u64).to_be_bytes());
            asked.update(part.as_bytes());
        }
        let fingerprint = if body.bytes.len() > HASH_INLINE {
            let bytes = body.bytes.clone();
            let hashed = tokio::task::spawn_blocking(move || asked.update(&bytes).finalize()).await;
            hashed.map_err(|_stopping| ApiError::from(Code::Internal))?
        } else {
            asked.update(&body.bytes).finalize()
        };
        Ok(Some(IdempotencyTag {
            key: *key.finalize().as_bytes(),
            fingerprint: *fingerprint.as_bytes(),
        }))
    }
}

/// A minute, so that `not_after` stays within the model's bound, clocks being what they are.
const MOST_TIME: Duration = Duration::from_mins(1);
const _: () = assert!(MOST_TIME.as_secs() < model::limits::MAX_NOT_AFTER.as_secs());

/// Until when a request is tried.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    /// From its arrival.
    pub(crate) time: Duration,
    /// By the gateway's monotonic clock.
    pub(crate) at: Instant,
}

/// The session in `/api/vN/sessions/ID/...`, if it can be one of ours.
fn session_in(path: &str) -> Option<SessionId> {
    let id: SessionId = path.split('/').nth(4)?.parse().ok()?;
    id.is_ours().then_some(id)
}

/// A random id for a request: every retry inside the cluster carries the same one.
pub(crate) fn new_request() -> RequestId {
    RequestId(rand::random())
}

fn invalid(name: &HeaderName) -> ApiError {
    ApiError::new(
        Code::InvalidHeader,
        format!("The header {name} is not valid"),
    )
}
