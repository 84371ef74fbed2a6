//! Wakes the workers of backends once for all that came in a turn of the reactor.
//!
//! To wake a worker costs a system call and a switch of threads, and one that is woken for each message takes it
//! alone and sleeps again. So the connection that asks only rings. A task calls the workers; it runs behind all
//! those that were ready when it was rung for: at low load at once, under load when they all have asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backends::{Asking, Backend};
use crate::delivery::{Asked, Question};

/// What the tasks of an I/O thread ring.
#[derive(Debug, Default)]
pub struct Bell {
    /// Whose workers are to be called.
    rung_for: Mutex<Vec<Arc<Backend>>>,
    rung: Notify,
}

impl Bell {
    /// Asks a backend; its workers hear of it once [`call_workers`](Self::call_workers) has its turn.
    pub fn ask<T: Question>(&self, asking: &Asking, question: &Arc<T>) {
        if T::queue(asking).put(Asked(Arc::clone(question))) {
            self.ring(asking);
        }
    }

    fn ring(&self, asking: &Asking) {
        let mut rung_for = self.rung_for();
        if !rung_for.iter().any(|backend| asking.is(backend)) {
            rung_for.push(asking.answering());
            drop(rung_for);
            self.rung.notify_one();
        }
    }

    /// Calls workers whenever it was rung for them, for ever: a task of the I/O thread's own.
    pub async fn call_workers(&self) {
        loop {
            self.rung.notified().await;
            self.rung_for().drain(..).for_each(|backend| backend.call_workers());
        }
    }

    fn rung_for(&self) -> MutexGuard<'_, Vec<Arc<Backend>>> {
        self.rung_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread::{sleep, spawn};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::backends::Limits;
    use crate::delivery::Check;
    use crate::pending::Pending;
    use crate::smtp::Address;

    const LONG: Duration = Duration::from_secs(20);

    fn check() -> Arc<Check> {
        Arc::new(Check {
            client: Arc::default(),
            transaction: Arc::default(),
            recipient: Address::null(),
            pending: Pending::new(LONG, None, None),
            generation: AtomicU64::new(0),
        })
    }

    /// The batches that `workers` take, each one and no more, while `questions` tasks ask in one turn.
    fn batches(workers: usize, questions: usize) -> Vec<usize> {
        let asking = Arc::new(Asking::new("", Limits::default()));
        let take = |backend: Arc<Backend>| move || backend.checks.receive(64, LONG).unwrap().len();
        let waiting: Vec<_> = (0..workers).map(|_| spawn(take(asking.answering()))).collect();
        while asking.checks.sleepers() < workers {
            sleep(Duration::from_millis(1));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bell = Arc::new(Bell::default());
        let ringing = Arc::clone(&bell);
        let began = Instant::now();
        // What is spawned within is ready in this order, as connections of a turn are. All others are behind it
        // when it begins to wait, and have had their turn when it goes on.
        runtime.block_on(async {
            tokio::spawn(async move { ringing.call_workers().await });
            for _ in 0..questions {
                let (bell, asking) = (Arc::clone(&bell), Arc::clone(&asking));
                tokio::spawn(async move { bell.ask(&asking, &check()) });
            }
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
        let mut taken: Vec<_> = waiting.into_iter().map(|worker| worker.join().unwrap()).collect();
        taken.sort_unstable();
        assert!(began.elapsed() < LONG, "nobody was called");
        taken
    }

    #[test]
    fn what_is_asked_in_one_turn_is_one_batch() {
        assert_eq!(batches(1, 1), [1]);
        assert_eq!(batches(1, 12), [12]);
    }

    #[test]
    fn several_workers_share_what_is_asked_in_one_turn() {
        assert_eq!(batches(4, 12), [3, 3, 3, 3]);
        assert_eq!(batches(2, 3), [1, 2]);
    }
}
