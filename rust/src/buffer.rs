//! Body buffers: taken from one budget, grown in steps, returned on drop.
//!
//! `max_memory` is one [`Budget`] for the bodies of a whole process. A body that holds octets never
//! waits for more: a step that cannot be had at once makes it drop what it holds, and the rest of the
//! message is read and dropped too, so that two senders cannot wait for each other's memory.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a body takes first; most mail fits.
const FIRST: usize = 64 << 10;
/// The least that a body takes: it stands for what else a message costs, so that the budget bounds how
/// many can be queued.
const SMALLEST: usize = 4 << 10;
/// From here a body grows by this much instead of doubling.
const LARGEST_STEP: usize = 4 << 20;
/// Free buffers kept, in octets: enough for the mails on their way at a high rate.
const POOLED: usize = 8 << 20;
/// A larger buffer than this is not kept: few mails need it.
const LARGEST_POOLED: usize = 256 << 10;
/// Kept free for first steps, a quarter of a small budget: large messages that come slowly must not
/// keep small ones from beginning.
const FIRST_STEPS: u64 = 16 << 20;

/// The memory that bodies may take, and the free buffers.
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    retained: AtomicU64,
    waiting: AtomicUsize,
    refused: AtomicU64,
    on_release: OnceLock<Box<dyn Fn() + Send + Sync>>,
    free: Mutex<Free>,
}

/// Free buffers, the last one used on top: it is in the processor's cache.
#[derive(Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    octets: usize,
}

