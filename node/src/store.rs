//! The replicated store as the admin listener sees it: [`Operate`] over the host.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::id::NodeId;
use model::status::{ClusterStatus, StateHashes};
use raft::host::{CompactReport, Host, JoinFailed, ScrubReport};

use crate::admin::{Operate, OperateError};

/// The host of this node.
pub(crate) struct Store {
    host: Arc<Host>,
}

impl Store {
    pub(crate) const fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

#[async_trait]
impl Operate for Store {
    fn status(&self) -> ClusterStatus {
        self.host.status()
    }

    async fn hashes(&self) -> Option<StateHashes> {
        self.host.hashes().await
    }

    fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.host.clock_is_sick() {
            reasons.push("clock".to_owned());
        }
        if self.host.is_disk_short() || self.host.log_stats().is_some_and(|log| log.no_room) {
            reasons.push("disk".to_owned());
        }
        reasons.extend(self.host.slow().into_iter().map(str::to_owned));
        let status = self.host.status();
        if status.nodes.is_empty() {
            // The cluster is being made, or this node has not heard of it yet.
            reasons.push("starting".to_owned());
        }
        let mut others = status
            .nodes
            .iter()
            .filter(|node| node.id != status.node)
            .peekable();
        if others.peek().is_some() && others.all(|node| !node.reachable) {
            reasons.push("alone".to_owned());
        }
        reasons
    }

    fn scrub(&self) {
        self.host.scrub();
    }

    fn compact(&self) {
        self.host.compact();
    }

    fn compact_report(&self) -> CompactReport {
        self.host.compact_report()
    }

    fn scrub_report(&self) -> ScrubReport {
        self.host.scrub_report()
    }

    fn repairs(&self) -> Vec<(String, String)> {
        let repairs = self.host.repairs().into_iter();
        repairs
            .map(|(group, what)| (group.to_string(), what))
            .collect()
    }

    async fn join_token(&self, valid: Duration) -> Result<String, OperateError> {
        self.host
            .token(valid)
            .await
            .map(|token| token.reveal())
            .map_err(refusal)
    }

    async fn remove(&self, node: NodeId) -> Result<(), OperateError> {
        self.host.remove(node).await.map_err(refusal)
    }
}

fn refusal(error: JoinFailed) -> OperateError {
    match error {
        JoinFailed::Refused(reason) => OperateError::Refused(reason),
        JoinFailed::NoAuthority => OperateError::Refused(error.to_string()),
        JoinFailed::NoAnswer
        | JoinFailed::Exchange(_)
        | JoinFailed::Keys(_)
        | JoinFailed::BadAnswer
        | JoinFailed::Folder(_) => OperateError::Unavailable(crate::exit::chain(&error)),
    }
}
