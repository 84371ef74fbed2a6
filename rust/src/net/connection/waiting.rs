//! What a connection waits for besides its peer: a verdict, memory, the peer's last octets.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::signals::Signals;
use super::{Connection, End, READ};
use crate::backends::{Backend, Spools};
use crate::buffer::Body;
use crate::course::Course;
use crate::delivery::{Check, Delivery, Inlet, Question, Spooling};
use crate::log::Level;
use crate::pending::Expiry;
use crate::server::Shared;
use crate::smtp::{Address, BodyAnswer, Reply, Transaction, Verdict};

/// How long a connection that holds no body waits for memory before it is told 452.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);
/// After a last reply: how long, and how much, the peer's octets are read and dropped. Closing a socket
/// with unread octets in it resets the connection, and the peer would never read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 1 << 20;

/// Checks that wait for a worker. Those of clients that went away wait too, so `max_clients` is no bound.
const LARGEST_CHECK_BACKLOG: usize = 10_000;

impl Connection {
    pub(super) async fn check(
        &mut self,
        signals: &mut Signals<'_, '_>,
        transaction: Arc<Transaction>,
        recipient: Address,
    ) -> Result<(), End> {
        if let Some(reply) = self.known_answer(&transaction, &recipient) {
            self.resume(Verdict::All(reply));
            return Ok(());
        }
        let (shared, backend) = (&self.shared, &self.config.backend);
        let begins = transaction.rcpt_to.is_empty();
        let check = Arc::new(Check {
            client: Arc::clone(&self.client),
            transaction,
            recipient,
            pending: shared.pending_check(backend),
            generation: AtomicU64::new(0),
        });
        shared.stats.checks.add();
        shared.bell.ask(backend, &check);
        let verdict = self.wait_for(signals, check.as_ref()).await?;
        match &verdict {
            Some(verdict) => keep(backend, &check, verdict),
            None => shared.stats.checks_expired.add(),
        }
        let refused = verdict.as_ref().is_some_and(|verdict| !verdict.clone().fold().is_success());
        if begins && refused && backend.is_broken() {
            // Nothing comes of it that could be tried: the next recipient is let in instead.
            backend.saving.give_back(std::time::Instant::now());
        }
        self.resume(verdict.unwrap_or_else(|| Verdict::All(Reply::check_timed_out())));
        Ok(())
    }

    /// The answer about a recipient that needs no worker.
    fn known_answer(&self, transaction: &Transaction, recipient: &Address) -> Option<Reply> {
        let (backend, now) = (&self.config.backend, std::time::Instant::now());
        if !backend.intake_is_open() {
            return Some(Reply::intake_closed());
        }
        let checks = self.config.session.check_recipients;
        let keeps = checks && !backend.limits().cache_ttl.is_zero();
        let kept = keeps.then(|| backend.answers.get(recipient, now)).flatten();
        // A transaction that was let in goes on; its message is refused where nothing has changed. One
        // that begins with a recipient known to be refused would try nothing.
        let begins = transaction.rcpt_to.is_empty();
        let known_bad = kept.as_ref().is_some_and(|reply| !reply.is_success());
        if begins && !known_bad && backend.is_broken() && !backend.lets_in(now) {
            return Some(Reply::backend_down());
        }
        if !checks {
            return Some(Reply::recipient_ok());
        }
        if kept.is_none() && backend.checks.len() >= LARGEST_CHECK_BACKLOG {
            self.shared.stats.checks_expired.add();
            return Some(Reply::check_timed_out());
        }
        kept
    }

