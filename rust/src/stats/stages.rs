//! What becomes of the mails and recipients in one stage of a chain: how many, how long, how many not.

use std::array;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Counter;

/// Upper bounds of the histogram, in microseconds and in steps of 1, 2 and 5; what takes longer than
/// the last is in no bucket but that of all.
pub const BOUNDS: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// The figures of a stage. All workers count into the same ones, without a lock.
#[derive(Debug)]
pub struct StageFigures {
    /// Items it was asked about.
    pub count: Counter,
    /// Those that it failed for.
    pub errors: Counter,
    /// Times it was asked: a batch is one.
    pub calls: Counter,
    nanos: Counter,
    /// Calls by how long they took; the last takes what is over all bounds.
    buckets: [Counter; BOUNDS.len() + 1],
}

impl Default for StageFigures {
    fn default() -> Self {
        Self {
            count: Counter::default(),
            errors: Counter::default(),
            calls: Counter::default(),
            nanos: Counter::default(),
            buckets: array::from_fn(|_| Counter::default()),
        }
    }
}

impl StageFigures {
    /// Counts one call that was about `items` items.
    pub fn add(&self, took: Duration, items: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.calls.add();
        self.count.add_many(items);
        self.nanos.add_many(nanos);
        let within = |bound: &u64| nanos <= bound * 1_000;
        let at = BOUNDS.iter().position(within).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add();
        }
    }

    /// The time of all calls.
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.nanos.get())
    }

    /// Calls that took no longer than each bound, and all of them at last.
    pub fn cumulative(&self) -> Vec<u64> {
        let mut sum = 0;
        let grown = self.buckets.iter().map(|bucket| {
            sum += bucket.get();
            sum
        });
        grown.collect()
    }
}

/// The clock of one worker: a stage ends where the next one begins, so one look is enough for both.
#[derive(Debug, Default)]
pub struct Stopwatch {
    at: AtomicU64,
    tally: Tally,
}

/// What became of one batch: of it, not of all batches.
#[derive(Debug, Default)]
pub struct Tally {
    /// Items that some stage failed for.
    pub failed: Counter,
    /// Items that the deciding stage was asked about: the last that stores.
    pub decided: Counter,
    /// Those of them that it failed for.
    pub undecided: Counter,
}

/// What stopwatches count from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Stopwatch {
    fn now() -> u64 {
        u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins anew.
    pub fn start(&self) {
        self.at.store(Self::now(), Ordering::Relaxed);
    }

    /// The time since it was last started or asked.
    pub fn lap(&self) -> Duration {
        let now = Self::now();
        // Only its worker asks: nothing comes between the two.
        let before = self.at.load(Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
        Duration::from_nanos(now.saturating_sub(before))
    }
}

impl Stopwatch {
    /// Where the worker's batch is counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The batch has ended: how many failed, and how many the deciding stage did not fail for.
    pub fn take(&self) -> (u64, u64) {
        let Tally { failed, decided, undecided } = &self.tally;
        let through = decided.take().saturating_sub(undecided.take());
        (failed.take(), through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_how_long_they_took() {
        let figures = StageFigures::default();
        figures.add(Duration::from_micros(100), 1);
        figures.add(Duration::from_micros(101), 64);
        figures.add(Duration::from_secs(10), 1);
        figures.add(Duration::from_secs(11), 1);
        let buckets = figures.cumulative();
        assert_eq!(buckets.len(), BOUNDS.len() + 1);
        assert_eq!(buckets.get(..3), Some(&[1, 2, 2][..]));
        assert_eq!(buckets.get(14..), Some(&[2, 3, 4][..]));
        assert_eq!((figures.count.get(), figures.calls.get()), (67, 4));
        assert_eq!(figures.took(), Duration::from_micros(21_000_201));
    }

    #[test]
    fn a_lap_is_the_time_since_the_one_before() {
        let watch = Stopwatch::default();
        let began = Instant::now();
        watch.start();
        std::thread::sleep(Duration::from_millis(20));
        let (first, second) = (watch.lap(), watch.lap());
        assert!(first >= Duration::from_millis(20));
        assert!(first + second <= began.elapsed());
    }
}
