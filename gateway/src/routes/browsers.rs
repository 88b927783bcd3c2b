//! Browsers: what a server without a browser pool answers, as the reference's lite server does.

use bytes::Bytes;
use http::StatusCode;

use axum::response::Response;

use crate::auth::Access;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::respond::Answer;

pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Read)?;
    let none = Bytes::from_static(br#"{"count":0,"browsers":[]}"#);
    Answer::json(StatusCode::OK, vec![none]).send(&call).await
}

#[expect(clippy::unused_async, reason = "handlers are async")]
pub(super) async fn close(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    Err(Code::BrowserNotFound.into())
}

#[expect(clippy::unused_async, reason = "handlers are async")]
pub(super) async fn connect(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    let text = "This server has no browser pool; restore the session in a browser of your own";
    Err(ApiError::from(Code::BrowserUnavailable).field("message", text))
}
