//! The queues to Python, and what becomes of each question: waiting → committing → answered.
//!
//! An envelope is *waiting* until a worker claims it, just before a stage stores it. From then on it is
//! *committing*: its deadline answers no longer, until a second `gw_save_timeout` has passed, since the
//! sender of a mail that is being saved would only send it again. The first answer is the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::UnboundedSender;

use crate::buffer::Body;
use crate::smtp::{Address, Reply, Transaction, Verdict};
use crate::stats::Stats;

/// Who is on the other side of a connection.
#[derive(Debug, Default)]
pub struct Client {
    /// The number of the connection, from 1.
    pub id: u64,
    /// `listen_interface` of the server that took it.
    pub server: Arc<str>,
    /// `host_name` of that server.
    pub host_name: Arc<str>,
    /// Its IP address; empty for a unix socket.
    pub remote_ip: String,
    /// Its port.
    pub remote_port: u16,
    /// What TLS was negotiated.
    pub tls: Option<TlsInfo>,
    /// Who it authenticated as.
    pub auth: Option<String>,
}

/// What was negotiated with the peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsInfo {
    /// `TLSv1.3`, say.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// The name the client asked for (SNI).
    pub server_name: Option<String>,
    /// The subject of the client's certificate.
    pub client_subject: Option<String>,
}

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
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            return;
        }
        inner.items.push_back(item);
        // Waking costs a system call: only where someone sleeps.
        let wake = inner.sleepers > 0;
        drop(inner);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Takes up to `max` items if there are any now. `None` when it is closed and empty.
    pub fn try_receive(&self, max: usize) -> Option<Vec<T>> {
        let mut inner = self.lock();
        if inner.items.is_empty() && inner.closed {
            return None;
        }
        let count = max.min(inner.items.len());
        Some(inner.items.drain(..count).collect())
    }

    /// Takes up to `max` items, waiting for the first one at most `timeout`; nothing after that.
    /// `None` when it is closed and empty.
    pub fn receive(&self, max: usize, timeout: Duration) -> Option<Vec<T>> {
        let mut inner = self.lock();
        let deadline = Instant::now().checked_add(timeout);
        while inner.items.is_empty() && !inner.closed {
            let left = deadline
                .map_or(Duration::from_hours(1), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            inner.sleepers += 1;
            inner = self.filled.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            inner.sleepers -= 1;
        }
        if inner.items.is_empty() && inner.closed {
            return None;
        }
        let count = max.min(inner.items.len());
        Some(inner.items.drain(..count).collect())
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

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Wakes tasks of the I/O thread from other threads.
///
/// A task woken directly costs one write to the reactor's descriptor each; through this channel all
/// answers of a batch share one.
pub type Wakes = UnboundedSender<Waker>;

#[derive(Debug)]
enum Phase {
    Waiting,
    Committing,
    Answered(Verdict),
    /// The verdict is with the session.
    Taken,
    /// The deadline answered; `true` when a stage was storing it then.
    Expired(bool),
    /// The peer went away; `true` when a stage was storing it then.
    Gone(bool),
}

#[derive(Debug)]
struct Slot {
    phase: Phase,
    waker: Option<Waker>,
}

/// What a deadline found.
#[derive(Debug)]
pub enum Expiry {
    /// Nobody answered and nobody stores it: the sender is told now.
    Expired,
    /// A stage is storing it: ask again then.
    Extended(Instant),
    /// It was answered meanwhile.
    Answered,
}

/// The answer to one question: given once, from any thread; taken once, by the session.
#[derive(Debug)]
pub struct Pending {
    slot: Mutex<Slot>,
    deadline: Instant,
    grace: Duration,
    wakes: Option<Wakes>,
    stats: Arc<Stats>,
}

impl Pending {
    /// An open question whose deadline is in `patience`; as long again once it is claimed.
    pub fn new(patience: Duration, wakes: Option<Wakes>, stats: Arc<Stats>) -> Self {
        Self {
            slot: Mutex::new(Slot { phase: Phase::Waiting, waker: None }),
            deadline: Instant::now() + patience,
            grace: patience,
            wakes,
            stats,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the deadline first answers.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Gives the answer; `false` when there was one, or nobody left to hear it.
    pub fn answer(&self, verdict: Verdict) -> bool {
        let mut slot = self.lock();
        match slot.phase {
            Phase::Waiting | Phase::Committing => {
                slot.phase = Phase::Answered(verdict);
                let waker = slot.waker.take();
                drop(slot);
                self.wake(waker);
                true
            }
            Phase::Expired(committing) | Phase::Gone(committing) => {
                let gone = matches!(slot.phase, Phase::Gone(_));
                slot.phase = Phase::Taken;
                if committing && verdict.fold().is_success() {
                    if gone { self.stats.answers_lost.add() } else { self.stats.saved_late.add() }
                }
                false
            }
            Phase::Answered(_) | Phase::Taken => false,
        }
    }

    fn wake(&self, waker: Option<Waker>) {
        match (waker, &self.wakes) {
            // The reactor is gone when it does not take it: then there is nothing to wake.
            (Some(task), Some(reactor)) => drop(reactor.send(task)),
            (Some(task), None) => task.wake(),
            (None, _) => {}
        }
    }

    /// Claims it for a stage that stores: `false` when its time is up or its peer is gone.
    pub fn claim(&self) -> bool {
        let mut slot = self.lock();
        let open = self.is_open_in(&slot);
        if open {
            slot.phase = Phase::Committing;
        }
        open
    }

    /// Whether it is worth a worker's while; counts it when its time was up before.
    pub fn is_open(&self) -> bool {
        self.is_open_in(&self.lock())
    }

    fn is_open_in(&self, slot: &Slot) -> bool {
        match slot.phase {
            // Past the deadline the answer is on its way, even where the I/O thread is late.
            Phase::Waiting if Instant::now() < self.deadline => true,
            Phase::Committing => true,
            Phase::Waiting | Phase::Expired(false) => {
                self.stats.expired_before_commit.add();
                false
            }
            _ => false,
        }
    }

    /// Whether its sender has been answered or is gone, or is being told that its time is up.
    pub fn is_over(&self) -> bool {
        match self.lock().phase {
            Phase::Waiting => Instant::now() >= self.deadline,
            Phase::Committing => false,
            _ => true,
        }
    }

    /// Whether the session has its answer, or will not hear one.
    pub fn is_settled(&self) -> bool {
        !matches!(self.lock().phase, Phase::Waiting | Phase::Committing)
    }

    /// The deadline has come.
    pub fn expire(&self) -> Expiry {
        let mut slot = self.lock();
        let last = self.deadline + self.grace;
        match slot.phase {
            Phase::Committing if Instant::now() < last => Expiry::Extended(last),
            Phase::Waiting | Phase::Committing => {
                let committing = matches!(slot.phase, Phase::Committing);
                slot.phase = Phase::Expired(committing);
                Expiry::Expired
            }
            _ => Expiry::Answered,
        }
    }

    /// The peer went away without hearing the answer.
    pub fn peer_gone(&self) {
        let mut slot = self.lock();
        match &slot.phase {
            Phase::Waiting => {
                self.stats.peer_gone.add();
                slot.phase = Phase::Gone(false);
            }
            Phase::Committing => slot.phase = Phase::Gone(true),
            Phase::Answered(verdict) => {
                if verdict.clone().fold().is_success() {
                    self.stats.answers_lost.add();
                }
                slot.phase = Phase::Taken;
            }
            Phase::Taken | Phase::Expired(_) | Phase::Gone(_) => {}
        }
        slot.waker = None;
    }

    /// Takes the answer, or is woken when it comes.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Verdict> {
        let mut slot = self.lock();
        if matches!(slot.phase, Phase::Answered(_))
            && let Phase::Answered(verdict) = std::mem::replace(&mut slot.phase, Phase::Taken)
        {
            return Poll::Ready(verdict);
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            slot.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// A message that waits for its answer.
#[derive(Debug)]
pub struct Delivery {
    /// Who sent it.
    pub client: Arc<Client>,
    /// Its transaction.
    pub transaction: Arc<Transaction>,
    /// Its octets.
    pub body: Body,
    /// Its id.
    pub queued_id: String,
    /// When the final dot came.
    pub received_at: SystemTime,
    /// Octets of its header section that are looked at.
    pub max_header_size: usize,
    /// Its answer.
    pub pending: Pending,
}

impl Delivery {
    /// The default answer: `250 2.0.0 OK: queued as ID`.
    pub fn accepted(&self) -> Reply {
        Reply::made(250, (2, 0, 0), format!("OK: queued as {}", self.queued_id))
    }

    /// Answers it and moves its octets off the budget.
    pub fn answer(&self, verdict: Verdict) -> bool {
        let first = self.pending.answer(verdict);
        self.body.release();
        first
    }
}

/// A recipient that waits for its answer.
#[derive(Debug)]
pub struct Check {
    /// Who asks.
    pub client: Arc<Client>,
    /// The transaction so far.
    pub transaction: Arc<Transaction>,
    /// The recipient.
    pub recipient: Address,
    /// Its answer.
    pub pending: Pending,
}

/// A question in the hands of the Python side; dropped without an answer it answers `451 4.3.0`.
#[derive(Debug)]
pub struct Asked<T: Question>(pub Arc<T>);

/// What [`Asked`] needs of a question.
pub trait Question {
    /// Its answer.
    fn pending(&self) -> &Pending;
    /// Answers it.
    fn settle(&self, verdict: Verdict) -> bool;
}

impl Question for Delivery {
    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn settle(&self, verdict: Verdict) -> bool {
        self.answer(verdict)
    }
}

impl Question for Check {
    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn settle(&self, verdict: Verdict) -> bool {
        self.pending.answer(verdict)
    }
}

impl<T: Question> Drop for Asked<T> {
    fn drop(&mut self) {
        if !self.0.pending().is_settled() {
            self.0.settle(Verdict::All(Reply::save_failed()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pending(patience: Duration) -> Pending {
        Pending::new(patience, None, Arc::new(Stats::default()))
    }

    fn ok() -> Verdict {
        Verdict::All(Reply::new(250, None, "ok").unwrap())
    }

    fn poll(pending: &Pending) -> Poll<Verdict> {
        pending.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_answer_is_the_answer_and_is_taken_once() {
        let asked = pending(Duration::from_mins(1));
        assert!(poll(&asked).is_pending());
        assert!(asked.answer(ok()));
        assert!(!asked.answer(Verdict::All(Reply::save_failed())));
        assert_eq!(poll(&asked), Poll::Ready(ok()));
        assert!(poll(&asked).is_pending());
    }

    #[test]
    fn a_claim_holds_the_deadline_off_once() {
        let asked = pending(Duration::from_millis(20));
        assert!(asked.claim());
        std::thread::sleep(Duration::from_millis(21));
        assert!(matches!(asked.expire(), Expiry::Extended(_)));
        std::thread::sleep(Duration::from_millis(21));
        assert!(matches!(asked.expire(), Expiry::Expired));
        assert!(!asked.answer(ok()));
        assert_eq!(asked.stats.saved_late.get(), 1);
    }

    #[test]
    fn what_expired_or_lost_its_peer_cannot_be_claimed() {
        let asked = pending(Duration::ZERO);
        assert!(!asked.claim());
        assert!(asked.is_over());
        assert!(matches!(asked.expire(), Expiry::Expired));
        let asked = pending(Duration::from_mins(1));
        asked.peer_gone();
        assert!(!asked.claim());
        assert_eq!(asked.stats.peer_gone.get(), 1);
    }

    #[test]
    fn an_answer_that_nobody_hears_is_counted() {
        let asked = pending(Duration::from_mins(1));
        assert!(asked.claim());
        asked.peer_gone();
        assert!(!asked.answer(ok()));
        assert_eq!(asked.stats.answers_lost.get(), 1);
        let asked = pending(Duration::from_mins(1));
        assert!(asked.answer(ok()));
        asked.peer_gone();
        assert_eq!(asked.stats.answers_lost.get(), 1);
    }

    #[test]
    fn a_question_that_is_dropped_is_answered_451() {
        let check = Arc::new(Check {
            client: Arc::default(),
            transaction: Arc::default(),
            recipient: Address::null(),
            pending: pending(Duration::from_mins(1)),
        });
        drop(Asked(Arc::clone(&check)));
        assert_eq!(poll(&check.pending), Poll::Ready(Verdict::All(Reply::save_failed())));
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
        let empty: Queue<u8> = Queue::default();
        assert_eq!(empty.receive(2, Duration::from_millis(1)), Some(vec![]));
    }
}
