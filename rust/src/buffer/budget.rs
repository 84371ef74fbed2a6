//! The memory there is for bodies, and the free buffers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::spill::Spiller;
use crate::allocator::Tide;

/// What a body takes first; most mail fits.
pub(super) const FIRST: usize = 64 << 10;
/// The least that a body takes: it stands for what else a message costs, so that the budget bounds how
/// many can be queued.
pub(super) const SMALLEST: usize = 4 << 10;
/// Free buffers kept, in octets: enough for the mails on their way at a high rate.
const POOLED: usize = 8 << 20;
/// A larger buffer than this is not for a first step: few mails need it.
const LARGEST_POOLED: usize = 256 << 10;
/// Those are kept for bodies that grow to them: with its pages there, one costs half as much. At most so large,
/// and an eighth of the budget in all, or this.
const LARGEST: usize = 4 << 20;
const POOLED_LARGE: usize = 32 << 20;
/// Kept free for first steps, a quarter of a small budget: large messages that come slowly must not
/// keep small ones from beginning.
const FIRST_STEPS: u64 = 16 << 20;

/// The memory that bodies may take, the free buffers, and where a body goes that is too large for it.
pub struct Budget {
    limit: AtomicU64,
    spiller: Option<Arc<Spiller>>,
    pub(super) retained: AtomicU64,
    waiting: AtomicUsize,
    refused: AtomicU64,
    on_release: OnceLock<Box<dyn Fn() + Send + Sync>>,
    free: Arc<Mutex<Free>>,
    /// What bodies have taken.
    tide: Arc<Tide>,
}

/// Free buffers, the last one used on top: it is in the processor's cache.
#[derive(Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    octets: usize,
    large: Vec<Vec<u8>>,
    large_octets: usize,
}

impl Free {
    /// Keeps so many octets of large buffers.
    fn keep_large(free: &Mutex<Self>, octets: usize) {
        // Behind the lock, which the I/O thread takes: each goes back to the system.
        let mut dropped = Vec::new();
        let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
        while free.large_octets > octets {
            let Some(buffer) = free.large.pop() else { break };
            free.large_octets -= buffer.capacity();
            dropped.push(buffer);
        }
    }
}

impl Budget {
    /// A budget of `limit` octets, whose bodies stay in memory.
    pub fn new(limit: u64) -> Arc<Self> {
        Self::spilling(limit, None)
    }

