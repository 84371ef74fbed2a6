//! The answer to one question: waiting → committing → answered.
//!
//! A message is *waiting* until a worker claims it, just before a stage stores it. From then on it is
//! *committing*: its deadline answers no longer, until a second `gw_save_timeout` has passed, since the
//! sender of a mail that is being saved would only send it again. The first answer is the answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::shared::Part;
use crate::smtp::Verdict;
use crate::stats::{Counter, Stats};

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
    /// Where messages are counted; none for anything else.
    stats: Option<Part<Stats>>,
}

impl Pending {
    /// An open question whose deadline is in `patience`; as long again once it is claimed.
    pub fn new(patience: Duration, wakes: Option<Wakes>, stats: Option<Part<Stats>>) -> Self {
        Self {
            slot: Mutex::new(Slot { phase: Phase::Waiting, waker: None }),
            deadline: Instant::now() + patience,
            grace: patience,
            wakes,
            stats,
        }
    }

    fn count(&self, counter: fn(&Stats) -> &Counter) {
        if let Some(stats) = &self.stats {
            counter(stats).add();
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
                if committing && verdict.best().is_success() {
                    self.count(if gone { |s| &s.answers_lost } else { |s| &s.saved_late });
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
                self.count(|s| &s.expired_before_commit);
                false
            }
            _ => false,
        }
    }

    /// Whether its sender has been answered or is gone, or is being told that its time is up. A save
    /// that has begun is not over because its peer is gone: it may succeed, and is worth waiting for.
    pub fn is_over(&self) -> bool {
        match self.lock().phase {
            Phase::Waiting => Instant::now() >= self.deadline,
            Phase::Committing | Phase::Gone(true) => false,
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
                self.count(|s| &s.peer_gone);
                slot.phase = Phase::Gone(false);
            }
            Phase::Committing => slot.phase = Phase::Gone(true),
            Phase::Answered(verdict) => {
                if verdict.best().is_success() {
                    self.count(|s| &s.answers_lost);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::smtp::Reply;

    fn pending(patience: Duration) -> Pending {
        Pending::new(patience, None, Some(Part::default()))
    }

    fn stats(pending: &Pending) -> &Stats {
        pending.stats.as_ref().unwrap()
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
        let mut asked = pending(Duration::from_mins(1));
        assert!(asked.claim());
        asked.deadline = Instant::now();
        assert!(matches!(asked.expire(), Expiry::Extended(_)));
        asked.grace = Duration::ZERO;
        assert!(matches!(asked.expire(), Expiry::Expired));
        assert!(!asked.answer(ok()));
        assert_eq!(stats(&asked).saved_late.get(), 1);
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
        assert_eq!(stats(&asked).peer_gone.get(), 1);
    }

    #[test]
    fn an_answer_that_nobody_hears_is_counted() {
        let asked = pending(Duration::from_mins(1));
        assert!(asked.claim());
        asked.peer_gone();
        assert!(!asked.is_over());
        assert!(!asked.answer(ok()));
        assert!(asked.is_over());
        assert_eq!(stats(&asked).answers_lost.get(), 1);
        let asked = pending(Duration::from_mins(1));
        assert!(asked.answer(ok()));
        asked.peer_gone();
        assert_eq!(stats(&asked).answers_lost.get(), 1);
    }
}
