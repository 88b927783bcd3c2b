//! Open-loop writers: each has a session of its own and writes it at a steady rate, whatever the answers do.
//!
//! A write is a `PUT` of a unique value. It is sent once, to one gateway, and never tried again: these writers count what a
//! careless client sees. The tests that count failures give them living gateways only.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::document::Document;
use super::version;
use crate::history::{Action, Content, End, History, Operation, Shown};

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
    /// Makes the values.
    pub document: Arc<Document>,
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
        let name = self.document.name(self.client, number);
        let body = self.document.body(&name, self.bytes).to_string();
        let gateway = &self.gateways
            [(self.client + usize::try_from(number).unwrap_or(0)) % self.gateways.len()];
        let mut operation = Operation {
            client: self.client,
            number,
            action: Action::Put,
            session: self.session.clone(),
            wrote: Content {
                body: Some(name),
                tag: None,
            },
            due: history.at(due),
            start: history.now(),
            gateway: gateway.clone(),
            attempts: 1,
            ..Operation::default()
        };
        let request = http
            .put(format!("{gateway}/api/v2/sessions/{}", self.session))
            .bearer_auth(&self.api_key)
            .header("content-type", "application/json")
            .header("prefer", "return=minimal")
            .body(body);
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                operation.status = Some(status.as_u16());
                let tag = response.headers().get("etag");
                operation.version = tag.and_then(|tag| version(tag.to_str().ok()?));
                operation.outcome = match status.as_u16() {
                    200..300 => End::Ok,
                    504 | 500 => End::Unknown,
                    _ => End::Fail,
                };
                operation.shown = status.is_success().then_some(Shown::Done);
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
