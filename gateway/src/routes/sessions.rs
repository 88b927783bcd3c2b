//! Version 2 of sessions: create, read, change, delete, list, stats, clean.
//!
//! Guarantees: a write is handed to the store once, under one request id; 201 and 200 say that it is on a quorum's
//! disks, 504 that nobody knows. `Location` never contains a key.

use axum::response::Response;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use model::codec::Blob;
use model::document::{self, playwright};
use model::id::{SessionId, Slot};
use model::limits::MAX_LIST;
use model::placement::slot_of_key;
use model::service::{
    ListRequest, ReadReply, ReadRequest, Stored, WriteOp, WriteReply, WriteRequest,
};
use tokio::time::timeout_at;

use crate::api::{self, Page};
use crate::auth::Access;
use crate::body::Received;
use crate::call::{CONSISTENCY, Call, new_request};
use crate::error::{ApiError, Code};
use crate::etag::{Condition, Format, Tag};
use crate::media::{self, Accepts};
use crate::negotiate::INLINE_BYTES;
use crate::respond::{Answer, empty, off_the_workers};
use crate::token::Seen;

const STALENESS: HeaderName = HeaderName::from_static("psp-staleness-ms");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// After a write's deadline the store has so long to say how it ended, before we say that nobody knows.
const STORE_KNOWS: std::time::Duration = std::time::Duration::from_millis(500);

/// What a new session is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Creation {
    /// A version 1 body.
    V1,
    /// A version 2 body.
    V2,
}

pub(super) async fn create(call: Call) -> Result<Response, ApiError> {
    create_as(call, Creation::V2).await
}

pub(super) async fn create_as(mut call: Call, creation: Creation) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    media::check(&call.parts, Accepts::JsonOrText)?;
    let format = call.format()?;
    let body = call.body().await?;
    let body = media::text_is_empty(&call.parts, body);
    let op = match (creation, format) {
        (Creation::V1, _) => WriteOp::CreateV1(Blob(body.bytes.clone())),
        (Creation::V2, Format::Playwright) => WriteOp::Create(Blob(from_playwright(&body).await?)),
        (Creation::V2, Format::Psp | Format::V1) => WriteOp::Create(Blob(body.bytes.clone())),
    };
    let form = if creation == Creation::V1 {
        Format::V1
    } else {
        Format::Psp
    };
    let session = None;
    let done = write(&call, Write { session, op, body }).await?;
    let location = HeaderValue::from_str(&format!("/api/v2/sessions/{}", done.reply.session));
    let location = location.expect("an id is a header value");
    let answer = done.answer(StatusCode::CREATED, "created", form).await?;
    answer.header(header::LOCATION, location).send(&call).await
}

pub(super) async fn put(mut call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    let session = Some(call.session()?);
    media::check(&call.parts, Accepts::Json)?;
    let format = call.format()?;
    let body = call.body().await?;
    let op = match format {
        Format::Playwright => WriteOp::Put(Blob(replacing(from_playwright(&body).await?).await?)),
        Format::Psp | Format::V1 => WriteOp::Put(Blob(body.bytes.clone())),
    };
    let done = write(&call, Write { session, op, body }).await?;
    done.answer(StatusCode::OK, "updated", Format::Psp)
        .await?
        .send(&call)
        .await
}

pub(super) async fn patch(mut call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    let session = Some(call.session()?);
    media::check(&call.parts, Accepts::MergePatch)?;
    if call.format()? != Format::Psp {
        return Err(ApiError::new(
            Code::InvalidQuery,
            "a merge patch has no other format",
        ));
    }
    let body = call.body().await?;
    let op = WriteOp::Patch(Blob(body.bytes.clone()));
    let done = write(&call, Write { session, op, body }).await?;
    done.answer(StatusCode::OK, "updated", Format::Psp)
        .await?
        .send(&call)
        .await
}

pub(super) async fn delete(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    let session = Some(call.session()?);
    let body = Received::default();
    let done = write(
        &call,
        Write {
            session,
            op: WriteOp::Delete,
            body,
        },
    )
    .await?;
    let minimal = done.minimal;
    let answer = done.answer(StatusCode::OK, "deleted", Format::Psp).await?;
    if minimal {
        let mut response = empty(StatusCode::NO_CONTENT);
        *response.headers_mut() = answer.headers;
        return Ok(response);
    }
    answer.send(&call).await
}

pub(super) async fn clean(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Write)?;
    let session = Some(call.session()?);
    let body = Received::default();
    let done = write(
        &call,
        Write {
            session,
            op: WriteOp::Clean,
            body,
        },
    )
    .await?;
    let report = done.reply.clean.unwrap_or_default();
    let parts = vec![api::cleaned(done.reply.session, report)];
    let answer = Answer {
        headers: done.headers,
        ..Answer::json(StatusCode::OK, parts)
    };
    answer
        .tagged(done.reply.version, Format::Psp)
        .send(&call)
        .await
}

