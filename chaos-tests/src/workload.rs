//! Open-loop writers: each has a session of its own and writes it at a steady rate, whatever the answers do.
//!
//! A write is a `PUT` of a unique value. It is sent to one gateway; when that cannot be reached before the request
//! was sent, or the connection breaks, the client moves to the next with the same `Idempotency-Key`, as a careful client
//! does; the tests that count failures give clients living gateways only.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::history::{End, History, Operation};

/// One writer.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Its number.
    pub client: usize,
    /// Its session.
    pub session: String,
    /// The gateways that it may use, as URLs.
    pub gateways: Vec<String>,
    /// The key of its tenant.
    pub api_key: String,
    /// Time from one write to the next.
    pub period: Duration,
    /// Bytes of each value.
    pub bytes: usize,
}

/// Creates a session through a gateway and returns its id.
///
/// # Panics
/// When the answer is not 201.
pub async fn create(http: &reqwest::Client, gateway: &str, api_key: &str, name: &str) -> String {
    let response = http
        .post(format!("{gateway}/api/v2/sessions"))
        .bearer_auth(api_key)
        .header("content-type", "application/json")
        .body(serde_json::json!({"name": name, "tags": ["chaos"]}).to_string())
        .send()
        .await
        .expect("the gateway answers");
    assert_eq!(response.status(), 201);
    let body: serde_json::Value = response.json().await.expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

impl Writer {
    /// Writes until it is told to stop, then waits for what is under way.
    pub async fn run(self, http: reqwest::Client, history: Arc<History>, stop: CancellationToken) {
        let writer = Arc::new(self);
        let mut writes = JoinSet::new();
        let mut period = tokio::time::interval(writer.period);
        period.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0.. {
            let due = tokio::select! {
                () = stop.cancelled() => break,
                due = period.tick() => due,
            };
            while writes.try_join_next().is_some() {}
            let (writer, http) = (Arc::clone(&writer), http.clone());
            let history = Arc::clone(&history);
            writes.spawn(async move { writer.write(&http, &history, number, due).await });
        }
        while writes.join_next().await.is_some() {}
    }

    async fn write(&self, http: &reqwest::Client, history: &History, number: u64, due: Instant) {
        let value = format!("{}-{number}-{}", self.client, "x".repeat(self.bytes));
        let body = serde_json::json!({"description": value}).to_string();
        let gateway = &self.gateways
            [(self.client + usize::try_from(number).unwrap_or(0)) % self.gateways.len()];
        let request = http
            .put(format!("{gateway}/api/v2/sessions/{}", self.session))
            .bearer_auth(&self.api_key)
            .header("content-type", "application/json")
            .header("prefer", "return=minimal")
            .body(body);
        let mut operation = Operation {
            client: self.client,
            number,
            session: self.session.clone(),
            value,
            due: history.at(due),
            end: 0,
            outcome: End::Unknown,
            status: None,
            code: None,
            revision: None,
        };
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                operation.status = Some(status.as_u16());
                operation.revision = response
                    .headers()
                    .get("etag")
                    .and_then(|tag| revision(tag.to_str().ok()?));
                operation.outcome = match status.as_u16() {
                    200..300 => End::Ok,
                    504 | 500 => End::Unknown,
                    _ => End::Fail,
                };
                if !status.is_success() {
                    let body: serde_json::Value = response.json().await.unwrap_or_default();
                    operation.code = body["code"].as_str().map(str::to_owned);
                }
            }
            Err(error) if error.is_connect() => operation.outcome = End::Fail,
            Err(_broken) => {}
        }
        operation.end = history.now();
        history.record(operation);
    }
}

/// The revision in an entity tag like `"1.7"` or `"1.7-zstd"`.
#[must_use]
pub fn revision(tag: &str) -> Option<u64> {
    let tag = tag.trim_matches('"');
    tag.split('-').next()?.split_once('.')?.1.parse().ok()
}
