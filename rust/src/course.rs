//! What a message's time went into: the queue, and each stage of the chain.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Visits that are kept: a stage that is asked again, alone, is entered again.
const MOST_VISITS: usize = 32;

/// One stay in a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The stage's name in the chain.
    pub stage: String,
    /// How long it took; of one that has not ended, how long so far.
    pub took: Duration,
}

/// The way of one message, told by the threads that carry it.
#[derive(Debug)]
pub struct Course {
    /// None where nobody wants to know: then nothing looks at a clock.
    began: Option<Instant>,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    fetched: Option<Instant>,
    visits: Vec<Visit>,
    /// When the last visit began, until it ends.
    entered: Option<Instant>,
}

/// What there is to tell of a [`Course`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Until a worker took it; all of it where none did.
    pub queue: Duration,
    /// In the order of the chain; empty where nobody listens.
    pub stages: Vec<Visit>,
    /// From the final dot until it was asked for.
    pub total: Duration,
}

impl Steps {
    fn leave(&mut self, now: Instant) {
        if let (Some(entered), Some(visit)) = (self.entered.take(), self.visits.last_mut()) {
            visit.took = now.saturating_duration_since(entered);
        }
    }
}

impl Course {
    /// One that begins now, the final dot has come; one that is not `told` stays empty.
    pub fn new(told: bool) -> Self {
        Self { began: told.then(Instant::now), steps: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker took it.
    pub fn fetch(&self) {
        if self.began.is_none() {
            return;
        }
        self.lock().fetched = Some(Instant::now());
    }

    /// A stage begins with it; the one before has ended.
    pub fn enter(&self, stage: &str) {
        if self.began.is_none() {
            return;
        }
        let now = Instant::now();
        let mut steps = self.lock();
        steps.leave(now);
        if steps.visits.len() < MOST_VISITS {
            steps.visits.push(Visit { stage: stage.to_owned(), took: Duration::ZERO });
            steps.entered = Some(now);
        }
    }

    /// The stage has ended, and the next one begins later.
    pub fn leave(&self) {
        self.lock().leave(Instant::now());
    }

    /// Where its time went until now: asked once, since it gives the stages away.
    pub fn end(&self) -> Times {
        let now = Instant::now();
        let mut steps = self.lock();
        steps.leave(now);
        let (began, fetched) = (self.began.unwrap_or(now), steps.fetched.unwrap_or(now));
        Times {
            queue: fetched.saturating_duration_since(began),
            stages: std::mem::take(&mut steps.visits),
            total: now.saturating_duration_since(began),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(times: &Times) -> Vec<&str> {
        times.stages.iter().map(|visit| visit.stage.as_str()).collect()
    }

    #[test]
    fn the_parts_of_a_course_fit_into_the_whole() {
        let course = Course::new(true);
        std::thread::sleep(Duration::from_millis(2));
        course.fetch();
        course.enter("A");
        std::thread::sleep(Duration::from_millis(2));
        course.leave();
        std::thread::sleep(Duration::from_millis(2));
        course.enter("B");
        std::thread::sleep(Duration::from_millis(2));
        let times = course.end();
        assert_eq!(names(&times), ["A", "B"]);
        let least = Duration::from_millis(2);
        assert!(times.queue >= least && times.stages.iter().all(|visit| visit.took >= least));
        let parts = times.queue + times.stages.iter().map(|visit| visit.took).sum::<Duration>();
        assert!(parts + least <= times.total, "{times:?}");
    }

    #[test]
    fn what_no_worker_took_was_in_the_queue_all_the_time() {
        let times = Course::new(true).end();
        assert_eq!((times.queue, times.stages.is_empty()), (times.total, true));
    }

    #[test]
    fn a_course_that_is_not_told_stays_empty() {
        let course = Course::new(false);
        course.fetch();
        course.enter("A");
        course.leave();
        assert_eq!(course.end(), Times::default());
    }

    #[test]
    fn no_chain_makes_a_course_grow_without_end() {
        let course = Course::new(true);
        (0..1_000).for_each(|_| course.enter("A"));
        assert_eq!(course.end().stages.len(), MOST_VISITS);
    }
}
