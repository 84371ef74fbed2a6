//! Which message is next, and when it is due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A message that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) number: u64,
    /// When it should begin; where there is no rate, when it was taken.
    pub(super) due: Instant,
}

/// All messages of a run, in order. Whoever is free takes the next: with a rate, one that is late is late,
/// however long those before it take, and the clock of its latency runs.
#[derive(Debug)]
pub(super) struct Tickets {
    next: AtomicU64,
    messages: u64,
    /// Time from one to the next.
    step: Option<f64>,
    start: Instant,
    end: Instant,
}

impl Tickets {
    pub(super) fn new(
        messages: u64,
        rate: Option<f64>,
        start: Instant,
        duration: Duration,
    ) -> Self {
        let step = rate.map(|rate| 1.0 / rate);
        Self { next: AtomicU64::new(0), messages, step, start, end: start + duration }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// No message begins later.
    pub(super) fn end(&self) -> Instant {
        self.end
    }

    pub(super) fn is_paced(&self) -> bool {
        self.step.is_some()
    }

    /// The next one; none when all are taken, or the time is over.
    pub(super) fn take(&self) -> Option<Ticket> {
        let now = Instant::now();
        if now >= self.end {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.messages {
            return None;
        }
        let due = match self.step {
            None => now,
            Some(step) => self.start.checked_add(seconds(number, step))?,
        };
        (due < self.end).then_some(Ticket { number, due })
    }

    /// Messages that were due by a moment; without a rate none ever is.
    pub(super) fn due_by(&self, moment: Instant) -> u64 {
        let Some(step) = self.step else { return 0 };
        let since = moment.min(self.end).saturating_duration_since(self.start).as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It saturates.
        let due = (since / step).ceil() as u64;
        due.min(self.messages)
    }
}

fn seconds(number: u64, step: f64) -> Duration {
    #[allow(clippy::cast_precision_loss)] // Of more messages than anybody sends.
    Duration::try_from_secs_f64(number as f64 * step).unwrap_or(Duration::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn a_second_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn without_a_rate_each_is_due_when_it_is_taken() {
        let tickets = Tickets::new(2, None, Instant::now(), HOUR);
        assert_eq!(tickets.take().unwrap().number, 0);
        assert!(tickets.take().unwrap().due <= Instant::now());
        assert_eq!(tickets.take(), None);
    }

    #[test]
    fn with_a_rate_each_has_its_time_whoever_is_late() {
        let start = a_second_ago();
        let tickets = Tickets::new(1_000, Some(100.0), start, HOUR);
        for number in 0..10 {
            let due = start + Duration::from_millis(10 * number);
            let found = tickets.take().unwrap();
            assert_eq!(found.number, number);
            assert!(found.due.max(due) - found.due.min(due) < Duration::from_micros(1));
        }
        assert_eq!(tickets.due_by(start + Duration::from_millis(95)), 10);
        assert_eq!(tickets.due_by(start + HOUR * 2), 1_000);
    }

    #[test]
    fn none_begins_after_the_end() {
        let start = a_second_ago();
        assert_eq!(Tickets::new(9, None, start, Duration::from_millis(500)).take(), None);
        let slow = Tickets::new(9, Some(0.1), start, Duration::from_secs(5));
        assert!(slow.take().is_some());
        assert_eq!(slow.take(), None);
        assert_eq!(slow.due_by(start + HOUR), 1);
    }
}
