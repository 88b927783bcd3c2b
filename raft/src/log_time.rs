//! Log time: the time that a group's leader writes into its entries.
//!
//! A leader starts from max(last log time, median of the voters' wall clocks) and then runs on its monotonic clock, slewed
//! towards the median by at most 0.1 % of the time that passed. It never steps and never goes back, whatever any
//! wall clock does. Wall clocks of others are known by probes, corrected by half their round trip.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A sample older than this says nothing any more.
const SAMPLE_LIFE: Duration = Duration::from_secs(15);
/// One part in this many of the time passed may be slewed.
const SLEW: u32 = 1000;
/// How far from the median a node's clock may be before it gives up leadership.
pub(crate) const MAX_OFFSET: Duration = Duration::from_millis(500);

/// The wall clocks of the nodes, as far as they are known.
pub(crate) struct Clocks {
    me: NodeId,
    clock: Arc<dyn Clock>,
    /// Milliseconds ahead of this node's clock, and when that was seen.
    offsets: Mutex<BTreeMap<NodeId, (i64, Instant)>>,
}

impl Clocks {
    pub(crate) fn new(me: NodeId, clock: Arc<dyn Clock>) -> Self {
        let offsets = Mutex::default();
        Self { me, clock, offsets }
    }

    /// This node's wall clock.
    pub(crate) fn wall(&self) -> UnixMillis {
        self.clock.now()
    }

    /// `node` said that its wall clock showed `wall`, at a moment between `asked` and now.
    pub(crate) fn heard(&self, node: NodeId, wall: UnixMillis, asked: Instant) {
        let half = asked.elapsed() / 2;
        let offset = signed(wall.plus(half)).saturating_sub(signed(self.clock.now()));
        self.offsets.lock().insert(node, (offset, Instant::now()));
    }

    /// How far the median of these nodes' clocks is ahead of this node's, in milliseconds. Nodes that are not known do not
    /// count.
    pub(crate) fn median_offset(&self, nodes: &[NodeId]) -> i64 {
        let known = self.offsets.lock();
        let mut offsets: Vec<i64> = nodes
            .iter()
            .filter_map(|node| {
                if *node == self.me {
                    return Some(0);
                }
                let (offset, seen) = known.get(node)?;
                (seen.elapsed() < SAMPLE_LIFE).then_some(*offset)
            })
            .collect();
        offsets.sort_unstable();
        match offsets.len() {
            0 => 0,
            count if count % 2 == 1 => offsets[count / 2],
            count => i64::midpoint(offsets[count / 2 - 1], offsets[count / 2]),
        }
    }

    /// The median of these nodes' wall clocks, now.
    pub(crate) fn median(&self, nodes: &[NodeId]) -> UnixMillis {
        let wall = self.clock.now();
        let millis = signed(wall).saturating_add(self.median_offset(nodes));
        UnixMillis(u64::try_from(millis).unwrap_or(0))
    }
}

fn signed(at: UnixMillis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// One group's log time, while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct LogTime(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    base: UnixMillis,
    since: Instant,
    /// The newest time given out.
    given: UnixMillis,
}

impl Running {
    fn now(&self) -> UnixMillis {
        self.base.plus(self.since.elapsed()).max(self.given)
    }
}

impl LogTime {
    /// Begins to lead. `last` is the log time of the newest entry, `median` that of the wall clocks.
    pub(crate) fn start(&self, last: UnixMillis, median: UnixMillis) {
        let base = last.max(median);
        let since = Instant::now();
        *self.0.lock() = Some(Running {
            base,
            since,
            given: base,
        });
    }

    /// Leads no more.
    pub(crate) fn stop(&self) {
        *self.0.lock() = None;
    }

    /// The time for an entry, if this node leads. Never less than one given before.
    pub(crate) fn next(&self) -> Option<UnixMillis> {
        let mut running = self.0.lock();
        let running = running.as_mut()?;
        running.given = running.now();
        Some(running.given)
    }

    /// Slews towards `median`, by at most 0.1 % of the time since the last call.
    pub(crate) fn steer(&self, median: UnixMillis) {
        let mut running = self.0.lock();
        let Some(running) = running.as_mut() else {
            return;
        };
        let passed = running.since.elapsed();
        let now = running.base.plus(passed);
        let most = passed / SLEW;
        let target = if median > now {
            now.plus(median.since(now).min(most))
        } else {
            now.minus(now.since(median).min(most))
        };
        // Less than a millisecond of slew is not lost: it waits for the next call.
        if target != now {
            running.base = target;
            running.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Wall(AtomicU64);

    impl Clock for Wall {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::SeqCst))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn log_time_starts_at_the_later_and_never_goes_back() {
        let time = LogTime::default();
        assert_eq!(time.next(), None);
        time.start(UnixMillis(5_000), UnixMillis(4_000));
        assert_eq!(time.next(), Some(UnixMillis(5_000)));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(time.next(), Some(UnixMillis(105_000)));
        // The median is far behind: at most 100 ms are slewed, and what was given stays the least.
        time.steer(UnixMillis(1));
        assert_eq!(time.next(), Some(UnixMillis(105_000)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(time.next(), Some(UnixMillis(105_000)));
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(time.next(), Some(UnixMillis(105_050)));
        time.stop();
        assert_eq!(time.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_median_ahead_is_approached_and_not_jumped_to() {
        let time = LogTime::default();
        time.start(UnixMillis(0), UnixMillis(0));
        tokio::time::advance(Duration::from_secs(10)).await;
        time.steer(UnixMillis(1_000_000));
        assert_eq!(time.next(), Some(UnixMillis(10_010)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_wrong_clock_of_three_does_not_move_the_median() {
        let wall = Arc::new(Wall(AtomicU64::new(1_000_000)));
        let clocks = Clocks::new(NodeId(1), wall);
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        clocks.heard(NodeId(2), UnixMillis(999_998), Instant::now());
        clocks.heard(NodeId(3), UnixMillis(99), Instant::now());
        assert_eq!(clocks.median(&nodes), UnixMillis(999_998));
        tokio::time::advance(SAMPLE_LIFE).await;
        assert_eq!(clocks.median(&nodes), UnixMillis(1_000_000));
    }
}
