//! Watches: server-sent events for one session, a WebSocket for many.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use gateway::LimitsConfig;
use http::{Method, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::id::Version;
use model::service::Change;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{LIMIT, Protocol, get, post, request, send, to_origin_form};
use crate::setup::{KEY, Setup};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(setup: &Setup) -> Self {
        let mut ask = format!("ws://{}/api/v2/ws", setup.http())
            .into_client_request()
            .expect("well formed");
        ask.headers_mut()
            .insert("x-api-key", KEY.parse().expect("a header value"));
        Self(connect_async(ask).await.expect("upgraded").0)
    }

    async fn say(&mut self, message: Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .expect("sent");
    }

    /// The next message that is not a ping.
    async fn hear(&mut self) -> Value {
        loop {
            let message = timeout(LIMIT, self.0.next())
                .await
                .expect("in time")
                .expect("open")
                .expect("whole");
            match message {
                Message::Text(text) => return serde_json::from_str(&text).expect("json"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.say(message).await;
        self.hear().await
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            match timeout(LIMIT, self.0.next()).await.expect("in time") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn made(setup: &Setup, name: &str) -> String {
    let reply = post(
        setup.http(),
        "/api/v2/sessions",
        json!({"name": name}).to_string(),
    )
    .await;
    reply.json()["id"].as_str().expect("an id").to_owned()
}

async fn renamed(setup: &Setup, id: &str, name: &str) {
    let ask = request(
        Method::PATCH,
        setup.http(),
        &format!("/api/v2/sessions/{id}"),
    );
    let body = Full::new(json!({"name": name}).to_string().into());
    let reply = send(
        setup.http(),
        Protocol::Http1,
        to_origin_form(ask.body(body).expect("well formed")),
    )
    .await;
    assert_eq!(reply.status, StatusCode::OK);
}

async fn deleted(setup: &Setup, id: &str) {
    let ask = request(
        Method::DELETE,
        setup.http(),
        &format!("/api/v2/sessions/{id}"),
    );
    send(
        setup.http(),
        Protocol::Http1,
        to_origin_form(ask.body(Full::default()).expect("well formed")),
    )
    .await;
}

#[tokio::test]
async fn a_socket_tells_of_each_change_with_its_version() {
    let setup = Setup::new().await;
    let (one, two) = (made(&setup, "one").await, made(&setup, "two").await);
    let mut socket = Socket::open(&setup).await;
    assert_eq!(
        socket
            .ask(json!({"type": "subscribe", "sessionId": one}))
            .await,
        json!({"type": "subscribed", "sessionId": one})
    );
    socket
        .ask(json!({"type": "subscribe", "sessionId": two}))
        .await;
    renamed(&setup, &one, "changed").await;
    let told = socket.hear().await;
    assert_eq!(told["type"], "session.updated");
    assert_eq!(
        (&told["sessionId"], &told["version"]),
        (&json!(one), &json!("1.2"))
    );
    assert_eq!(
        (&told["session"]["id"], &told["session"]["name"]),
        (&json!(one), &json!("changed"))
    );
    let expired = Change::Expired {
        version: Version {
            epoch: 1,
            revision: 2,
        },
    };
    setup.fake.tell(one.parse().expect("an id"), expired);
    assert_eq!(
        socket.hear().await,
        json!({"type": "session.expired", "sessionId": one, "version": "1.2"})
    );
    deleted(&setup, &two).await;
    assert_eq!(
        socket.hear().await,
        json!({"type": "session.deleted", "sessionId": two, "version": "1.2"})
    );
    assert_eq!(
        socket
            .ask(json!({"type": "unsubscribe", "sessionId": one}))
            .await,
        json!({"type": "unsubscribed", "sessionId": one})
    );
    renamed(&setup, &one, "unseen").await;
    assert_eq!(
        socket.ask(json!({"type": "ping", "id": "7"})).await,
        json!({"type": "pong", "id": "7"})
    );
}

#[tokio::test]
async fn a_socket_resumes_from_a_version() {
    let setup = Setup::new().await;
    let id = made(&setup, "first").await;
    renamed(&setup, &id, "second").await;
    renamed(&setup, &id, "third").await;
    let mut socket = Socket::open(&setup).await;
    socket
        .ask(json!({"type": "subscribe", "sessionId": id, "from": "1.1"}))
        .await;
    let told = socket.hear().await;
    assert_eq!(
        (&told["version"], &told["resync"]),
        (&json!("1.3"), &json!(true))
    );
    socket
        .ask(json!({"type": "subscribe", "sessionId": id, "from": "1.3"}))
        .await;
    assert_eq!(
        socket.ask(json!({"type": "ping"})).await,
        json!({"type": "pong"})
    );
}

#[tokio::test]
async fn a_socket_refuses_what_it_must_and_stays_open() {
    let limits = LimitsConfig {
        subscriptions: 1,
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let (one, two) = (made(&setup, "one").await, made(&setup, "two").await);
    let mut socket = Socket::open(&setup).await;
    socket
        .ask(json!({"type": "subscribe", "sessionId": one}))
        .await;
    let rows = [
        (
            json!({"type": "subscribe", "sessionId": two}),
            "too_many_requests",
        ),
        (
            json!({"type": "subscribe", "sessionId": "nonsense"}),
            "session_not_found",
        ),
        (
            json!({"type": "subscribe", "sessionId": "00000000-0000-8000-8000-000000000000"}),
            "too_many_requests",
        ),
        (json!({"type": "dance"}), "invalid_request"),
        (
            json!({"type": "subscribe", "sessionId": one, "from": "seven"}),
            "invalid_request",
        ),
        (json!(7), "invalid_request"),
    ];
    for (message, code) in rows {
        let refused = socket.ask(message.clone()).await;
        assert_eq!(
            (&refused["type"], &refused["code"]),
            (&json!("error"), &json!(code)),
            "{message}"
        );
    }
    assert_eq!(socket.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn a_message_too_large_ends_the_socket_and_a_binary_one_says_why() {
    let setup = Setup::new().await;
    let mut large = Socket::open(&setup).await;
    large
        .0
        .send(Message::text("x".repeat(10_000)))
        .await
        .expect("sent");
    let ended = timeout(LIMIT, large.0.next()).await.expect("in time");
    assert!(!matches!(ended, Some(Ok(Message::Text(_)))), "{ended:?}");
    let mut binary = Socket::open(&setup).await;
    binary
        .0
        .send(Message::binary(vec![1, 2, 3]))
        .await
        .expect("sent");
    assert_eq!(binary.close_code().await, 1003);
}

#[tokio::test]
async fn a_key_in_the_path_opens_a_socket_and_a_wrong_one_does_not() {
    let setup = Setup::new().await;
    let right = format!("ws://{}/k/psp_Test-Key%2F1/api/v2/ws", setup.http());
    assert!(connect_async(right).await.is_ok());
    for wrong in ["/k/wrong/api/v2/ws", "/api/v2/ws"] {
        let refused = connect_async(format!("ws://{}{wrong}", setup.http())).await;
        assert!(
            refused.is_err_and(|error| error.to_string().contains("401")),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn http2_opens_a_socket_with_connect() {
    let setup = Setup::new().await;
    let stream = TcpStream::connect(setup.http()).await.expect("connects");
    let mut tasks = tokio::task::JoinSet::new();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("greets");
    tasks.spawn(async { drop(connection.await) });
    // The server's settings, which permit this, have come with the first answer.
    let first = request(Method::GET, setup.http(), "/health").body(Full::<bytes::Bytes>::default());
    sender
        .send_request(first.expect("well formed"))
        .await
        .expect("answered");
    let mut ask = request(Method::CONNECT, setup.http(), "/api/v2/ws")
        .header("sec-websocket-version", "13")
        .body(Full::default())
        .expect("well formed");
    ask.extensions_mut()
        .insert(hyper::ext::Protocol::from_static("websocket"));
    let answer = sender.send_request(ask).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.expect("upgraded"));
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
    socket
        .send(Message::text("{\"type\":\"ping\"}"))
        .await
        .expect("sent");
    let pong = timeout(LIMIT, socket.next())
        .await
        .expect("in time")
        .expect("open")
        .expect("whole");
    assert_eq!(pong, Message::text("{\"type\":\"pong\"}"));
}

#[tokio::test]
async fn a_silent_socket_is_pinged_and_draining_says_goodbye() {
    let limits = LimitsConfig {
        heartbeat: Duration::from_millis(20),
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let mut socket = Socket::open(&setup).await;
    let first = timeout(LIMIT, socket.0.next())
        .await
        .expect("in time")
        .expect("open")
        .expect("whole");
    assert!(matches!(first, Message::Ping(_)), "{first:?}");
    let (drained, code) = tokio::join!(
        timeout(LIMIT, setup.gateway.drain(Duration::from_secs(10))),
        socket.close_code()
    );
    drained.expect("in time");
    assert_eq!(code, 1001);
}

/// Reads a stream of events until a text has come.
async fn read_until(stream: &mut TcpStream, seen: &mut String, wanted: &str) {
    let mut buffer = [0; 4096];
    while !seen.contains(wanted) {
        let length = timeout(LIMIT, stream.read(&mut buffer))
            .await
            .expect("in time")
            .expect("read");
        assert!(length > 0, "ended before {wanted}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

async fn events(setup: &Setup, id: &str, header: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(setup.http()).await.expect("connects");
    let ask = format!(
        "GET /api/v2/sessions/{id}/events HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n{header}\r\n"
    );
    stream.write_all(ask.as_bytes()).await.expect("written");
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, ": watching").await;
    assert!(
        seen.starts_with("HTTP/1.1 200") && seen.contains("content-type: text/event-stream"),
        "{seen}"
    );
    (stream, seen)
}

#[tokio::test]
async fn events_have_the_version_as_their_id_and_end_with_the_session() {
    let limits = LimitsConfig {
        heartbeat: Duration::from_millis(30),
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let id = made(&setup, "first").await;
    let (mut stream, mut seen) = events(&setup, &id, "").await;
    read_until(&mut stream, &mut seen, ": still here").await;
    renamed(&setup, &id, "second").await;
    read_until(
        &mut stream,
        &mut seen,
        "event: session.updated\nid: 1.2\ndata: {",
    )
    .await;
    read_until(&mut stream, &mut seen, "\"name\":\"second\"").await;
    deleted(&setup, &id).await;
    read_until(&mut stream, &mut seen, "event: session.deleted\nid: 1.3\n").await;
    read_until(&mut stream, &mut seen, "\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn events_resume_after_the_last_one_seen() {
    let setup = Setup::new().await;
    let id = made(&setup, "first").await;
    renamed(&setup, &id, "second").await;
    let (mut stream, mut seen) = events(&setup, &id, "last-event-id: 1.1\r\n").await;
    read_until(&mut stream, &mut seen, "id: 1.2\n").await;
    drop(stream);
    let gone = get(
        setup.http(),
        "/api/v2/sessions/00000000-0000-8000-8000-000000000000/events",
    )
    .await;
    assert_eq!(
        (gone.status.as_u16(), gone.code().as_str()),
        (404, "session_not_found")
    );
    let bad = get(
        setup.http(),
        &format!("/api/v2/sessions/{id}/events?from=seven"),
    )
    .await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn one_watch_too_many_is_503_and_draining_ends_the_others() {
    let limits = LimitsConfig {
        watches: 1,
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let id = made(&setup, "first").await;
    let (mut stream, mut seen) = events(&setup, &id, "").await;
    let refused = get(setup.http(), &format!("/api/v2/sessions/{id}/events")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "overloaded")
    );
    let (drained, ()) = tokio::join!(
        timeout(LIMIT, setup.gateway.drain(Duration::from_secs(10))),
        read_until(&mut stream, &mut seen, "\r\n0\r\n\r\n")
    );
    drained.expect("in time");
}
