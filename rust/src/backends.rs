//! What saves mails and checks recipients: questions on their way to its workers, and its limits.
//!
//! A server asks one backend. Sessions hold it by [`Asking`]; with the last of them its queues close, and
//! its workers end once they have answered what is left. So a backend that a reload takes out of the
//! config lasts as long as any transaction that began with it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Swap;
use crate::delivery::{Asked, Check, Delivery};
use crate::queue::Queue;

/// The name of the backend that is always there.
pub const DEFAULT: &str = "default";

/// What a backend obeys, from the next question on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the final dot to the answer.
    pub save_timeout: Duration,
    /// From RCPT to its answer.
    pub check_timeout: Duration,
    /// Whether anybody answers checks.
    pub check_recipients: bool,
}

/// What sessions and workers of one backend share.
#[derive(Debug)]
pub struct Backend {
    /// As the config has it.
    pub name: String,
    /// Messages on their way to Python.
    pub saves: Queue<Asked<Delivery>>,
    /// Recipient checks on their way to Python.
    pub checks: Queue<Asked<Check>>,
    limits: Swap<Limits>,
    intake_open: AtomicBool,
}

impl Backend {
    /// What it obeys now.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load()
    }

    /// Obeys other limits.
    pub fn obey(&self, limits: Limits) {
        self.limits.store(limits);
    }

    /// Closed: every message is told `451 4.3.2` before its data.
    pub fn set_intake(&self, open: bool) {
        self.intake_open.store(open, Ordering::Relaxed);
    }

    /// Whether it takes mail.
    pub fn intake_is_open(&self) -> bool {
        self.intake_open.load(Ordering::Relaxed)
    }

    /// No more questions come: workers take what is queued, and then `None`.
    pub fn close(&self) {
        self.saves.close();
        self.checks.close();
    }

    /// Drops what waits: for an end that is not graceful.
    pub fn clear(&self) {
        self.saves.clear();
        self.checks.clear();
    }

    /// Whether nothing waits, nor will.
    pub fn has_ended(&self) -> bool {
        self.saves.has_ended() && self.checks.has_ended()
    }

    /// Its counters and gauges by name.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let oldest = |asked: &Asked<Delivery>| asked.0.received_at.elapsed().unwrap_or_default();
        let age = self.saves.oldest(oldest).unwrap_or_default();
        vec![
            ("queue_age_ms", u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            ("queue_depth", self.saves.len() as u64),
            ("check_queue_depth", self.checks.len() as u64),
        ]
    }
}

/// A share in a backend of those who ask it: with the last one its queues close.
#[derive(Debug)]
pub struct Asking(Arc<Backend>);

impl Asking {
    /// A backend that nobody has asked yet.
    pub fn new(name: &str, limits: Limits) -> Self {
        Self(Arc::new(Backend {
            name: name.to_owned(),
            saves: Queue::default(),
            checks: Queue::default(),
            limits: Swap::new(limits),
            intake_open: AtomicBool::new(true),
        }))
    }

    /// For who answers: it does not keep the queues open.
    pub fn answering(&self) -> Arc<Backend> {
        Arc::clone(&self.0)
    }
}

impl Deref for Asking {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.0
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_close_with_the_last_who_asks() {
        let asking = Arc::new(Asking::new("slow", Limits::default()));
        let backend = asking.answering();
        let session = Arc::clone(&asking);
        drop(asking);
        assert!(backend.saves.try_receive(1).is_some_and(|found| found.is_empty()));
        assert!(!backend.has_ended());
        drop(session);
        assert!(backend.saves.try_receive(1).is_none());
        assert!(backend.has_ended());
    }
}
