//! Records on their way to Python's `logging`: made on any thread, fetched in batches by one.

mod line;
mod message;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub use self::line::{Batch, Format, batches};
pub use self::message::Message;
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
    /// What must be looked at now: mails are missing.
    Critical = 50,
}

/// One record.
#[derive(Debug)]
pub struct Record {
    /// See [`Level`].
    pub level: Level,
    /// The logger's name below `guerrilla`.
    pub logger: &'static str,
    /// `listen_interface` of the server that it belongs to; none for what concerns all of them.
    pub server: Option<Arc<str>>,
    /// What it says.
    pub content: Content,
    /// When it was made.
    pub created: SystemTime,
}

/// What a record says.
#[derive(Debug)]
pub enum Content {
    /// A text; a peer's bytes in it are not escaped.
    Text(String),
    /// The line of a message, which becomes a text where the records are fetched: off the I/O thread.
    Message(Box<Message>),
}

impl Content {
    /// The text.
    pub fn line(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Message(message) => {
                let mut line = String::new();
                message.write_line(&mut line);
                line
            }
        }
    }

    /// The members of a JSON object that say the same, where there is more than a text.
    pub fn members(&self) -> Option<String> {
        match self {
            Self::Text(_) => None,
            Self::Message(message) => {
                let mut members = String::new();
                message.write_members(&mut members);
                Some(members)
            }
        }
    }
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
        if self.is_on(level) {
            self.push(level, logger, None, Content::Text(message.to_string()));
        }
    }

    /// Makes a record that belongs to a server.
    pub fn write_for(
        &self,
        server: &Arc<str>,
        level: Level,
        logger: &'static str,
        message: fmt::Arguments<'_>,
    ) {
        if self.is_on(level) {
            let text = Content::Text(message.to_string());
            self.push(level, logger, Some(Arc::clone(server)), text);
        }
    }

    /// Makes the record of a message.
    pub fn message(&self, message: Box<Message>) {
        if self.is_on(Level::Info) {
            let server = Some(Arc::clone(message.server()));
            self.push(Level::Info, "mail", server, Content::Message(message));
        }
    }

    fn push(&self, level: Level, logger: &'static str, server: Option<Arc<str>>, content: Content) {
        if self.queue.len() >= LARGEST_BACKLOG {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue.push(Record { level, logger, server, content, created: SystemTime::now() });
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