    pub(super) async fn deliver(
        &mut self,
        signals: &mut Signals<'_, '_>,
        transaction: Arc<Transaction>,
        body: Body,
    ) -> Result<(), End> {
        let (shared, backend) = (&self.shared, Arc::clone(&self.config.backend));
        let received_at = SystemTime::now();
        let spools = backend.limits().spools;
        let delivery = Arc::new(Delivery {
            client: Arc::clone(&self.client),
            transaction,
            queued_id: shared.ids.next(received_at),
            received_at,
            max_header_size: self.config.session.max_header_size,
            pending: shared.pending_save(&backend),
            course: Course::new(shared.log.is_on(Level::Info)),
            fetched: AtomicBool::new(false),
            // Whatever the settings say now: the chain that takes it may be of those to come.
            spooling: Spooling::Into(Inlet::new(&shared.spool_place, backend.answering())),
            body,
        });
        shared.stats.messages_received.add();
        shared.stats.bytes_received.add_many(delivery.body.as_slice().len() as u64);
        if spools == Spools::AtOnce && shared.spool().is_some() {
            delivery.spool_at_once();
        } else {
            shared.bell.ask(&backend, &delivery);
        }
        let _queued = Queued(&backend, &delivery);
        let verdict = match self.wait_for(signals, delivery.as_ref()).await {
            Ok(verdict) => verdict,
            Err(end) => {
                self.note(&delivery, None);
                return Err(end);
            }
        };
        if verdict.is_none() {
            let id = &delivery.queued_id;
            self.log(Level::Warning, format_args!("{id}: not saved in time, answered 451"));
        }
        if self.shared.faults.are_armed()
            && let Err(end) = self.suffer_saved(signals, &delivery).await
        {
            let is_saved = verdict.is_some_and(|verdict| verdict.best().is_success());
            self.shared.stats.answers_lost.add_many(u64::from(is_saved));
            self.note(&delivery, None);
            return Err(end);
        }
        self.shared.watch_retained();
        let verdict = verdict.unwrap_or_else(|| Verdict::All(Reply::save_timed_out()));
        let best = verdict.best();
        self.shared.count_reply(best);
        self.owed += u32::from(best.is_success());
        self.note(&delivery, Some(&verdict));
        self.resume(verdict);
        Ok(())
    }

    /// The verdict, or nothing when its time was up first.
    pub(super) async fn wait_for(
        &self,
        signals: &mut Signals<'_, '_>,
        question: &impl Question,
    ) -> Result<Option<Verdict>, End> {
        let _forsaken = Forsaken(question);
        let pending = question.pending();
        let mut deadline = Instant::from_std(pending.deadline());
        let mut broken = None;
        poll_fn(|context| {
            if let Poll::Ready(verdict) = pending.poll(context) {
                return Poll::Ready(Ok(Some(verdict)));
            }
            if self.shared.shutdown.is_closing() {
                return Poll::Ready(Err(End::Cut));
            }
            while signals.poll_deadline(context, deadline).is_ready() {
                match pending.expire() {
                    Expiry::Expired => return Poll::Ready(Ok(None)),
                    Expiry::Extended(until) => deadline = Instant::from_std(until),
                    Expiry::Answered => break,
                }
            }
            signals.poll_changed(context);
            if self.poll_broken(context, &mut broken).is_ready() {
                return Poll::Ready(Err(End::Lost(io::ErrorKind::ConnectionReset.into())));
            }
            Poll::Pending
        })
        .await
    }

