//! Who has a place, and what it counts there of its clients.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mapping::Part;
use super::table::{Entry, Key, Keys, Kind, Table};
use super::{Memory, Trouble};
use crate::stats::{Replies, Stats};

/// What all processes have of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Connections that are open.
    pub held: u64,
    /// What there was of late.
    pub recent: u64,
}

/// The one that writes in a place.
#[derive(Debug)]
pub struct Tenant {
    pub(super) memory: Arc<Memory>,
    place: usize,
    /// Its tables are written by one thread at a time. Others only read them, and see this lock nowhere.
    writing: Mutex<()>,
    left: AtomicBool,
}

impl Memory {
    /// Takes a place, until the tenant is dropped or leaves; no one else may have it.
    pub fn claim(self: &Arc<Self>, place: usize) -> Result<Tenant, Trouble> {
        self.check(place)?;
        let process = u64::from(std::process::id());
        let owner = &self.counted(place).owner;
        owner
            .compare_exchange(0, process, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|owner| Trouble::Taken { place, owner })?;
        Ok(Tenant::new(self, place))
    }
}

impl Tenant {
    fn new(memory: &Arc<Memory>, place: usize) -> Self {
        let memory = Arc::clone(memory);
        Self { memory, place, writing: Mutex::default(), left: AtomicBool::new(false) }
    }

    /// In a memory of its own.
    pub fn alone() -> std::io::Result<Self> {
        Ok(Self::new(&Arc::new(Memory::own()?), 0))
    }

    /// What it has in common with other processes; none where that is nothing.
    pub fn common_memory(&self) -> Option<&Arc<Memory>> {
        self.memory.file().is_some().then_some(&self.memory)
    }

    /// Whether there may be others.
    pub fn is_alone(&self) -> bool {
        self.memory.places() == 1
    }

    /// Its counters.
    pub fn stats(&self) -> Part<Stats> {
        self.memory.counted_part(self.place).map(|counted| &counted.stats)
    }

    /// Its replies by code.
    pub fn replies(&self) -> Part<Replies> {
        self.memory.counted_part(self.place).map(|counted| &counted.replies)
    }

    /// A number for a connection, which no other of all processes has.
    pub fn number_connection(&self) -> u64 {
        self.memory.header().connections.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Makes keys for what a server counts.
    pub fn keys(&self, kind: Kind, server: &str) -> Keys {
        self.memory.keys(kind, server)
    }

    /// The place is free for another; what was counted there stays.
    pub fn leave(&self) {
        if !self.left.swap(true, Ordering::SeqCst) {
            let process = u64::from(std::process::id());
            let owner = &self.memory.counted(self.place).owner;
            // Whoever buried it has given it away already.
            let _ = owner.compare_exchange(process, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table(&self, kind: Kind) -> Table<'_> {
        self.memory.table(kind, self.place)
    }

    /// What all processes have of a key, this one included.
    pub(super) fn sum(&self, key: Key, now: u64) -> Sum {
        let places = 0..self.memory.places();
        let entries = places.filter_map(|place| self.memory.table(key.kind, place).find(key));
        entries.fold(Sum { held: 0, recent: 0 }, |sum, entry| Sum {
            held: sum.held.saturating_add(entry.held()),
            recent: sum.recent.saturating_add(entry.recent(now, key.kind.window())),
        })
    }

    /// Counts a connection, and then says how many all processes have of its key. None where it cannot be
    /// counted: the table is full.
    ///
    /// First counted and then looked, so that of two that come at once at least one sees both. Whoever finds
    /// too many takes its own back, so that there are never more than a limit says; at worst one too few.
    pub fn open(&self, key: Key, now: u64) -> Option<Sum> {
        self.open_while(key, now, || ())
    }

    /// The same, with what happens between the two.
    pub(super) fn open_while(&self, key: Key, now: u64, between: impl FnOnce()) -> Option<Sum> {
        let writing = self.lock();
        let entry = self.table(key.kind).take(key, now)?;
        entry.hold();
        entry.count(now, key.kind.window());
        drop(writing);
        between();
        Some(self.sum(key, now))
    }

    fn change(&self, key: Key, change: impl FnOnce(&Entry)) {
        let _writing = self.lock();
        if let Some(entry) = self.table(key.kind).find(key) {
            change(entry);
        }
    }

    /// The connection was counted, and is refused.
    pub fn take_back(&self, key: Key, now: u64) {
        self.change(key, |entry| {
            entry.uncount();
            entry.give_back();
            entry.forget(now, key.kind.window());
        });
    }

    /// A connection has ended. That there was one is remembered for a while, if it has to be.
    pub fn close(&self, key: Key, remember: bool) {
        self.change(key, |entry| {
            entry.give_back();
            if !remember && entry.held() == 0 {
                entry.close_window();
                entry.forget(0, 0);
            }
        });
    }

    /// Counts something that counts for a while, and is not held.
    pub fn count(&self, key: Key, now: u64) {
        let _writing = self.lock();
        if let Some(entry) = self.table(key.kind).take(key, now) {
            entry.count(now, key.kind.window());
        }
    }

    /// How often that was counted of late, in all processes.
    pub fn recent(&self, key: Key, now: u64) -> u64 {
        self.sum(key, now).recent
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.leave();
    }
}

/// For tests and tools that count and are no core.
impl Default for Part<Stats> {
    #[allow(clippy::unwrap_used)]
    fn default() -> Self {
        Tenant::alone().unwrap().stats()
    }
}
