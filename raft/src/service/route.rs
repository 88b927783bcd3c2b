//! Which node to ask, and asking it.
//!
//! A node is asked because it leads the group, as far as is known, else because it has a replica. Nothing here tries
//! twice; `client` and `read` do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::{GroupId, NodeId, SessionId};
use model::placement;
use model::service::Refused;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::time::Instant;

use crate::chance;
use crate::service::Inner;
use crate::service::error::{TryError, Why};
use crate::service::wire::{Reply, Request};
use crate::shard::{Directory, PeerError, Peers, ShardGroup};

/// How the service reaches groups and nodes.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) peers: Arc<dyn Peers>,
}

/// Where to try.
pub(super) enum Target {
    Here(Arc<dyn ShardGroup>),
    Node(NodeId),
}

/// How often a waiting call looks whether the group has got another leader.
const LEADER_CHECK: Duration = Duration::from_millis(50);
/// A second more for each of this many bytes.
const BYTES_A_SECOND: usize = 4 * 1024 * 1024;

impl Inner {
    pub(super) fn links(&self) -> Result<Links, TryError> {
        let links = self.links.read();
        links.clone().ok_or(TryError::NotReady(Why::Starting))
    }

    /// Whether there is anything to try again with: a node that starts or stops says so at once, and its client goes elsewhere.
    pub(super) fn is_attached(&self) -> bool {
        self.links.read().is_some()
    }

    /// The group that holds a session. A session of a region that is not here is not found.
    pub(super) fn group_of(&self, links: &Links, session: SessionId) -> Result<GroupId, TryError> {
        let (region, shards) = links.directory.region();
        if session.is_ours() && session.birth() == region {
            Ok(placement::group_of(session, shards))
        } else {
            Err(Refused::NotFound.into())
        }
    }

    /// The end of one try that moves this many bytes.
    pub(super) fn try_deadline(&self, deadline: Instant, bytes: usize) -> Instant {
        let moving = Duration::from_secs(u64::try_from(bytes / BYTES_A_SECOND).unwrap_or(0));
        deadline.min(Instant::now() + self.config.try_timeout + moving)
    }

    /// The leader's node, as far as is known; else any node that has a replica and is not to be avoided.
    pub(super) fn leader(
        &self,
        links: &Links,
        group: GroupId,
        avoid: &mut Vec<NodeId>,
    ) -> Result<Target, TryError> {
        let me = links.directory.me();
        let local = links.directory.local(group);
        if let Some(local) = &local
            && local.is_leader()
        {
            return Ok(Target::Here(Arc::clone(local)));
        }
        let known = local.as_ref().and_then(|local| local.leader());
        let hint = known.or_else(|| self.hints.read().get(&group).copied());
        if let Some(hint) = hint
            && hint != me
            && !avoid.contains(&hint)
        {
            return Ok(Target::Node(hint));
        }
        self.any_other(links, group, avoid).map(Target::Node)
    }

    /// A node other than this one that has a replica.
    pub(super) fn any_other(
        &self,
        links: &Links,
        group: GroupId,
        avoid: &mut Vec<NodeId>,
    ) -> Result<NodeId, TryError> {
        let me = links.directory.me();
        let mut others = links.directory.replicas(group);
        others.retain(|node| *node != me);
        let fresh: Vec<_> = others
            .iter()
            .filter(|node| !avoid.contains(node))
            .copied()
            .collect();
        if fresh.is_empty() {
            avoid.clear();
        } else {
            others = fresh;
        }
        chance::draw(|chance| others.choose(chance).copied())
            .ok_or(TryError::NotReady(Why::NoQuorum))
    }

    /// Remembers who was said, or has shown, to lead a group.
    pub(super) fn learn_leader(&self, group: GroupId, leader: Option<NodeId>) {
        if self.hints.read().get(&group).copied() == leader {
            return;
        }
        let mut hints = self.hints.write();
        match leader {
            Some(leader) => hints.insert(group, leader),
            None => hints.remove(&group),
        };
    }

    /// Asks a node. Given up early when the group gets another leader than the node asked.
    pub(super) async fn ask(
        &self,
        links: &Links,
        (to, group): (NodeId, GroupId),
        request: Request,
        deadline: Instant,
    ) -> Result<Reply, AskError> {
        self.metrics.forwards.increment(1);
        let timeout = deadline.saturating_duration_since(Instant::now());
        let bytes = request.weight();
        let frame = self.work.run(bytes, move || request.encode()).await;
        let frame = frame.map_err(|_stopping| AskError::NotSent)?;
        let call = links.peers.call(to, group, frame, timeout);
        let answer = match links.directory.local(group) {
            Some(local) => tokio::select! {
                biased;
                answer = call => answer,
                () = leader_other_than(&local, to) => Err(PeerError::Lost),
            },
            None => call.await,
        };
        let bytes: Bytes = answer.map_err(|error| match error {
            PeerError::NotSent => AskError::NotSent,
            PeerError::Lost => AskError::Lost,
        })?;
        match Reply::decode(&bytes) {
            Ok(Reply::Failed(error)) => Err(AskError::Failed(error)),
            Ok(reply) => Ok(reply),
            Err(_content) => Err(AskError::Lost),
        }
    }
}

/// How asking another node ends without an answer.
#[derive(Debug)]
pub(super) enum AskError {
    NotSent,
    Lost,
    Failed(TryError),
}

impl AskError {
    /// What that is for a request that changes nothing.
    pub(super) fn of_a_read(self) -> TryError {
        match self {
            Self::NotSent | Self::Lost | Self::Failed(TryError::Unknown) => {
                TryError::NotReady(Why::Unreachable)
            }
            Self::Failed(error) => error,
        }
    }

    /// What that is for a write.
    pub(super) fn of_a_write(self) -> TryError {
        match self {
            Self::NotSent => TryError::NotReady(Why::Unreachable),
            Self::Lost => TryError::Unknown,
            Self::Failed(error) => error,
        }
    }
}

async fn leader_other_than(local: &Arc<dyn ShardGroup>, node: NodeId) {
    // The node may have been asked although another one leads: only a change counts.
    let before = local.leader();
    loop {
        tokio::time::sleep(LEADER_CHECK).await;
        let now = local.leader();
        if now != before && now.is_some_and(|leader| leader != node) {
            return;
        }
    }
}

/// Five to fifty milliseconds, so that those who wait for the same thing do not come back together.
pub(super) fn pause() -> Duration {
    Duration::from_millis(chance::draw(|chance| chance.random_range(5..=50)))
}