struct Write {
    /// `None` for a new one.
    session: Option<SessionId>,
    op: WriteOp,
    body: Received,
}

/// A write that was applied, and the headers that tell of it.
struct Done {
    reply: WriteReply,
    headers: HeaderMap,
    minimal: bool,
}

impl Done {
    async fn answer(
        self,
        status: StatusCode,
        word: &str,
        form: Format,
    ) -> Result<Answer, ApiError> {
        let WriteReply {
            session,
            version,
            stored,
            ..
        } = self.reply;
        let deleted = word == "deleted";
        let (document, shown) = match stored.filter(|_| !self.minimal && !deleted) {
            Some(stored) => {
                let shown = stored.version;
                (Some(render(stored, form).await?), shown)
            }
            None => (None, version),
        };
        let parts = api::written(session, word, document);
        let answer = Answer {
            headers: self.headers,
            ..Answer::json(status, parts)
        };
        // A deletion's version names no content.
        Ok(if deleted {
            answer
        } else {
            answer.tagged(shown, form)
        })
    }
}

async fn write(call: &Call, write: Write) -> Result<Done, ApiError> {
    if call.parts.method != Method::POST && call.if_none_match()?.is_some() {
        return Err(ApiError::new(
            Code::InvalidHeader,
            "If-None-Match has no meaning for a change; use If-Match",
        ));
    }
    let minimal = call.prefers_minimal()?;
    let seen = call.seen()?;
    let idempotency = call.idempotency(&write.body).await?;
    let creates = write.session.is_none();
    let session = write.session.unwrap_or_else(|| {
        let slot = idempotency.map_or_else(
            || Slot::wrapping(rand::random()),
            |tag| slot_of_key(&tag.key),
        );
        SessionId::new(call.app.sessions.birth_region(), slot, rand::random())
    });
    let deadline = call.deadline(write.body.bytes.len());
    let request = WriteRequest {
        tenant: call.who.tenant,
        session,
        request: new_request(),
        not_after: call.app.clock.now().plus(deadline.time),
        if_match: if creates { None } else { call.if_match()? },
        idempotency,
        want_document: !minimal && !matches!(write.op, WriteOp::Delete | WriteOp::Clean),
        op: write.op,
    };
    let reply = timeout_at(deadline.at + STORE_KNOWS, call.app.sessions.write(request)).await;
    let reply = reply.map_err(|_late| ApiError::from(Code::OutcomeUnknown))??;
    drop(write.body);
    let mut headers = HeaderMap::new();
    headers.insert(CONSISTENCY, call.token(&seen, reply.session, reply.version));
    if minimal {
        headers.insert(
            PREFERENCE_APPLIED,
            HeaderValue::from_static("return=minimal"),
        );
    }
    if idempotency.is_some() && reply.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(Done {
        reply,
        headers,
        minimal,
    })
}

pub(super) async fn read(call: Call) -> Result<Response, ApiError> {
    let format = call.format()?;
    read_as(call, format).await
}

pub(super) async fn read_as(call: Call, format: Format) -> Result<Response, ApiError> {
    call.wants(Access::Read)?;
    let session = call.session()?;
    let none_match = call.if_none_match()?;
    let known: Vec<Tag> = match &none_match {
        Some(Condition::Tags(tags)) => tags
            .iter()
            .filter(|tag| tag.format == format)
            .copied()
            .collect(),
        Some(Condition::Any) | None => Vec::new(),
    };
    let found = fetch(&call, session, &known).await?;
    let version = found.version();
    if let Some(wanted) = call.if_match()?
        && !wanted.contains(&version)
    {
        return Err(model::service::Refused::VersionMismatch { current: version }.into());
    }
    let known = known.into_iter().find(|tag| tag.version == version);
    let stored = match found.stored {
        Ok(stored) if known.is_none() && none_match != Some(Condition::Any) => stored,
        Ok(_) | Err(_) => {
            let tag = known.unwrap_or_else(|| Tag {
                version,
                format,
                coding: call.coding(),
                weak: false,
            });
            let mut response = empty(StatusCode::NOT_MODIFIED);
            *response.headers_mut() = found.headers;
            response
                .headers_mut()
                .insert(header::ETAG, Tag { weak: false, ..tag }.value());
            response
                .headers_mut()
                .append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            return Ok(response);
        }
    };
    let document = render(*stored, format).await?;
    let answer = Answer {
        headers: found.headers,
        ..Answer::json(StatusCode::OK, vec![document])
    };
    answer.tagged(version, format).send(&call).await
}

pub(super) async fn stats(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Read)?;
    let session = call.session()?;
    let found = fetch(&call, session, &[]).await?;
    let Ok(stored) = found.stored else {
        return Err(Code::Internal.into());
    };
    let now = call.app.clock.now();
    let large = stored.sections.len() > INLINE_BYTES;
    let compute = move || document::stats(&api::served(&stored), now);
    let text = if large {
        off_the_workers(compute).await??
    } else {
        compute()?
    };
    let answer = Answer::json(StatusCode::OK, vec![text.into()]);
    Answer {
        headers: found.headers,
        ..answer
    }
    .send(&call)
    .await
}

