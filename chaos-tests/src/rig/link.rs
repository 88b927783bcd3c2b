//! One direction between two ports of the [`switch`](super::switch): what happens to each packet, from a seed.
//!
//! Pure: time comes in as a [`Duration`] since the switch began, and chance from the link's own generator, so the same
//! packets at the same times have the same fate. Jitter alone keeps the order of packets, as a queue does; only those drawn for
//! reordering are held back so that later ones pass them. A corrupted packet has one bit flipped after routing and
//! before delivery, and its checksums stay as they were: whoever receives it must notice.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What one direction does to packets. The default does nothing to them.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// Nothing passes.
    pub cut: bool,
    /// How long each packet takes.
    pub delay: Duration,
    /// Up to this much more, drawn for each packet.
    pub jitter: Duration,
    /// Share of packets that vanish, 0 to 1.
    pub loss: f64,
    /// Share of packets that come twice.
    pub duplicate: f64,
    /// Share of packets that are held back for [`Self::hold`].
    pub reorder: f64,
    /// How long a reordered packet is held back.
    pub hold: Duration,
    /// Share of packets with one bit flipped.
    pub corrupt: f64,
    /// Bytes a second, if limited.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate at most; what comes on top is dropped.
    pub queue: u64,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            cut: false,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            hold: Duration::from_millis(5),
            corrupt: 0.0,
            rate: None,
            queue: 256 << 10,
        }
    }
}

impl LinkSpec {
    /// What a link does that has to do both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let either = |a: f64, b: f64| a + b - a * b;
        Self {
            cut: self.cut || other.cut,
            delay: self.delay + other.delay,
            jitter: self.jitter + other.jitter,
            loss: either(self.loss, other.loss),
            duplicate: either(self.duplicate, other.duplicate),
            reorder: either(self.reorder, other.reorder),
            hold: self.hold.max(other.hold),
            corrupt: either(self.corrupt, other.corrupt),
            rate: [self.rate, other.rate].into_iter().flatten().min(),
            queue: self.queue.min(other.queue),
        }
    }

    /// Nothing passes.
    #[must_use]
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

/// What happened to packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came into the link.
    pub offered: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Delivered, a duplicate counted once more.
    pub passed: u64,
    /// Vanished because the link was cut.
    pub cut: u64,
    /// Vanished by chance.
    pub lost: u64,
    /// Found the queue of a limited rate full.
    pub overflowed: u64,
    /// Came twice.
    pub duplicated: u64,
    /// Held back so that others pass.
    pub reordered: u64,
    /// Had a bit flipped.
    pub corrupted: u64,
}

impl Counts {
    /// Packets that did not arrive.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.cut + self.lost + self.overflowed
    }

    /// Packets to which anything at all was done but to delay them.
    #[must_use]
    pub const fn harmed(&self) -> u64 {
        self.dropped() + self.duplicated + self.reordered + self.corrupted
    }

    /// What happened since an earlier count.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            offered: self.offered - earlier.offered,
            bytes: self.bytes - earlier.bytes,
            passed: self.passed - earlier.passed,
            cut: self.cut - earlier.cut,
            lost: self.lost - earlier.lost,
            overflowed: self.overflowed - earlier.overflowed,
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
            corrupted: self.corrupted - earlier.corrupted,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            offered: self.offered + other.offered,
            bytes: self.bytes + other.bytes,
            passed: self.passed + other.passed,
            cut: self.cut + other.cut,
            lost: self.lost + other.lost,
            overflowed: self.overflowed + other.overflowed,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            corrupted: self.corrupted + other.corrupted,
        }
    }
}

/// One copy of a packet, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it arrives.
    pub at: Duration,
    /// The bit that is flipped, counted from the first of the packet.
    pub flip: Option<usize>,
}

/// One direction between two ports.
#[derive(Debug)]
pub struct Link {
    spec: LinkSpec,
    random: ChaCha8Rng,
    counts: Counts,
    /// When the last byte that a limited rate accepted is through.
    free: Duration,
    /// When the last packet that was not held back arrives.
    last: Duration,
}

