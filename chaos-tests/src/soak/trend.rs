//! Whether something grows: memory, descriptors, disk and latency over hours.
//!
//! The slope is the median of the slopes between all pairs of samples (Theil 1950, Sen 1968), so that a few waves with a fault do not
//! decide. The first part of a soak is left out: caches fill. Few samples say nothing, and that is said.

use std::time::Duration;

/// Part of the samples that is left out at the beginning.
const WARM_UP: f64 = 0.25;
/// Fewest samples that say something.
const FEWEST: usize = 8;

/// What one thing did over time.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    samples: Vec<(f64, f64)>,
}

/// What a trend says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It does not grow by more than is allowed.
    Steady {
        /// Growth for each hour, in the unit of the samples.
        hourly: f64,
    },
    /// It does.
    Grows {
        /// Growth for each hour, in the unit of the samples.
        hourly: f64,
    },
    /// Too few samples, or too short a time.
    Unknown,
}

impl Trend {
    /// Adds what was seen at a time since the beginning.
    pub fn add(&mut self, at: Duration, value: f64) {
        self.samples.push((at.as_secs_f64() / 3600.0, value));
    }

    /// The newest value.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.samples.last().map(|(_, value)| *value)
    }

    /// The largest value.
    #[must_use]
    pub fn most(&self) -> Option<f64> {
        self.samples
            .iter()
            .map(|(_, value)| *value)
            .reduce(f64::max)
    }

    /// All samples: hours since the beginning, value.
    #[must_use]
    pub fn samples(&self) -> &[(f64, f64)] {
        &self.samples
    }

    /// Growth for each hour after the warm-up; `None` when there are too few samples.
    #[must_use]
    pub fn hourly(&self) -> Option<f64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count of samples"
        )]
        let skip = (self.samples.len() as f64 * WARM_UP) as usize;
        let samples = &self.samples[skip..];
        if samples.len() < FEWEST {
            return None;
        }
        let mut slopes = Vec::with_capacity(samples.len() * samples.len() / 2);
        for (place, (from, first)) in samples.iter().enumerate() {
            for (to, second) in &samples[place + 1..] {
                if to > from {
                    slopes.push((second - first) / (to - from));
                }
            }
        }
        slopes.sort_by(f64::total_cmp);
        slopes.get(slopes.len() / 2).copied()
    }

    /// Whether it grows by more than `allowed` for each hour and, over the time that was seen, by more than `noise`.
    #[must_use]
    pub fn verdict(&self, allowed: f64, noise: f64) -> Verdict {
        let Some(hourly) = self.hourly() else {
            return Verdict::Unknown;
        };
        let hours = match (self.samples.first(), self.samples.last()) {
            (Some((from, _)), Some((to, _))) => (to - from) * (1.0 - WARM_UP),
            _ => 0.0,
        };
        if hourly > allowed && hourly * hours > noise {
            Verdict::Grows { hourly }
        } else {
            Verdict::Steady { hourly }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(value: impl Fn(f64) -> f64) -> Trend {
        let mut trend = Trend::default();
        for minute in 0_u32..60 {
            let at = Duration::from_secs(u64::from(minute) * 60);
            trend.add(at, value(f64::from(minute)));
        }
        trend
    }

    #[test]
    fn a_steady_leak_is_found() {
        let leak = trend(|minute| 100.0 + 2.0 * minute);
        assert!(
            matches!(leak.verdict(50.0, 10.0), Verdict::Grows { hourly } if (119.0..121.0).contains(&hourly))
        );
    }

    #[test]
    fn what_grows_only_while_caches_fill_is_steady() {
        let fills = trend(|minute| 100.0 + 40.0 * (minute / 12.0).min(1.0));
        assert_eq!(fills.verdict(50.0, 10.0), Verdict::Steady { hourly: 0.0 });
    }

    #[test]
    fn a_few_high_waves_are_no_trend() {
        let spikes = trend(|minute| if minute % 7.0 == 0.0 { 900.0 } else { 100.0 });
        assert_eq!(spikes.verdict(1.0, 1.0), Verdict::Steady { hourly: 0.0 });
        assert_eq!(spikes.most(), Some(900.0));
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut few = Trend::default();
        few.add(Duration::ZERO, 1.0);
        few.add(Duration::from_secs(3600), 1000.0);
        assert_eq!(few.verdict(1.0, 1.0), Verdict::Unknown);
    }
}
