//! What the node tells its operator through the gateway's admin listener: health, metrics, and `/admin/v1/*`.
//!
//! | request | answer |
//! |---|---|
//! | `GET cluster` | [`ClusterStatus`], as this node sees it |
//! | `GET hashes` | [`StateHashes`]: a hash of each replica's state at its applied index; 503 while another asks |
//! | `GET scrub` | `{"running", "passes", "bytes", "damage", "lastPassEnded", "repairs"}`: what reading all data has found |
//! | `POST scrub` | 202 with the same: a pass over all data begins now |
//! | `GET compact` | `{"running", "passes", "before", "after", "skipped", "lastPassEnded"}`: what rewriting all state has come to, in bytes |
//! | `POST compact` | 202 with the same: all state is rewritten now, so that only what is current takes place |
//! | `POST join-tokens` with `{"minutes": n}` | 201 `{"token"}` |
//! | `DELETE nodes/ID` | 200 `{"id", "status": "leaving"}`: it is gone once its replicas are elsewhere |
//!
//! `/readyz` is false only for what another node would do better: starting, stopping, cut off alone, a sick disk or
//! clock. What all nodes share is in its body.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway::{AdminHooks, AdminReply, AdminRequest};
use http::Method;
use model::id::NodeId;
use model::status::{ClusterStatus, StateHashes};
use raft::host::{CompactReport, ScrubReport};
use serde::Deserialize;
use serde_json::json;

use crate::metrics::Registry;

/// Longest validity of a join token.
const MAX_TOKEN: Duration = Duration::from_hours(24);

/// Why an administrative act was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperateError {
    /// The cluster says no; trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// Nobody could decide now.
    #[error("{0}")]
    Unavailable(String),
}

/// The replicated store, as its operator sees it.
#[async_trait]
pub(crate) trait Operate: Send + Sync {
    /// This node's view of the cluster.
    fn status(&self) -> ClusterStatus;

    /// What each replica here holds; reads all of it. Nothing while another call does.
    async fn hashes(&self) -> Option<StateHashes>;

    /// Why another node would do better; empty when this one is well.
    fn unready(&self) -> Vec<String>;

    /// Reads all stored data now, to find damage.
    fn scrub(&self);

    /// What reading all stored data has come to.
    fn scrub_report(&self) -> ScrubReport;

    /// Rewrites all state now, so that only what is current takes place.
    fn compact(&self);

    /// What rewriting all state has come to.
    fn compact_report(&self) -> CompactReport;

    /// Damaged replicas that are being rebuilt from other nodes, and what was found.
    fn repairs(&self) -> Vec<(String, String)>;

    /// A token with which one new node may join.
    async fn join_token(&self, valid: Duration) -> Result<String, OperateError>;

    /// Begins to take a node out.
    async fn remove(&self, node: NodeId) -> Result<(), OperateError>;
}

/// The hooks of a node: they work from the first moment, and know the store once it is there.
pub(crate) struct Hooks {
    registry: Registry,
    store: OnceLock<Box<dyn Operate>>,
    stopping: AtomicBool,
}

