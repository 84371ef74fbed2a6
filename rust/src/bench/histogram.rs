//! Times, to within a hundredth, in memory that does not grow.
//!
//! Log-linear, as `HdrHistogram`: each power of two is divided into [`STEPS`] buckets of one width.

use std::time::Duration;

const BITS: u32 = 7;
/// Buckets of a power of two: none is wider than 1/128 of what is in it.
const STEPS: u64 = 1 << BITS;
/// Nanoseconds that count as what they are: 18 minutes. What is more counts as so many.
const MOST: u64 = (1 << 40) - 1;

/// How many times were so long.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// As long as the largest bucket that was used.
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    least: Option<u64>,
    most: u64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, time: Duration) {
        let nanos = nanos(time);
        let index = index(nanos);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += u128::from(nanos);
        self.least = Some(self.least.map_or(nanos, |least| least.min(nanos)));
        self.most = self.most.max(nanos);
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (bucket, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += count;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.least = self.least.into_iter().chain(other.least).min();
        self.most = self.most.max(other.most);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shortest; 0 without any.
    pub fn least(&self) -> Duration {
        Duration::from_nanos(self.least.unwrap_or(0))
    }

    /// The longest; 0 without any.
    pub fn most(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// The mean; 0 without any.
    pub fn mean(&self) -> Duration {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// What so many of 1,000 are not longer than; 0 without any.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let rank = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (_, high, count) in self.used() {
            seen += u128::from(count);
            if seen >= rank {
                return high.clamp(self.least(), self.most());
            }
        }
        self.most()
    }

    /// The buckets that are not empty: from, to, how many.
    pub fn used(&self) -> impl Iterator<Item = (Duration, Duration, u64)> {
        let used = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(index, count)| {
            let (low, high) = bounds(index);
            (Duration::from_nanos(low), Duration::from_nanos(high), *count)
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(MOST).min(MOST)
}

/// Below [`STEPS`] each value has its own; above, the [`BITS`] bits behind the first one count.
fn index(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    let index = u64::from(shift) * STEPS + (nanos >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The least and the most that is counted there.
fn bounds(index: usize) -> (u64, u64) {
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    let shift = (index / STEPS).saturating_sub(1);
    let low = (index - shift * STEPS) << shift;
    (low, low + (1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_bucket_and_buckets_adjoin() {
        let mut value = 0;
        while value < MOST {
            let (low, high) = bounds(index(value));
            assert!(low <= value && value <= high, "{value}: {low} to {high}");
            assert!((high - low) * STEPS <= low.max(STEPS), "{value}: {low} to {high}");
            assert_eq!(index(high) + 1, index(high + 1));
            value = high + 1 + value / 3;
        }
        assert!(index(MOST) < 5_000);
    }

    #[test]
    fn quantiles_are_right_to_a_hundredth() {
        let mut all = Histogram::default();
        let mut other = Histogram::default();
        for number in 1..=10_000 {
            let half = if number % 2 == 0 { &mut all } else { &mut other };
            half.add(Duration::from_micros(number));
        }
        all.merge(&other);
        assert_eq!(all.count(), 10_000);
        for (per_mille, micros) in [(500, 5_000.0), (900, 9_000.0), (990, 9_900.0), (999, 9_990.0)]
        {
            let found = all.quantile(per_mille).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.01, "{per_mille}: {found}");
        }
        assert_eq!(all.least(), Duration::from_micros(1));
        assert_eq!(all.most(), Duration::from_millis(10));
        assert_eq!(all.quantile(1_000), all.most());
        assert_eq!(all.mean(), Duration::from_nanos(5_000_500));
    }

    #[test]
    fn nothing_is_nothing_and_too_much_is_the_most() {
        let mut empty = Histogram::default();
        assert_eq!((empty.quantile(500), empty.mean(), empty.least()), Default::default());
        empty.add(Duration::MAX);
        assert_eq!(empty.most(), Duration::from_nanos(MOST));
    }
}
