//! What the kills have in common: a cluster, sessions whose shard a given node leads, writers, and the final checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::checker::{self, Tally};
use crate::cluster::Cluster;
use crate::history::History;
use crate::workload::{self, Document, Writer};

/// A number from the environment, for longer runs than the everyday one.
#[must_use]
pub fn number(name: &str, default: usize) -> usize {
    std::env::vars()
        .find(|(key, _)| key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(default)
}

/// Sessions whose shard the node at `position` leads (any node's, for `None`), one for each writer.
///
/// # Panics
/// When the node leads no shard.
pub async fn sessions(cluster: &Cluster, count: usize, position: Option<usize>) -> Vec<String> {
    let node = &cluster.nodes()[position.unwrap_or(0)];
    let leaders = cluster.leaders().await;
    let mut found = Vec::new();
    for attempt in 0..count * 40 {
        if found.len() == count {
            break;
        }
        let name = format!("chaos {attempt}");
        let id = workload::create(cluster.http(), &node.http, &cluster.api_key(), &name).await;
        if position.is_none() || leaders.get(&cluster.shard_of(&id)) == position.as_ref() {
            found.push(id);
        }
    }
    assert_eq!(found.len(), count, "the node leads no shard: {leaders:?}");
    found
}

/// Stores `count` more sessions whose documents have `bytes` bytes of text that hardly compresses, as tokens do not.
///
/// # Panics
/// When one is not stored.
pub async fn fill(cluster: &Cluster, count: usize, bytes: usize) {
    const AT_ONCE: usize = 48;
    let api_key: Arc<str> = cluster.api_key().into();
    let gateways: Vec<Arc<str>> = cluster.nodes().into_iter().map(|n| n.http.into()).collect();
    let mut clients = JoinSet::new();
    for client in 0..AT_ONCE {
        let (http, api_key) = (cluster.http().clone(), Arc::clone(&api_key));
        let gateway = Arc::clone(&gateways[client % gateways.len()]);
        clients.spawn(async move {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(client as u64);
            for number in (client..count).step_by(AT_ONCE) {
                let text: String = (0..bytes)
                    .map(|_| char::from(random.sample(rand::distr::Alphanumeric)))
                    .collect();
                let body =
                    serde_json::json!({"name": format!("fill {number}"), "description": text});
                let response = http
                    .post(format!("{gateway}/api/v2/sessions"))
                    .bearer_auth(&api_key)
                    .header("content-type", "application/json")
                    .header("prefer", "return=minimal")
                    .body(body.to_string())
                    .send()
                    .await
                    .expect("the gateway answers");
                assert_eq!(response.status(), 201);
                response.bytes().await.expect("an answer has an end");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every session is stored");
    }
}

/// Writers that run until they are stopped.
#[derive(Debug)]
pub struct Load {
    history: Arc<History>,
    stop: CancellationToken,
    writers: JoinSet<()>,
    first: BTreeMap<String, u64>,
}

impl Load {
    /// Starts one writer for each session, each over these gateways.
    pub async fn start(
        cluster: &Cluster,
        sessions: &[String],
        gateways: &[String],
        period: Duration,
    ) -> Self {
        let history = Arc::new(History::default());
        let document = Arc::new(Document::new(0));
        let stop = CancellationToken::new();
        let mut writers = JoinSet::new();
        let mut first = BTreeMap::new();
        for (client, session) in sessions.iter().enumerate() {
            first.insert(session.clone(), revision_now(cluster, session).await);
            let writer = Writer {
                client,
                session: session.clone(),
                gateways: gateways.to_vec(),
                api_key: cluster.api_key(),
                period,
                bytes: 512,
                document: Arc::clone(&document),
            };
            writers.spawn(writer.run(cluster.http().clone(), Arc::clone(&history), stop.clone()));
        }
        Self {
            history,
            stop,
            writers,
            first,
        }
    }

    /// What the writers have recorded so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Waits until this many writes have ended since the call.
    ///
    /// # Panics
    /// When that takes more than a minute.
    pub async fn progress(&self, cluster: &Cluster, count: usize) {
        let before = self.history.operations().len();
        cluster
            .until(
                "the load makes progress",
                Duration::from_secs(60),
                || async { self.history.operations().len() >= before + count },
            )
            .await;
    }

    /// Stops the writers and waits for what is under way.
    pub async fn finish(&mut self) {
        self.stop.cancel();
        while self.writers.join_next().await.is_some() {}
    }

    /// Checks every session against the cluster as it is now, and saves the history beside its data.
    ///
    /// # Panics
    /// With a sentence that says what is wrong.
    pub async fn check(&self, cluster: &Cluster) -> Tally {
        let operations = self.history.operations();
        let path = cluster.dir().join("history.jsonl");
        self.history
            .save(&path)
            .expect("the history can be written");
        for (session, writes) in checker::by_session(&operations) {
            let last = revision_now(cluster, session).await;
            let verdict = checker::applied_once(&writes, self.first[session], last);
            assert!(
                verdict.is_ok(),
                "session {session}: {verdict:?}; history in {}",
                path.display()
            );
        }
        checker::tally(&operations)
    }
}

/// The revision that a linearizable read through any living node shows.
///
/// # Panics
/// When no node answers, or the session is not there.
pub async fn revision_now(cluster: &Cluster, session: &str) -> u64 {
    for node in cluster.nodes() {
        let request = cluster
            .http()
            .get(format!("{}/api/v2/sessions/{session}", node.http))
            .bearer_auth(cluster.api_key());
        if let Ok(response) = request.send().await {
            assert_eq!(
                response.status(),
                200,
                "session {session} through node {}",
                node.id
            );
            let tag = response
                .headers()
                .get("etag")
                .expect("an entity tag")
                .to_str()
                .expect("text");
            return workload::version(tag).expect("a version").revision;
        }
    }
    unreachable!("a quorum of nodes lives, so one of them answers");
}
