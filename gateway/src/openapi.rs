//! The OpenAPI 3.1 document, as served at `/openapi.json`.
//!
//! It is a file beside the sources; a test holds it to the route table and to the table of errors, both ways.

/// The document's text.
pub const DOCUMENT: &str = include_str!("../openapi.json");
