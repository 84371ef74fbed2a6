//! What a program that embeds the daemon wants to hear of: connections and messages. Nothing is made
//! while nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::delivery::Client;
use crate::queue::Queue;
use crate::smtp::{Reply, Transaction};

/// Events that wait for their reader; more are dropped, and counted.
const LARGEST_BACKLOG: usize = 10_000;

/// One event.
#[derive(Debug)]
pub enum Event {
    /// A message was answered.
    Mail(Mail),
    /// A client connected.
    Opened(Arc<Client>),
    /// Its connection has ended.
    Closed(Arc<Client>),
}

/// A message that was answered.
#[derive(Debug)]
pub struct Mail {
    /// Who sent it.
    pub client: Arc<Client>,
    /// Its transaction.
    pub transaction: Arc<Transaction>,
    /// Its id; none for one that was refused before it had any.
    pub queued_id: Option<String>,
    /// Its octets.
    pub size: u64,
    /// What its sender was told.
    pub reply: Reply,
}

/// The way of events to Python.
#[derive(Debug, Default)]
pub struct Events {
    mails: AtomicBool,
    connections: AtomicBool,
    queue: Queue<Event>,
    dropped: AtomicU64,
}

impl Events {
    /// Which are made from now on.
    pub fn want(&self, mails: bool, connections: bool) {
        self.mails.store(mails, Ordering::Relaxed);
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// Whether anybody hears of messages.
    pub fn wants_mails(&self) -> bool {
        self.mails.load(Ordering::Relaxed)
    }

    /// Whether anybody hears of connections.
    pub fn wants_connections(&self) -> bool {
        self.connections.load(Ordering::Relaxed)
    }

    /// Tells of it. Never waits.
    pub fn push(&self, event: Event) {
        if self.queue.len() >= LARGEST_BACKLOG {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.queue.push(event);
        }
    }

    /// As [`Queue::receive`].
    pub fn receive(&self, max: usize, timeout: Duration) -> Option<Vec<Event>> {
        self.queue.receive(max, timeout)
    }

    /// No more come.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Events that nobody fetched in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
