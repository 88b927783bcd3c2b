//! Where what arrives goes: to a group's door, to the service, or it is answered here.
//!
//! The transport is a part of the host, so it must not keep the host alive.

use std::sync::{Arc, Weak};

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
use crate::metrics;
use crate::reads;
use crate::shard::ProposeError;
use crate::transport::{
    ByteStream, Inbound, Kind, Refusal, RemoteError, Reply, Request, StreamOpen,
};

/// How long a forwarded change of the meta group may take.
const META: Duration = Duration::from_secs(5);

/// The transport's handlers, for as long as there is a host.
pub(crate) struct Router(pub(crate) Weak<Inner>);

/// Of a host that is there.
struct Here(Arc<Inner>);

impl Router {
    fn here(&self) -> Option<Here> {
        self.0.upgrade().map(Here)
    }

    /// Unless it is stopping.
    fn at_work(&self) -> Option<Here> {
        self.here().filter(|here| !here.0.stop.is_cancelled())
    }
}

impl Here {
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
        for replica in &replicas {
            replica.parts.progress.ask();
        }
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
        let Some(here) = self.at_work() else {
            return reply.send(Err(RemoteError::code(kinds::NOT_READY)));
        };
        match request.kind {
            kinds::APPEND | kinds::VOTE | kinds::PRE_VOTE | kinds::TRANSFER => {
                here.group(request, reply);
            }
            kinds::READ_INDEX => here.read_index(request, reply),
            kinds::PROBE => probe::answer(&here.0, &request, reply),
            kinds::CENSUS => here.census(reply),
            kinds::META => here.meta(&request, reply),
            kinds::SERVICE => here.service(request, reply),
            Kind(_) => reply.send(Err(RemoteError::code(RemoteError::NO_KIND))),
        }
    }

    fn stream(&self, from: NodeId, open: StreamOpen, stream: ByteStream) {
        let here = self.at_work();
        match here.and_then(|here| here.0.opened(open.group)) {
            Some(opened) if open.kind == kinds::SNAPSHOT => {
                opened.door.snapshot(open.header, stream);
            }
            Some(opened) if open.kind == kinds::FETCH => opened.door.fetch(open.header, stream),
            // Dropping it tells the peer.
            _ => tracing::debug!(%from, group = %open.group, "stream is not wanted"),
        }
    }

    fn hello_out(&self, _to: NodeId) -> Bytes {
        self.here()
            .map_or_else(Bytes::new, |here| hello::ours(&here.0))
    }

    fn hello(&self, from: NodeId, hello: Bytes) -> Result<Bytes, Refusal> {
        let here = self.here().ok_or_else(gone)?;
        hello::check(&here.0, from, &hello).inspect_err(|refusal| count(refusal, from))?;
        Ok(hello::ours(&here.0))
    }

    fn welcome(&self, from: NodeId, welcome: Bytes) -> Result<(), Refusal> {
        let here = self.here().ok_or_else(gone)?;
        hello::check(&here.0, from, &welcome).inspect_err(|refusal| count(refusal, from))
    }

    fn refused(&self, _peer: NodeId, refusal: &Refusal) {
        let Some(here) = self.here() else { return };
        if life::is_about(refusal, here.0.me) {
            let reason = refusal.reason.clone();
            here.0.fail(match refusal.code {
                life::REMOVED => Fatal::Removed,
                _ => Fatal::Rebuild { reason },
            });
        }
    }

    fn join(&self, from: Option<NodeId>, request: Bytes, reply: Reply) {
        let Some(Here(inner)) = self.at_work() else {
            return reply.send(Err(RemoteError::code(kinds::NOT_READY)));
        };
        let tasks = inner.tasks.clone();
        tasks.spawn(async move { reply.send(admit::admit(&inner, from, &request).await) });
    }
}

fn count(refusal: &Refusal, peer: NodeId) {
    if life::is_about(refusal, peer) {
        metrics::peer_refused();
    }
}

/// What a host that is gone says to a greeting.
fn gone() -> Refusal {
    Refusal {
        code: life::GONE,
        reason: "the node has stopped".to_owned(),
    }
}