/// A session as it was read, or the version that the client knows.
struct Found {
    stored: Result<Box<Stored>, model::id::Version>,
    headers: HeaderMap,
}

impl Found {
    const fn version(&self) -> model::id::Version {
        match &self.stored {
            Ok(stored) => stored.version,
            Err(version) => *version,
        }
    }
}

async fn fetch(call: &Call, session: SessionId, known: &[Tag]) -> Result<Found, ApiError> {
    let seen = call.seen()?;
    let consistency = call.consistency(&seen, session)?;
    let deadline = call.deadline(0);
    let request = ReadRequest {
        tenant: call.who.tenant,
        session,
        consistency,
        known: known.iter().map(|tag| tag.version).collect(),
        timeout: deadline.time,
    };
    let reply = timeout_at(deadline.at, call.app.sessions.read(request)).await;
    let reply = reply.map_err(|_late| late())??;
    let (stored, staleness) = match reply {
        ReadReply::Found { stored, staleness } => (Ok(stored), staleness),
        ReadReply::Unchanged { version, staleness } => (Err(version), staleness),
    };
    let mut found = Found {
        stored,
        headers: HeaderMap::new(),
    };
    if seen
        .version(session)
        .is_some_and(|seen| found.version() < seen)
    {
        return Err(older_than_seen(&seen, session));
    }
    let token = call.token(&seen, session, found.version());
    found.headers.insert(CONSISTENCY, token);
    if let Some(staleness) = staleness {
        let millis = HeaderValue::from_str(&staleness.as_millis().to_string());
        found
            .headers
            .insert(STALENESS, millis.expect("digits are a header value"));
    }
    Ok(found)
}

/// A linearizable read shows at least what anybody has seen; when it does not, that branch is gone.
fn older_than_seen(seen: &Seen, session: SessionId) -> ApiError {
    let error = ApiError::from(Code::BranchLost);
    match seen.version(session) {
        Some(version) => error.field("version", version.to_string()),
        None => error,
    }
}

fn late() -> ApiError {
    ApiError::retry(Code::Unavailable, std::time::Duration::from_secs(1))
}

pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Read)?;
    let query = call.query()?;
    let number = |name: &str, default: usize| match query.get(name) {
        None | Some("") => Ok(default),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            // More digits than fit are as good as the largest number.
            Ok(text.parse().unwrap_or(usize::MAX))
        }
        Some(_) => Err(ApiError::new(
            Code::InvalidQuery,
            format!("{name} must be a whole number"),
        )),
    };
    let limit = number("limit", MAX_LIST)?.min(MAX_LIST);
    let offset = number("offset", 0)?;
    if limit == 0 {
        return Err(ApiError::new(
            Code::InvalidQuery,
            "limit must be at least 1",
        ));
    }
    let after = match query.get("cursor").filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(cursor) => {
            let after = call.app.tokens.open_cursor(call.who.tenant, cursor);
            Some(after.map_err(|_bad| ApiError::from(Code::InvalidCursor))?)
        }
    };
    let text = |name: &str| {
        query
            .get(name)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let deadline = call.deadline(0);
    let request = ListRequest {
        tenant: call.who.tenant,
        after,
        offset,
        limit,
        tag: text("tag"),
        name: text("name"),
        timeout: deadline.time,
    };
    let reply = timeout_at(deadline.at, call.app.sessions.list(request)).await;
    let reply = reply.map_err(|_late| late())??;
    let next = reply
        .next
        .map(|after| call.app.tokens.seal_cursor(call.who.tenant, after));
    let body = api::list(&reply, Page { limit, offset }, next.as_deref());
    Answer::json(StatusCode::OK, vec![body]).send(&call).await
}

async fn render(stored: Stored, format: Format) -> Result<Bytes, ApiError> {
    if stored.sections.len() > INLINE_BYTES && format != Format::Psp {
        return off_the_workers(move || api::document(&stored, format)).await?;
    }
    api::document(&stored, format)
}

async fn from_playwright(body: &Received) -> Result<Bytes, ApiError> {
    let bytes = body.bytes.clone();
    let convert = move || playwright::from_playwright(&bytes);
    let large = body.bytes.len() > INLINE_BYTES;
    let converted = if large {
        off_the_workers(convert).await?
    } else {
        convert()
    };
    Ok(converted?.into())
}

/// A storage state replaces all that a storage state can hold: what it does not have is emptied, or databases of the
/// login before would stay.
async fn replacing(body: Bytes) -> Result<Bytes, ApiError> {
    let large = body.len() > INLINE_BYTES;
    let complete = move || api::with_defaults(&body, &[("indexedDB", "[]"), ("playwright", "{}")]);
    if large {
        off_the_workers(complete).await?
    } else {
        complete()
    }
}
