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
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, delete, get, on, patch, post, put};
use http::Method;

use crate::call::Call;
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

/// A route that nearly all requests take. It is found and carried out without the router, whose way through layers, boxes and
/// extensions costs more than the route itself; what comes of it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hot {
    Create,
    Read,
    Put,
    Patch,
    Delete,
}

const SESSIONS: &str = "/api/v2/sessions";

impl Hot {
    /// The route of a request, if it is one of these; the path as [`crate::path::split`] makes it.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let rest = path.strip_prefix(SESSIONS)?;
        if rest.is_empty() {
            return (*method == Method::POST).then_some(Self::Create);
        }
        let id = rest.strip_prefix('/')?;
        if id.is_empty() || id.contains('/') {
            return None;
        }
        Some(match *method {
            Method::GET => Self::Read,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => return None,
        })
    }

    pub(crate) async fn carry_out(self, call: Call) -> Result<Response, ApiError> {
        match self {
            Self::Create => sessions::create(call).await,
            Self::Read => sessions::read(call).await,
            Self::Put => sessions::put(call).await,
            Self::Patch => sessions::patch(call).await,
            Self::Delete => sessions::delete(call).await,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_past_the_router_is_in_the_table() {
        let id = "00000cd9-f8aa-8ab7-8c3b-e81499f9205b";
        let hot: Vec<_> = ROUTES
            .iter()
            .filter_map(|row| Some((row, Hot::of(&row.method, &row.path.replace("{id}", id))?)))
            .collect();
        let shown: Vec<_> = hot.iter().map(|(row, hot)| (row.path, *hot)).collect();
        let one = "/api/v2/sessions/{id}";
        let all = [
            ("/api/v2/sessions", Hot::Create),
            (one, Hot::Read),
            (one, Hot::Put),
            (one, Hot::Patch),
            (one, Hot::Delete),
        ];
        assert_eq!(shown, all);
        assert!(hot.iter().all(|(row, _)| !row.open));
        for (method, path) in [
            (Method::HEAD, "/api/v2/sessions/x"),
            (Method::GET, "/api/v2/sessions/"),
            (Method::GET, "/api/v2/sessionsx"),
            (Method::POST, "/api/v2/sessions/x"),
            (Method::PUT, "/api/v2/sessions"),
        ] {
            assert_eq!(Hot::of(&method, path), None, "{method} {path}");
        }
    }
}
