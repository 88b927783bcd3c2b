//! What happens to every request, in this order: id, bounds of the head, CORS, admission, path, route, finish.
//!
//! Guarantees: every answer has `X-Request-Id` and the CORS headers; every error has the one shape; a handler that
//! panics costs its request and nothing else; no path that reaches a route, a metric or a log contains a key.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, StatusCode};
use model::service::Sessions;
use model::time::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::auth::Authenticator;
use crate::call::{Call, PathKey};
use crate::calls::Calls;
use crate::config::{LimitsConfig, Secrets};
use crate::cors;
use crate::error::{ApiError, Code};
use crate::limits::Admission;
use crate::metrics::Metrics;
use crate::path;
use crate::respond::empty;
use crate::routes;
use crate::token::Tokens;

/// `X-Request-Id`.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a client, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// What all requests share.
pub(crate) struct App {
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: LimitsConfig,
    pub(crate) auth: Authenticator,
    pub(crate) tokens: Tokens,
    pub(crate) admission: Admission,
    pub(crate) metrics: Metrics,
    pub(crate) calls: Calls,
    pub(crate) started: Instant,
    /// `/readyz` says that this node leaves; everything else goes on.
    pub(crate) leaving: AtomicBool,
    /// No new connections; watches end; connections close after the answers that they owe.
    pub(crate) draining: CancellationToken,
    /// The time for that is over: connections end as they are.
    pub(crate) cut: CancellationToken,
    /// Connections and watches.
    pub(crate) tasks: TaskTracker,
}

impl App {
    pub(crate) fn new(
        limits: LimitsConfig,
        secrets: &Secrets,
        sessions: Arc<dyn Sessions>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            auth: Authenticator::new(&secrets.api_key),
            tokens: Tokens::new(&secrets.cluster),
            admission: Admission::new(&limits),
            metrics: Metrics::new(),
            calls: Calls::default(),
            started: Instant::now(),
            leaving: AtomicBool::new(false),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            sessions,
            clock,
            limits,
        }
    }
}

/// Answers requests: one for each connection, cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) app: Arc<App>,
    router: Router,
}

impl Server {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self {
            router: routes::router(Arc::clone(&app)),
            app,
        }
    }

    /// Answers one request. Never fails.
    pub(crate) async fn answer<B>(self, request: Request<B>) -> Result<Response, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let started = Instant::now();
        let request = request.map(Body::new);
        let id = request_id(request.headers());
        let origin = cors::Asked::of(&request);
        let path::Target { path, key } = path::split(request.uri().path());
        let method = request.method().clone();
        let app = Arc::clone(&self.app);
        let routed = self.route(request, &path, key);
        let outcome = AssertUnwindSafe(routed).catch_unwind().await;
        let mut response = match outcome {
            Ok(Ok(mut response)) => match response.extensions_mut().remove::<ApiError>() {
                Some(error) => with_headers(error.render(&id), response.headers()),
                None => response,
            },
            Ok(Err(error)) => error.render(&id),
            Err(_panic) => ApiError::from(Code::Internal).render(&id),
        };
        if method == Method::HEAD {
            response = without_body(response);
        }
        let status = response.status();
        let took = started.elapsed();
        let route = app.metrics.answered(&path, status, took);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(request = %id, %method, route, "request failed");
        } else {
            tracing::debug!(request = %id, %method, route, status = status.as_u16(), ?took, "request answered");
        }
        let id = HeaderValue::from_str(&id).expect("a request id is visible ASCII");
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("private, no-cache"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        origin.allow(headers);
        app.calls.answered(status);
        Ok(response)
    }

    async fn route(
        mut self,
        mut request: Request<Body>,
        path: &str,
        key: Option<secrecy::SecretString>,
    ) -> Result<Response, ApiError> {
        check_head(&request, &self.app.limits)?;
        if request.method() == Method::OPTIONS {
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let _place = self.app.admission.request()?;
        if request.uri().path() != path {
            *request.uri_mut() = target(path, request.uri().query())?;
        }
        if let Some(key) = key {
            request.extensions_mut().insert(PathKey(key));
        }
        if let Some(hot) = routes::Hot::of(request.method(), path) {
            return hot.carry_out(Call::new(request, &self.app)?).await;
        }
        let Ok(response) = self.router.call(request).await;
        Ok(response)
    }
}

/// The target for the routes: only path and query, without the key.
fn target(path: &str, query: Option<&str>) -> Result<Uri, ApiError> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(text);
    let target = target.map_err(|_not_a_path| ApiError::from(Code::InvalidRequest))?;
    Ok(Uri::from(target))
}

fn check_head(request: &Request<Body>, limits: &LimitsConfig) -> Result<(), ApiError> {
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.header_bytes {
        return Err(Code::TargetTooLong.into());
    }
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > limits.headers || bytes > limits.header_bytes {
        return Err(Code::HeadersTooLarge.into());
    }
    Ok(())
}

/// An error keeps what the route said beside it, as `Allow`.
fn with_headers(mut response: Response, beside: &HeaderMap) -> Response {
    for (name, value) in beside.iter().filter(|(name, _)| **name == header::ALLOW) {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

/// The answer to a `HEAD`: an error, too, says how long its body would be and does not send it.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// The client's own id for its request, if it is fit to be repeated, else a random one.
fn request_id(headers: &HeaderMap) -> String {
    let own = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let fit = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    own.filter(fit)
        .map_or_else(|| hex::encode(rand::random::<[u8; 16]>()), str::to_owned)
}
