//! What a scenario asks by itself, beside its load: sessions that nobody else touches. Each request is in the run's history, and
//! so under all its checks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chaos_tests::history::{Action, Operation};
use chaos_tests::workload::{Ask, Client};
use model::limits::DEFAULT_SHARDS;
use model::placement::group_of;
use tokio::time::Instant;

use crate::play::Play;

/// The number of this client; those of the load are lower.
const CLIENT: usize = 900;
/// How long a request is tried that is to go to one gateway only.
const ONCE: Duration = Duration::from_secs(2);

/// A client of a scenario's own.
pub(crate) struct Own {
    client: Client,
    number: AtomicU64,
}

impl Own {
    /// Over all gateways, as careful as any client of the load.
    pub(crate) fn new(play: &Play) -> Self {
        let client = play.scenario.client(play.rig.target().gateways());
        Self {
            client,
            number: AtomicU64::new(0),
        }
    }

    /// Asks until there is an answer or its time is over.
    pub(crate) async fn ask(&self, action: Action, session: &str, bytes: usize) -> Operation {
        let (operation, _) = self.client.perform(self.of(action, session, bytes)).await;
        operation
    }

    /// Asks one node's gateway.
    pub(crate) async fn ask_at(&self, node: usize, action: Action, session: &str) -> Operation {
        self.ask_among(&[node], ONCE, action, session).await
    }

    /// Asks through the gateways of these nodes, for so long at most.
    pub(crate) async fn ask_among(
        &self,
        nodes: &[usize],
        budget: Duration,
        action: Action,
        session: &str,
    ) -> Operation {
        let gateways = nodes.iter().map(|node| self.client.gateways[*node].clone());
        let client = Client {
            gateways: gateways.collect(),
            budget,
            ..self.client.clone()
        };
        let (operation, _) = client.perform(self.of(action, session, SMALL)).await;
        operation
    }

    /// A session, with an end if it is to have one; its shard's group and its id.
    ///
    /// # Panics
    /// When it is not made.
    pub(crate) async fn create(&self, bytes: usize, ends: Option<Duration>) -> (String, String) {
        let mut ask = self.of(Action::Create, "", bytes);
        ask.expires = ends.map(|ahead| {
            let text = self.client.history.wall_in(ahead);
            let at = self.client.history.at_wall(&text).unwrap_or(0);
            (text, at)
        });
        let (made, _) = self.client.perform(ask).await;
        assert!(made.is_acknowledged(), "{made:?}");
        let id = made.session.parse().expect("a session's id");
        (group_of(id, DEFAULT_SHARDS).to_string(), made.session)
    }

    /// A session in each shard, by the shard's group.
    pub(crate) async fn in_each_shard(&self, ends: Option<Duration>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        while found.len() < usize::from(DEFAULT_SHARDS) {
            let (group, session) = self.create(SMALL, ends).await;
            found.insert(group, session);
        }
        found
    }

    fn of(&self, action: Action, session: &str, bytes: usize) -> Ask {
        Ask {
            client: CLIENT,
            number: self.number.fetch_add(1, Ordering::Relaxed),
            action,
            session: session.to_owned(),
            bytes,
            expires: None,
            seen: None,
            due: Instant::now(),
        }
    }
}

/// Bytes of a body where nothing else is asked for.
pub(crate) const SMALL: usize = 500;
