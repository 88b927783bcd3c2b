//! A careful client: one operation is tried through any gateway until it has an answer or its time is over, always with
//! the same `Idempotency-Key`, and with the pause that `Retry-After` asks for.
//!
//! How it ends follows from all tries: a write is *unknown* when a try may have reached the store and no later one says
//! how it ended; *fail* when every try was refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::Version;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::document::Document;
use super::version;
use crate::history::{Action, Content, End, History, Operation, Shown};

/// Bytes of error answers kept for the scan for secrets.
const MOST_ERRORS: usize = 4 << 20;
/// Pause before the next gateway when one cannot be reached.
const UNREACHED: Duration = Duration::from_millis(20);
/// How long a connection may take. A try has more time than this, or a dead gateway would look like one that took the request.
const DIAL: Duration = Duration::from_millis(400);

/// What all operations of a run share.
#[derive(Clone, Debug)]
pub struct Client {
    /// Sends the requests.
    pub http: reqwest::Client,
    /// The key of the tenant.
    pub api_key: String,
    /// The gateways, as URLs.
    pub gateways: Vec<String>,
    /// How long an operation is tried.
    pub budget: Duration,
    /// How long one try may take.
    pub attempt: Duration,
    /// Makes and reads documents.
    pub document: Arc<Document>,
    /// Takes what was done.
    pub history: Arc<History>,
    /// The bodies of error answers.
    pub errors: Arc<Mutex<Vec<u8>>>,
}

/// One operation to be carried out.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Which client.
    pub client: usize,
    /// Which of its operations; together unique in the history.
    pub number: u64,
    /// What to do.
    pub action: Action,
    /// To which session; empty for a creation.
    pub session: String,
    /// About how many bytes a body has.
    pub bytes: usize,
    /// When the session is to end, by the wall clock and in microseconds of the history.
    pub expires: Option<(String, u64)>,
    /// For a write on a condition, and for a local read what was seen, with its token.
    pub seen: Option<(Version, String)>,
    /// When it was due.
    pub due: Instant,
}

/// What one try says.
enum Try {
    /// It ended.
    Ends(Box<Operation>),
    /// Nothing was changed; again after this time, if the answer says one.
    Refused(Option<Duration>),
    /// Nobody knows.
    Unclear,
}

/// How requests of a run are sent: to a gateway that cannot be reached none is.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(DIAL)
        .timeout(Duration::from_secs(15))
        .pool_max_idle_per_host(64)
}

impl Client {
    /// Carries out an operation and records it; also the token of its answer.
    pub async fn perform(&self, ask: Ask) -> (Operation, Option<String>) {
        let start = Instant::now();
        let deadline = start + self.budget;
        let mut operation = self.begun(&ask, start);
        let mut not_before = vec![start; self.gateways.len()];
        let mut gateway =
            (ask.client + usize::try_from(ask.number).unwrap_or(0)) % self.gateways.len();
        let (mut unclear, mut token) = (false, None);
        loop {
            operation.attempts += 1;
            operation.gateway.clone_from(&self.gateways[gateway]);
            let now = Instant::now();
            match self
                .attempt(&ask, &mut operation, &mut token, deadline)
                .await
            {
                Try::Ends(ended) => {
                    operation = *ended;
                    if unclear && operation.outcome == End::Fail {
                        operation.outcome = End::Unknown;
                    }
                    break;
                }
                Try::Refused(after) => {
                    not_before[gateway] = Instant::now() + after.unwrap_or(UNREACHED);
                }
                Try::Unclear => {
                    unclear = true;
                    not_before[gateway] = now + UNREACHED;
                }
            }
            operation.outcome = if unclear { End::Unknown } else { End::Fail };
            // The next gateway that may be asked, or the one that may be asked first.
            let count = self.gateways.len();
            let next = (1..=count).map(|step| (gateway + step) % count);
            let next = next.min_by_key(|at| not_before[*at].max(Instant::now()));
            gateway = next.unwrap_or(gateway);
            if not_before[gateway].max(Instant::now()) + DIAL >= deadline {
                break;
            }
            sleep_until(not_before[gateway]).await;
        }
        operation.end = self.history.now();
        self.history.record(operation.clone());
        (operation, token)
    }

    fn begun(&self, ask: &Ask, start: Instant) -> Operation {
        let name = self.document.name(ask.client, ask.number);
        let body = matches!(
            ask.action,
            Action::Create | Action::Put | Action::PutIfMatch
        );
        let tag = matches!(ask.action, Action::Create | Action::Patch);
        let seen = ask.seen.as_ref().map(|(version, _)| *version);
        Operation {
            client: ask.client,
            number: ask.number,
            action: ask.action,
            session: ask.session.clone(),
            wrote: Content {
                body: body.then(|| name.clone()),
                tag: tag.then_some(name),
            },
            expires: ask.expires.as_ref().map(|(_, at)| *at),
            if_match: seen.filter(|_| ask.action == Action::PutIfMatch),
            at_least: seen.filter(|_| ask.action == Action::ReadLocal),
            due: self.history.at(ask.due),
            start: self.history.at(start),
            ..Operation::default()
        }
    }

