//! Whether the next entry waits a moment for company.
//!
//! Clients that ask one thing after the other come back soon after they are answered. An entry that leaves at once takes those that came
//! meanwhile, and the clients split into two halves that never meet again: two entries where one would do, each with its messages, syncs and
//! commits. So an entry waits until all are back (those that the last one answered, and those that waited already), no longer than that one
//! took twice, nor than [`LONGEST`], and only if there are [`MANY`] (for a few, what is saved is less than what they wait) and while those who
//! are answered do come back: that is counted also when nothing waits.

use std::time::Duration;

use tokio::time::Instant;

/// The longest wait: what a client would notice.
const LONGEST: Duration = Duration::from_millis(6);
/// How many must be answered by one entry for others to wait for them.
const MANY: usize = 4;
/// Of a thousand that are answered, how many must come back for others to wait for them.
const FAITHFUL: usize = 500;

/// What is known of those who wait and will.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// As long as it is now. `None` before the first entry.
    until: Option<Instant>,
    /// How many there are in all.
    all: usize,
    /// How many the last entry answered.
    answered: usize,
    /// How many came since.
    came: usize,
    /// Of a thousand that were answered, how many came back in time, lately.
    back: usize,
}

impl Company {
    /// An entry answered so many, after this time, while so many waited.
    pub(super) fn landed(&mut self, answered: usize, waiting: usize, took: Duration, now: Instant) {
        let back = 1000 * self.came.min(self.answered) / self.answered.max(1);
        self.back = (3 * self.back + back) / 4;
        self.until = Some(now + (2 * took).min(LONGEST));
        self.all = answered + waiting;
        self.answered = answered;
        self.came = 0;
    }

    /// One more waits.
    pub(super) fn arrived(&mut self, now: Instant) {
        self.came += usize::from(self.until.is_some_and(|until| now < until));
    }

    /// Until when those who wait, so many, wait for more.
    pub(super) fn wait(&self, waiting: usize, now: Instant) -> Option<Instant> {
        let many = self.answered >= MANY && self.back >= FAITHFUL;
        let worth = many && waiting < self.all;
        self.until.filter(|until| worth && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(2);

    #[test]
    fn who_comes_back_is_waited_for_and_who_does_not_is_not() {
        let start = Instant::now();
        let mut company = Company::default();
        assert_eq!(company.wait(1, start), None, "nothing is known");
        let mut now = start;
        for _ in 0..6 {
            company.landed(4, 3, TOOK, now);
            for _ in 0..4 {
                company.arrived(now + TOOK);
            }
            now += 3 * TOOK;
        }
        company.landed(4, 3, TOOK, now);
        assert_eq!(company.wait(3, now), Some(now + 2 * TOOK));
        assert_eq!(company.wait(6, now), Some(now + 2 * TOOK));
        assert_eq!(company.wait(7, now), None, "all are back");
        assert_eq!(company.wait(3, now + 2 * TOOK), None, "long enough");
        for _ in 0..6 {
            // They come too late to be waited for.
            company.arrived(now + 2 * TOOK);
            now += 3 * TOOK;
            company.landed(4, 3, TOOK, now);
        }
        assert_eq!(company.wait(3, now), None);
    }

    #[test]
    fn a_few_never_wait() {
        for few in 1..MANY {
            let mut now = Instant::now();
            let mut company = Company::default();
            for _ in 0..10 {
                company.landed(few, few, TOOK, now);
                for _ in 0..few {
                    company.arrived(now + TOOK);
                }
                assert_eq!(company.wait(few, now + TOOK), None);
                now += 3 * TOOK;
            }
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_longest() {
        let now = Instant::now();
        let mut company = Company {
            back: 1000,
            ..Company::default()
        };
        company.answered = MANY;
        company.came = MANY;
        company.landed(MANY, 9, Duration::from_secs(1), now);
        assert_eq!(company.wait(1, now), Some(now + LONGEST));
    }
}
