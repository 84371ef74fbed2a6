//! What saves mails, and checks recipients and credentials: questions on their way to its workers, and its limits.
//!
//! A server asks one backend. Sessions hold it by [`Asking`]; with the last of them its queues close, and
//! its workers end once they have answered what is left. So a backend that a reload takes out of the
//! config lasts as long as any transaction that began with it.

pub mod breaker;
pub mod cache;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::breaker::{Breaker, Fuse};
use self::cache::Answers;
use crate::config::Swap;
use crate::delivery::{Asked, Check, Delivery, Login};
use crate::queue::Queue;
use crate::stats::Counter;

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
    /// From the last word of AUTH to its answer.
    pub auth_timeout: Duration,
    /// Whether anybody answers logins.
    pub authenticate: bool,
    /// How long answers of checks are kept; zero: not at all.
    pub cache_ttl: Duration,
    /// When it is asked no more for a while.
    pub fuse: Fuse,
    /// Whether mail is answered once it is in the spool.
    pub spools: Spools,
}

/// When mail goes to the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spools {
    /// Never.
    #[default]
    Never,
    /// When workers have done what comes before.
    Later,
    /// At once, since nothing comes before: no worker is asked.
    AtOnce,
}

impl Spools {
    /// The inverse of how `_core.pyi` calls it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "never" => Some(Self::Never),
            "later" => Some(Self::Later),
            "at once" => Some(Self::AtOnce),
            _ => None,
        }
    }
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
    /// Credentials on their way to Python.
    pub logins: Queue<Asked<Login>>,
    /// Answers of checks that are kept.
    pub answers: Answers,
    /// Whether saving is worth a try.
    pub saving: Breaker,
    /// Whether checking is worth a try.
    pub checking: Breaker,
    /// Recipients and messages refused because one of them was open.
    pub broken: Counter,
    limits: Swap<Limits>,
    generation: AtomicU64,
    intake_open: AtomicBool,
}

impl Backend {
    /// Whether recipients are refused, but for a trial.
    pub fn is_broken(&self) -> bool {
        self.saving.is_open() || self.checking.is_open()
    }

    /// Whether a recipient that begins a transaction is let in: always, or to be tried.
    pub fn lets_in(&self, now: Instant) -> bool {
        let breakers = [&self.saving, &self.checking];
        if !breakers.iter().all(|breaker| breaker.is_due(now)) {
            self.broken.add();
            return false;
        }
        let fuse = self.limits().fuse;
        for breaker in breakers {
            breaker.try_one(fuse, now);
        }
        true
    }

    /// Other chains take over: forgets what those before answered, and that they failed. Gives the
    /// generation of the new ones, which alone are given anything from now on.
    pub fn renew(&self) -> u64 {
        self.saving.close();
        self.checking.close();
        let generation = self.answers.renew();
        self.generation.store(generation, Ordering::SeqCst);
        self.saves.wake_all();
        self.checks.wake_all();
        self.logins.wake_all();
        generation
    }

    /// Which chains are given what comes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

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
        self.logins.close();
    }

    /// Drops what waits: for an end that is not graceful.
    pub fn clear(&self) {
        self.saves.clear();
        self.checks.clear();
        self.logins.clear();
    }

    /// Wakes the workers for what waits.
    pub fn call_workers(&self) {
        self.saves.call();
        self.checks.call();
        self.logins.call();
    }

    /// Whether nothing waits, nor will.
    pub fn has_ended(&self) -> bool {
        self.saves.has_ended() && self.checks.has_ended() && self.logins.has_ended()
    }

    /// Its counters and gauges by name.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let oldest = |asked: &Asked<Delivery>| asked.0.received_at.elapsed().unwrap_or_default();
        let age = self.saves.oldest(oldest).unwrap_or_default();
        vec![
            ("queue_age_ms", u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            ("queue_depth", self.saves.len() as u64),
            ("check_queue_depth", self.checks.len() as u64),
            ("login_queue_depth", self.logins.len() as u64),
            ("check_cache_hits", self.answers.hits.get()),
            ("check_cache_misses", self.answers.misses.get()),
            ("check_cache_size", self.answers.len() as u64),
            ("breaker_open", u64::from(self.is_broken())),
            ("breaker_opened", self.saving.opened.get() + self.checking.opened.get()),
            ("breaker_refused", self.broken.get()),
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
            logins: Queue::default(),
            answers: Answers::default(),
            saving: Breaker::default(),
            checking: Breaker::default(),
            broken: Counter::default(),
            limits: Swap::new(limits),
            generation: AtomicU64::new(0),
            intake_open: AtomicBool::new(true),
        }))
    }

    /// Whether it is a share in that backend.
    pub fn is(&self, backend: &Arc<Backend>) -> bool {
        Arc::ptr_eq(&self.0, backend)
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
        assert!(backend.saves.receive(1, Duration::ZERO).is_some_and(|found| found.is_empty()));
        assert!(!backend.has_ended());
        drop(session);
        assert!(backend.saves.receive(1, Duration::ZERO).is_none());
        assert!(backend.has_ended());
    }
}