impl Link {
    /// A perfect link with its own chance.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            spec: LinkSpec::default(),
            random: ChaCha8Rng::seed_from_u64(seed),
            counts: Counts::default(),
            free: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    /// What it does to packets from now on.
    pub fn set(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    /// What it does to packets.
    #[must_use]
    pub const fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Decides about a packet of `length` bytes that comes in `now`: none, one or two copies arrive.
    pub fn offer(&mut self, now: Duration, length: usize) -> [Option<Delivery>; 2] {
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        self.counts.offered += 1;
        self.counts.bytes += bytes;
        if self.spec.cut {
            self.counts.cut += 1;
            return [None; 2];
        }
        if self.chance(self.spec.loss) {
            self.counts.lost += 1;
            return [None; 2];
        }
        let Some(sent) = self.transmit(now, bytes) else {
            self.counts.overflowed += 1;
            return [None; 2];
        };
        let first = self.copy(sent, length);
        let second = if self.chance(self.spec.duplicate) {
            self.counts.duplicated += 1;
            Some(self.copy(sent, length))
        } else {
            None
        };
        [Some(first), second]
    }

    /// When a limited rate has let the packet through; none when its queue is full.
    fn transmit(&mut self, now: Duration, bytes: u64) -> Option<Duration> {
        let Some(rate) = self.spec.rate else {
            return Some(now);
        };
        let takes = |bytes: u64| Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let begins = self.free.max(now);
        if begins - now > takes(self.spec.queue) {
            return None;
        }
        self.free = begins + takes(bytes);
        Some(self.free)
    }

    fn copy(&mut self, sent: Duration, length: usize) -> Delivery {
        let jitter = if self.spec.jitter.is_zero() {
            Duration::ZERO
        } else {
            self.random.random_range(Duration::ZERO..=self.spec.jitter)
        };
        let mut at = sent + self.spec.delay + jitter;
        if self.chance(self.spec.reorder) {
            self.counts.reordered += 1;
            at += self.spec.hold;
        } else {
            at = at.max(self.last);
            self.last = at;
        }
        let flip = self.chance(self.spec.corrupt).then(|| {
            self.counts.corrupted += 1;
            self.random.random_range(0..(length * 8).max(1))
        });
        self.counts.passed += 1;
        Delivery { at, flip }
    }

    /// Draws only when there is something to draw, so that a perfect link costs nothing.
    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Offers a thousand packets of 1000 bytes, one each millisecond.
    fn thousand(spec: &LinkSpec, seed: u64) -> (Vec<[Option<Delivery>; 2]>, Counts) {
        let mut link = Link::new(seed);
        link.set(spec.clone());
        let fates = (0..1000).map(|i| link.offer(MILLISECOND * i, 1000));
        (fates.collect(), link.counts())
    }

    #[test]
    fn a_perfect_link_delivers_at_once() {
        let (fates, counts) = thousand(&LinkSpec::default(), 1);
        let now = Delivery {
            at: MILLISECOND * 7,
            flip: None,
        };
        assert_eq!(fates[7], [Some(now), None]);
        assert_eq!((counts.passed, counts.harmed()), (1000, 0));
    }

    #[test]
    fn a_cut_link_delivers_nothing_and_counts_it() {
        let (fates, counts) = thousand(&LinkSpec::cut(), 1);
        assert!(fates.iter().all(|fate| *fate == [None; 2]));
        assert_eq!((counts.cut, counts.passed), (1000, 0));
    }

    #[test]
    fn the_same_seed_gives_the_same_fate_and_another_seed_another() {
        let spec = LinkSpec {
            loss: 0.1,
            duplicate: 0.1,
            reorder: 0.1,
            corrupt: 0.1,
            jitter: MILLISECOND * 3,
            ..LinkSpec::default()
        };
        assert_eq!(thousand(&spec, 9), thousand(&spec, 9));
        assert_ne!(thousand(&spec, 9), thousand(&spec, 10));
    }

    #[test]
    fn each_share_is_about_what_was_asked_for() {
        let spec = LinkSpec {
            loss: 0.05,
            duplicate: 0.02,
            reorder: 0.1,
            corrupt: 0.01,
            ..LinkSpec::default()
        };
        let (_, counts) = thousand(&spec, 3);
        assert!((30..70).contains(&counts.lost), "{counts:?}");
        assert!((8..40).contains(&counts.duplicated), "{counts:?}");
        assert!((70..130).contains(&counts.reordered), "{counts:?}");
        assert!((2..25).contains(&counts.corrupted), "{counts:?}");
        assert_eq!(counts.passed, 1000 - counts.lost + counts.duplicated);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_breaks_it() {
        let order = |spec: &LinkSpec| {
            let (fates, _) = thousand(spec, 5);
            let times = fates.iter().map(|fate| fate[0].map(|copy| copy.at));
            times.collect::<Vec<_>>().is_sorted()
        };
        let mut spec = LinkSpec {
            jitter: MILLISECOND * 20,
            ..LinkSpec::default()
        };
        assert!(order(&spec));
        spec.reorder = 0.1;
        assert!(!order(&spec));
    }

    #[test]
    fn a_limited_rate_lets_so_much_through_and_bounds_what_waits() {
        let spec = LinkSpec {
            rate: Some(125_000),
            queue: 10_000,
            ..LinkSpec::default()
        };
        // One megabyte is offered in one second, the rate is an eighth of it.
        let (fates, counts) = thousand(&spec, 1);
        assert!((125..=140).contains(&counts.passed), "{counts:?}");
        assert_eq!(counts.passed + counts.overflowed, 1000);
        let waits = fates.iter().enumerate().filter_map(|(i, fate)| {
            let i = u32::try_from(i).unwrap();
            fate[0].map(|copy| copy.at - MILLISECOND * i)
        });
        // What waits at most, and the packet itself.
        assert!(waits.max().unwrap() <= MILLISECOND * 90);
    }

    #[test]
    fn two_faults_on_one_link_are_both_there() {
        let slow = LinkSpec {
            delay: MILLISECOND,
            rate: Some(1000),
            loss: 0.5,
            ..LinkSpec::default()
        };
        let both = slow.and(&slow);
        assert_eq!((both.delay, both.rate), (MILLISECOND * 2, Some(1000)));
        assert!((both.loss - 0.75).abs() < 1e-9);
        assert!(slow.and(&LinkSpec::cut()).cut);
        assert_eq!(slow.and(&LinkSpec::default()), slow);
    }

    #[test]
    fn a_flipped_bit_is_within_the_packet() {
        let spec = LinkSpec {
            corrupt: 1.0,
            ..LinkSpec::default()
        };
        let (fates, _) = thousand(&spec, 1);
        let flips = fates.iter().map(|fate| fate[0].unwrap().flip.unwrap());
        assert!(flips.max().unwrap() < 8000);
    }
}
