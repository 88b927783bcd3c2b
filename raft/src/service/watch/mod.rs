//! Watching a session: its changes in the order of their versions, from a given one.
//!
//! On a node with a replica, a watch is fed by what the replica applies: the start comes from the recent history if
//! it is complete, else from the current document, marked `resync`. A slow watcher's queue is coalesced to
//! the newest version, and the watcher is told. On a node without a replica, a watch asks a node that has one four
//! times a second: simple, bounded, and enough for a region that has more nodes than replicas.
//!
//! | file | what |
//! |---|---|
//! | `hub.rs` | recent changes of each group, and who waits for them |
//! | `local.rs` | a watch that is fed by the local replica |
//! | `poll.rs` | a watch without a local replica |

mod hub;
mod local;
mod poll;

pub(super) use hub::Hub;

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use model::id::{SessionId, TenantId, Version};
use model::service::{Change, Changes, Failure};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::service::Inner;
use crate::service::client::busy;
use crate::service::error::{TryError, Why};
use crate::service::route::pause;

use local::Local;
use poll::Poll;

/// How long the start of a watch may take.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// What is watched, and what was told of it.
struct Watched {
    inner: Arc<Inner>,
    tenant: TenantId,
    session: SessionId,
    /// The version that the watcher knows.
    seen: Version,
    _place: Place,
}

impl Watched {
    const fn who(&self) -> (TenantId, SessionId) {
        (self.tenant, self.session)
    }
}

/// A place among the watchers of this node.
struct Place {
    inner: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.metrics.watchers.decrement(1);
    }
}

/// Where changes come from.
enum Source {
    Local(Box<Local>),
    Poll(Poll),
}

/// What waiting for a change came to.
enum Next {
    Change(Change),
    /// The last one.
    Last(Change),
    /// The local replica is gone or damaged: ask others from now on.
    Moved,
}

struct Watch {
    watched: Watched,
    source: Source,
    ended: bool,
}

impl Inner {
    /// See [`model::service::Sessions::watch`].
    pub(super) async fn watch(
        self: &Arc<Self>,
        tenant: TenantId,
        session: SessionId,
        from: Option<Version>,
    ) -> Result<Changes, Failure> {
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            self.metrics.refused_busy.increment(1);
            return Err(busy());
        };
        self.metrics.watchers.increment(1);
        let place = Place {
            inner: Arc::clone(self),
            _permit: permit,
        };
        let mut watched = Watched {
            inner: Arc::clone(self),
            tenant,
            session,
            seen: from.unwrap_or(Version {
                epoch: 0,
                revision: 0,
            }),
            _place: place,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        let source = loop {
            let error = match begin(&mut watched, from, deadline).await {
                Ok(source) => break source,
                Err(error) => error,
            };
            let pause = pause();
            let again = error.may_retry() && watched.inner.is_attached();
            if !again || Instant::now() + pause >= deadline {
                return Err(error.into_failure(false));
            }
            tokio::time::sleep(pause).await;
        };
        let watch = Watch {
            watched,
            source,
            ended: false,
        };
        Ok(Box::pin(stream::unfold(watch, next)))
    }
}

async fn begin(
    watched: &mut Watched,
    from: Option<Version>,
    deadline: Instant,
) -> Result<Source, TryError> {
    let links = watched.inner.links()?;
    let group = watched.inner.group_of(&links, watched.session)?;
    match links.directory.local(group) {
        Some(local) => match Local::begin(watched, local, from, deadline).await {
            // The local replica is not ready: those of other nodes may be.
            Err(TryError::NotReady(_) | TryError::NotLeader(_)) => {
                Ok(Source::Poll(Poll::begin(watched, from, deadline).await?))
            }
            end => Ok(Source::Local(Box::new(end?))),
        },
        None => Ok(Source::Poll(Poll::begin(watched, from, deadline).await?)),
    }
}

async fn next(mut watch: Watch) -> Option<(Change, Watch)> {
    if watch.ended {
        return None;
    }
    let closed = watch.watched.inner.closed.clone();
    loop {
        let turn = async {
            match &mut watch.source {
                Source::Local(local) => local.next(&mut watch.watched).await,
                Source::Poll(poll) => poll.next(&mut watch.watched).await,
            }
        };
        let next = tokio::select! {
            biased;
            () = closed.cancelled() => return None,
            next = turn => next,
        };
        match next {
            Next::Change(change) => return Some((change, watch)),
            Next::Last(change) => {
                watch.ended = true;
                return Some((change, watch));
            }
            Next::Moved => watch.source = Source::Poll(Poll::resume()),
        }
    }
}

/// Waits a little when a replica cannot tell; the watch stays open.
async fn wait_a_little(error: &TryError) {
    match error {
        TryError::NotReady(Why::Starting) => tokio::time::sleep(Duration::from_secs(1)).await,
        _ => tokio::time::sleep(Duration::from_millis(250)).await,
    }
}
