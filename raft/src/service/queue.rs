//! A short queue for each session that is being written, so that merges of one session run one after another.
//!
//! Waiters are served in the order in which they came, and bounded. A session that nobody writes takes no memory. The queue
//! is of this node only: what another leader does meanwhile is found by the version that a proposal expects.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::id::{SessionId, TenantId};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

type Who = (TenantId, SessionId);

#[derive(Default)]
struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The one whose turn it is, and those who wait.
    length: AtomicUsize,
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
    _place: Place,
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
        let guard = tokio::time::timeout_at(deadline, turn)
            .await
            .map_err(|_elapsed| NoTurn::TimeOver)?;
        Ok(Turn {
            _guard: guard,
            _place: place,
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

    #[tokio::test]
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
}
