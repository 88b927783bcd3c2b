//! A short queue for each session that is being written, so that merges of one session are made one after another.
//!
//! Waiters are served in the order in which they came, and bounded. A session that nobody writes takes no memory. The queue
//! is of this node only: what another leader does meanwhile is found by the version that a proposal expects.
//!
//! A write need not wait for the one before it to be on a quorum's disks: whoever has proposed a change says so
//! ([`Turn::proposed`]) and passes the turn on, and the next is made from the document that the change will make
//! ([`Ahead`]). So a session takes as many writes as its node can merge, not one for each commit. Invariant: a change made
//! ahead names the request that it is made ahead of (`Command::Update::after`), so it is applied on top of that one or
//! not at all; when one fails, those made ahead of it fail too, and are made again. At most [`MAX_UNDER_WAY`] are under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::id::{RequestId, SessionId, TenantId, Version};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::service::cache::Plain;

/// Writes of one session that are proposed and not ended.
const MAX_UNDER_WAY: u32 = 16;

type Who = (TenantId, SessionId);

/// What a session becomes when the change proposed last is applied.
#[derive(Clone)]
pub(super) struct Ahead {
    /// The version that it has then.
    pub(super) version: Version,
    /// The request that makes it.
    pub(super) by: RequestId,
    /// Its document.
    pub(super) plain: Arc<Plain>,
}

struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The one whose turn it is, those who wait, and those under way.
    length: AtomicUsize,
    ahead: Mutex<Option<Ahead>>,
    room: Arc<Semaphore>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            turn: Arc::default(),
            length: AtomicUsize::new(0),
            ahead: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_UNDER_WAY as usize)),
        }
    }
}

/// The queues of all sessions.
pub(super) struct Queues {
    parts: Vec<Mutex<HashMap<Who, Arc<Line>>>>,
    max_waiters: usize,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// Too many wait already.
    Full,
    /// Time ran out.
    TimeOver,
}

/// The right to write a session; ends when dropped.
pub(super) struct Turn {
    // Given back before the place in the line is.
    _guard: OwnedMutexGuard<()>,
    place: Place,
}

/// A change that is proposed. Dropped without [`UnderWay::written`], it counts as failed.
pub(super) struct UnderWay {
    by: RequestId,
    failed: bool,
    place: Place,
    _room: OwnedSemaphorePermit,
}

struct Place {
    queues: Arc<Queues>,
    who: Who,
    line: Arc<Line>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut part = self.queues.part(&self.who).lock();
        if self.line.length.fetch_sub(1, Ordering::Relaxed) == 1 {
            part.remove(&self.who);
        }
    }
}

impl Turn {
    /// What the session will be, if changes are under way.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        self.place.line.ahead.lock().clone()
    }

    /// Waits until nothing is under way: the applied state is then all there is.
    pub(super) async fn settled(&self, deadline: Instant) -> Result<(), NoTurn> {
        self.room(MAX_UNDER_WAY, deadline).await.map(drop)
    }

    /// A place for one more change under way.
    pub(super) async fn place(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, NoTurn> {
        self.room(1, deadline).await
    }

    async fn room(&self, places: u32, deadline: Instant) -> Result<OwnedSemaphorePermit, NoTurn> {
        let room = Arc::clone(&self.place.line.room).acquire_many_owned(places);
        let room = timeout_at(deadline, room).await;
        room.map_err(|_elapsed| NoTurn::TimeOver)
            .map(|room| room.expect("the semaphore is never closed"))
    }

    /// Passes the turn on: what makes the session this is in the group's queue.
    pub(super) fn proposed(self, ahead: Ahead, room: OwnedSemaphorePermit) -> UnderWay {
        let Self { _guard, place } = self;
        let by = ahead.by;
        *place.line.ahead.lock() = Some(ahead);
        UnderWay {
            by,
            failed: true,
            place,
            _room: room,
        }
    }
}

impl UnderWay {
    /// It was applied as it was proposed.
    pub(super) fn written(mut self) {
        self.failed = false;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut ahead = self.place.line.ahead.lock();
        // After a failure nothing that was made ahead of it holds. After a success only what is ahead of this one does.
        if self.failed || ahead.as_ref().is_some_and(|ahead| ahead.by == self.by) {
            *ahead = None;
        }
    }
}

impl Queues {
    const PARTS: usize = 64;

    pub(super) fn new(max_waiters: usize) -> Arc<Self> {
        Arc::new(Self {
            parts: (0..Self::PARTS).map(|_| Mutex::default()).collect(),
            max_waiters,
        })
    }

