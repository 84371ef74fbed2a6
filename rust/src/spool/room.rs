//! How much the spool may hold, and what there is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Refusal, Settings, disk};

/// Octets written after which the disk is looked at again.
const LOOK_EVERY: u64 = 4 << 20;

/// Limits and live octets.
#[derive(Debug)]
pub(super) struct Room {
    settings: Mutex<Settings>,
    max_bytes: AtomicU64,
    /// Envelopes and messages that are committed.
    live: AtomicU64,
    broken: AtomicBool,
    /// Whether the disk has less than `min_free`.
    tight: AtomicBool,
    written: AtomicU64,
    looked: Mutex<Option<Instant>>,
}

impl Room {
    pub(super) fn new(settings: Settings) -> Self {
        let max_bytes = AtomicU64::new(settings.max_bytes);
        Self {
            settings: Mutex::new(settings),
            max_bytes,
            live: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            tight: AtomicBool::new(false),
            written: AtomicU64::new(0),
            looked: Mutex::new(None),
        }
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn obey(&self, mut settings: Settings) {
        self.max_bytes.store(settings.max_bytes, Ordering::Relaxed);
        let mut present = self.settings();
        // Where it is does not change while it runs.
        settings.folder = std::mem::take(&mut present.folder);
        *present = settings;
        drop(present);
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether `octets` more may come.
    pub(super) fn has(&self, octets: u64) -> Result<(), Refusal> {
        if self.broken.load(Ordering::Relaxed) {
            Err(Refusal::Broken)
        } else if self.tight.load(Ordering::Relaxed) || !self.fits(octets) {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// Whether `max_bytes` lets `octets` more in.
    pub(super) fn fits(&self, octets: u64) -> bool {
        let max = self.max_bytes.load(Ordering::Relaxed);
        max == 0 || self.live().saturating_add(octets) <= max
    }

    pub(super) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn set_live(&self, octets: u64) {
        self.live.store(octets, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(super) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// Counts octets that were written, and looks at the disk where it is time for that: at most once a
    /// second, and each 4 MiB. Says whether it has become tight, or is no more.
    pub(super) fn look(&self, path: &std::path::Path, written: u64) -> Option<bool> {
        let since = self.written.fetch_add(written, Ordering::Relaxed) + written;
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed().as_secs() < 1) && since < LOOK_EVERY {
            return None;
        }
        self.written.store(0, Ordering::Relaxed);
        *looked = Some(Instant::now());
        drop(looked);
        let min_free = self.settings().min_free;
        // A disk that does not say how much is free will say so when it is written to.
        let tight = min_free > 0 && disk::free(path).is_ok_and(|free| free < min_free);
        (self.tight.swap(tight, Ordering::Relaxed) != tight).then_some(tight)
    }
}
