//! The gateway's metrics: names, units, help; handles are made once.
//!
//! No tenant, session, key or path is a label: routes are named by their patterns, of which there are few.

use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::routes::ROUTES;

/// The label of a path that is none of ours.
const OTHER: &str = "other";

/// Handles of all metrics of the gateway.
pub(crate) struct Metrics {
    routes: Vec<Route>,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Connections closed at once because there were too many.
    pub(crate) connections_refused: Counter,
    /// TLS handshakes that failed.
    pub(crate) handshakes_failed: Counter,
    /// Watches open.
    pub(crate) watches: Gauge,
    /// Bytes of bodies in hand.
    pub(crate) body_bytes: Gauge,
}

struct Route {
    pattern: &'static str,
    duration: Histogram,
    classes: [Counter; 5],
}

impl Route {
    fn new(pattern: &'static str) -> Self {
        let class = |class: &'static str| counter!("psp_http_requests_total", "route" => pattern, "status" => class);
        Self {
            pattern,
            duration: histogram!("psp_http_request_duration_seconds", "route" => pattern),
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
        }
    }
}

impl Metrics {
    /// Describes and registers all of them with the process' recorder, which must be installed before.
    #[must_use]
    pub(crate) fn new() -> Self {
        describe_counter!(
            "psp_http_requests_total",
            Unit::Count,
            "Requests answered, by route and class of status."
        );
        describe_histogram!(
            "psp_http_request_duration_seconds",
            Unit::Seconds,
            "Time from a request's head to its answer's head, by route."
        );
        describe_gauge!(
            "psp_http_connections",
            Unit::Count,
            "Open client connections."
        );
        describe_counter!(
            "psp_http_connections_refused_total",
            Unit::Count,
            "Connections closed because of the bound."
        );
        describe_counter!(
            "psp_tls_handshakes_failed_total",
            Unit::Count,
            "TLS handshakes that failed."
        );
        describe_gauge!(
            "psp_http_watches",
            Unit::Count,
            "Open watches: WebSocket connections and event streams."
        );
        describe_gauge!(
            "psp_http_body_bytes",
            Unit::Bytes,
            "Bytes of request and response bodies in hand."
        );
        let mut patterns: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        patterns.dedup();
        patterns.push(OTHER);
        Self {
            routes: patterns.into_iter().map(Route::new).collect(),
            connections: gauge!("psp_http_connections"),
            connections_refused: counter!("psp_http_connections_refused_total"),
            handshakes_failed: counter!("psp_tls_handshakes_failed_total"),
            watches: gauge!("psp_http_watches"),
            body_bytes: gauge!("psp_http_body_bytes"),
        }
    }

    /// One request was answered. The path is as the routes see it.
    pub(crate) fn answered(&self, path: &str, status: StatusCode, took: Duration) {
        let matches = |route: &&Route| is_of(path, route.pattern);
        let Some(route) = self.routes.iter().find(matches).or(self.routes.last()) else {
            return;
        };
        route.duration.record(took);
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = route.classes.get(class) {
            counter.increment(1);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a path is one of a pattern's, in which `{id}` stands for any one part.
fn is_of(path: &str, pattern: &str) -> bool {
    let mut parts = path.split('/');
    pattern.split('/').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| part == wanted || (wanted == "{id}" && !part.is_empty()))
    }) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn a_path_is_known_by_its_pattern() {
        assert!(is_of("/", "/"));
        assert!(is_of("/a/7/b", "/a/{id}/b"));
        assert!(!is_of("/a//b", "/a/{id}/b"));
        assert!(!is_of("/a/7", "/a/{id}/b"));
        assert!(!is_of("/a/7/b/c", "/a/{id}/b"));
    }
}
