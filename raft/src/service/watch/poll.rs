//! A watch on a node without a replica of the session: it asks a node that has one, again and again.
//!
//! Bounded: one question for each watch and period, and a bounded number under way at a time.

use std::sync::Arc;
use std::time::Duration;

use model::id::Version;
use model::service::{Change, Consistency, Failure, ReadReply, ReadRequest, Refused};
use tokio::time::Instant;

use super::{Next, Watched};
use crate::service::error::{TryError, Why};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Poll {
    /// Found at the start, to be told first.
    first: Option<Change>,
    /// The version whose end was told.
    expired: Option<Version>,
}

impl Poll {
    pub(super) async fn begin(
        watched: &mut Watched,
        from: Option<Version>,
        deadline: Instant,
    ) -> Result<Self, TryError> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let mut poll = Self::resume();
        match ask(watched, from, timeout).await {
            Ok(ReadReply::Unchanged { version, .. }) => watched.seen = version,
            Ok(ReadReply::Found { stored, .. }) if from.is_none() => {
                watched.seen = stored.version;
            }
            Ok(ReadReply::Found { stored, .. }) => poll.first = Some(news(watched, stored)),
            Err(Failure::Refused(refused)) => return Err(refused.into()),
            Err(_) => return Err(TryError::NotReady(Why::Unreachable)),
        }
        Ok(poll)
    }

    /// Goes on from what the watcher has seen.
    pub(super) const fn resume() -> Self {
        Self {
            first: None,
            expired: None,
        }
    }

    /// The next thing to tell. May be dropped while waiting: nothing is lost.
    pub(super) async fn next(&mut self, watched: &mut Watched) -> Next {
        if let Some(first) = self.first.take() {
            return Next::Change(first);
        }
        loop {
            tokio::time::sleep(watched.inner.config.poll_period).await;
            match ask(watched, Some(watched.seen), TIMEOUT).await {
                Ok(ReadReply::Found { stored, .. }) if stored.version > watched.seen => {
                    return Next::Change(news(watched, stored));
                }
                Err(Failure::Refused(Refused::NotFound)) => {
                    let version = watched.seen.next();
                    return Next::Last(Change::Deleted { version });
                }
                Err(Failure::Refused(Refused::Expired { .. }))
                    if self.expired != Some(watched.seen) =>
                {
                    let version = watched.seen;
                    self.expired = Some(version);
                    return Next::Change(Change::Expired { version });
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

async fn ask(
    watched: &Watched,
    known: Option<Version>,
    timeout: Duration,
) -> Result<ReadReply, Failure> {
    let inner = Arc::clone(&watched.inner);
    let _permit = inner
        .polls
        .acquire()
        .await
        .expect("the semaphore is never closed");
    let request = ReadRequest {
        tenant: watched.tenant,
        session: watched.session,
        consistency: Consistency::Linearizable,
        known: known.into_iter().collect(),
        timeout,
    };
    inner.read_until(&request, Instant::now() + timeout).await
}

fn news(watched: &mut Watched, stored: Box<model::service::Stored>) -> Change {
    let resync = stored.version != watched.seen.next();
    if resync {
        watched.inner.metrics.resyncs.increment(1);
    }
    watched.seen = stored.version;
    Change::Updated {
        stored,
        resync,
    }
}
