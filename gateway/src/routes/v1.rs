//! Version 1, as the SDKs call it: the same sessions, with version 1's fields in answers.

use axum::response::Response;

use crate::call::Call;
use crate::error::ApiError;
use crate::etag::Format;
use crate::routes::sessions::{self, Creation};

pub(super) async fn create(call: Call) -> Result<Response, ApiError> {
    sessions::create_as(call, Creation::V1).await
}

pub(super) async fn read(call: Call) -> Result<Response, ApiError> {
    sessions::read_as(call, Format::V1).await
}
