//! What is asked of the allocator of the process: to give back what a burst has left.
//!
//! glibc gives memory back from the end of a heap alone, and the buffers of a burst lie among blocks that
//! live longer. So what they took stays with the process: after a thousand messages at once some 64 MiB to
//! 128 MiB, for as long as it runs. Once it is calm again, all free pages go back.
//!
//! `unsafe` is needed here to call `malloc_trim`, a function of C that takes an integer.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Less than that is not worth it: it is needed again soon.
const LEAST: u64 = 32 << 20;
/// It is calm when no more than this part of it was used for so long.
const PART: u64 = 4;
const CALM: Duration = Duration::from_secs(1);

/// How much is in use, and how much was at most since that was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Tide {
    used: AtomicU64,
    high: AtomicU64,
    /// Whether somebody waits until it is calm.
    watched: AtomicBool,
}

impl Tide {
    /// More is in use.
    pub(crate) fn rise(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        if used > self.high.load(Ordering::Relaxed) {
            self.high.fetch_max(used, Ordering::Relaxed);
        }
    }

    /// Less is in use: where a burst may be at its end, what it left is given back once it is calm. By a
    /// thread of its own, since that takes milliseconds.
    pub(crate) fn fall(self: &Arc<Self>, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let high = self.high.load(Ordering::Relaxed);
        if high < LEAST || used > high / PART || self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let tide = Arc::clone(self);
        let watch = move || {
            tide.wait_until_calm(high / PART);
            give_back();
            tide.watched.store(false, Ordering::Relaxed);
        };
        // Where there can be no thread, memory is short: the next one that falls tries again.
        if std::thread::Builder::new().name("guerrilla-trim".to_owned()).spawn(watch).is_err() {
            self.watched.store(false, Ordering::Relaxed);
        }
    }

    fn wait_until_calm(&self, most: u64) {
        loop {
            self.high.store(self.used.load(Ordering::Relaxed), Ordering::Relaxed);
            std::thread::sleep(CALM);
            if self.high.load(Ordering::Relaxed) <= most {
                return;
            }
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
