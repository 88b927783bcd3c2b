//! Credentials: every form of the right key, no form of a wrong one, and no trace of either.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use crate::client::{Protocol, Reply, raw, send, to_origin_form};
use crate::setup::{KEY, Setup};

async fn ask(setup: &Setup, path: &str, header: Option<(&str, &str)>) -> Reply {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("http://{}{path}", setup.http()));
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Full::<Bytes>::default()).expect("well formed");
    send(setup.http(), Protocol::Http1, to_origin_form(request)).await
}

fn basic(pair: &str) -> String {
    use base64::Engine;
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

#[tokio::test]
async fn each_form_of_the_right_key_opens_every_route() {
    let setup = Setup::new().await;
    let list = "/api/v2/sessions";
    let forms = [
        ("authorization", format!("Bearer {KEY}")),
        ("authorization", format!("bearer {KEY}")),
        ("authorization", basic(&format!("{KEY}:"))),
        ("authorization", basic(&format!("anyone:{KEY}"))),
        ("x-api-key", KEY.to_owned()),
    ];
    for (name, value) in &forms {
        assert_eq!(
            ask(&setup, list, Some((name, value))).await.status,
            StatusCode::OK,
            "{name}"
        );
    }
    for path in [
        "/k/psp_Test-Key%2F1/api/v2/sessions",
        "/K/psp_Test-Key%2f1/API/v2/Sessions/?limit=1",
    ] {
        assert_eq!(
            ask(&setup, path, None).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_wrong_key_is_401_with_a_challenge_on_every_closed_route() {
    let setup = Setup::new().await;
    let wrong = [
        None,
        Some(("authorization", "Bearer wrong")),
        Some(("authorization", "Bearer PSP_TEST-KEY/1")),
        Some(("authorization", "Basic !!!")),
        Some(("x-api-key", "")),
    ];
    for header in wrong {
        let reply = ask(&setup, "/api/v2/sessions", header).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{header:?}");
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"psp\"");
        assert_eq!(reply.code(), "unauthorized");
    }
    for route in gateway::routes::ROUTES.iter().filter(|route| !route.open) {
        let path = route
            .path
            .replace("{id}", "00000000-0000-8000-8000-000000000000");
        let request = Request::builder().method(route.method.clone()).uri(path);
        let request = request
            .header("host", "x")
            .body(Full::<Bytes>::default())
            .expect("well formed");
        let reply = send(setup.http(), Protocol::Http1, request).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{route:?}");
    }
    let reply = ask(&setup, "/k/psp_test-key%2F1/api/v2/sessions", None).await;
    assert_eq!(
        reply.status,
        StatusCode::UNAUTHORIZED,
        "a key keeps its case"
    );
}

#[tokio::test]
async fn a_key_in_the_path_never_comes_back() {
    let setup = Setup::new().await;
    let body = "{\"name\":\"x\"}";
    let head =
        "POST /k/psp_Test-Key%2F1/api/v2/sessions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let length = body.len();
    let whole =
        format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    let answer = raw(setup.http(), whole.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("location: /api/v2/sessions/"), "{answer}");
    assert!(!answer.contains("psp_Test-Key"), "{answer}");
    let missing = raw(
        setup.http(),
        b"GET /k/psp_Test-Key%2F1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        false,
    );
    let missing = missing.await;
    assert!(
        missing.starts_with("HTTP/1.1 404") && !missing.contains("psp_Test-Key"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_wrong_key_costs_no_reading_of_the_body() {
    let setup = Setup::new().await;
    let head = "POST /api/v2/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let whole = format!("{head}content-length: 50000000\r\nexpect: 100-continue\r\n\r\n");
    let answer = raw(setup.http(), whole.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
