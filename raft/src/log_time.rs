//! Log time: the time that a group's leader writes into its entries.
//!
//! A leader starts from max(last log time, median of the voters' wall clocks) and then runs on its monotonic clock, slewed
//! towards the median by at most 0.1 % of the time that passed. It never steps and never goes back, whatever any
//! wall clock does. Wall clocks of others are known by probes, corrected by half their round trip. Of an even number the earlier
//! of the two in the middle counts: one wrong clock of two must not make log time run ahead.
//!
//! The median is *trusted* when a minority of wrong clocks cannot decide it: all clocks are known, or a majority of all that agree, to
//! within a second. A leader that knows no such median yet starts from the last log time, steps to the first one that it hears,
//! and until then does not say whether a session's time is over when that depends on which of the clocks is right ([`LeaderTime`]).
//!
//! [`ClusterClock`] is the same for what a node asks of others: requests are stamped with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::id::NodeId;
use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A sample older than this says nothing any more: some probes may be lost, but a clock that was wrong a while ago and is right now must
/// not agree with one that has become wrong since.
const SAMPLE_LIFE: Duration = Duration::from_secs(3);
/// One part in this many of the time passed may be slewed.
const SLEW: u32 = 1000;
/// How far from the median a node's clock may be before it gives up leadership.
pub(crate) const MAX_OFFSET: Duration = Duration::from_millis(500);
/// How far apart two clocks may be that are both right.
const AGREE: Duration = MAX_OFFSET.saturating_mul(2);

/// The wall clocks of the nodes, as far as they are known.
pub(crate) struct Clocks {
    me: NodeId,
    clock: Arc<dyn Clock>,
    /// What the others' clocks showed, and when. Not how far they are ahead of this node's: that may jump between two probes.
    seen: Mutex<BTreeMap<NodeId, (UnixMillis, Instant)>>,
}

impl Clocks {
    pub(crate) fn new(me: NodeId, clock: Arc<dyn Clock>) -> Self {
        let seen = Mutex::default();
        Self { me, clock, seen }
    }

    /// This node's wall clock.
    pub(crate) fn wall(&self) -> UnixMillis {
        self.clock.now()
    }

    /// `node` said that its wall clock showed `wall`, at a moment between `asked` and now.
    pub(crate) fn heard(&self, node: NodeId, wall: UnixMillis, asked: Instant) {
        let half = asked.elapsed() / 2;
        let shown = (wall.plus(half), Instant::now());
        self.seen.lock().insert(node, shown);
    }

    /// How far the median of these nodes' clocks is ahead of this node's, in milliseconds, if it can be trusted.
    pub(crate) fn agreed_offset(&self, nodes: &[NodeId]) -> Option<i64> {
        let offsets = self.offsets(nodes);
        if offsets.len() == nodes.len() {
            return Some(middle(&offsets));
        }
        let agreeing = offsets.windows(majority(nodes)).filter(|some| {
            let (first, last) = (some.first(), some.last());
            let spread = first.zip(last).map(|(first, last)| last.abs_diff(*first));
            spread.is_some_and(|spread| Duration::from_millis(spread) <= AGREE)
        });
        // Of several the one in the middle, as of the clocks.
        let agreeing: Vec<i64> = agreeing.map(middle).collect();
        (!agreeing.is_empty()).then(|| middle(&agreeing))
    }

    /// How far each known clock of these nodes is ahead of this node's, in milliseconds, in order.
    fn offsets(&self, nodes: &[NodeId]) -> Vec<i64> {
        let mine = signed(self.clock.now());
        let known = self.seen.lock();
        let mut offsets: Vec<i64> = nodes
            .iter()
            .filter_map(|node| {
                if *node == self.me {
                    return Some(0);
                }
                let (shown, at) = known.get(node)?;
                let age = at.elapsed();
                (age < SAMPLE_LIFE).then(|| signed(shown.plus(age)).saturating_sub(mine))
            })
            .collect();
        offsets.sort_unstable();
        offsets
    }

    /// The median of these nodes' wall clocks, now, if it can be trusted. A leader that was just started knows nobody's clock but its
    /// own for a moment, and log time that follows a wrong one forward does not come back.
    pub(crate) fn trusted(&self, nodes: &[NodeId]) -> Option<UnixMillis> {
        Some(self.ahead(self.agreed_offset(nodes)?))
    }

    /// The latest of these nodes' wall clocks, now, if so many are known that one of them is right.
    pub(crate) fn latest(&self, nodes: &[NodeId]) -> Option<UnixMillis> {
        let offsets = self.offsets(nodes);
        let latest = offsets.last().filter(|_| offsets.len() >= majority(nodes));
        latest.map(|offset| self.ahead(*offset))
    }

    fn ahead(&self, offset: i64) -> UnixMillis {
        let millis = signed(self.clock.now()).saturating_add(offset);
        UnixMillis(u64::try_from(millis).unwrap_or(0))
    }
}