    /// A budget of `limit` octets, whose large bodies go to files.
    pub fn spilling(limit: u64, spiller: Option<Arc<Spiller>>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit),
            spiller,
            retained: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            on_release: OnceLock::new(),
            free: Arc::default(),
            tide: Arc::default(),
        })
    }

    /// Octets taken by bodies whose sender has no answer yet.
    pub fn used(&self) -> u64 {
        self.tide.used()
    }

    /// Octets of bodies that were answered and are still held by someone.
    pub fn retained(&self) -> u64 {
        self.retained.load(Ordering::Relaxed)
    }

    /// Octets there are in all.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Another limit. What is taken already stays taken.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        Free::keep_large(&self.free, self.most_large());
    }

    /// Bodies that begin from now on go to a file over `size` octets; 0: none does.
    pub fn set_spill_size(&self, size: u64) {
        if let Some(spiller) = &self.spiller {
            spiller.set_size(size);
        }
    }

    /// Sets what is called, from any thread, when octets come back while someone [waits](Self::wait).
    /// Once.
    pub fn on_release(&self, call: impl Fn() + Send + Sync + 'static) {
        // A second call would mean two reactors on one budget; the first one keeps it.
        let _ = self.on_release.set(Box::new(call));
    }

    /// Counts one who waits for octets until the guard is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    /// Counts a message that found no room.
    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The files' thread in the hands of a test.
    #[cfg(test)]
    pub(crate) fn by_hand(&self) -> Option<super::ByHand> {
        self.spiller.clone().map(super::ByHand::of)
    }

    pub(super) fn spiller(&self) -> Option<&Arc<Spiller>> {
        self.spiller.as_ref()
    }

    /// No body goes to a file any more; see [`Spiller::close`].
    pub fn close(&self) {
        if let Some(spiller) = &self.spiller {
            spiller.close();
        }
    }

    pub(super) fn reserve_first(&self, octets: usize) -> bool {
        self.reserve(octets, self.limit())
    }

    pub(super) fn reserve_more(&self, octets: usize) -> bool {
        let limit = self.limit();
        self.reserve(octets, limit - FIRST_STEPS.min(limit / 4))
    }

    /// Whether [`reserve_first`](Self::reserve_first) would do. Only the I/O thread reserves, so for it
    /// that stays true until it does.
    pub(super) fn has(&self, octets: usize) -> bool {
        self.limit().saturating_sub(self.used()) >= octets as u64
    }

    fn reserve(&self, octets: usize, limit: u64) -> bool {
        self.tide.rise(octets as u64, limit)
    }

    pub(super) fn release(&self, octets: usize) {
        self.tide.fall(octets as u64, || {
            // It may be gone by then.
            let free = Arc::downgrade(&self.free);
            move || {
                if let Some(free) = free.upgrade() {
                    Free::keep_large(&free, 0);
                }
            }
        });
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(call) = self.on_release.get()
        {
            call();
        }
    }

    /// An empty buffer for at least that much; a free one may have room for more.
    pub(super) fn take(&self, octets: usize) -> Vec<u8> {
        if octets == FIRST {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = free.buffers.pop() {
                free.octets -= buffer.capacity();
                return buffer;
            }
        }
        Vec::with_capacity(octets)
    }

    /// A free buffer for a body that grows to that much, which is reserved; what it has over that is reserved too,
    /// since it counts whole, or it is not taken.
    pub(super) fn take_large(&self, octets: usize) -> Option<Vec<u8>> {
        // Much more than it needs would be lost to others.
        let fitting = octets.max(LARGEST_POOLED + 1)..=octets.saturating_mul(4);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.large.iter().rposition(|one| fitting.contains(&one.capacity()))?;
        let capacity = free.large.get(at)?.capacity();
        if !self.reserve_more(capacity - octets) {
            return None;
        }
        free.large_octets -= capacity;
        Some(free.large.remove(at))
    }

    /// Octets of large buffers that are kept.
    fn most_large(&self) -> usize {
        usize::try_from(self.limit() / 8).map_or(POOLED_LARGE, |n| n.min(POOLED_LARGE))
    }

    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        let octets = buffer.capacity();
        if !(FIRST..=LARGEST).contains(&octets) {
            return;
        }
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if octets <= LARGEST_POOLED {
            if free.octets + octets <= POOLED {
                free.octets += octets;
                free.buffers.push(buffer);
            }
        } else if free.large_octets + octets <= self.most_large() {
            free.large_octets += octets;
            free.large.push(buffer);
        }
    }
}

/// Someone who waits; see [`Budget::wait`].
#[derive(Debug)]
pub struct Waiting<'a>(&'a Budget);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// A buffer on its way to the file and back, with its share of the budget: all but [`SMALLEST`], which
/// its body keeps.
pub(super) struct Chunk {
    octets: Vec<u8>,
    share: usize,
    budget: Arc<Budget>,
}

impl Chunk {
    pub(super) fn new(octets: Vec<u8>, share: usize, budget: &Arc<Budget>) -> Self {
        Self { octets, share, budget: Arc::clone(budget) }
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Empties it, and gives back to the budget what it has over `capacity`.
    pub(super) fn shrink(&mut self, capacity: usize) {
        self.octets.clear();
        let extra = (self.share + SMALLEST).saturating_sub(capacity);
        if extra > 0 {
            self.octets.shrink_to(capacity);
            self.share -= extra;
            self.budget.release(extra);
        }
    }

    /// The buffer and its share.
    pub(super) fn into_parts(mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.octets), std::mem::take(&mut self.share))
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.octets));
        self.budget.release(self.share);
    }
}