    /// Ready when the peer reset the connection. A peer that sends more, or only stopped sending, is
    /// still there: then the socket stays readable, and only its error is waited for.
    pub(super) fn poll_broken<'a>(
        &'a self,
        context: &mut Context<'_>,
        waiting: &mut Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    ) -> Poll<()> {
        if waiting.is_none() {
            if self.stream.poll_read_ready(context).is_pending() {
                return Poll::Pending;
            }
            if self.stream.is_broken() {
                return Poll::Ready(());
            }
            *waiting = Some(Box::pin(self.stream.broken()));
        }
        waiting.as_mut().map_or(Poll::Pending, |broken| broken.as_mut().poll(context))
    }

    /// Waits for memory, holding none, and then answers `BeginBody`.
    pub(super) async fn wait_for_memory(
        &mut self,
        signals: &mut Signals<'_, '_>,
        declared: Option<u64>,
    ) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let _waiting = shared.budget.wait();
        let deadline = Instant::now() + MEMORY_PATIENCE;
        loop {
            let freed = shared.memory_freed.notified();
            let mut freed = pin!(freed);
            // Registered before the attempt, so that no release falls between the two.
            freed.as_mut().enable();
            if let Some(answer) = self.body_answer(declared) {
                self.begin_body(answer);
                // No reply comes before a chunk that would give the client its time anew.
                self.deadline = self.next_deadline();
                return Ok(());
            }
            let timed_out = poll_fn(|context| {
                if self.shared.shutdown.is_closing() {
                    return Poll::Ready(Err(End::Cut));
                }
                signals.poll_changed(context);
                if signals.poll_deadline(context, deadline).is_ready() {
                    return Poll::Ready(Ok(true));
                }
                freed.as_mut().poll(context).map(|()| Ok(false))
            })
            .await?;
            if timed_out {
                shared.budget.count_refusal();
                self.session.begin_body(BodyAnswer::Refuse(Reply::no_memory()));
                return Ok(());
            }
        }
    }

    /// Waits until the file has what was read; nothing is read meanwhile. The time is not the client's.
    pub(super) async fn catch_up(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        let began = Instant::now();
        let shared = Arc::clone(&self.shared);
        let patience = self.config.backend.limits().save_timeout;
        let session = &mut self.session;
        let caught_up = wait_for_disk(&shared, patience, signals, |context| {
            session.body().map_or(Poll::Ready(()), |body| body.poll_caught_up(context))
        });
        if !caught_up.await? {
            self.give_up_disk();
            if let Some(body) = self.session.body() {
                body.give_up();
            }
        }
        if let Some(data) = &mut self.data {
            data.began += began.elapsed();
        }
        self.deadline = self.next_deadline();
        if self.is_too_slow() {
            self.time_out("its message comes too slowly");
        }
        Ok(())
    }

    /// Waits until a message can be looked at; what is to be delivered, if it is to be.
    pub(super) async fn finish(
        &mut self,
        signals: &mut Signals<'_, '_>,
        mut body: Body,
    ) -> Result<Option<(Arc<Transaction>, Body)>, End> {
        let shared = Arc::clone(&self.shared);
        let patience = self.config.backend.limits().save_timeout;
        let finished =
            wait_for_disk(&shared, patience, signals, |context| body.poll_finished(context));
        if !finished.await? {
            self.give_up_disk();
            body.give_up();
        }
        let whole = self.session.finish_body(body);
        self.note_refused();
        Ok(whole)
    }

    fn give_up_disk(&self) {
        self.shared.stats.spill_failures.add();
        self.log(Level::Error, format_args!("its file was not written within gw_save_timeout"));
    }

    pub(super) async fn linger(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        self.stream.finish_writing();
        let deadline = Instant::now() + LINGER;
        let mut left = LINGER_OCTETS;
        poll_fn(|context| {
            loop {
                let polled = READ.with_borrow_mut(|buffer| self.stream.poll_read(context, buffer));
                match polled {
                    Poll::Ready(Ok(count)) if count > 0 && count < left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if self.shared.shutdown.is_closing() {
                return Poll::Ready(Err(End::Cut));
            }
            signals.poll_changed(context);
            signals.poll_deadline(context, deadline).map(Ok)
        })
        .await
    }
}

/// Keeps the answer of a check, where answers are kept.
fn keep(backend: &Backend, check: &Check, verdict: &Verdict) {
    let ttl = backend.limits().cache_ttl;
    if !ttl.is_zero() {
        let generation = check.generation.load(Ordering::Relaxed);
        let reply = verdict.clone().fold();
        backend.answers.put(generation, &check.recipient, &reply, ttl, std::time::Instant::now());
    }
}

/// Waits for the thread that writes files; `false` where that hangs.
async fn wait_for_disk(
    shared: &Shared,
    patience: Duration,
    signals: &mut Signals<'_, '_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<bool, End> {
    let deadline = Instant::now() + patience;
    poll_fn(|context| {
        if poll(context).is_ready() {
            return Poll::Ready(Ok(true));
        }
        if shared.shutdown.is_closing() {
            return Poll::Ready(Err(End::Cut));
        }
        signals.poll_changed(context);
        signals.poll_deadline(context, deadline).map(|()| Ok(false))
    })
    .await
}

/// A message in a file that nobody waits for any more does not stay in the queue: of the budget it takes
/// next to nothing, so a queue that nobody empties would fill the disk.
struct Queued<'a>(&'a Backend, &'a Arc<Delivery>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let Self(backend, delivery) = self;
        if delivery.body.is_spilled() && !delivery.fetched.load(Ordering::SeqCst) {
            let found = backend.saves.remove(|asked| Arc::ptr_eq(&asked.0, delivery));
            // It is counted as if a worker had found it.
            if let Some(asked) = found {
                asked.0.fetch();
            }
        }
    }
}

/// Tells a question when nobody waits for its answer any more, on every way out.
struct Forsaken<'a, Q: Question>(&'a Q);

impl<Q: Question> Drop for Forsaken<'_, Q> {
    fn drop(&mut self) {
        self.0.forsake();
    }
}

#[cfg(test)]
mod tests;
