//! The PSP document: how a body becomes what is stored, is changed, and becomes an answer.
//!
//! | file | what |
//! |---|---|
//! | `scan`, `text`, `number`, `keys` | bytes, strings, numbers and keys as JSON and JavaScript see them |
//! | `tokenizer`, `token` | the one pass: a pull parser that checks everything and copies nothing |
//! | `canonical`, `checksum` | what `JSON.stringify` prints, and its SHA-256 |
//! | `field` | which fields there are, and what each may hold |
//! | `parse`, `compact` | a body, cut into its fields |
//! | `sections` | a document's parts as they are stored, and their bytes |
//! | `change`, `members` | `POST`, `PUT`, `PATCH`; laying members over others |
//! | `clean`, `stats`, `summary` | dropping dead cookies, numbers, lines of a list |
//! | `serve`, `v1`, `date` | a document as an answer; version 1; points in time as text |
//! | [`playwright`] | Playwright's storage state, both ways |
//! | `error`, `path` | refusals, which name the place and never show a value |
//!
//! A body goes through `parse` once. Its parts keep the bytes as sent (numbers, escapes, order, unknown fields), so that
//! what one client stores another gets back, and its checksum is what JavaScript computes from the answer.

mod canonical;
mod change;
mod checksum;
mod clean;
mod compact;
mod date;
mod error;
mod field;
mod keys;
mod members;
mod number;
mod parse;
mod path;
pub mod playwright;
mod scan;
mod sections;
mod serve;
mod stats;
mod summary;
mod text;
mod token;
mod tokenizer;
mod v1;

pub use change::{Input, create, patch, put};
pub use checksum::Checksum;
pub use clean::{CleanReport, clean};
pub use date::{format_date, parse_date};
pub use error::DocumentError;
pub use sections::Sections;
pub use serve::{Served, serve, serve_v1};
pub use stats::stats;
pub use summary::{Line, Summary, write_line};
pub use v1::create_v1;