impl Budget {
    /// A budget of `limit` octets.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            retained: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            on_release: OnceLock::new(),
            free: Mutex::default(),
        })
    }

    /// Octets taken by bodies whose sender has no answer yet.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Octets of bodies that were answered and are still held by someone.
    pub fn retained(&self) -> u64 {
        self.retained.load(Ordering::Relaxed)
    }

    /// Octets there are in all.
    pub fn limit(&self) -> u64 {
        self.limit
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

    fn reserve_first(&self, octets: usize) -> bool {
        self.reserve(octets, self.limit)
    }

    fn reserve_more(&self, octets: usize) -> bool {
        self.reserve(octets, self.limit - FIRST_STEPS.min(self.limit / 4))
    }

    fn reserve(&self, octets: usize, limit: u64) -> bool {
        let take = |used: u64| used.checked_add(octets as u64).filter(|&total| total <= limit);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    fn release(&self, octets: usize) {
        self.used.fetch_sub(octets as u64, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(call) = self.on_release.get()
        {
            call();
        }
    }

    /// An empty buffer for at least that much; a free one may have room for more.
    fn take(&self, octets: usize) -> Vec<u8> {
        if octets == FIRST {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = free.buffers.pop() {
                free.octets -= buffer.capacity();
                return buffer;
            }
        }
        Vec::with_capacity(octets)
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let octets = buffer.capacity();
        if !(FIRST..=LARGEST_POOLED).contains(&octets) {
            return;
        }
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.octets + octets <= POOLED {
            free.octets += octets;
            free.buffers.push(buffer);
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
            .field("limit", &self.limit)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// Why a body holds nothing although octets were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Over the size limit.
    TooLarge,
    /// The budget had no room for it.
    NoMemory,
}

/// The octets of one message.
pub struct Body {
    buffer: Vec<u8>,
    budget: Arc<Budget>,
    reserved: usize,
    /// Octets that stand for its envelope.
    overhead: usize,
    limit: u64,
    fault: Option<Fault>,
    header_end: Option<usize>,
    released: AtomicBool,
}

impl Body {
    /// Takes the first step of the budget for a message of `declared` octets, of at most `limit`
    /// (0: no limit). `None` when there is no room now.
    pub fn take(budget: &Arc<Budget>, declared: Option<u64>, limit: u64) -> Option<Self> {
        let declared = declared.and_then(|size| usize::try_from(size).ok());
        let first = declared.map_or(FIRST, |size| size.clamp(SMALLEST, FIRST));
        if !budget.reserve_first(first) {
            return None;
        }
        let mut buffer = budget.take(first);
        // A free buffer may have grown in its last use: it counts whole, or is not taken.
        let extra = buffer.capacity().saturating_sub(first);
        let fits = extra == 0 || budget.reserve_more(extra);
        if !fits {
            buffer = Vec::with_capacity(first);
        }
        Some(Self {
            buffer,
            budget: Arc::clone(budget),
            reserved: if fits { first + extra } else { first },
            overhead: 0,
            limit,
            fault: None,
            header_end: None,
            released: AtomicBool::new(false),
        })
    }

    /// A body of octets that came from elsewhere, outside every budget.
    pub fn detached(octets: Vec<u8>) -> Self {
        let budget = Budget::new(0);
        Self {
            buffer: octets,
            budget,
            reserved: 0,
            overhead: 0,
            limit: 0,
            fault: None,
            header_end: None,
            released: AtomicBool::new(true),
        }
    }

    /// Counts `octets` for its envelope too, or drops the message: an envelope of many recipients takes
    /// more than the message does.
    pub fn cover(&mut self, octets: usize) {
        if self.budget.reserve_more(octets) {
            self.overhead += octets;
        } else {
            self.budget.count_refusal();
            self.drop_all(Fault::NoMemory);
        }
    }

    /// Appends octets, or drops all of them once they are too many.
    pub fn push(&mut self, octets: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let total = self.buffer.len() + octets.len();
        if self.limit > 0 && total as u64 > self.limit {
            self.drop_all(Fault::TooLarge);
        } else if total > self.reserved && !self.grow(total) {
            self.budget.count_refusal();
            self.drop_all(Fault::NoMemory);
        } else {
            self.buffer.extend_from_slice(octets);
        }
    }

    fn grow(&mut self, needed: usize) -> bool {
        let step = self.reserved.clamp(FIRST, LARGEST_STEP);
        let target = needed.max(self.reserved + step);
        let target = match usize::try_from(self.limit) {
            Ok(limit) if limit > 0 => target.min(limit.max(needed)),
            _ => target,
        };
        if !self.budget.reserve_more(target - self.reserved) {
            return false;
        }
        self.reserved = target;
        self.buffer.reserve_exact(target.saturating_sub(self.buffer.len()));
        true
    }

    fn drop_all(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.header_end = None;
        let buffer = std::mem::take(&mut self.buffer);
        self.budget.give_back(buffer);
        self.budget.release(std::mem::take(&mut self.reserved));
    }

    /// Why it holds nothing, if so.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The octets.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// Octets of the header section with its empty line, where its end was seen.
    pub fn header_end(&self) -> Option<usize> {
        self.header_end
    }

    pub(crate) fn set_header_end(&mut self, end: Option<usize>) {
        self.header_end = end;
    }

    /// Moves its octets from the budget to the `retained` counter: its sender has been answered, so it
    /// no longer stands in anyone's way, but someone may hold it for as long as they like.
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::SeqCst) {
            self.budget.retained.fetch_add(self.counted() as u64, Ordering::SeqCst);
            self.budget.release(self.counted());
        }
    }

    fn counted(&self) -> usize {
        self.reserved + self.overhead
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.buffer));
        if self.released.load(Ordering::SeqCst) {
            self.budget.retained.fetch_sub(self.counted() as u64, Ordering::SeqCst);
        } else {
            self.budget.release(self.counted());
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("len", &self.buffer.len())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_counted_from_first_to_last() {
        let budget = Budget::new(1 << 20);
        let mut body = Body::take(&budget, None, 0).unwrap();
        assert_eq!(budget.used(), FIRST as u64);
        body.push(&vec![b'x'; FIRST + 1]);
        assert_eq!(budget.used(), 2 * FIRST as u64);
        body.release();
        body.release();
        assert_eq!((budget.used(), budget.retained()), (0, 2 * FIRST as u64));
        assert_eq!(body.as_slice().len(), FIRST + 1);
        drop(body);
        assert_eq!((budget.used(), budget.retained()), (0, 0));
    }

    #[test]
    fn a_step_that_cannot_be_had_drops_the_body_and_frees_its_octets() {
        let budget = Budget::new(100 << 10);
        let mut body = Body::take(&budget, None, 0).unwrap();
        assert!(Body::take(&budget, None, 0).is_none());
        let small = Body::take(&budget, Some(1), 0).unwrap();
        assert_eq!(budget.used(), (FIRST + SMALLEST) as u64);
        drop(small);
        body.push(&vec![b'x'; FIRST]);
        assert_eq!(body.fault(), None);
        body.push(b"y");
        assert_eq!(
            (body.fault(), body.as_slice().len(), budget.used()),
            (Some(Fault::NoMemory), 0, 0)
        );
        body.push(b"z");
        assert!(body.as_slice().is_empty());
    }

    #[test]
    fn a_pooled_buffer_counts_with_all_it_grew_to() {
        let budget = Budget::new(1 << 20);
        let mut grown = Body::take(&budget, None, 0).unwrap();
        grown.push(&vec![b'x'; 3 * FIRST]);
        let counted = budget.used();
        drop(grown);
        let again = Body::take(&budget, None, 0).unwrap();
        assert_eq!(budget.used(), counted);
        drop(again);
        // Where the budget has no room for the rest, a new one is taken.
        let filler = Body::take(&Budget::new(1 << 20), None, 0).unwrap();
        assert!(budget.reserve_first(900 << 10));
        let small = Body::take(&budget, None, 0).unwrap();
        assert_eq!(budget.used(), (900 << 10) + FIRST as u64);
        drop((small, filler));
    }

    #[test]
    fn an_envelope_counts_beside_its_message() {
        let budget = Budget::new(1 << 20);
        let mut body = Body::take(&budget, Some(1), 0).unwrap();
        body.cover(10_000);
        assert_eq!(budget.used(), (SMALLEST + 10_000) as u64);
        body.release();
        assert_eq!(budget.retained(), (SMALLEST + 10_000) as u64);
        drop(body);
        assert_eq!((budget.used(), budget.retained()), (0, 0));
        let mut body = Body::take(&budget, None, 0).unwrap();
        body.cover(1 << 20);
        assert_eq!((body.fault(), budget.used()), (Some(Fault::NoMemory), 0));
    }

    #[test]
    fn growth_leaves_room_for_first_steps() {
        let budget = Budget::new(1 << 20);
        let mut body = Body::take(&budget, None, 0).unwrap();
        body.push(&vec![b'x'; 700 << 10]);
        assert_eq!(body.fault(), None);
        let mut second = Body::take(&budget, None, 0).unwrap();
        second.push(&vec![b'x'; FIRST + 1]);
        assert_eq!(second.fault(), Some(Fault::NoMemory));
        assert!(Body::take(&budget, None, 0).is_some());
    }

    #[test]
    fn over_the_limit_is_dropped_and_at_the_limit_is_kept() {
        let budget = Budget::new(1 << 20);
        let mut body = Body::take(&budget, None, 100).unwrap();
        body.push(&[b'x'; 100]);
        assert_eq!(body.fault(), None);
        body.push(b"x");
        assert_eq!((body.fault(), budget.used()), (Some(Fault::TooLarge), 0));
    }

    #[test]
    fn a_reused_buffer_carries_nothing_of_the_last_client() {
        let budget = Budget::new(1 << 20);
        let mut first = Body::take(&budget, None, 0).unwrap();
        first.push(b"secret");
        first.set_header_end(Some(3));
        let pointer = first.as_slice().as_ptr();
        drop(first);
        let mut second = Body::take(&budget, None, 0).unwrap();
        assert!(second.as_slice().is_empty());
        assert_eq!(second.header_end(), None);
        second.push(b"x");
        assert_eq!(second.as_slice(), b"x");
        assert_eq!(
            second.as_slice().as_ptr(),
            pointer,
            "the test shows nothing unless the buffer was reused"
        );
    }

    #[test]
    fn a_waiter_is_told_of_a_release() {
        let budget = Budget::new(FIRST as u64);
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        budget.on_release(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        drop(Body::take(&budget, None, 0).unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        let _waiting = budget.wait();
        drop(Body::take(&budget, None, 0).unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
