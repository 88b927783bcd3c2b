//! Watching sessions: server-sent events for one, a WebSocket for many.
//!
//! Guarantees: watches, subscriptions and messages are bounded; the bytes of a message are admitted before it is made;
//! a subscriber that does not take a message in time is cut off; a silent one is told that we are there, and is cut off
//! when it does not answer. A watch ends when the node drains; its client resumes elsewhere with the last version.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{self, HeaderName, HeaderValue};
use model::id::{SessionId, Version};
use model::service::{Change, Changes};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_stream::StreamMap;

use crate::api;
use crate::auth::{Access, Identity};
use crate::call::{Call, authenticate};
use crate::error::{ApiError, Code};
use crate::etag::Format;
use crate::limits::Hold;
use crate::server::App;
use crate::watch::{Ask, MAX_MESSAGE, News, parse, version};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a subscriber may take for one message.
const SEND_TIME: Duration = Duration::from_secs(30);
/// Heartbeats that may stay unanswered.
const MISSED_HEARTBEATS: u32 = 3;
/// Said once: where a client should wait before it comes back, in milliseconds.
const HELLO: &[u8] = b"retry: 2000\n: watching\n\n";
const HEARTBEAT: &[u8] = b": still here\n\n";

/// A place among the watches; counted while it lives.
struct Place {
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(app: &Arc<App>) -> Result<Self, ApiError> {
        let permit = app.admission.watch()?;
        app.metrics.watches.increment(1);
        Ok(Self {
            app: Arc::clone(app),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.metrics.watches.decrement(1);
    }
}

/// A change as a message, and the admission of its bytes.
async fn news(app: &App, change: Change) -> Result<(News, Hold), ApiError> {
    let mut hold = Hold::default();
    let news = match change {
        Change::Updated { stored, resync } => {
            // The document, and the message that contains it.
            let length = stored.sections.len().saturating_mul(2);
            app.admission.grow_when_free(&mut hold, length).await;
            let document = api::document(&stored, Format::Psp)?;
            News::Updated {
                version: stored.version,
                document,
                resync,
            }
        }
        Change::Deleted { version } => News::Deleted(version),
        Change::Expired { version } => News::Expired(version),
    };
    Ok((news, hold))
}

async fn changes(
    app: &App,
    who: Identity,
    session: SessionId,
    from: Option<Version>,
) -> Result<Changes, ApiError> {
    let asked = timeout(
        app.limits.request_timeout,
        app.sessions.watch(who.tenant, session, from),
    );
    let late = |_late| ApiError::retry(Code::Unavailable, Duration::from_secs(1));
    Ok(asked.await.map_err(late)??)
}

fn heartbeat(app: &App) -> Interval {
    let every = app.limits.heartbeat.max(Duration::from_millis(10));
    let mut interval = interval_at(Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// `GET /api/v2/sessions/:id/events`.
pub(super) async fn events(call: Call) -> Result<Response, ApiError> {
    call.wants(Access::Read)?;
    let session = call.session()?;
    let last = match call.header(&LAST_EVENT_ID)?.filter(|last| !last.is_empty()) {
        Some(last) => Some(last),
        None => call.query()?.get("from").map(str::to_owned),
    };
    let from = last.as_deref().map(version).transpose();
    let from = from.map_err(|error| ApiError::new(Code::InvalidRequest, error.to_string()))?;
    let place = Place::take(&call.app)?;
    let changes = changes(&call.app, call.who, session, from).await?;
    let feed = Feed {
        heartbeat: heartbeat(&call.app),
        app: Arc::clone(&call.app),
        session,
        changes: Some(changes),
        _place: place,
        _hold: Hold::default(),
    };
    let hello = stream::once(async { Ok(Bytes::from_static(HELLO)) });
    let body = Body::from_stream(hello.chain(stream::unfold(feed, Feed::next)));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Feed {
    app: Arc<App>,
    session: SessionId,
    /// `None` when the last event was sent.
    changes: Option<Changes>,
    heartbeat: Interval,
    _place: Place,
    /// Of the event sent last: it is out when the next is asked for.
    _hold: Hold,
}

impl Feed {
    async fn next(mut self) -> Option<(Result<Bytes, ApiErrorText>, Self)> {
        let changes = self.changes.as_mut()?;
        let change = tokio::select! {
            biased;
            () = self.app.draining.cancelled() => return None,
            change = changes.next() => change?,
            _ = self.heartbeat.tick() => return Some((Ok(Bytes::from_static(HEARTBEAT)), self)),
        };
        self._hold = Hold::default();
        if matches!(change, Change::Deleted { .. }) {
            self.changes = None;
        }
        match news(&self.app, change).await {
            Ok((news, hold)) => {
                let mut event =
                    format!("event: {}\nid: {}\ndata: ", news.kind(), news.version()).into_bytes();
                event.extend_from_slice(&news.message(self.session));
                event.extend_from_slice(b"\n\n");
                self._hold = hold;
                Some((Ok(event.into()), self))
            }
            Err(error) => Some((Err(ApiErrorText(error.code())), self)),
        }
    }
}

/// Cuts the stream: the client sees that it did not end well, and resumes.
#[derive(Debug, thiserror::Error)]
#[error("the event stream failed: {}", .0.word())]
struct ApiErrorText(Code);

/// `WS /api/v2/ws`.
pub(super) async fn socket(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, _body) = request.into_parts();
    let who = authenticate(&app, &mut parts)?;
    who.permits(Access::Read)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await;
    let upgrade = upgrade.map_err(|_not_a_websocket| {
        let websocket = HeaderValue::from_static("websocket");
        ApiError::from(Code::UpgradeRequired).header(header::UPGRADE, websocket)
    })?;
    let place = Place::take(&app)?;
    let tracked = app.tasks.token();
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let app = Arc::clone(&place.app);
        let watcher = Watcher {
            heartbeat: heartbeat(&app),
            app: Arc::clone(&app),
            who,
            socket,
            subscriptions: StreamMap::new(),
            sessions: HashSet::new(),
            heard: Instant::now(),
        };
        tokio::select! {
            () = watcher.run() => {}
            () = app.cut.cancelled() => {}
        }
        drop((place, tracked));
    }))
}

struct Watcher {
    app: Arc<App>,
    who: Identity,
    socket: WebSocket,
    /// `None` from a stream: it has ended.
    subscriptions: StreamMap<SessionId, BoxStream<'static, Option<Change>>>,
    sessions: HashSet<SessionId>,
    heartbeat: Interval,
    heard: Instant,
}

/// Why a connection ends.
struct Over(Option<(u16, &'static str)>);

enum Event {
    Heard(Option<Result<Message, axum::Error>>),
    Change(SessionId, Option<Change>),
    Heartbeat,
    Draining,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let event = self.select().await;
            if let Err(Over(close)) = self.handle(event).await {
                if let Some((code, reason)) = close {
                    let close = Message::Close(Some(CloseFrame {
                        code,
                        reason: reason.into(),
                    }));
                    // The client may be gone: then there is nobody to tell.
                    let _told = timeout(SEND_TIME, self.socket.send(close)).await;
                }
                return;
            }
        }
    }

    async fn select(&mut self) -> Event {
        tokio::select! {
            () = self.app.draining.cancelled() => Event::Draining,
            message = self.socket.recv() => Event::Heard(message),
            Some((session, change)) = self.subscriptions.next() => Event::Change(session, change),
            _ = self.heartbeat.tick() => Event::Heartbeat,
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), Over> {
        match event {
            Event::Draining => Err(Over(Some((close_code::AWAY, "draining")))),
            Event::Heartbeat => {
                if self.heard.elapsed() > self.heartbeat.period().saturating_mul(MISSED_HEARTBEATS)
                {
                    return Err(Over(Some((close_code::POLICY, "no answer to pings"))));
                }
                self.send(Message::Ping(Bytes::new())).await
            }
            Event::Change(session, change) => self.tell(session, change).await,
            Event::Heard(None | Some(Err(_))) => Err(Over(None)),
            Event::Heard(Some(Ok(message))) => {
                self.heard = Instant::now();
                match message {
                    Message::Text(text) => self.hear(&text).await,
                    Message::Binary(_) => Err(Over(Some((close_code::UNSUPPORTED, "text only")))),
                    Message::Close(_) => Err(Over(None)),
                    // Pings are answered below us.
                    Message::Ping(_) | Message::Pong(_) => Ok(()),
                }
            }
        }
    }

    async fn tell(&mut self, session: SessionId, change: Option<Change>) -> Result<(), Over> {
        let Some(change) = change else {
            self.forget(session);
            let text = json!({"type": "unsubscribed", "sessionId": session.to_string(), "reason": "ended"});
            return self.send(Message::text(text.to_string())).await;
        };
        let last = matches!(change, Change::Deleted { .. });
        match news(&self.app, change).await {
            Ok((news, hold)) => {
                let text = String::from_utf8(news.message(session));
                let text = text.map_err(|_damaged| Over(Some((close_code::ERROR, "internal"))))?;
                drop(news);
                self.send(Message::text(text)).await?;
                drop(hold);
            }
            Err(error) => self.refuse(&error, Some(session)).await?,
        }
        if last {
            self.forget(session);
        }
        Ok(())
    }

    fn forget(&mut self, session: SessionId) {
        self.subscriptions.remove(&session);
        self.sessions.remove(&session);
    }

    async fn hear(&mut self, text: &str) -> Result<(), Over> {
        match parse(text) {
            Ok(Ask::Subscribe { session, from }) => self.subscribe(session, from).await,
            Ok(Ask::Unsubscribe { session }) => {
                self.forget(session);
                let text = json!({"type": "unsubscribed", "sessionId": session.to_string()});
                self.send(Message::text(text.to_string())).await
            }
            Ok(Ask::Ping(id)) => {
                let mut text = json!({"type": "pong"});
                if let Some(id) = id {
                    text["id"] = id.into();
                }
                self.send(Message::text(text.to_string())).await
            }
            Err(error) => {
                let code = match error {
                    crate::watch::BadMessage::Session => Code::SessionNotFound,
                    crate::watch::BadMessage::Shape | crate::watch::BadMessage::Version => {
                        Code::InvalidRequest
                    }
                };
                self.refuse(&ApiError::new(code, error.to_string()), None)
                    .await
            }
        }
    }

    async fn subscribe(&mut self, session: SessionId, from: Option<Version>) -> Result<(), Over> {
        let most = self.app.limits.subscriptions;
        if !self.sessions.contains(&session) && self.sessions.len() >= most {
            let text = format!("A connection may watch {most} sessions");
            return self
                .refuse(&ApiError::new(Code::TooManyRequests, text), Some(session))
                .await;
        }
        match changes(&self.app, self.who, session, from).await {
            Ok(changes) => {
                let changes = changes
                    .map(Some)
                    .chain(stream::once(async { None }))
                    .boxed();
                self.subscriptions.insert(session, changes);
                self.sessions.insert(session);
                let text = json!({"type": "subscribed", "sessionId": session.to_string()});
                self.send(Message::text(text.to_string())).await
            }
            Err(error) => self.refuse(&error, Some(session)).await,
        }
    }

    async fn refuse(&mut self, error: &ApiError, session: Option<SessionId>) -> Result<(), Over> {
        let mut members = error.members();
        members.insert("type".to_owned(), "error".into());
        if let Some(session) = session {
            members.insert("sessionId".to_owned(), session.to_string().into());
        }
        self.send(Message::text(
            serde_json::Value::Object(members).to_string(),
        ))
        .await
    }

    async fn send(&mut self, message: Message) -> Result<(), Over> {
        match timeout(SEND_TIME, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over(None)),
        }
    }
}
