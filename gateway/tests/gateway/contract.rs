//! The contract, row by row: transcripts, run over HTTP/1.1 and over HTTP/2.
//!
//! A transcript is a file of exchanges between lines of `===`. Above `--- STATUS` stands the request, below it what is
//! expected. `<name>` stands for what was seen there first; `<*>` for anything; a header `!name` must be missing; in an
//! expected JSON object members may be left out, and `"<absent>"` says that one must be missing. Lines that begin with
//! `!` above the request prepare the store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use model::service::{Failure, Refused};
use serde_json::Value;

use crate::client::{Protocol, Reply, send, to_origin_form};
use crate::setup::{KEY, Setup};

struct Transcript<'a> {
    name: &'a str,
    setup: Setup,
    protocol: Protocol,
    seen: HashMap<String, String>,
}

#[tokio::test]
async fn every_transcript_holds_over_http1_and_http2() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("there")
        .map(|file| file.expect("readable").path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "transcripts are missing");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let name = file.file_name().expect("a file").to_str().expect("ascii");
            let setup = Setup::new().await;
            let mut transcript = Transcript {
                name,
                setup,
                protocol,
                seen: HashMap::new(),
            };
            for exchange in text.split("\n===\n") {
                transcript.exchange(exchange).await;
            }
        }
    }
}

impl Transcript<'_> {
    async fn exchange(&mut self, text: &str) {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let text: Vec<&str> = lines.collect();
        let text = text.join("\n");
        let (asked, expected) = text
            .trim()
            .split_once("\n--- ")
            .expect("an answer is expected");
        let mut asked = asked.trim();
        while let Some(rest) = asked.strip_prefix("! ") {
            let (order, rest) = rest.split_once('\n').expect("a request follows");
            self.prepare(order);
            asked = rest;
        }
        let asked = self.fill(asked);
        let place = format!(
            "{} over {:?}: {}",
            self.name,
            self.protocol,
            asked.lines().next().unwrap_or("")
        );
        let reply = self.ask(&asked).await;
        self.check(&place, expected, &reply);
    }

    fn prepare(&self, order: &str) {
        let words: Vec<_> = order.split(' ').collect();
        match words.as_slice() {
            ["advance", millis] => {
                let millis: u64 = millis.parse().expect("a number");
                self.setup.wall.0.fetch_add(millis, Ordering::SeqCst);
            }
            ["fail", how] => self.setup.fake.fail_next(match *how {
                "unknown" => Failure::Unknown,
                "disk-full" => Failure::DiskFull,
                "damaged" => Failure::Damaged,
                "branch-lost" => Refused::BranchLost.into(),
                "too-many" => Refused::TooManyRequests {
                    retry_after: Duration::from_secs(3),
                }
                .into(),
                "unavailable" => Failure::Unavailable {
                    reason: "no leader".to_owned(),
                    retry_after: Duration::from_millis(1500),
                },
                other => panic!("no such failure: {other}"),
            }),
            _ => panic!("no such order: {order}"),
        }
    }

    fn fill(&self, text: &str) -> String {
        let known = self.seen.iter();
        known.fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("<{name}>"), value)
        })
    }

    async fn ask(&self, text: &str) -> Reply {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let (method, path) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .expect("a request line");
        let method: Method = method.parse().expect("a method");
        let address = self.setup.http();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"));
        let mut authorized = false;
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            authorized |= name == "authorization" || name == "no-key";
            if name != "no-key" {
                request = request.header(name, value);
            }
        }
        if !authorized {
            request = request.header("authorization", format!("Bearer {KEY}"));
        }
        let body = Bytes::from(body.trim_end().to_owned());
        let request = request.body(Full::new(body)).expect("well formed");
        let request = if self.protocol == Protocol::Http1 {
            to_origin_form(request)
        } else {
            request
        };
        send(address, self.protocol, request).await
    }

    fn check(&mut self, place: &str, expected: &str, reply: &Reply) {
        let (head, body) = expected.split_once("\n\n").unwrap_or((expected, ""));
        let mut lines = head.lines();
        let status = lines.next().expect("a status").trim();
        let shown = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status.as_str(), status, "{place}: {shown}");
        assert!(
            !reply.header("x-request-id").is_empty(),
            "{place}: no request id"
        );
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{place}");
        for line in lines {
            if let Some(name) = line.strip_prefix('!') {
                assert!(
                    !reply.headers.contains_key(name),
                    "{place}: {name} is there"
                );
                continue;
            }
            let (name, value) = line.split_once(": ").expect("a header");
            let value = self.fill(value);
            self.same(
                &format!("{place}: header {name}"),
                &value,
                reply.header(name),
            );
        }
        let body = body.trim();
        if reply.status.as_u16() >= 400 && reply.body.is_empty() {
            assert!(
                place.contains(": HEAD "),
                "{place}: an error without a body"
            );
        } else if reply.status.as_u16() >= 400 {
            let error = reply.json();
            assert!(
                error["error"].is_string() && error["code"].is_string(),
                "{place}: {error}"
            );
            assert_eq!(error["requestId"], reply.header("x-request-id"), "{place}");
        }
        if body == "(empty)" {
            assert!(reply.body.is_empty(), "{place}: {shown}");
        } else if !body.is_empty() {
            let expected: Value =
                serde_json::from_str(body).unwrap_or_else(|error| panic!("{place}: {error}"));
            self.matches(place, "", &expected, &reply.json());
        }
    }

    /// Compares a text that may be, or contain, one name for something seen.
    fn same(&mut self, place: &str, expected: &str, found: &str) {
        let hole = expected.split_once('<').and_then(|(before, rest)| {
            let (name, after) = rest.split_once('>')?;
            Some((before, name, after))
        });
        let Some((before, name, after)) = hole else {
            return assert_eq!(found, expected, "{place}");
        };
        let inside = found
            .strip_prefix(before)
            .and_then(|found| found.strip_suffix(after));
        let inside = inside.unwrap_or_else(|| panic!("{place}: {found} is not {expected}"));
        assert!(!inside.is_empty(), "{place}: nothing where {expected} was");
        if name != "*" {
            let seen = self
                .seen
                .entry(name.to_owned())
                .or_insert_with(|| inside.to_owned());
            assert_eq!(inside, seen, "{place}: another {name}");
        }
    }

    fn matches(&mut self, place: &str, path: &str, expected: &Value, found: &Value) {
        match (expected, found) {
            (Value::String(text), _) if text == "<*>" => {
                assert!(!found.is_null(), "{place}: {path} is missing")
            }
            (Value::String(text), Value::String(found)) => {
                let text = self.fill(text);
                self.same(&format!("{place}: {path}"), &text, found);
            }
            (Value::Object(expected), Value::Object(found)) => {
                for (key, value) in expected {
                    let path = format!("{path}.{key}");
                    match (value.as_str(), found.get(key)) {
                        (Some("<absent>"), there) => {
                            assert!(there.is_none(), "{place}: {path} is there")
                        }
                        (_, Some(there)) => self.matches(place, &path, value, there),
                        (_, None) => panic!("{place}: {path} is missing in {found:?}"),
                    }
                }
            }
            (Value::Array(expected), Value::Array(found)) => {
                assert_eq!(expected.len(), found.len(), "{place}: {path}: {found:?}");
                for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
                    self.matches(place, &format!("{path}[{at}]"), expected, found);
                }
            }
            _ => assert_eq!(found, expected, "{place}: {path}"),
        }
    }
}
