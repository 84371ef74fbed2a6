//! How an end is told to every task, and how many are left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Two ends: *stopping* lets transactions finish, *closing* ends what is left.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    stopping: AtomicBool,
    closing: AtomicBool,
    changed: Notify,
    open: Mutex<usize>,
    all_closed: Condvar,
}

impl Shutdown {
    /// Sessions in a transaction may finish it; the others end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Everything ends now.
    pub(crate) fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.closing.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Something else has changed: every task looks.
    pub(crate) fn tell(&self) {
        self.changed.notify_waiters();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Resolves at the next change. Make it, then look at the flags, then wait: no change is missed.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Counts a task until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Open {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Open(Arc::clone(self))
    }

    /// Tasks that are left.
    pub(crate) fn open(&self) -> usize {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until no task is left; `false` when some were after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while *open > 0 {
            let left = deadline
                .map_or(Duration::from_hours(1), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            open =
                self.all_closed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// One open task.
#[derive(Debug)]
pub(crate) struct Open(Arc<Shutdown>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open -= 1;
        // Nobody waits before; to wake nobody is a system call as well.
        if *open == 0 && self.0.is_stopping() {
            self.0.all_closed.notify_all();
        }
    }
}