/// The cluster's time, as well as this node knows it. Requests are stamped with it: their `not_after` is compared with log
/// time, so a node whose wall clock is wrong would have all its writes refused, or remembered for hours.
///
/// It begins with the wall clock, runs on the monotonic one, and is set twice a second to the median of the nodes' wall
/// clocks; never to less than the newest log time that is known here.
#[derive(Debug)]
pub struct ClusterClock(Mutex<Anchor>);

#[derive(Debug)]
struct Anchor {
    at: UnixMillis,
    since: Instant,
}

impl ClusterClock {
    /// A clock that shows what the wall clock shows, until a host keeps it ([`crate::host::Host::keep_time`]).
    #[must_use]
    pub fn new(wall: &dyn Clock) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Anchor {
            at: wall.now(),
            since: Instant::now(),
        })))
    }

    /// Sets it to what the nodes agree on, if they do, and not to less than `floor`.
    pub(crate) fn follow(&self, agreed: Option<UnixMillis>, floor: UnixMillis) {
        let at = agreed.unwrap_or_else(|| self.now()).max(floor);
        let since = Instant::now();
        *self.0.lock() = Anchor { at, since };
    }
}

impl Clock for ClusterClock {
    fn now(&self) -> UnixMillis {
        let anchor = self.0.lock();
        anchor.at.plus(anchor.since.elapsed())
    }
}

const fn majority(nodes: &[NodeId]) -> usize {
    nodes.len() / 2 + 1
}

/// Of an even number the earlier of the two in the middle.
fn middle(offsets: &[i64]) -> i64 {
    let middle = offsets.len().saturating_sub(1) / 2;
    offsets.get(middle).copied().unwrap_or(0)
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
    /// Whether a trusted median had a say already.
    is_set: bool,
}

/// What a leader can say of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderTime {
    /// It is over.
    Over,
    /// It is to come.
    ToCome,
    /// It depends on which clock is right: the leader has just begun, and the clocks that it knows are too few, or differ.
    Unclear,
}

impl Running {
    fn now(&self) -> UnixMillis {
        self.base.plus(self.since.elapsed()).max(self.given)
    }
}

impl LogTime {
    /// Begins to lead. `last` is the log time of the newest entry, `median` that of the wall clocks; if it is not known yet, the
    /// first one that [`Self::steer`] hears takes its place.
    pub(crate) fn start(&self, last: UnixMillis, median: Option<UnixMillis>) {
        let base = median.map_or(last, |median| last.max(median));
        let since = Instant::now();
        *self.0.lock() = Some(Running {
            base,
            since,
            given: base,
            is_set: median.is_some(),
        });
    }

