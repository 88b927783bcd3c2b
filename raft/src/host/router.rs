//! Where what arrives goes: to a group's door, to the service, or it is answered here.

use std::sync::Arc;

use bytes::Bytes;
use model::codec;
use model::id::{GroupId, NodeId};
use model::meta::{MetaCommand, MetaOutcome};
use std::time::Duration;
use tokio::time::Instant;

use super::inner::Inner;
use super::{admit, groups, hello, probe};
use crate::error::Fatal;
use crate::kinds;
use crate::life;
use crate::reads;
use crate::shard::ProposeError;
use crate::transport::{
    ByteStream, Inbound, Kind, Refusal, RemoteError, Reply, Request, StreamOpen,
};

/// How long a forwarded change of the meta group may take.
const META: Duration = Duration::from_secs(5);

/// The transport's handlers.
pub(crate) struct Router(pub(crate) Arc<Inner>);

impl Router {
    fn group(&self, request: Request, reply: Reply) {
        let Some(opened) = self.0.opened(request.group) else {
            if request.kind == kinds::APPEND && groups::may_begin(&self.0, request.group) {
                self.begin(request.group);
            }
            return reply.send(Err(RemoteError::code(RemoteError::NO_GROUP)));
        };
        match request.kind {
            kinds::APPEND => opened.door.append(request, reply),
            kinds::VOTE => opened.door.vote(request, reply, false),
            kinds::PRE_VOTE => opened.door.vote(request, reply, true),
            _ => opened.door.transfer(request, reply),
        }
    }

    /// Opens an empty replica that a leader wants to fill; it asks again.
    fn begin(&self, group: GroupId) {
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            if let Err(error) = groups::open(&inner, group).await {
                tracing::error!(%group, %error, "a replica that a leader gives cannot be opened");
            }
        });
    }

    fn read_index(&self, request: Request, reply: Reply) {
        let Ok(groups) = reads::decode_groups(request.body) else {
            return reply.send(Err(RemoteError::code(kinds::BAD_MESSAGE)));
        };
        let replicas: Vec<_> = groups
            .into_iter()
            .filter_map(|group| self.0.opened(group))
            .map(|opened| Arc::clone(&opened.replica))
            .collect();
        // Without a task, when the leases answer at once.
        let leased: Option<Vec<_>> = replicas
            .iter()
            .map(|replica| Some((replica.parts.group, replica.leased_index()?)))
            .collect();
        if let Some(indices) = leased {
            return reply.send(Ok(reads::encode_indices(&indices)));
        }
        self.0
            .tasks
            .spawn(async move { reply.send(Ok(reads::answer(replicas).await)) });
    }

    fn census(&self, reply: Reply) {
        let used: Vec<GroupId> = self
            .0
            .all_opened()
            .iter()
            .filter(|opened| {
                let log = &opened.replica.parts.log;
                log.vote().is_some() || log.state().last.is_some()
            })
            .map(|opened| opened.replica.parts.group)
            .collect();
        reply.send(Ok(reads::encode_groups(&used)));
    }

    fn meta(&self, request: &Request, reply: Reply) {
        let Ok(command) = codec::decode::<MetaCommand>(&request.body) else {
            return reply.send(Err(RemoteError::code(kinds::BAD_MESSAGE)));
        };
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            let outcome = match inner.meta() {
                Some(meta) => meta.propose(command, Instant::now() + META).await,
                None => Err(ProposeError::NotLeader { leader: None }),
            };
            let outcome = outcome.map(|outcome: MetaOutcome| codec::encode(&outcome));
            reply.send(outcome.map_err(|error| RemoteError {
                code: kinds::NOT_DONE,
                detail: Bytes::from(error.to_string()),
            }));
        });
    }

    fn service(&self, request: Request, reply: Reply) {
        let Some(attached) = self.0.attached.get().cloned() else {
            return reply.send(Err(RemoteError::code(kinds::NOT_READY)));
        };
        self.0.tasks.spawn(async move {
            let Request {
                from, group, body, ..
            } = request;
            reply.send(Ok(attached.inbound.handle(from, group, body).await));
        });
    }
}

impl Inbound for Router {
    fn call(&self, request: Request, reply: Reply) {
        if self.0.stop.is_cancelled() {
            return reply.send(Err(RemoteError::code(kinds::NOT_READY)));
        }
        match request.kind {
            kinds::APPEND | kinds::VOTE | kinds::PRE_VOTE | kinds::TRANSFER => {
                self.group(request, reply);
            }
            kinds::READ_INDEX => self.read_index(request, reply),
            kinds::PROBE => probe::answer(&self.0, &request, reply),
            kinds::CENSUS => self.census(reply),
            kinds::META => self.meta(&request, reply),
            kinds::SERVICE => self.service(request, reply),
            Kind(_) => reply.send(Err(RemoteError::code(RemoteError::NO_KIND))),
        }
    }

    fn stream(&self, from: NodeId, open: StreamOpen, stream: ByteStream) {
        let opened = self
            .0
            .opened(open.group)
            .filter(|_| !self.0.stop.is_cancelled());
        match opened {
            Some(opened) if open.kind == kinds::SNAPSHOT => {
                opened.door.snapshot(open.header, stream);
            }
            Some(opened) if open.kind == kinds::FETCH => opened.door.fetch(open.header, stream),
            // Dropping it tells the peer.
            _ => tracing::debug!(%from, group = %open.group, "stream is not wanted"),
        }
    }

    fn hello_out(&self, _to: NodeId) -> Bytes {
        hello::ours(&self.0)
    }

    fn hello(&self, from: NodeId, hello: Bytes) -> Result<Bytes, Refusal> {
        hello::check(&self.0, from, &hello)?;
        Ok(hello::ours(&self.0))
    }

    fn welcome(&self, from: NodeId, welcome: Bytes) -> Result<(), Refusal> {
        hello::check(&self.0, from, &welcome)
    }

    fn refused(&self, _peer: NodeId, refusal: &Refusal) {
        if life::is_about(refusal, self.0.me) {
            let reason = refusal.reason.clone();
            self.0.fail(match refusal.code {
                life::REMOVED => Fatal::Removed,
                _ => Fatal::Rebuild { reason },
            });
        }
    }

    fn join(&self, from: Option<NodeId>, request: Bytes, reply: Reply) {
        let inner = Arc::clone(&self.0);
        self.0
            .tasks
            .spawn(async move { reply.send(admit::admit(&inner, from, &request).await) });
    }
}
