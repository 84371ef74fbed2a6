//! What is asked of the allocator of the process: to keep large buffers out of its heap, and to give back what a
//! burst has left.
//!
//! glibc gives memory back from the end of a heap alone, and the buffers of a burst lie among blocks that
//! live longer. So what they took stays with the process: after a thousand messages at once some 64 MiB to
//! 128 MiB, for as long as it runs. Once it is calm again, all free pages go back.
//!
//! `unsafe` is needed here to call `mallopt` and `malloc_trim`, functions of C that take integers.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

/// Less than that is not worth it: it is needed again soon.
const LEAST: u64 = 32 << 20;
/// It is calm when no more than this part of it was used for so long.
const PART: u64 = 4;
const CALM: Duration = Duration::from_secs(1);
/// So often it is looked whether it is; then what is free goes back all the same.
const LOOKS: usize = 10;

/// How much is in use, and how much was at most since that was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Tide {
    used: AtomicU64,
    high: AtomicU64,
    /// Whether somebody waits until it is calm.
    watched: AtomicBool,
}

impl Tide {
    /// How much is in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// So much more is in use, where that makes no more than `limit`.
    pub(crate) fn rise(&self, octets: u64, limit: u64) -> bool {
        let take = |used: u64| used.checked_add(octets).filter(|&total| total <= limit);
        let Ok(before) = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) else {
            return false;
        };
        let used = before + octets;
        if used > self.high.load(Ordering::Relaxed) {
            self.high.fetch_max(used, Ordering::Relaxed);
        }
        true
    }

    /// So much less is in use: where a burst may be at its end, what it left is given back once it is calm, behind
    /// what `spare` frees. By a thread of its own, since that takes milliseconds.
    pub(crate) fn fall<F: FnOnce() + Send + 'static>(
        self: &Arc<Self>,
        octets: u64,
        spare: impl FnOnce() -> F,
    ) {
        let used = self.used.fetch_sub(octets, Ordering::SeqCst) - octets;
        let high = self.high.load(Ordering::Relaxed);
        if high < LEAST || used > high / PART || self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let (tide, spare) = (Arc::clone(self), spare());
        let watch = move || {
            tide.wait_until_calm(high / PART);
            spare();
            give_back();
            tide.watched.store(false, Ordering::Relaxed);
        };
        // Where there can be no thread, memory is short: the next burst tries again.
        if std::thread::Builder::new().name("guerrilla-trim".to_owned()).spawn(watch).is_err() {
            self.high.store(used, Ordering::Relaxed);
            self.watched.store(false, Ordering::Relaxed);
        }
    }

    fn wait_until_calm(&self, most: u64) {
        for _ in 0..LOOKS {
            self.high.store(self.used(), Ordering::Relaxed);
            std::thread::sleep(CALM);
            if self.high.load(Ordering::Relaxed) <= most {
                return;
            }
        }
    }
}

/// Has buffers of [`LARGE`] octets and more mapped, each by itself. Left to itself glibc puts them into the heap once one
/// was freed, and a buffer that grows, goes to a file and shrinks leaves holes there that no other one fits into: three
/// times `max_memory`, with more large messages than that has room for.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn map_large_buffers() {
    static ONCE: Once = Once::new();
    // Who runs the process may have told the allocator otherwise.
    let is_set = |name| std::env::var_os(name).is_some();
    if is_set("MALLOC_MMAP_THRESHOLD_") || is_set("GLIBC_TUNABLES") {
        return;
    }
    // SAFETY: each sets a word that other threads may read meanwhile, and is right beside either value of the other.
    ONCE.call_once(|| unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        // As it would be with such a threshold of its own: the end of the heap does not come and go.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 * LARGE);
    });
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn map_large_buffers() {}

/// Octets; free buffers of a body are kept up to that size, larger ones only for large bodies.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 256 << 10;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
