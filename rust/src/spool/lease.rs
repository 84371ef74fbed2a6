//! A message that somebody works on, and what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::files::FileJob;
use super::writer::{Job, Why};
use super::{Octets, Shared, clock};
use crate::log::Level;

/// The first wait; each one is twice as long as the one before.
const FIRST_WAIT_MS: u64 = 5_000;
/// The longest.
const LARGEST_WAIT_MS: u64 = 3_600_000;

/// A message that was given out.
#[derive(Debug)]
pub struct Leased {
    /// Its number in this spool: in the order of commits.
    pub id: i64,
    /// See [`Incoming::queued_id`](super::Incoming::queued_id).
    pub queued_id: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// Its envelope.
    pub record: Vec<u8>,
    /// The message.
    pub octets: Octets,
    /// To be settled.
    pub lease: Lease,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All is done: it is deleted.
    Done,
    /// To be tried again later, and why.
    Deferred(String),
    /// Not to be tried again, and why: it is set aside.
    Failed(String),
}

/// What is known of a message that was read.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: i64,
    pub(super) generation: u64,
    pub(super) backend: Arc<str>,
    pub(super) queued_id: String,
    pub(super) received_ms: i64,
    pub(super) attempts: u32,
    /// Of envelope and message.
    pub(super) octets: u64,
    pub(super) file: Option<String>,
}

impl Held {
    /// Which attempt it is that was just made, from 1.
    fn attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }
}

const OPEN: u8 = 0;
const DEFERRED: u8 = 1;
const ENDED: u8 = 2;

/// The right to say what became of a message. Dropped without a word, the message is deferred.
pub struct Lease {
    shared: Arc<Shared>,
    held: Arc<Held>,
    state: AtomicU8,
}

impl Lease {
    pub(super) fn new(shared: &Arc<Shared>, held: Held) -> Self {
        Self { shared: Arc::clone(shared), held: Arc::new(held), state: AtomicU8::new(OPEN) }
    }

    /// Says nothing when it is dropped.
    #[cfg(test)]
    pub(super) fn disarm(&self) {
        self.state.store(ENDED, Ordering::SeqCst);
    }

    /// Says what became of it; the first word counts. Only a success behind a deferral counts too: a
    /// worker that was given up has done it after all, and nobody has to do it again.
    pub fn settle(&self, outcome: Settled) {
        let state = match outcome {
            Settled::Deferred(_) => DEFERRED,
            Settled::Done | Settled::Failed(_) => ENDED,
        };
        let change = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            let counts = now == OPEN || (now == DEFERRED && outcome == Settled::Done);
            counts.then_some(state)
        });
        if change.is_ok() {
            self.shared.settle(&self.held, outcome);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.state.load(Ordering::SeqCst) == OPEN {
            self.settle(Settled::Deferred("dropped without an answer".to_owned()));
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Shared {
    fn settle(&self, held: &Arc<Held>, outcome: Settled) {
        let held = Arc::clone(held);
        match outcome {
            Settled::Done => {
                let (id, attempt) = (&held.queued_id, held.attempt());
                self.quiet.say(Level::Info, format_args!("{id}: done at attempt {attempt}"));
                self.send(Job::Delete { held, why: Why::Done });
            }
            Settled::Failed(reason) => self.fail(held, reason),
            Settled::Deferred(reason) if self.is_too_old(&held) => {
                let reason = format!("older than spool.max_age; at last: {reason}");
                self.fail(held, reason);
            }
            Settled::Deferred(reason) => {
                let attempts = held.attempts.saturating_add(1);
                let wait = wait_ms(attempts, held.id.unsigned_abs() ^ held.generation);
                let next_ms = clock::now_ms().saturating_add(wait);
                self.quiet.say(
                    Level::Info,
                    format_args!(
                        "{}: deferred at attempt {attempts}, tried again in {} s: {reason}",
                        held.queued_id,
                        wait / 1_000
                    ),
                );
                self.send(Job::Defer { held, attempts, next_ms, reason });
            }
        }
    }

    fn is_too_old(&self, held: &Held) -> bool {
        let max_age = self.room.settings().max_age;
        let age = clock::now_ms().saturating_sub(held.received_ms);
        !max_age.is_zero() && Duration::from_millis(u64::try_from(age).unwrap_or(0)) > max_age
    }

    fn fail(&self, held: Arc<Held>, reason: String) {
        let (id, attempt) = (&held.queued_id, held.attempt());
        self.quiet.say(
            Level::Warning,
            format_args!("{id}: failed at attempt {attempt}, set aside: {reason}"),
        );
        // Where the thread has ended, the next start gives it out again.
        self.files.push(FileJob::Fail { held, reason });
    }
}

/// How long the message waits after that many attempts: twice as long each time, a fifth more or less, so
/// that those which failed together do not come back together.
fn wait_ms(attempts: u32, salt: u64) -> i64 {
    let doubled = FIRST_WAIT_MS.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let wait = doubled.min(LARGEST_WAIT_MS);
    // No dependency for a random number: ids are spread well enough by a checksum.
    let drawn = u64::from(crc32fast::hash(&(salt ^ u64::from(attempts) << 48).to_le_bytes()));
    let spread = wait * 2 / 5;
    i64::try_from(wait - wait / 5 + spread * (drawn & 0xffff) / 0xffff).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod waits {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_differ_by_a_fifth() {
        for (attempts, middle) in
            [(1, 5_000), (2, 10_000), (5, 80_000), (11, 3_600_000), (u32::MAX, 3_600_000)]
        {
            let waits: Vec<i64> = (0..500).map(|salt| wait_ms(attempts, salt)).collect();
            let (least, most) = (waits.iter().min().copied(), waits.iter().max().copied());
            let (low, high) = (middle * 4 / 5, middle * 6 / 5);
            assert!(least >= Some(low) && least < Some(low + middle / 25), "{attempts}: {least:?}");
            assert!(most <= Some(high) && most > Some(high - middle / 25), "{attempts}: {most:?}");
        }
    }
}
