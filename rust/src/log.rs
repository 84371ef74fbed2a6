//! Records on their way to Python's `logging`: made on any thread, fetched in batches by one.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::queue::Queue;

/// Records that wait; what comes on top is counted and dropped, since a log must not take memory
/// without end nor stop an I/O thread.
const LARGEST_BACKLOG: usize = 10_000;

/// Levels with the numbers of Python's `logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug = 10,
    /// What happened.
    Info = 20,
    /// What should not happen often.
    Warning = 30,
    /// What must be looked at.
    Error = 40,
}

/// One record.
#[derive(Debug)]
pub struct Record {
    /// See [`Level`].
    pub level: Level,
    /// The logger's name below `guerrilla`.
    pub logger: &'static str,
    /// The text; a peer's bytes in it are escaped.
    pub message: String,
    /// When it was made.
    pub created: SystemTime,
}

/// Where records are put.
#[derive(Debug)]
pub struct Log {
    level: AtomicU8,
    queue: Queue<Record>,
    dropped: AtomicU64,
}

impl Log {
    /// A log that makes records from `level` on.
    pub fn new(level: u8) -> Self {
        Self { level: AtomicU8::new(level), queue: Queue::default(), dropped: AtomicU64::new(0) }
    }

    /// Changes the level.
    pub fn set_level(&self, level: u8) {
        self.level.store(level, Ordering::Relaxed);
    }

    /// Whether a record of that level is made.
    pub fn is_on(&self, level: Level) -> bool {
        level as u8 >= self.level.load(Ordering::Relaxed)
    }

    /// Makes a record; nothing is formatted when its level is off.
    pub fn write(&self, level: Level, logger: &'static str, message: fmt::Arguments<'_>) {
        if !self.is_on(level) {
            return;
        }
        if self.queue.len() >= LARGEST_BACKLOG {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue.push(Record {
            level,
            logger,
            message: message.to_string(),
            created: SystemTime::now(),
        });
    }

    /// As [`Queue::receive`].
    pub fn receive(&self, max: usize, timeout: Duration) -> Option<Vec<Record>> {
        self.queue.receive(max, timeout)
    }

    /// No more records; a waiting receiver returns.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Records dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
