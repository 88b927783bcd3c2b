//! What other nodes ask of this one. Never forwards: who asks the wrong node is told, and goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::GroupId;
use model::limits::MAX_NOT_AFTER;
use tokio::time::Instant;

use crate::service::Inner;
use crate::service::error::{TryError, Why};
use crate::service::wire::{Reply, Request};
use crate::shard::ShardGroup;

impl Inner {
    /// See [`crate::shard::ServiceInbound::handle`].
    pub(super) async fn handle(&self, group: GroupId, body: &Bytes) -> Bytes {
        let reply = match self.carry_out(group, body).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed(error),
        };
        let bytes = reply.weight();
        let encoded = self.work.run(bytes, move || reply.encode()).await;
        encoded.unwrap_or_else(|error| Reply::Failed(error).encode())
    }

    async fn carry_out(&self, group: GroupId, body: &Bytes) -> Result<Reply, TryError> {
        let links = self.links()?;
        let request =
            Request::decode(body).map_err(|_content| TryError::NotReady(Why::NotUnderstood))?;
        let local = links.directory.local(group);
        let local = local.ok_or(TryError::NotReady(Why::Unreachable))?;
        let bytes = request.weight();
        let _admitted = self.others.admit(bytes).ok_or(TryError::Busy)?;
        self.answer_request(&local, request).await
    }

    async fn answer_request(
        &self,
        local: &Arc<dyn ShardGroup>,
        request: Request,
    ) -> Result<Reply, TryError> {
        let until = |timeout: Duration| Instant::now() + timeout.min(MAX_NOT_AFTER);
        match request {
            Request::Write(request, budget) => {
                let reply = self.write_here(local, &request, until(budget)).await?;
                Ok(Reply::Written(Box::new(reply)))
            }
            Request::Read(request) => {
                let deadline = until(request.timeout);
                Ok(Reply::Read(
                    self.read_here(local, &request, deadline).await?,
                ))
            }
            Request::Count(tenant, timeout) => {
                let count = self.count_here(local, tenant, until(timeout)).await?;
                Ok(Reply::Counted(count))
            }
            Request::List(request) => {
                let timeout = request.timeout.min(self.config.barrier_timeout);
                local.barrier(timeout).await?;
                Ok(Reply::Listed(self.part_here(local, request).await?))
            }
        }
    }
}
