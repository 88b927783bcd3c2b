//! Bounds: bombs, too much at once, slow clients, draining; and the admin listener.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::LimitsConfig;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use model::limits::MAX_DOCUMENT_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{LIMIT, Protocol, get, post, raw, request, send, to_origin_form};
use crate::setup::{KEY, Setup};

const SESSIONS: &str = "/api/v2/sessions";

async fn packed(setup: &Setup, coding: &str, body: Vec<u8>) -> (u16, String) {
    let ask = request(Method::POST, setup.http(), SESSIONS).header("content-encoding", coding);
    let ask = ask
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)));
    let reply = send(
        setup.http(),
        Protocol::Http1,
        to_origin_form(ask.expect("well formed")),
    )
    .await;
    (reply.status.as_u16(), reply.code())
}

fn gzip(length: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![b' '; 1024 * 1024];
    for _ in 0..length / zeros.len() {
        encoder.write_all(&zeros).expect("encoded");
    }
    encoder.finish().expect("encoded")
}

#[tokio::test]
async fn bombs_are_413_and_cost_no_more_than_the_bound() {
    let setup = Setup::new().await;
    let bomb = gzip(512 * 1024 * 1024);
    assert!(bomb.len() < 1024 * 1024);
    let too_large = (413, "body_too_large".to_owned());
    assert_eq!(packed(&setup, "gzip", bomb.clone()).await, too_large);
    let mut twice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    twice.write_all(&bomb).expect("encoded");
    assert_eq!(
        packed(&setup, "gzip, gzip", twice.finish().expect("encoded")).await,
        too_large
    );
    let zeros = vec![b' '; MAX_DOCUMENT_BYTES + 1];
    assert_eq!(
        packed(
            &setup,
            "zstd",
            zstd::encode_all(zeros.as_slice(), 3).expect("zstd")
        )
        .await,
        too_large
    );
    assert_eq!(
        post(setup.http(), SESSIONS, "{}").await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_zstd_body_that_wants_a_huge_window_is_refused() {
    let setup = Setup::new().await;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("made");
    encoder.window_log(27).expect("allowed");
    encoder
        .write_all(&vec![b' '; 1024 * 1024])
        .expect("encoded");
    let body = encoder.finish().expect("encoded");
    assert_eq!(
        packed(&setup, "zstd", body).await,
        (400, "invalid_content_coding".to_owned())
    );
}

#[tokio::test]
async fn a_document_of_the_largest_size_goes_in_and_out_and_one_more_byte_does_not() {
    let setup = Setup::new().await;
    let (head, tail) = ("{\"name\":\"big\",\"blob\":\"", "\"}");
    let filler = "x".repeat(MAX_DOCUMENT_BYTES - head.len() - tail.len());
    let body = format!("{head}{filler}{tail}");
    assert_eq!(body.len(), MAX_DOCUMENT_BYTES);
    let ask =
        request(Method::POST, setup.http(), SESSIONS).header("content-type", "application/json");
    let ask = ask
        .header("prefer", "return=minimal")
        .body(Full::new(Bytes::from(body.clone())));
    let made = send(setup.http(), Protocol::Http2, ask.expect("well formed")).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let back = get(setup.http(), made.header("location")).await;
    assert_eq!(back.status, StatusCode::OK);
    assert!(back.body.len() > MAX_DOCUMENT_BYTES);
    let larger = post(setup.http(), SESSIONS, format!("{body} ")).await;
    assert_eq!(
        (larger.status.as_u16(), larger.code().as_str()),
        (413, "body_too_large")
    );
}

#[tokio::test]
async fn more_bytes_than_there_is_room_for_are_503_at_once() {
    let limits = LimitsConfig {
        body_bytes: 64 * 1024,
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let reply = post(
        setup.http(),
        SESSIONS,
        format!("{{\"x\":\"{}\"}}", "y".repeat(100_000)),
    )
    .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (503, "overloaded")
    );
    assert_eq!(reply.header("retry-after"), "1");
    assert!(setup.fake.writes().is_empty());
    assert_eq!(
        post(setup.http(), SESSIONS, "{}").await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn one_request_too_many_is_503_at_once_and_the_others_finish() {
    let limits = LimitsConfig {
        requests: 2,
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let gate = Arc::new(Notify::new());
    *setup.fake.gate.lock() = Some(Arc::clone(&gate));
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let address = setup.http();
        waiting.spawn(async move { post(address, SESSIONS, "{}").await });
    }
    let refused = timeout(LIMIT, waiting.join_next())
        .await
        .expect("at once")
        .expect("one")
        .expect("no panic");
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "overloaded")
    );
    *setup.fake.gate.lock() = None;
    while !waiting.is_empty() {
        gate.notify_waiters();
        if let Ok(Some(done)) = timeout(Duration::from_millis(5), waiting.join_next()).await {
            assert_eq!(done.expect("no panic").status, StatusCode::CREATED);
        }
    }
}

#[tokio::test]
async fn a_write_that_takes_too_long_is_504_and_a_read_503() {
    let limits = LimitsConfig {
        request_timeout: Duration::from_millis(30),
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    *setup.fake.gate.lock() = Some(Arc::default());
    let write = post(setup.http(), SESSIONS, "{}").await;
    assert_eq!(
        (write.status.as_u16(), write.code().as_str()),
        (504, "outcome_unknown")
    );
    let read = get(setup.http(), SESSIONS).await;
    assert_eq!(
        (read.status.as_u16(), read.code().as_str()),
        (503, "unavailable")
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408_and_a_head_that_does_not_come_ends() {
    let limits = LimitsConfig {
        body_idle_timeout: Duration::from_millis(50),
        header_timeout: Duration::from_millis(50),
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let head = format!(
        "POST {SESSIONS} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 10\r\n\r\n{{"
    );
    let answer = raw(setup.http(), head.as_bytes(), false).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"),
        "{answer}"
    );
    let answer = raw(setup.http(), b"GET / HTTP/1.1\r\nx-never", false).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_deadline_grows_with_the_body_and_stays_within_the_models_bound() {
    let setup = Setup::new().await;
    post(setup.http(), SESSIONS, "{}").await;
    post(
        setup.http(),
        SESSIONS,
        format!("{{\"x\":\"{}\"}}", "y".repeat(5 * 1024 * 1024)),
    )
    .await;
    let times: Vec<_> = setup
        .fake
        .writes()
        .iter()
        .map(|write| write.not_after.0 - crate::setup::NOW)
        .collect();
    assert_eq!(times, [10_000, 15_000]);
}

#[tokio::test]
async fn a_keyed_create_is_born_where_its_key_says_under_a_new_id_each_time() {
    let setup = Setup::new().await;
    for _ in 0..2 {
        let ask = request(Method::POST, setup.http(), SESSIONS).header("idempotency-key", "k-1");
        let ask = ask.body(Full::<Bytes>::default()).expect("well formed");
        send(setup.http(), Protocol::Http1, to_origin_form(ask)).await;
    }
    let writes = setup.fake.writes();
    let [first, second] = writes.as_slice() else {
        panic!("two writes")
    };
    let tag = first.idempotency.expect("keyed");
    assert_eq!(first.idempotency, second.idempotency);
    assert_eq!(
        first.session.slot(),
        model::placement::slot_of_key(&tag.key)
    );
    assert_eq!(second.session.slot(), first.session.slot());
    assert_ne!(first.session, second.session);
    assert_ne!(first.request, second.request);
}

async fn admin(setup: &Setup, method: Method, path: &str) -> crate::client::Reply {
    let ask = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "x")
        .header("origin", "http://x");
    send(
        setup.admin(),
        Protocol::Http1,
        ask.body(Full::default()).expect("well formed"),
    )
    .await
}

#[tokio::test]
async fn the_admin_listener_says_how_the_node_is() {
    let setup = Setup::new().await;
    let get = async |path| admin(&setup, Method::GET, path).await;
    assert_eq!(
        get("/livez").await.json(),
        serde_json::json!({"live": true, "reasons": []})
    );
    let ready = get("/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(
        ready.json(),
        serde_json::json!({"ready": true, "reasons": [], "leaderless": ["meta"]})
    );
    setup.hooks.unready.lock().push("disk sick".to_owned());
    let unready = get("/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unready.json()["reasons"], serde_json::json!(["disk sick"]));
    let metrics = get("/metrics").await;
    assert_eq!(metrics.body, "psp_up 1\n");
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    assert_eq!(
        get("/admin/v1/cluster").await.json(),
        serde_json::json!({"nodes": []})
    );
    assert_eq!(get("/admin/v1/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(get("/api/v2/sessions").await.status, StatusCode::NOT_FOUND);
    let wrong = get("/admin/v1/drain").await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("allow")),
        (405, "POST")
    );
    let foreign = admin(&setup, Method::POST, "/admin/v1/drain").await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert_eq!(
        admin(&setup, Method::POST, "/metrics").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    for path in ["/livez", "/metrics", "/admin/v1/cluster"] {
        assert_eq!(
            crate::client::get(setup.http(), path).await.status,
            StatusCode::NOT_FOUND,
            "{path} is not public"
        );
    }
}

#[tokio::test]
async fn draining_finishes_what_was_begun_and_takes_no_more() {
    let setup = Setup::new().await;
    let (http, fake) = (setup.http(), Arc::clone(&setup.fake));
    let gate = Arc::new(Notify::new());
    *fake.gate.lock() = Some(Arc::clone(&gate));
    let mut idle = TcpStream::connect(http).await.expect("connects");
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    idle.read_exact(&mut [0; 12]).await.expect("served");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { post(http, SESSIONS, "{}").await.status.as_u16() });
    let begun = async {
        // The write waits at the gate: one waiter can be let through only when it is there.
        while TcpStream::connect(http).await.is_ok() && fake.writes().is_empty() {
            gate.notify_one();
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, begun).await.expect("begun");
    timeout(LIMIT, setup.gateway.drain(Duration::from_secs(10)))
        .await
        .expect("drained");
    let status = tasks.join_next().await.expect("one").expect("no panic");
    assert_eq!(status, 201);
    assert!(TcpStream::connect(http).await.is_err(), "nobody listens");
    let mut rest = Vec::new();
    timeout(LIMIT, idle.read_to_end(&mut rest))
        .await
        .expect("ended")
        .expect("closed in order");
}

#[tokio::test]
async fn draining_ends_when_its_time_is_over() {
    let setup = Setup::new().await;
    let http = setup.http();
    *setup.fake.gate.lock() = Some(Arc::default());
    let mut stuck = TcpStream::connect(http).await.expect("connects");
    let ask = format!("GET {SESSIONS} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n");
    stuck.write_all(ask.as_bytes()).await.expect("written");
    get(http, "/health").await;
    timeout(LIMIT, setup.gateway.drain(Duration::from_millis(50)))
        .await
        .expect("drained");
    let ended = timeout(LIMIT, stuck.read(&mut [0])).await.expect("ended");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
