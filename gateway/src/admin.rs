//! The admin listener: `/livez`, `/readyz`, `/metrics` and `/admin/v1/*`, plain HTTP/1.1, for the operator's network.
//!
//! Guarantees: `/readyz` is 503 only for what another node would do better (starting, draining, own disk or clock sick,
//! alone cut off); what all nodes share is in its body. It knows no secret and shows none. It has no credentials: it
//! must not be reachable by clients. A browser's page cannot change anything through it (requests with `Origin` that
//! would are refused).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{ApiError, Code};
use crate::server::App;

/// Open admin connections.
const MAX_CONNECTIONS: usize = 64;
/// Largest body of an admin request, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// How long the body of an admin request may take.
const BODY_TIME: Duration = Duration::from_secs(10);
/// How long the head of an admin request may take, also the first on an idle connection.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// A request below `/admin/v1/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminRequest {
    /// The method.
    pub method: Method,
    /// What follows `/admin/v1/`, as in `cluster`.
    pub path: String,
    /// What follows the question mark, undecoded; empty without one.
    pub query: String,
    /// The body, at most 1 MiB.
    pub body: Bytes,
}

/// An answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminReply {
    /// JSON text with a status.
    Json {
        /// The HTTP status.
        status: u16,
        /// The text.
        text: String,
    },
    /// There is nothing at this path.
    NotFound,
    /// There is, but not for this method; those that it takes.
    MethodNotAllowed(&'static str),
}

impl AdminReply {
    /// 200 with JSON.
    #[must_use]
    pub const fn ok(text: String) -> Self {
        Self::Json { status: 200, text }
    }
}

/// What the node tells its operator. Methods that are not async must not block.
#[async_trait]
pub trait AdminHooks: Send + Sync + 'static {
    /// Why the process should be restarted; empty when it is well.
    fn sick(&self) -> Vec<String>;

    /// Why another node would do better; empty when this one is ready.
    fn unready(&self) -> Vec<String>;

    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> String;

    /// Answers a request below `/admin/v1/`.
    async fn admin(&self, request: AdminRequest) -> AdminReply;
}

/// The admin listener's parts.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) app: Arc<App>,
    pub(crate) hooks: Arc<dyn AdminHooks>,
    /// Ends the listener: after the gateway has drained, so that `/readyz` says so until then.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Admin {
    pub(crate) async fn run(self, socket: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let (stream, peer): (_, SocketAddr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting an admin connection failed");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%peer, "too many admin connections");
                continue;
            };
            let admin = self.clone();
            self.tasks.spawn(async move {
                let stop = admin.stop.clone();
                let service = service_fn(move |request| admin.clone().answer(request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME)
                    .max_buf_size(16 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%error, "an admin connection ended with an error");
                    },
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let response = match path.as_str() {
            "/livez" | "/readyz" | "/metrics" if !reads => {
                refused(Code::MethodNotAllowed, Some("GET, HEAD"))
            }
            "/livez" => self.live(),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            path => match path.strip_prefix("/admin/v1/") {
                Some(below) => self.admin(below.to_owned(), request).await,
                None => refused(Code::RouteNotFound, None),
            },
        };
        Ok(response)
    }

    fn live(&self) -> Response<Body> {
        let reasons = self.hooks.sick();
        let status = status_of(&reasons);
        answer(
            status,
            &json!({"live": reasons.is_empty(), "reasons": reasons}),
        )
    }

    fn ready(&self) -> Response<Body> {
        let mut reasons = self.hooks.unready();
        if self.app.draining.is_cancelled() {
            reasons.push("draining".to_owned());
        }
        let leaderless: Vec<_> = self
            .app
            .sessions
            .leaderless()
            .iter()
            .map(ToString::to_string)
            .collect();
        let status = status_of(&reasons);
        answer(
            status,
            &json!({"ready": reasons.is_empty(), "reasons": reasons, "leaderless": leaderless}),
        )
    }

    fn metrics(&self) -> Response<Body> {
        let held = u32::try_from(self.app.admission.bytes_held()).unwrap_or(u32::MAX);
        self.app.metrics.body_bytes.set(f64::from(held));
        let mut response = Response::new(Body::from(self.hooks.metrics()));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    async fn admin(&self, path: String, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        if !reads && parts.headers.contains_key(header::ORIGIN) {
            return refused(Code::Forbidden, None);
        }
        let body = match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_too_large_or_cut)) => return refused(Code::InvalidRequest, None),
            Err(_late) => return refused(Code::RequestTimeout, None),
        };
        let query = parts.uri.query().unwrap_or("").to_owned();
        let request = AdminRequest {
            method: parts.method,
            path,
            query,
            body,
        };
        match self.hooks.admin(request).await {
            AdminReply::Json { status, text } => {
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                with_text(status, text)
            }
            AdminReply::NotFound => refused(Code::RouteNotFound, None),
            AdminReply::MethodNotAllowed(allow) => refused(Code::MethodNotAllowed, Some(allow)),
        }
    }
}

const fn status_of(reasons: &[String]) -> StatusCode {
    if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    with_text(status, value.to_string())
}

fn with_text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn refused(code: Code, allow: Option<&'static str>) -> Response<Body> {
    let mut response = ApiError::from(code).render(&hex::encode(rand::random::<[u8; 16]>()));
    if let Some(allow) = allow {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}