    async fn attempt(
        &self,
        ask: &Ask,
        operation: &mut Operation,
        token: &mut Option<String>,
        deadline: Instant,
    ) -> Try {
        let left = deadline.saturating_duration_since(Instant::now());
        let request = self.request(ask, operation).timeout(left.min(self.attempt));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Try::Refused(None),
            Err(_broken) => return Try::Unclear,
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = match response.bytes().await {
            Ok(body) => body,
            // A write's status says it all, but for the id of a new session.
            Err(_broken) if ask.action.writes() && status < 300 => Bytes::new(),
            Err(_broken) => return Try::Unclear,
        };
        operation.status = Some(status);
        operation.code = None;
        if status >= 400 {
            self.keep(&body);
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            operation.code = body["code"].as_str().map(str::to_owned);
            if let (410, Some(at)) = (status, body["expired"].as_str()) {
                operation.expires = self.history.at_wall(at);
            }
        }
        *token = text(&headers, "psp-consistency");
        let retry_after = text(&headers, "retry-after").and_then(|text| text.parse().ok());
        match status {
            429 | 503 | 507 => return Try::Refused(retry_after.map(Duration::from_secs)),
            500 | 502 | 504 => return Try::Unclear,
            _ => {}
        }
        Try::Ends(Box::new(self.ended(
            ask,
            operation.clone(),
            &headers,
            &body,
        )))
    }

    fn ended(
        &self,
        ask: &Ask,
        mut done: Operation,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Operation {
        let status = done.status.unwrap_or_default();
        done.shown = match (status, done.code.as_deref()) {
            (200..300, _) => Some(Shown::Done),
            (404, Some("session_not_found")) => Some(Shown::Absent),
            (410, _) => Some(Shown::Expired),
            (412, _) => Some(Shown::Mismatch),
            _ => None,
        };
        done.outcome = if done.shown.is_some() {
            End::Ok
        } else {
            End::Fail
        };
        if matches!(done.shown, Some(Shown::Done | Shown::Mismatch)) {
            done.version = text(headers, "etag").and_then(|tag| version(&tag));
        }
        if done.shown != Some(Shown::Done) {
            return done;
        }
        match ask.action {
            Action::Create => {
                let place = text(headers, "location").unwrap_or_default();
                let id = place.rsplit('/').next().unwrap_or_default();
                id.clone_into(&mut done.session);
            }
            Action::Read | Action::ReadLocal => {
                let staleness = text(headers, "psp-staleness-ms");
                done.staleness =
                    staleness.and_then(|millis| Some(millis.parse::<u64>().ok()? * 1000));
                match self.document.read(body) {
                    Ok(content) => done.read = Some(content),
                    Err(wrong) => done.broken = Some(wrong),
                }
            }
            _ => {}
        }
        done
    }

    fn request(&self, ask: &Ask, operation: &Operation) -> RequestBuilder {
        let name = self.document.name(ask.client, ask.number);
        let (method, mut body) = match ask.action {
            Action::Create => (Method::POST, self.document.body(&name, ask.bytes)),
            Action::Put | Action::PutIfMatch => (Method::PUT, self.document.body(&name, ask.bytes)),
            Action::Patch => (Method::PATCH, json!({"tags": [&name]})),
            Action::Renew => (Method::PATCH, json!({})),
            Action::Delete => (Method::DELETE, serde_json::Value::Null),
            Action::Read | Action::ReadLocal => (Method::GET, serde_json::Value::Null),
        };
        if ask.action == Action::Create {
            body["name"] = name.as_str().into();
            body["tags"] = json!([&name]);
        }
        if let Some((at, _)) = &ask.expires {
            body["timestamps"] = json!({"expires": at});
        }
        let mut url = format!("{}/api/v2/sessions", operation.gateway);
        if !ask.session.is_empty() {
            url = format!("{url}/{}", ask.session);
        }
        if ask.action == Action::ReadLocal {
            url.push_str("?consistency=local");
        }
        let mut request = self.http.request(method, url).bearer_auth(&self.api_key);
        if ask.action.writes() {
            request = request
                .header("idempotency-key", &name)
                .header("prefer", "return=minimal");
        }
        if !body.is_null() {
            let kind = match ask.action {
                Action::Patch | Action::Renew => "application/merge-patch+json",
                _ => "application/json",
            };
            request = request.header("content-type", kind).body(body.to_string());
        }
        match (&ask.seen, ask.action) {
            (Some((seen, _)), Action::PutIfMatch) => {
                request.header("if-match", format!("\"{seen}\""))
            }
            (Some((_, token)), Action::ReadLocal) => request.header("psp-consistency", token),
            _ => request,
        }
    }

    fn keep(&self, body: &Bytes) {
        let mut errors = self.errors.lock();
        if errors.len() + body.len() < MOST_ERRORS {
            errors.extend_from_slice(body);
            errors.push(b'\n');
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
