//! One connection: the loop over its session's steps, and what each step waits for.
//!
//! The driver owns every deadline and every octet on its way. Between two reads it holds no buffer:
//! all connections read into one of the thread's, borrowed only while one of them is polled.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep, sleep_until};

use super::listener::Place;
use super::shutdown::Shutdown;
use super::stream::Stream;
use crate::buffer::Body;
use crate::config::ServerConfig;
use crate::delivery::{Asked, Check, Client, Delivery, Expiry, Pending};
use crate::log::Level;
use crate::mail::delivery_header::rfc5322_date;
use crate::server::Shared;
use crate::smtp::{Address, BodyAnswer, Reply, Session, Step, Transaction, Verdict};

/// One read; large enough that a 100 KiB mail takes two.
const READ_BUFFER: usize = 64 << 10;
/// How long a connection that holds no body waits for memory before it is told 452.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);
/// A slow sender has this long before its mean rate is looked at.
const RATE_GRACE: Duration = Duration::from_mins(1);
/// After a last reply: how long, and how much, the peer's octets are read and dropped. Closing a socket
/// with unread octets in it resets the connection, and the peer would never read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 1 << 20;

/// Reads of one connection before the others have their turn.
const READS_A_TURN: usize = 16;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into_boxed_slice());
}

/// Serves one connection to its end. A panic in it ends it alone, with 421.
///
/// Boxed, because a future keeps what it is given twice: as its argument and as its variable.
pub(super) async fn run(mut connection: Box<Connection>) {
    let outcome = {
        let mut serving = pin!(connection.serve());
        poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        })
        .await
    };
    if outcome.is_none() {
        connection.panicked();
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The session said so.
    Closed,
    /// The peer closed, or the connection broke.
    Lost(io::Error),
    /// The core closes everything.
    Cut,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

pub(super) struct Connection {
    stream: Stream,
    session: Session,
    client: Arc<Client>,
    config: Arc<ServerConfig>,
    shared: Arc<Shared>,
    /// Octets read and not consumed, because a question came up before them.
    unread: Vec<u8>,
    /// When the peer must have sent a whole command, or its next octets of a message.
    deadline: Instant,
    /// The message that is being received.
    data: Option<Data>,
    /// Messages answered 2xx whose answer has not been sent yet.
    owed: u64,
    _place: Place,
}

/// How a message comes in.
#[derive(Clone, Copy, Debug)]
struct Data {
    began: Instant,
    octets: u64,
}

/// The timer and the word of a shutdown, both pinned beside the connection.
struct Signals<'p, 's> {
    timer: Pin<&'p mut Sleep>,
    changed: Pin<&'p mut Notified<'s>>,
    shutdown: &'s Shutdown,
}

impl Signals<'_, '_> {
    /// Ready once `deadline` has passed. The timer is moved only when it fires, not at each command:
    /// moving it costs more than the command.
    fn poll_deadline(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Polls the task again when a shutdown says its next word.
    fn poll_changed(&mut self, context: &mut Context<'_>) {
        if self.changed.as_mut().poll(context).is_ready() {
            self.changed.set(self.shutdown.changed());
            context.waker().wake_by_ref();
        }
    }
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        client: Client,
        config: Arc<ServerConfig>,
        shared: Arc<Shared>,
        place: Place,
    ) -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let greeting = format!(
            "SMTP Guerrilla({}) #{} ({}) {}",
            env!("CARGO_PKG_VERSION"),
            client.id,
            place.active(),
            rfc5322_date(now),
        );
        let session = Session::new(Arc::clone(&config.session), &greeting);
        let deadline = Instant::now() + config.timeout;
        let client = Arc::new(client);
        Self {
            stream,
            session,
            client,
            config,
            shared,
            unread: Vec::new(),
            deadline,
            data: None,
            owed: 0,
            _place: place,
        }
    }

    async fn serve(&mut self) {
        let shared = Arc::clone(&self.shared);
        let shutdown = shared.shutdown.as_ref();
        let changed = pin!(shutdown.changed());
        let timer = pin!(sleep_until(self.deadline));
        let mut signals = Signals { timer, changed, shutdown };
        self.log(Level::Debug, format_args!("connected"));
        let end = match self.converse(&mut signals).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        };
        match &end {
            End::Closed => self.log(Level::Debug, format_args!("closed")),
            End::Lost(error) => self.log(Level::Debug, format_args!("lost: {error}")),
            End::Cut => self.log(Level::Warning, format_args!("cut off by the shutdown")),
        }
    }

    async fn converse(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        self.flush(signals).await?;
        loop {
            let step = poll_fn(|context| self.poll_step(context, signals)).await?;
            self.flush(signals).await?;
            match step {
                Step::NeedInput => {}
                Step::CheckRecipient(transaction, recipient) => {
                    self.check(signals, transaction, recipient).await?;
                }
                Step::BeginBody { declared } => self.wait_for_memory(signals, declared).await?,
                Step::Deliver(transaction, body) => {
                    self.deliver(signals, transaction, body).await?;
                }
                Step::Close if self.session.said_bye() => return Ok(()),
                Step::Close => return self.linger(signals).await,
            }
            if self.unread.is_empty() {
                self.flush(signals).await?;
            }
        }
    }

    /// The session's next step: out of what is left unread, else out of the socket.
    fn poll_step(
        &mut self,
        context: &mut Context<'_>,
        signals: &mut Signals<'_, '_>,
    ) -> Poll<Result<Step, End>> {
        if self.shared.shutdown.is_closing() {
            return Poll::Ready(Err(End::Cut));
        }
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            let step = self.consume(&unread);
            return Poll::Ready(Ok(step));
        }
        if self.shared.shutdown.is_stopping() && !self.session.in_transaction() {
            self.session.end(&Reply::shutting_down());
            return Poll::Ready(Ok(Step::Close));
        }
        for _ in 0..READS_A_TURN {
            let polled = READ.with_borrow_mut(|buffer| {
                let count = std::task::ready!(self.stream.poll_read(context, buffer))?;
                let octets = buffer.get(..count).unwrap_or(&[]);
                if octets.is_empty() {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
                }
                Poll::Ready(Ok(self.consume(octets)))
            });
            match polled {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Lost(error))),
                Poll::Ready(Ok(Step::NeedInput)) if !self.session.has_output() => {
                    if self.is_too_slow() {
                        return Poll::Ready(Ok(self.time_out("its message comes too slowly")));
                    }
                }
                Poll::Ready(Ok(step)) => return Poll::Ready(Ok(step)),
                Poll::Pending => {
                    if signals.poll_deadline(context, self.deadline).is_ready() {
                        return Poll::Ready(Ok(self.time_out("nothing came in time")));
                    }
                    signals.poll_changed(context);
                    return Poll::Pending;
                }
            }
        }
        // A sender that is always ready must not keep the others waiting.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives octets to the session; bodies are begun at once where there is memory.
    fn consume(&mut self, octets: &[u8]) -> Step {
        let mut input = octets;
        loop {
            let step = self.session.step(&mut input);
            if let Step::BeginBody { declared } = step
                && let Some(answer) = self.body_answer(declared)
            {
                self.begin_body(answer);
                continue;
            }
            self.after_data_read(octets.len());
            self.unread = input.to_vec();
            return step;
        }
    }

    /// The answer to `BeginBody` that can be given at once; none when memory must be waited for.
    fn body_answer(&self, declared: Option<u64>) -> Option<BodyAnswer> {
        if !self.shared.intake_is_open() {
            return Some(BodyAnswer::Refuse(Reply::intake_closed()));
        }
        Body::take(&self.shared.budget, declared, self.config.session.max_size)
            .map(BodyAnswer::Begin)
    }

    fn begin_body(&mut self, answer: BodyAnswer) {
        if matches!(answer, BodyAnswer::Begin(_)) {
            self.data = Some(Data { began: Instant::now(), octets: 0 });
        }
        self.session.begin_body(answer);
    }

    fn after_data_read(&mut self, octets: usize) {
        let Some(data) = &mut self.data else { return };
        if !self.session.in_data() {
            self.data = None;
            return;
        }
        data.octets += octets as u64;
        self.deadline = Instant::now() + self.config.timeout;
        if !self.config.data_timeout.is_zero() {
            self.deadline = self.deadline.min(data.began + self.config.data_timeout);
        }
    }

    /// Over `data_timeout`, or a mean rate under `min_data_rate` after the first minute.
    ///
    /// Looked at behind each read: octets that keep coming keep the deadline from firing.
    fn is_too_slow(&self) -> bool {
        let Some(Data { began, octets }) = self.data else { return false };
        let elapsed = began.elapsed();
        let limit = self.config.data_timeout;
        let least = self.config.min_data_rate.saturating_mul(elapsed.as_secs());
        (!limit.is_zero() && elapsed >= limit) || (elapsed > RATE_GRACE && octets < least)
    }

    fn time_out(&mut self, why: &str) -> Step {
        self.shared.stats.timeouts.add();
        self.log(Level::Info, format_args!("timeout: {why}"));
        self.session.end(&Reply::timed_out());
        Step::Close
    }

    /// Sends what the session wrote. A peer that does not read has `timeout`.
    async fn flush(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        if !self.session.has_output() {
            return Ok(());
        }
        let output = self.session.take_output();
        let sent = self.send(signals, &output).await;
        let owed = std::mem::take(&mut self.owed);
        if sent.is_err() {
            self.shared.stats.answers_lost.add_many(owed);
        }
        sent
    }

    async fn send(&mut self, signals: &mut Signals<'_, '_>, output: &[u8]) -> Result<(), End> {
        let mut rest = output;
        let deadline = Instant::now() + self.config.timeout;
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| {
                        if self.shared.shutdown.is_closing() {
                            return Poll::Ready(Err(End::Cut));
                        }
                        if signals.poll_deadline(context, deadline).is_ready() {
                            self.shared.stats.timeouts.add();
                            return Poll::Ready(Err(End::Lost(io::ErrorKind::TimedOut.into())));
                        }
                        self.stream.poll_write_ready(context).map_err(End::Lost)
                    })
                    .await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // A command must be complete within `timeout` of the last reply.
        self.deadline = deadline;
        Ok(())
    }

    async fn check(
        &mut self,
        signals: &mut Signals<'_, '_>,
        transaction: Arc<Transaction>,
        recipient: Address,
    ) -> Result<(), End> {
        let shared = &self.shared;
        let check = Arc::new(Check {
            client: Arc::clone(&self.client),
            transaction,
            recipient,
            pending: shared.pending(shared.config.load().check_timeout),
        });
        shared.stats.checks.add();
        shared.checks.push(Asked(Arc::clone(&check)));
        let verdict = self.wait_for(signals, &check.pending).await?;
        if verdict.is_none() {
            self.shared.stats.checks_expired.add();
        }
        self.session.resume(verdict.unwrap_or_else(|| Verdict::All(Reply::check_timed_out())));
        Ok(())
    }

    async fn deliver(
        &mut self,
        signals: &mut Signals<'_, '_>,
        transaction: Arc<Transaction>,
        body: Body,
    ) -> Result<(), End> {
        let shared = &self.shared;
        let received_at = SystemTime::now();
        let delivery = Arc::new(Delivery {
            client: Arc::clone(&self.client),
            transaction,
            queued_id: shared.ids.next(received_at),
            received_at,
            max_header_size: self.config.session.max_header_size,
            pending: shared.pending(shared.config.load().save_timeout),
            body,
        });
        shared.stats.messages_received.add();
        shared.stats.bytes_received.add_many(delivery.body.as_slice().len() as u64);
        shared.saves.push(Asked(Arc::clone(&delivery)));
        let verdict = self.wait_for(signals, &delivery.pending).await?;
        if verdict.is_none() {
            self.expired(&delivery);
        }
        self.shared.watch_retained();
        let reply = verdict.map_or_else(Reply::save_timed_out, Verdict::fold);
        self.shared.count_reply(&reply);
        self.owed += u64::from(reply.is_success());
        self.session.resume(Verdict::All(reply));
        Ok(())
    }

    fn expired(&self, delivery: &Delivery) {
        delivery.body.release();
        self.log(
            Level::Warning,
            format_args!("{}: not saved within gw_save_timeout, answered 451", delivery.queued_id),
        );
    }

    /// The verdict, or nothing when its time was up first.
    async fn wait_for(
        &self,
        signals: &mut Signals<'_, '_>,
        pending: &Pending,
    ) -> Result<Option<Verdict>, End> {
        let _abandoned = Abandoned(pending);
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
    fn poll_broken<'a>(
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
    async fn wait_for_memory(
        &mut self,
        signals: &mut Signals<'_, '_>,
        declared: Option<u64>,
    ) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let _waiter = Waiter::new(&shared);
        let deadline = Instant::now() + MEMORY_PATIENCE;
        loop {
            let freed = shared.memory_freed.notified();
            let mut freed = pin!(freed);
            // Registered before the attempt, so that no release falls between the two.
            freed.as_mut().enable();
            if let Some(answer) = self.body_answer(declared) {
                self.begin_body(answer);
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
                shared.stats.refused_for_memory.add();
                self.session.begin_body(BodyAnswer::Refuse(Reply::no_memory()));
                return Ok(());
            }
        }
    }

    async fn linger(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
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
            signals.poll_deadline(context, deadline).map(Ok)
        })
        .await
    }

    fn panicked(&mut self) {
        self.shared.stats.panics.add();
        self.log(Level::Error, format_args!("a panic ended this connection: this is a bug"));
        let mut reply = Vec::new();
        Reply::internal_error().write_to(&mut reply);
        // The connection ends either way.
        let _ = self.stream.try_write(&reply);
    }

    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        if self.shared.log.is_on(level) {
            let Client { id, server, remote_ip, remote_port, .. } = self.client.as_ref();
            let peer = if remote_ip.is_empty() { "local" } else { remote_ip };
            self.shared.log.write(
                level,
                "net",
                format_args!("#{id} {server} {peer}:{remote_port} {message}"),
            );
        }
    }
}

/// Tells a question that nobody hears its answer, unless it was taken.
struct Abandoned<'a>(&'a Pending);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.0.peer_gone();
    }
}

/// Counts a connection that waits for memory.
struct Waiter<'a>(&'a Shared);

impl<'a> Waiter<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.budget.waiter(1);
        Self(shared)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.budget.waiter(-1);
    }
}
