//! HTTP/1.1 as it should not be: bad input gets the stated code and text, and the next request is served.

use std::net::SocketAddr;

use bytes::Bytes;
use gateway::LimitsConfig;
use http::{Method, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Protocol, get, post, raw, request, send, to_origin_form};
use crate::setup::{KEY, Setup};

const SESSIONS: &str = "/api/v2/sessions";

async fn still_serves(address: SocketAddr) {
    let reply = post(address, SESSIONS, "{\"name\":\"after\"}").await;
    assert_eq!(reply.status, StatusCode::CREATED);
}

async fn put_raw(address: SocketAddr, headers: &str, body: &[u8]) -> String {
    let head = format!(
        "POST {SESSIONS} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n{headers}\r\n"
    );
    raw(address, &[head.as_bytes(), body].concat(), true).await
}

#[tokio::test]
async fn json_too_deep_is_400_with_the_place() {
    let setup = Setup::new().await;
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    let reply = post(setup.http(), SESSIONS, deep).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.code(), "invalid_document");
    assert!(
        reply.json()["error"]
            .as_str()
            .expect("text")
            .contains("128 levels")
    );
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn ten_megabytes_of_keys_are_stored_or_refused() {
    let setup = Setup::new().await;
    let mut body = String::from("{\"a\":0");
    let mut number = 0;
    while body.len() < 10 * 1024 * 1024 {
        number += 1;
        body.push_str(&format!(",\"key{number}\":{number}"));
    }
    body.push('}');
    let reply = post(setup.http(), SESSIONS, body).await;
    assert!(
        matches!(reply.status.as_u16(), 201 | 400 | 413),
        "{}",
        reply.status
    );
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn invalid_utf8_is_400_with_the_offset() {
    let setup = Setup::new().await;
    let reply = post(setup.http(), SESSIONS, &b"{\"name\":\"\xff\"}"[..]).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        reply.json()["error"],
        "the body is not UTF-8: the first wrong byte is at offset 9"
    );
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn a_truncated_body_is_400_and_stores_nothing() {
    let setup = Setup::new().await;
    let answer = put_raw(setup.http(), "content-length: 100\r\n", b"{\"name\":\"cut").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("body_incomplete"),
        "{answer}"
    );
    let chunked = put_raw(
        setup.http(),
        "transfer-encoding: chunked\r\n",
        b"5\r\n{\"nam\r\n",
    )
    .await;
    assert!(
        chunked.starts_with("HTTP/1.1 400") && chunked.contains("body_incomplete"),
        "{chunked}"
    );
    assert!(setup.fake.writes().is_empty());
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_413_before_it_is_sent() {
    let setup = Setup::new().await;
    let answer = put_raw(setup.http(), "content-length: 52428801\r\n", b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"),
        "{answer}"
    );
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn header_floods_are_431_and_long_targets_414() {
    let setup = Setup::new().await;
    let many: String = (0..70).map(|at| format!("x-{at}: 1\r\n")).collect();
    let answer = put_raw(setup.http(), &many, b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 431") && answer.contains("headers_too_large"),
        "{answer}"
    );
    let large = format!("x-large: {}\r\n", "a".repeat(20_000));
    let answer = put_raw(setup.http(), &large, b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 431") && answer.contains("headers_too_large"),
        "{answer}"
    );
    for flood in [
        "x: 1\r\n".repeat(5000),
        format!("x: {}\r\n", "a".repeat(300_000)),
    ] {
        let answer = put_raw(setup.http(), &flood, b"").await;
        assert!(
            answer.starts_with("HTTP/1.1 431") || answer.is_empty(),
            "{answer}"
        );
    }
    let long = format!(
        "GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "a".repeat(20_000)
    );
    let answer = raw(setup.http(), long.as_bytes(), false).await;
    assert!(
        answer.starts_with("HTTP/1.1 414") && answer.contains("target_too_long"),
        "{answer}"
    );
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let setup = Setup::new().await;
    for nonsense in [
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
    ] {
        let answer = raw(setup.http(), nonsense.as_bytes(), true).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn a_connection_serves_many_requests_in_order() {
    let setup = Setup::new().await;
    let one = format!("GET {SESSIONS} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n");
    let last = "GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw(setup.http(), format!("{one}{one}{last}").as_bytes(), false).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 404").count(), 1, "{answer}");
}

#[tokio::test]
async fn an_http10_request_is_answered() {
    let setup = Setup::new().await;
    let answer = raw(setup.http(), b"GET /health HTTP/1.0\r\n\r\n", false).await;
    assert!(
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"),
        "{answer}"
    );
}

/// Resident memory of this process, both ends of all connections in it, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("a line");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number")
}

#[tokio::test]
async fn a_thousand_idle_connections_are_cheap_and_do_not_keep_others_out() {
    let setup = Setup::new().await;
    still_serves(setup.http()).await;
    let before = resident_kib();
    let mut idle = Vec::new();
    for at in 0..1000_usize {
        let mut stream = TcpStream::connect(setup.http()).await.expect("connects");
        if at % 2 == 0 {
            stream
                .write_all(b"GET / HTTP/1.1\r\nx-half")
                .await
                .expect("written");
        }
        idle.push(stream);
    }
    still_serves(setup.http()).await;
    let each = resident_kib().saturating_sub(before) * 1024 / idle.len();
    println!("{each} bytes for each idle connection");
    assert!(each < 40 * 1024, "{each}");
    drop(idle);
    still_serves(setup.http()).await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = LimitsConfig {
        connections: 2,
        ..LimitsConfig::default()
    };
    let setup = Setup::with(limits, None).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(setup.http()).await.expect("connects");
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("written");
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("served");
        kept.push(stream);
    }
    let mut third = TcpStream::connect(setup.http())
        .await
        .expect("the kernel accepts");
    let ended = third.read(&mut [0]).await;
    assert_eq!(kept.len(), 2);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn answers_are_compressed_as_the_client_likes_and_say_so() {
    let setup = Setup::new().await;
    let cookies: Vec<_> = (0..200)
        .map(|at| json!({"name": format!("c{at}"), "value": "v", "domain": "d"}))
        .collect();
    let made = post(
        setup.http(),
        SESSIONS,
        json!({"cookies": cookies}).to_string(),
    )
    .await;
    let path = made.header("location").to_owned();
    let plain = get(setup.http(), &path).await;
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(plain.header("etag"), "\"1.1\"");
    for (accepts, coding, tag) in [
        ("gzip", "gzip", "\"1.1-gzip\""),
        ("gzip, zstd", "zstd", "\"1.1-zstd\""),
        ("zstd;q=0.1, gzip;q=0.2", "gzip", "\"1.1-gzip\""),
        ("br", "", "\"1.1\""),
    ] {
        let ask = request(Method::GET, setup.http(), &path).header("accept-encoding", accepts);
        let ask = ask.body(Full::<Bytes>::default()).expect("well formed");
        let reply = send(setup.http(), Protocol::Http1, to_origin_form(ask)).await;
        assert_eq!(reply.header("content-encoding"), coding, "{accepts}");
        assert_eq!(reply.header("etag"), tag, "{accepts}");
        assert_eq!(reply.header("vary"), "Accept-Encoding");
        let body = match coding {
            "gzip" => {
                let mut out = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(reply.body.as_ref());
                std::io::Read::read_to_end(&mut decoder, &mut out).expect("gzip");
                out
            }
            "zstd" => zstd::decode_all(reply.body.as_ref()).expect("zstd"),
            _ => reply.body.to_vec(),
        };
        assert_eq!(body, plain.body, "{accepts}");
    }
}

#[tokio::test]
async fn compressed_bodies_are_taken_also_one_in_the_other() {
    let setup = Setup::new().await;
    let gzip = |bytes: &[u8]| {
        gateway::negotiate::encode(
            &[Bytes::copy_from_slice(bytes)],
            gateway::negotiate::Coding::Gzip,
        )
        .expect("gzip")
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("zstd");
    let text = b"{\"name\":\"packed\"}";
    let rows: [(&str, Vec<u8>); 5] = [
        ("gzip", gzip(text).to_vec()),
        ("x-gzip", gzip(text).to_vec()),
        ("zstd", zstd(text)),
        ("gzip, zstd", zstd(&gzip(text))),
        ("identity", text.to_vec()),
    ];
    for (coding, body) in rows {
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
        assert_eq!(reply.status, StatusCode::CREATED, "{coding}");
        assert_eq!(reply.json()["session"]["name"], "packed", "{coding}");
    }
    for (coding, body) in [
        ("gzip", gzip(text)[..20].to_vec()),
        ("zstd", zstd(text)[..12].to_vec()),
        ("zstd", gzip(text).to_vec()),
        ("gzip", b"\x1f\x8b".to_vec()),
    ] {
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
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (400, "invalid_content_coding"),
            "{coding}"
        );
    }
    let ask = request(Method::POST, setup.http(), SESSIONS)
        .header("content-encoding", "gzip, gzip, gzip");
    let reply = send(
        setup.http(),
        Protocol::Http1,
        to_origin_form(ask.body(Full::default()).expect("well formed")),
    )
    .await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
