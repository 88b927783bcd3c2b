//! A watch that is fed by the replica on this node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::id::{GroupId, Version};
use model::service::{Change, Refused};
use model::shard::{Body, Event, EventKind, Live, Record, ShardHead};
use tokio::time::Instant;

use super::hub::{Heard, Subscription};
use super::{Next, Watched, wait_a_little};
use crate::service::Inner;
use crate::service::cache::Plain;
use crate::service::content::{self, ContentError};
use crate::service::error::TryError;
use crate::service::keys::SessionKey;
use crate::service::propose::stored_of;
use crate::service::view::{View, weight};
use crate::shard::ShardGroup;

/// How often a silent watch looks whether the replica is still here.
const REPLICA_CHECK: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Local {
    group: GroupId,
    subscription: Subscription,
    /// What happened before the subscription and is to be told first.
    backlog: VecDeque<Arc<Event>>,
    /// The current document is to be told, because what happened before it is not known.
    reload: bool,
    /// The version whose end was told.
    expired: Option<Version>,
    key: Option<SessionKey>,
}

impl Local {
    pub(super) async fn begin(
        watched: &mut Watched,
        replica: Arc<dyn ShardGroup>,
        from: Option<Version>,
        deadline: Instant,
    ) -> Result<Self, TryError> {
        let group = replica.id();
        let inner = Arc::clone(&watched.inner);
        // Before the state is looked at: what happens after is in the queue.
        let subscription = inner.hub.subscribe(group, watched.who());
        let timeout = Inner::left(deadline)?.min(inner.config.barrier_timeout);
        replica.barrier(timeout).await?;
        let view = View::of(&replica)?;
        let live = match Record::load(&view, watched.tenant, watched.session)? {
            Some(Record::Live(live)) => live,
            Some(Record::Tombstone(_)) | None => return Err(Refused::NotFound.into()),
        };
        let now = ShardHead::load(&view)?.log_time;
        if let Some(at) = live.expires.filter(|at| *at <= now) {
            return Err(Refused::Expired { at }.into());
        }
        let current = live.version;
        let mut local = Self {
            group,
            subscription,
            backlog: VecDeque::new(),
            reload: false,
            expired: None,
            key: None,
        };
        match from {
            None => watched.seen = current,
            Some(from) if from == current => watched.seen = from,
            Some(from) => match inner.hub.since(group, watched.who(), (from, current)) {
                Some(events) if from < current => local.backlog = events,
                _ => local.reload = true,
            },
        }
        Ok(local)
    }

    /// The next thing to tell. May be dropped while waiting: nothing is lost, or it is told as a resync.
    pub(super) async fn next(&mut self, watched: &mut Watched) -> Next {
        loop {
            let links = watched.inner.links();
            let replica = links.and_then(|links| {
                let local = links.directory.local(self.group);
                local.ok_or(TryError::NotLeader(None))
            });
            let replica = match replica {
                Ok(replica) => replica,
                Err(TryError::NotLeader(_)) => return Next::Moved,
                Err(error) => {
                    wait_a_little(&error).await;
                    continue;
                }
            };
            let told = if self.reload {
                self.tell_current(watched, &replica).await
            } else if let Some(event) = self.backlog.pop_front() {
                self.tell(watched, &replica, &event).await
            } else {
                match tokio::time::timeout(REPLICA_CHECK, self.subscription.heard()).await {
                    Err(_elapsed) => continue,
                    Ok(Heard::Event(event)) => self.tell(watched, &replica, &event).await,
                    Ok(Heard::Replaced) => {
                        self.reload = true;
                        continue;
                    }
                }
            };
            match told {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                // Another replica may have it whole.
                Err(TryError::Damaged) => return Next::Moved,
                Err(error) => {
                    // Whatever could not be read then is made up for by what is current later.
                    self.reload = true;
                    wait_a_little(&error).await;
                }
            }
        }
    }

