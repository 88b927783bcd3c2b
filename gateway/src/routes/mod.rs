//! The route table.
//!
//! | file | what |
//! |---|---|
//! | `sessions` | version 2: create, read, change, delete, list, stats, clean |
//! | `v1` | version 1, as the SDKs call it |
//! | `watch` | WebSocket and server-sent events |
//! | `browsers` | what a server without a browser pool answers |
//! | `health` | `GET /`, `GET /health`, `GET /openapi.json`, without credentials |
//!
//! [`ROUTES`] is the list that the OpenAPI document, the metrics and the router agree on; tests hold them together.

mod browsers;
mod health;
mod sessions;
mod v1;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, delete, get, on, patch, post, put};
use http::Method;

use crate::error::{ApiError, Code};
use crate::server::App;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// The method. `HEAD` comes with `GET`, `OPTIONS` with every path.
    pub method: Method,
    /// The path, lower case, with `{id}` for one part that varies.
    pub path: &'static str,
    /// Whether it is answered without a credential.
    pub open: bool,
    handler: fn() -> MethodRouter<Arc<App>>,
}

const fn row(method: Method, path: &'static str, handler: fn() -> MethodRouter<Arc<App>>) -> Route {
    Route {
        method,
        path,
        open: false,
        handler,
    }
}

const fn open(path: &'static str, handler: fn() -> MethodRouter<Arc<App>>) -> Route {
    Route {
        method: Method::GET,
        path,
        open: true,
        handler,
    }
}

/// Every route, rows of one path together.
pub const ROUTES: &[Route] = &[
    open("/", || get(health::root)),
    open("/health", || get(health::health)),
    open("/openapi.json", || get(health::openapi)),
    row(Method::GET, "/api/v2/sessions", || get(sessions::list)),
    row(Method::POST, "/api/v2/sessions", || post(sessions::create)),
    row(Method::GET, "/api/v2/sessions/{id}", || get(sessions::read)),
    row(Method::PUT, "/api/v2/sessions/{id}", || put(sessions::put)),
    row(Method::PATCH, "/api/v2/sessions/{id}", || {
        patch(sessions::patch)
    }),
    row(Method::DELETE, "/api/v2/sessions/{id}", || {
        delete(sessions::delete)
    }),
    row(Method::GET, "/api/v2/sessions/{id}/stats", || {
        get(sessions::stats)
    }),
    row(Method::POST, "/api/v2/sessions/{id}/clean", || {
        post(sessions::clean)
    }),
    row(Method::GET, "/api/v2/sessions/{id}/events", || {
        get(watch::events)
    }),
    row(Method::POST, "/api/v2/sessions/{id}/connect", || {
        post(browsers::connect)
    }),
    row(Method::GET, "/api/v2/browsers", || get(browsers::list)),
    row(Method::DELETE, "/api/v2/browsers/{id}", || {
        delete(browsers::close)
    }),
    // HTTP/2 opens a WebSocket with CONNECT (RFC 8441).
    row(Method::GET, "/api/v2/ws", || {
        on(MethodFilter::GET.or(MethodFilter::CONNECT), watch::socket)
    }),
    row(Method::POST, "/api/v1/sessions", || post(v1::create)),
    row(Method::GET, "/api/v1/sessions/{id}", || get(v1::read)),
    row(Method::POST, "/api/v1/sessions/{id}/connect", || {
        post(browsers::connect)
    }),
    row(Method::DELETE, "/api/v1/browsers/{id}", || {
        delete(browsers::close)
    }),
];

/// The router over all routes; paths come in as [`crate::path::split`] makes them.
pub(crate) fn router(app: Arc<App>) -> Router {
    let router = ROUTES.iter().fold(Router::new(), |router, route| {
        router.route(route.path, (route.handler)())
    });
    router
        .fallback(|| async { ApiError::from(Code::RouteNotFound) })
        .method_not_allowed_fallback(|| async { ApiError::from(Code::MethodNotAllowed) })
        .with_state(app)
}