    fn part(&self, who: &Who) -> &Mutex<HashMap<Who, Arc<Line>>> {
        let random = who.1.as_bytes()[15];
        &self.parts[usize::from(random) % Self::PARTS]
    }

    /// Waits for the session's turn, until the deadline.
    pub(super) async fn enter(
        self: &Arc<Self>,
        who: Who,
        deadline: Instant,
    ) -> Result<Turn, NoTurn> {
        let place = {
            let mut part = self.part(&who).lock();
            let line = Arc::clone(part.entry(who).or_default());
            if line.length.load(Ordering::Relaxed) > self.max_waiters {
                return Err(NoTurn::Full);
            }
            // Counted under the lock of the part, as it is uncounted.
            line.length.fetch_add(1, Ordering::Relaxed);
            Place {
                queues: Arc::clone(self),
                who,
                line,
            }
        };
        let turn = Arc::clone(&place.line.turn).lock_owned();
        let guard = timeout_at(deadline, turn)
            .await
            .map_err(|_elapsed| NoTurn::TimeOver)?;
        Ok(Turn {
            _guard: guard,
            place,
        })
    }

    #[cfg(test)]
    fn lines(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const WHO: Who = (TenantId(1), SessionId::from_bytes([1; 16]));

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test(start_paused = true)]
    async fn one_has_the_turn_a_bounded_number_wait_and_nothing_is_left() {
        let queues = Queues::new(1);
        let first = queues.enter(WHO, soon()).await.ok().unwrap();
        let (second, third) = tokio::join!(queues.enter(WHO, soon()), queues.enter(WHO, soon()));
        assert_eq!(second.err(), Some(NoTurn::TimeOver));
        assert_eq!(third.err(), Some(NoTurn::Full));
        let other = (TenantId(2), WHO.1);
        assert!(queues.enter(other, soon()).await.is_ok());
        drop(first);
        assert!(queues.enter(WHO, soon()).await.is_ok());
        assert_eq!(queues.lines(), 0);
    }

    fn ahead(number: u8) -> Ahead {
        let sections = model::document::create(&bytes::Bytes::from_static(b"{}"))
            .unwrap()
            .sections;
        Ahead {
            version: Version {
                epoch: Version::FIRST.epoch,
                revision: u64::from(number),
            },
            by: RequestId([number; 16]),
            plain: Arc::new(Plain {
                key: crate::service::keys::SessionKey::for_test(),
                sections,
            }),
        }
    }

    async fn propose(queues: &Arc<Queues>, number: u8) -> UnderWay {
        let turn = queues.enter(WHO, soon()).await.ok().unwrap();
        let room = turn.place(soon()).await.unwrap();
        turn.proposed(ahead(number), room)
    }

    async fn newest(queues: &Arc<Queues>) -> Option<u64> {
        let turn = queues.enter(WHO, soon()).await.ok().unwrap();
        turn.ahead().map(|ahead| ahead.version.revision)
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_sees_what_is_under_way_until_it_ends() {
        let queues = Queues::new(100);
        let first = propose(&queues, 1).await;
        let second = propose(&queues, 2).await;
        assert_eq!(newest(&queues).await, Some(2));
        first.written();
        assert_eq!(
            newest(&queues).await,
            Some(2),
            "the second is still under way"
        );
        second.written();
        assert_eq!(newest(&queues).await, None);
        assert_eq!(queues.lines(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_ends_all_that_was_made_ahead_of_it() {
        let queues = Queues::new(100);
        let first = propose(&queues, 1).await;
        let second = propose(&queues, 2).await;
        drop(first);
        assert_eq!(newest(&queues).await, None);
        drop(second);
        assert_eq!(queues.lines(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_is_under_way_and_settled_waits_for_all() {
        let queues = Queues::new(100);
        let mut under_way = Vec::new();
        for number in 1..=MAX_UNDER_WAY {
            under_way.push(propose(&queues, u8::try_from(number).unwrap()).await);
        }
        let turn = queues.enter(WHO, soon()).await.ok().unwrap();
        assert_eq!(turn.place(soon()).await.err(), Some(NoTurn::TimeOver));
        under_way.pop().unwrap().written();
        assert!(turn.place(soon()).await.is_ok());
        assert_eq!(turn.settled(soon()).await, Err(NoTurn::TimeOver));
        under_way.clear();
        assert_eq!(turn.settled(soon()).await, Ok(()));
    }
}