    async fn tell(
        &mut self,
        watched: &mut Watched,
        replica: &Arc<dyn ShardGroup>,
        event: &Event,
    ) -> Result<Option<Next>, TryError> {
        let version = event.version;
        match &event.kind {
            EventKind::Deleted if version > watched.seen => {
                Ok(Some(Next::Last(Change::Deleted { version })))
            }
            EventKind::Expired if version >= watched.seen && self.expired != Some(version) => {
                self.expired = Some(version);
                Ok(Some(Next::Change(Change::Expired { version })))
            }
            EventKind::Updated(live, body) if version > watched.seen => {
                let resync = version != watched.seen.next();
                match self.open(watched, replica, (live, body)).await {
                    Ok(plain) => Ok(Some(updated(watched, live, &plain, resync))),
                    Err(OpenError::Superseded) => {
                        self.reload = true;
                        Ok(None)
                    }
                    Err(OpenError::Try(error)) => Err(error),
                }
            }
            EventKind::Deleted | EventKind::Expired | EventKind::Updated(..) => Ok(None),
        }
    }

    /// Tells what the session is now, if that is news.
    async fn tell_current(
        &mut self,
        watched: &mut Watched,
        replica: &Arc<dyn ShardGroup>,
    ) -> Result<Option<Next>, TryError> {
        let inner = Arc::clone(&watched.inner);
        replica.barrier(inner.config.barrier_timeout).await?;
        let view = View::of(replica)?;
        let record = Record::load(&view, watched.tenant, watched.session)?;
        let live = match record {
            Some(Record::Live(live)) => live,
            Some(Record::Tombstone(tombstone)) => {
                let version = tombstone.version;
                return Ok(Some(Next::Last(Change::Deleted { version })));
            }
            None => {
                let version = watched.seen.next();
                return Ok(Some(Next::Last(Change::Deleted { version })));
            }
        };
        self.backlog.clear();
        if live.version == watched.seen {
            self.reload = false;
            return Ok(None);
        }
        let plain = inner.open(&view, watched.who(), &live).await?;
        self.reload = false;
        Ok(Some(updated(watched, &live, &plain, true)))
    }

    async fn open(
        &mut self,
        watched: &Watched,
        replica: &Arc<dyn ShardGroup>,
        (live, body): (&Live, &Body),
    ) -> Result<Arc<Plain>, OpenError> {
        let (inner, who) = (&watched.inner, watched.who());
        if let Some(plain) = inner.cache.get(&who, live.version) {
            return Ok(plain);
        }
        let view = View::of(replica).map_err(OpenError::Try)?;
        let key = match &self.key {
            Some(key) => key.clone(),
            None => content::load_key(&view, &inner.keys, who)?,
        };
        self.key = Some(key.clone());
        let body = body.clone();
        let job = move || -> Result<Plain, ContentError> {
            let sections = content::open_body(&view, &key, who, &body)?;
            Ok(Plain { key, sections })
        };
        let opened = inner.work.run(weight(live.plain_bytes), job).await;
        let plain = Arc::new(opened.map_err(OpenError::Try)??);
        inner.cache.insert(who, live.version, &plain);
        Ok(plain)
    }
}

enum OpenError {
    /// The chunks or the key are gone, because a newer version or a deletion came.
    Superseded,
    Try(TryError),
}

impl From<ContentError> for OpenError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Missing(_) => Self::Superseded,
            ContentError::State(_) | ContentError::Seal(_) | ContentError::Unreadable => {
                Self::Try(error.into())
            }
        }
    }
}

fn updated(watched: &mut Watched, live: &Live, plain: &Plain, resync: bool) -> Next {
    watched.seen = live.version;
    if resync {
        watched.inner.metrics.resyncs.increment(1);
    }
    Next::Change(Change::Updated {
        stored: Box::new(stored_of(watched.session, live, plain)),
        resync,
    })
}
