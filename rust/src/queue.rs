//! A queue that threads wait for, and tasks fill.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A queue that is waited for by threads, not tasks.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<QueueInner<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct QueueInner<T> {
    items: VecDeque<T>,
    sleepers: usize,
    closed: bool,
}

impl<T> QueueInner<T> {
    /// Up to `max` items; `None` when none is there nor will come.
    fn take(&mut self, max: usize) -> Option<Vec<T>> {
        if self.items.is_empty() && self.closed {
            return None;
        }
        // Those who still sleep are called for what is there, and have their share of it.
        let share = self.items.len().div_ceil(self.sleepers + 1);
        Some(self.items.drain(..max.min(share)).collect())
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let inner = QueueInner { items: VecDeque::new(), sleepers: 0, closed: false };
        Self { inner: Mutex::new(inner), filled: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, QueueInner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item in; a closed queue drops it.
    pub fn push(&self, item: T) {
        drop(self.offer(item));
    }

    /// Puts an item in; a closed queue gives it back.
    pub fn offer(&self, item: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            return Err(item);
        }
        inner.items.push_back(item);
        // Waking costs a system call: only where someone sleeps.
        let wake = inner.sleepers > 0;
        drop(inner);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Puts an item in and wakes nobody: whether someone sleeps, who is to be [called](Self::call) then. A closed
    /// queue drops it.
    #[must_use]
    pub fn put(&self, item: T) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            // Not under the lock: to drop it may lead back here.
            drop(inner);
            return false;
        }
        inner.items.push_back(item);
        inner.sleepers > 0
    }

    /// Wakes as many of those who sleep as there are items.
    pub fn call(&self) {
        let inner = self.lock();
        let called = inner.sleepers.min(inner.items.len());
        drop(inner);
        (0..called).for_each(|_| self.filled.notify_one());
    }

    /// Takes up to `max` items, waiting for the first one at most `timeout`; nothing after that.
    /// `None` when it is closed and empty.
    pub fn receive(&self, max: usize, timeout: Duration) -> Option<Vec<T>> {
        self.receive_while(max, timeout, || true)
    }

    /// The same, but takes nothing and waits no longer where it is not `wanted`: who changes that wakes
    /// those who wait, by [`wake_all`](Self::wake_all).
    pub fn receive_while(
        &self,
        max: usize,
        timeout: Duration,
        wanted: impl Fn() -> bool,
    ) -> Option<Vec<T>> {
        let mut inner = self.lock();
        // Who finds something, or does not wait, has no need of a clock.
        let mut until = None;
        while wanted() && inner.items.is_empty() && !inner.closed && !timeout.is_zero() {
            let now = Instant::now();
            let until = *until.get_or_insert_with(|| now.checked_add(timeout));
            let left =
                until.map_or(Duration::from_hours(1), |until| until.saturating_duration_since(now));
            if left.is_zero() {
                break;
            }
            inner.sleepers += 1;
            inner = self.filled.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            inner.sleepers -= 1;
        }
        if wanted() { inner.take(max) } else { Some(Vec::new()) }
    }

    /// Lets those who wait look whether they are still to.
    pub fn wake_all(&self) {
        drop(self.lock());
        self.filled.notify_all();
    }

    /// What the oldest item tells, if there is one.
    pub fn oldest<R>(&self, tell: impl FnOnce(&T) -> R) -> Option<R> {
        self.lock().items.front().map(tell)
    }

    /// Takes out the first item that `matches`, wherever it stands.
    pub fn remove(&self, matches: impl Fn(&T) -> bool) -> Option<T> {
        let mut inner = self.lock();
        let at = inner.items.iter().position(matches)?;
        inner.items.remove(at)
    }

    /// Takes no more; who waits returns.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Drops what waits: for an end that is not graceful.
    pub fn clear(&self) {
        let dropped = std::mem::take(&mut self.lock().items);
        drop(dropped);
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Who waits for items.
    pub fn sleepers(&self) -> usize {
        self.lock().sleepers
    }

    /// Whether none waits, nor will.
    pub fn has_ended(&self) -> bool {
        let inner = self.lock();
        inner.closed && inner.items.is_empty()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_wanted_any_more_takes_nothing() {
        let queue = std::sync::Arc::new(Queue::default());
        let wanted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let order = std::sync::atomic::Ordering::SeqCst;
        let waiting = std::thread::spawn({
            let (queue, wanted) = (std::sync::Arc::clone(&queue), std::sync::Arc::clone(&wanted));
            move || queue.receive_while(9, Duration::from_mins(1), || wanted.load(order))
        });
        wanted.store(false, order);
        queue.wake_all();
        assert_eq!(waiting.join().ok(), Some(Some(vec![])));
        queue.push(1);
        assert_eq!(queue.receive_while(9, Duration::ZERO, || false), Some(vec![]));
        assert_eq!(queue.receive_while(9, Duration::ZERO, || true), Some(vec![1]));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_then_none() {
        let queue = Queue::default();
        queue.push(1);
        queue.push(2);
        queue.push(3);
        queue.close();
        queue.push(4);
        assert_eq!(queue.receive(2, Duration::ZERO), Some(vec![1, 2]));
        assert_eq!(queue.receive(2, Duration::from_mins(1)), Some(vec![3]));
        assert_eq!(queue.receive(2, Duration::from_mins(1)), None);
        let queue = Queue::default();
        (1..4).for_each(|item| queue.push(item));
        assert_eq!(
            (queue.remove(|item| *item > 1), queue.remove(|item| *item > 3)),
            (Some(2), None)
        );
        assert_eq!(queue.receive(9, Duration::ZERO), Some(vec![1, 3]));
        let empty: Queue<u8> = Queue::default();
        assert_eq!(empty.receive(2, Duration::from_millis(1)), Some(vec![]));
    }
}
