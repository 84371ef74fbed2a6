//! Changes of several words that nobody sees half of: a sequence lock.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

/// For who can wait: a change takes microseconds, or as long as its thread has to wait for a core; one whose process has
/// died in the middle never ends.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// Looks without giving others their turn.
const IMPATIENCE: usize = 100;

/// Odd while there is a change.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(super) struct Sequence(AtomicU64);

impl Sequence {
    /// Which change was the last; none while there is one.
    pub(super) fn last(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|number| number.is_multiple_of(2))
    }

    /// Changes something; one at a time.
    pub(super) fn write<T>(&self, change: impl FnOnce() -> T) -> T {
        // One that was left in the middle is over with this one.
        let odd = self.0.load(Ordering::Relaxed) | 1;
        self.0.store(odd, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let changed = change();
        self.0.store(odd.wrapping_add(1), Ordering::SeqCst);
        changed
    }

    /// What was there between two changes, and the number of the former; none where a change does not end.
    pub(super) fn read<T>(&self, patience: Duration, look: impl Fn() -> T) -> Option<(u64, T)> {
        let mut begun = None;
        for turn in 0.. {
            let before = self.0.load(Ordering::SeqCst);
            if before.is_multiple_of(2) {
                let seen = look();
                fence(Ordering::SeqCst);
                if self.0.load(Ordering::SeqCst) == before {
                    return Some((before, seen));
                }
            }
            if turn < IMPATIENCE {
                spin_loop();
            } else if begun.get_or_insert_with(Instant::now).elapsed() < patience {
                std::thread::yield_now();
            } else {
                break;
            }
        }
        None
    }
}