impl Hooks {
    /// Hooks of a node that starts.
    pub(crate) const fn new(registry: Registry) -> Self {
        Self {
            registry,
            store: OnceLock::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The store is there: the node is ready when the store is.
    pub(crate) fn attach(&self, store: Box<dyn Operate>) {
        assert!(self.store.set(store).is_ok(), "a node has one store");
    }

    /// From now on the node is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    async fn answer(&self, request: AdminRequest) -> Result<AdminReply, OperateError> {
        let store = self
            .store
            .get()
            .ok_or_else(|| OperateError::Unavailable("starting".into()))?;
        let node = request.path.strip_prefix("nodes/").map(str::parse::<u64>);
        match (request.path.as_str(), &request.method, node) {
            ("cluster", &(Method::GET | Method::HEAD), _) => json_of(200, &json!(store.status())),
            ("cluster", _, _) => Ok(AdminReply::MethodNotAllowed("GET, HEAD")),
            ("hashes", &(Method::GET | Method::HEAD), _) => {
                let busy = || OperateError::Unavailable("another request reads the state".into());
                json_of(200, &json!(store.hashes().await.ok_or_else(busy)?))
            }
            ("hashes", _, _) => Ok(AdminReply::MethodNotAllowed("GET, HEAD")),
            ("scrub", &Method::POST, _) => {
                store.scrub();
                json_of(202, &scrub_of(&**store))
            }
            ("scrub", &(Method::GET | Method::HEAD), _) => json_of(200, &scrub_of(&**store)),
            ("scrub", _, _) => Ok(AdminReply::MethodNotAllowed("GET, HEAD, POST")),
            ("compact", &Method::POST, _) => {
                store.compact();
                json_of(202, &compact_of(&store.compact_report()))
            }
            ("compact", &(Method::GET | Method::HEAD), _) => {
                json_of(200, &compact_of(&store.compact_report()))
            }
            ("compact", _, _) => Ok(AdminReply::MethodNotAllowed("GET, HEAD, POST")),
            ("join-tokens", &Method::POST, _) => {
                let wish: TokenWish = serde_json::from_slice(&request.body)
                    .map_err(|_json| OperateError::Refused("not {\"minutes\": n}".into()))?;
                let valid = Duration::from_mins(wish.minutes);
                if valid.is_zero() || valid > MAX_TOKEN {
                    return Err(OperateError::Refused(
                        "minutes are not from 1 to 1440".into(),
                    ));
                }
                let token = store.join_token(valid).await?;
                json_of(201, &json!({ "token": token }))
            }
            ("join-tokens", _, _) => Ok(AdminReply::MethodNotAllowed("POST")),
            (_, &Method::DELETE, Some(Ok(node))) => {
                store.remove(NodeId(node)).await?;
                json_of(200, &json!({ "id": node, "status": "leaving" }))
            }
            (_, _, Some(Ok(_))) => Ok(AdminReply::MethodNotAllowed("DELETE")),
            (_, _, _) => Ok(AdminReply::NotFound),
        }
    }
}

fn scrub_of(store: &dyn Operate) -> serde_json::Value {
    let report = store.scrub_report();
    let repairs: serde_json::Map<_, _> = store
        .repairs()
        .into_iter()
        .map(|(group, what)| (group, what.into()))
        .collect();
    json!({
        "running": report.running,
        "passes": report.passes,
        "bytes": report.bytes,
        "damage": report.damage,
        "lastPassEnded": report.last.map(|at| at.0),
        "repairs": repairs,
    })
}

fn compact_of(report: &CompactReport) -> serde_json::Value {
    let skipped: serde_json::Map<_, _> = report
        .skipped
        .iter()
        .map(|(group, why)| (group.clone(), why.as_str().into()))
        .collect();
    json!({
        "running": report.running,
        "passes": report.passes,
        "before": report.before,
        "after": report.after,
        "skipped": skipped,
        "lastPassEnded": report.last.map(|at| at.0),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenWish {
    minutes: u64,
}

#[async_trait]
impl AdminHooks for Hooks {
    fn sick(&self) -> Vec<String> {
        // A node that cannot go on ends its process by itself.
        Vec::new()
    }

    fn unready(&self) -> Vec<String> {
        if self.stopping.load(Ordering::Acquire) {
            return vec!["stopping".to_owned()];
        }
        self.store
            .get()
            .map_or_else(|| vec!["starting".to_owned()], |store| store.unready())
    }

    fn metrics(&self) -> String {
        self.registry.text()
    }

    async fn admin(&self, request: AdminRequest) -> AdminReply {
        let (path, changes) = (
            request.path.clone(),
            !matches!(request.method, Method::GET | Method::HEAD),
        );
        let answer = self.answer(request).await;
        if changes {
            let done = answer.is_ok();
            tracing::info!(path, done, "administrative request");
        }
        answer.unwrap_or_else(|error| {
            let (status, code) = match &error {
                OperateError::Refused(_) => (400, "refused"),
                OperateError::Unavailable(_) => (503, "unavailable"),
            };
            let text = json!({ "error": error.to_string(), "code": code }).to_string();
            AdminReply::Json { status, text }
        })
    }
}

/// A reply; a value that is not JSON does not exist here.
#[expect(
    clippy::unnecessary_wraps,
    reason = "every arm that answers reads the same"
)]
fn json_of(status: u16, value: &serde_json::Value) -> Result<AdminReply, OperateError> {
    Ok(AdminReply::Json {
        status,
        text: value.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    struct Fake {
        reading: bool,
    }

    #[async_trait]
    impl Operate for Fake {
        fn status(&self) -> ClusterStatus {
            ClusterStatus {
                node: 7,
                ..ClusterStatus::default()
            }
        }

        async fn hashes(&self) -> Option<StateHashes> {
            (!self.reading).then(|| StateHashes {
                node: 7,
                ..StateHashes::default()
            })
        }

        fn unready(&self) -> Vec<String> {
            Vec::new()
        }

        fn scrub(&self) {}

        fn compact(&self) {}

        fn compact_report(&self) -> CompactReport {
            CompactReport {
                before: 20,
                after: 10,
                skipped: vec![("meta".to_owned(), "no room".to_owned())],
                ..CompactReport::default()
            }
        }

        fn scrub_report(&self) -> ScrubReport {
            ScrubReport {
                damage: 3,
                ..ScrubReport::default()
            }
        }

        fn repairs(&self) -> Vec<(String, String)> {
            vec![("meta".to_owned(), "a flipped bit".to_owned())]
        }

        async fn join_token(&self, valid: Duration) -> Result<String, OperateError> {
            Ok(format!("token for {valid:?}"))
        }

        async fn remove(&self, _: NodeId) -> Result<(), OperateError> {
            Err(OperateError::Refused("no such node".into()))
        }
    }

    async fn ask(hooks: &Hooks, method: Method, path: &str, body: &str) -> (u16, String) {
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        let request = AdminRequest {
            method,
            path: path.into(),
            query: String::new(),
            body,
        };
        match hooks.admin(request).await {
            AdminReply::Json { status, text } => (status, text),
            AdminReply::NotFound => (404, String::new()),
            AdminReply::MethodNotAllowed(allow) => (405, allow.to_owned()),
        }
    }

    #[tokio::test]
    async fn every_request_of_the_table_has_its_answer() {
        let hooks = Hooks::new(Registry::install(&SystemClock).unwrap());
        assert_eq!(hooks.unready(), ["starting"]);
        assert_eq!(ask(&hooks, Method::GET, "cluster", "").await.0, 503);
        hooks.attach(Box::new(Fake { reading: false }));
        assert!(hooks.unready().is_empty());
        let (status, text) = ask(&hooks, Method::GET, "cluster", "").await;
        assert!(status == 200 && text.contains("\"node\":7"), "{text}");
        let (status, text) = ask(&hooks, Method::GET, "hashes", "").await;
        assert!(status == 200 && text.contains("\"groups\":[]"), "{text}");
        assert_eq!(ask(&hooks, Method::POST, "hashes", "").await.0, 405);
        let wish = r#"{"minutes":60}"#;
        let (status, text) = ask(&hooks, Method::POST, "join-tokens", wish).await;
        assert!(status == 201 && text.contains("3600s"), "{text}");
        for wrong in [
            "",
            "{}",
            r#"{"minutes":0}"#,
            r#"{"minutes":1441}"#,
            r#"{"minutes":5,"x":1}"#,
        ] {
            assert_eq!(
                ask(&hooks, Method::POST, "join-tokens", wrong).await.0,
                400,
                "{wrong}"
            );
        }
        for (method, expected) in [(Method::POST, 202), (Method::GET, 200)] {
            let (status, text) = ask(&hooks, method, "scrub", "").await;
            assert_eq!(status, expected);
            let found =
                text.contains(r#""damage":3"#) && text.contains(r#""meta":"a flipped bit""#);
            assert!(found, "{text}");
        }
        for (method, expected) in [(Method::POST, 202), (Method::GET, 200)] {
            let (status, text) = ask(&hooks, method, "compact", "").await;
            assert_eq!(status, expected);
            let found = text.contains(r#""before":20"#) && text.contains(r#""meta":"no room""#);
            assert!(found, "{text}");
        }
        let (status, text) = ask(&hooks, Method::DELETE, "nodes/9", "").await;
        assert!(status == 400 && text.contains("no such node"), "{text}");
        assert_eq!(
            ask(&hooks, Method::GET, "nodes/9", "").await,
            (405, "DELETE".to_owned())
        );
        assert_eq!(ask(&hooks, Method::GET, "nodes/x", "").await.0, 404);
        assert_eq!(ask(&hooks, Method::GET, "other", "").await.0, 404);
        hooks.stop();
        assert_eq!(hooks.unready(), ["stopping"]);
    }

    #[tokio::test]
    async fn a_second_request_for_hashes_is_told_to_come_later() {
        let hooks = Hooks::new(Registry::install(&SystemClock).unwrap());
        hooks.attach(Box::new(Fake { reading: true }));
        let (status, text) = ask(&hooks, Method::GET, "hashes", "").await;
        assert!(status == 503 && text.contains("another request"), "{text}");
    }
}