    /// Whether `at` is over, by what the leader knows. Over by log time is over for good, whatever a clock says later.
    /// `latest` is [`Clocks::latest`] of the voters, and asked only while no median was trusted.
    pub(crate) fn of(
        &self,
        at: UnixMillis,
        latest: impl FnOnce() -> Option<UnixMillis>,
    ) -> LeaderTime {
        let known = self
            .0
            .lock()
            .as_ref()
            .map(|running| (running.now(), running.is_set));
        match known {
            Some((now, _)) if at <= now => LeaderTime::Over,
            Some((_, true)) => LeaderTime::ToCome,
            Some((_, false)) if latest().is_some_and(|latest| latest.plus(MAX_OFFSET) < at) => {
                LeaderTime::ToCome
            }
            _ => LeaderTime::Unclear,
        }
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
        if !running.is_set {
            (running.base, running.since) = (now.max(median), Instant::now());
            running.is_set = true;
            return;
        }
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
        time.start(UnixMillis(5_000), Some(UnixMillis(4_000)));
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
        time.start(UnixMillis(0), Some(UnixMillis(0)));
        tokio::time::advance(Duration::from_secs(10)).await;
        time.steer(UnixMillis(1_000_000));
        assert_eq!(time.next(), Some(UnixMillis(10_010)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_wrong_clock_of_three_does_not_move_the_median() {
        let wall = Arc::new(Wall(AtomicU64::new(1_000_000)));
        let clocks = Clocks::new(NodeId(1), Arc::<Wall>::clone(&wall));
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        clocks.heard(NodeId(2), UnixMillis(999_998), Instant::now());
        clocks.heard(NodeId(3), UnixMillis(99), Instant::now());
        assert_eq!(clocks.trusted(&nodes), Some(UnixMillis(999_998)));
        // It jumps between two probes: the others' clocks are not believed to jump with it.
        wall.0.store(7_200_000, Ordering::SeqCst);
        assert_eq!(clocks.trusted(&nodes), Some(UnixMillis(999_998)));
        wall.0.store(1_000_000, Ordering::SeqCst);
        tokio::time::advance(SAMPLE_LIFE).await;
        assert_eq!(clocks.trusted(&nodes), None, "what was heard is old");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_clocks_the_earlier_counts_and_they_are_no_agreement_of_three() {
        let clocks = Clocks::new(NodeId(1), Arc::new(Wall(AtomicU64::new(1_000_000))));
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        assert_eq!(clocks.trusted(&nodes), None);
        clocks.heard(NodeId(2), UnixMillis(8_200_000), Instant::now());
        assert_eq!(clocks.trusted(&nodes), None);
        assert_eq!(clocks.trusted(&nodes[..2]), Some(UnixMillis(1_000_000)));
        clocks.heard(NodeId(3), UnixMillis(8_200_007), Instant::now());
        assert_eq!(clocks.trusted(&nodes), Some(UnixMillis(8_200_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_cluster_clock_follows_the_others_and_not_a_wall_clock_that_jumps() {
        let wall = Wall(AtomicU64::new(1_000_000));
        let clock = ClusterClock::new(&wall);
        wall.0.store(9, Ordering::SeqCst);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(clock.now(), UnixMillis(1_000_300));
        clock.follow(Some(UnixMillis(5_000_000)), UnixMillis(0));
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(clock.now(), UnixMillis(5_000_020));
        clock.follow(None, UnixMillis(0));
        assert_eq!(clock.now(), UnixMillis(5_000_020));
        clock.follow(Some(UnixMillis(4_000_000)), UnixMillis(6_000_000));
        assert_eq!(clock.now(), UnixMillis(6_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_says_nothing_of_a_moment_that_clocks_differ_on_until_a_median_is_trusted() {
        let clocks = Clocks::new(NodeId(1), Arc::new(Wall(AtomicU64::new(90_000_000))));
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        let time = LogTime::default();
        let of = |at: u64| time.of(UnixMillis(at), || clocks.latest(&nodes));
        assert_eq!(of(1), LeaderTime::Unclear, "it does not lead");
        // Its own clock is a day ahead, and it knows no other.
        assert_eq!(clocks.trusted(&nodes), None);
        time.start(UnixMillis(5_000), clocks.trusted(&nodes));
        assert_eq!(time.next(), Some(UnixMillis(5_000)));
        assert_eq!(of(5_000), LeaderTime::Over);
        assert_eq!(of(5_001), LeaderTime::Unclear);
        assert_eq!(of(99_000_000), LeaderTime::Unclear, "its clock may be slow");
        // Of two that differ nobody can tell which is right: only what is to come by both is.
        clocks.heard(NodeId(2), UnixMillis(60_000), Instant::now());
        assert_eq!(clocks.trusted(&nodes), None);
        assert_eq!(of(61_000), LeaderTime::Unclear);
        assert_eq!(of(90_000_500), LeaderTime::Unclear);
        assert_eq!(of(90_000_501), LeaderTime::ToCome);
        // A third decides, and log time steps once.
        clocks.heard(NodeId(3), UnixMillis(60_007), Instant::now());
        time.steer(clocks.trusted(&nodes).expect("three are known"));
        assert_eq!(time.next(), Some(UnixMillis(60_007)));
        assert_eq!(
            (of(60_007), of(60_008)),
            (LeaderTime::Over, LeaderTime::ToCome)
        );
        time.steer(UnixMillis(80_000));
        assert_eq!(time.next(), Some(UnixMillis(60_007)), "it steps once");
    }

    #[tokio::test(start_paused = true)]
    async fn two_clocks_that_agree_are_trusted_and_so_is_a_node_alone() {
        let clocks = Clocks::new(NodeId(1), Arc::new(Wall(AtomicU64::new(10_000))));
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        assert_eq!(clocks.trusted(&nodes[..1]), Some(UnixMillis(10_000)));
        clocks.heard(NodeId(2), UnixMillis(11_000), Instant::now());
        assert_eq!(clocks.trusted(&nodes), Some(UnixMillis(10_000)));
        clocks.heard(NodeId(2), UnixMillis(11_001), Instant::now());
        assert_eq!(clocks.trusted(&nodes), None);
        assert_eq!(
            clocks.trusted(&nodes[..2]),
            Some(UnixMillis(10_000)),
            "there is no third"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn two_wrong_clocks_of_five_do_not_decide_while_two_are_not_known() {
        let clocks = Clocks::new(NodeId(1), Arc::new(Wall(AtomicU64::new(10_000))));
        let nodes = [1, 2, 3, 4, 5].map(NodeId);
        clocks.heard(NodeId(2), UnixMillis(3_600_000), Instant::now());
        clocks.heard(NodeId(3), UnixMillis(90_000_000), Instant::now());
        assert_eq!(clocks.trusted(&nodes), None);
        assert_eq!(clocks.latest(&nodes), Some(UnixMillis(90_000_000)));
        clocks.heard(NodeId(4), UnixMillis(10_300), Instant::now());
        assert_eq!(clocks.trusted(&nodes), None, "two of five agree");
        clocks.heard(NodeId(3), UnixMillis(9_900), Instant::now());
        assert_eq!(clocks.trusted(&nodes), Some(UnixMillis(10_000)));
    }
}
