//! What anybody may ask: what this is, whether it is up, and the description of the interface.
//!
//! `/health` says that this process answers; whether another node would answer better is for `/readyz` on the admin
//! listener.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};
use serde_json::{Value, json};

use crate::openapi;
use crate::server::App;

pub(super) async fn root() -> Response {
    answer(&json!({
        "name": "PSP Edge",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": "2.0.0",
        "endpoints": {
            "sessions": "/api/v2/sessions",
            "browsers": "/api/v2/browsers",
            "health": "/health",
        },
    }))
}

pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    answer(&json!({
        "status": "healthy",
        "uptime": app.started.elapsed().as_secs_f64(),
        "activeBrowsers": 0,
    }))
}

pub(super) async fn openapi() -> Response {
    json_text(openapi::DOCUMENT)
}

fn answer(value: &Value) -> Response {
    json_text(value.to_string())
}

fn json_text(text: impl IntoResponse) -> Response {
    let mut response = text.into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
