//! The circuit breaker: who asks in vain again and again is answered at once, until it is worth a try.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stats::Counter;

/// What a breaker obeys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fuse {
    /// Batches that failed in a row, after which it opens; 0: never.
    pub failures: u32,
    /// How long it is open until something is tried.
    pub reset: Duration,
}

/// What a report did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has opened: nothing is asked from now on.
    Opened,
    /// It has closed: all is asked again.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    /// Batches that failed in a row.
    failed: u32,
    /// While it is open: when something may be tried.
    until: Option<Instant>,
    /// Something was let in to be tried, and no worker has taken it yet.
    trial: bool,
}

/// Of one kind of question of a backend.
#[derive(Debug, Default)]
pub struct Breaker {
    /// As `State::until` says; looked at without a lock.
    open: AtomicBool,
    state: Mutex<State>,
    /// Times it has opened.
    pub opened: Counter,
}

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what needs its backend is refused, but for a trial.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether something may be let in now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.lock().until.is_none_or(|until| now >= until)
    }

    /// Lets one in to be tried, and no other before another `reset`.
    pub fn try_one(&self, fuse: Fuse, now: Instant) {
        let mut state = self.lock();
        if state.until.is_some() {
            state.until = Some(now + fuse.reset);
            state.trial = true;
        }
    }

    /// What was let in comes to nothing: another may be tried at once.
    pub fn give_back(&self, now: Instant) {
        let mut state = self.lock();
        if state.until.is_some() && std::mem::take(&mut state.trial) {
            state.until = Some(now);
        }
    }

    /// Whether a worker is to ask about what it has.
    pub fn admits(&self, fuse: Fuse, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(until) = state.until else { return true };
        let admitted = std::mem::take(&mut state.trial) || now >= until;
        if admitted {
            state.until = Some(now + fuse.reset);
        }
        admitted
    }

    /// What became of a batch that was asked about.
    pub fn report(&self, failed: bool, fuse: Fuse, now: Instant) -> Option<Turn> {
        let mut state = self.lock();
        let was_open = state.until.is_some();
        if !failed || fuse.failures == 0 {
            *state = State::default();
            self.open.store(false, Ordering::Relaxed);
            return was_open.then_some(Turn::Closed);
        }
        state.failed = state.failed.saturating_add(1);
        if !was_open && state.failed < fuse.failures {
            return None;
        }
        state.until = Some(now + fuse.reset);
        state.trial = false;
        self.open.store(true, Ordering::Relaxed);
        if !was_open {
            self.opened.add();
        }
        (!was_open).then_some(Turn::Opened)
    }

    /// Forgets what failed: another chain takes over.
    pub fn close(&self) {
        *self.lock() = State::default();
        self.open.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUSE: Fuse = Fuse { failures: 2, reset: Duration::from_secs(10) };

    fn after(seconds: u64) -> Instant {
        static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *BEGAN + Duration::from_secs(seconds)
    }

    fn open() -> Breaker {
        let breaker = Breaker::default();
        assert_eq!(breaker.report(true, FUSE, after(0)), None);
        assert_eq!(breaker.report(true, FUSE, after(0)), Some(Turn::Opened));
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            assert_eq!(breaker.report(true, FUSE, after(0)), None);
            assert_eq!(breaker.report(false, FUSE, after(0)), None);
        }
        assert!(!breaker.is_open() && breaker.is_due(after(0)) && breaker.admits(FUSE, after(0)));
        let off = Fuse { failures: 0, ..FUSE };
        for _ in 0..5 {
            assert_eq!(breaker.report(true, off, after(0)), None);
        }
        assert_eq!(breaker.opened.get(), 0);
    }

    #[test]
    fn one_is_tried_after_the_reset_and_then_no_other_for_as_long() {
        let breaker = open();
        assert!(!breaker.is_due(after(9)));
        assert!(!breaker.admits(FUSE, after(9)));
        assert!(breaker.is_due(after(10)));
        breaker.try_one(FUSE, after(10));
        assert!(!breaker.is_due(after(19)));
        // The one that was let in is asked about whenever it comes; one alone.
        assert!(breaker.admits(FUSE, after(15)));
        assert!(!breaker.admits(FUSE, after(15)));
        assert_eq!(breaker.report(true, FUSE, after(16)), None);
        assert!(!breaker.is_due(after(25)));
        assert!(breaker.admits(FUSE, after(26)));
        assert_eq!(breaker.report(false, FUSE, after(27)), Some(Turn::Closed));
        assert!(!breaker.is_open() && breaker.admits(FUSE, after(27)));
        assert_eq!(breaker.opened.get(), 1);
    }

    #[test]
    fn a_trial_that_never_comes_does_not_keep_it_open() {
        let breaker = open();
        breaker.try_one(FUSE, after(10));
        assert!(breaker.is_due(after(20)));
    }

    #[test]
    fn a_trial_that_is_given_back_is_for_the_next() {
        let breaker = open();
        breaker.give_back(after(1));
        assert!(!breaker.is_due(after(9)));
        breaker.try_one(FUSE, after(10));
        assert!(!breaker.is_due(after(11)));
        breaker.give_back(after(11));
        assert!(breaker.is_due(after(11)));
        breaker.try_one(FUSE, after(11));
        // Once a worker has it, it is under way.
        assert!(breaker.admits(FUSE, after(12)));
        breaker.give_back(after(13));
        assert!(!breaker.is_due(after(21)));
        let closed = Breaker::default();
        closed.give_back(after(1));
        assert!(!closed.is_open() && closed.is_due(after(0)));
    }

    #[test]
    fn another_chain_closes_it() {
        let breaker = open();
        breaker.close();
        assert!(!breaker.is_open() && breaker.is_due(after(0)));
        assert_eq!(breaker.report(true, FUSE, after(0)), None);
        let breaker = open();
        let off = Fuse { failures: 0, ..FUSE };
        assert_eq!(breaker.report(true, off, after(0)), Some(Turn::Closed));
    }
}
