//! A run: its plan, its threads, its figures.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::client::Script;
use super::lane::Lane;
use super::mails::Mails;
use super::sender::Sender;
use super::tally::{Failure, Tally};
use super::tickets::Tickets;
use super::trust;

/// Where the messages go.
#[derive(Debug)]
pub enum Target {
    /// The first of these where somebody listens.
    Tcp(Vec<SocketAddr>),
    /// A unix socket.
    Unix(PathBuf),
}

/// TLS of every connection.
#[derive(Debug)]
pub struct Tls {
    /// By STARTTLS, or from the first octet on.
    pub(super) start: bool,
    pub(super) settings: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    /// TLS to a host; with authorities, in PEM, its certificate is verified by them. Says what is wrong
    /// with these.
    pub fn new(start: bool, host: &str, authorities: Option<&[u8]>) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        Ok(Self { start, settings: trust::settings(authorities)?, name })
    }

    /// Whether it begins by STARTTLS.
    pub fn is_started(&self) -> bool {
        self.start
    }
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// Where the messages go.
    pub target: Target,
    /// In plaintext without it.
    pub tls: Option<Tls>,
    /// What is said.
    pub script: Arc<Script>,
    /// What is sent.
    pub mails: Mails,
    /// Connections at a time.
    pub connections: usize,
    /// Messages over one connection. 0: all there are.
    pub per_connection: u64,
    /// Messages in all.
    pub messages: u64,
    /// Messages a second; without one, as many as the target answers.
    pub rate: Option<f64>,
    /// No message begins later than this after the first.
    pub duration: Duration,
    /// How long anything is waited for.
    pub patience: Duration,
    /// Threads that send.
    pub threads: usize,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Sending,
    /// Without a connection there is nothing to send over.
    Unopened,
    Stopped,
}

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All messages were sent.
    Done,
    /// The time was over.
    Duration,
    /// No connection could be opened at the start.
    Unopened,
    /// Connections could not be opened any more.
    GaveUp,
    /// It was stopped.
    Stopped,
}

impl End {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duration => "duration",
            Self::Unopened => "unopened",
            Self::GaveUp => "gave-up",
            Self::Stopped => "stopped",
        }
    }
}

/// What there is to tell, at the end or on the way there.
#[derive(Debug)]
pub struct Figures {
    /// What was counted.
    pub tally: Tally,
    /// Seconds from the start to the last message; while it runs, to now.
    pub elapsed: Duration,
    /// Messages that were due, at a rate, and were not begun: no connection was free for them.
    pub unsent: u64,
    /// Why it has ended; none while it runs.
    pub end: Option<End>,
}

/// What all threads share.
pub(super) struct Run {
    plan: Plan,
    phase: watch::Sender<Phase>,
    tickets: OnceLock<Tickets>,
    /// Senders that have not yet tried to open their first connection, and those that have one.
    unopened: AtomicUsize,
    opened: AtomicUsize,
    /// Threads that run.
    threads: Mutex<usize>,
    ended: Condvar,
}

impl Run {
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits for as long as there is patience, and never beyond the last moment of the run.
    pub(super) async fn within<T>(
        &self,
        wait: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let now = Instant::now();
        let last = self.tickets.get().map(|tickets| tickets.end() + self.plan.patience);
        let deadline = last.into_iter().fold(now + self.plan.patience, Instant::min);
        let waited = timeout_at(deadline.into(), wait).await;
        waited.unwrap_or_else(|_| Err(Failure::stalled(deadline.saturating_duration_since(now))))
    }

    /// Waits until every sender has tried to open a connection; then the clock runs. None where that
    /// led nowhere.
    pub(super) async fn begun(&self) -> Option<&Tickets> {
        let mut phase = self.phase.subscribe();
        let phase = *phase.wait_for(|phase| *phase != Phase::Opening).await.ok()?;
        if phase == Phase::Sending { self.tickets.get() } else { None }
    }

    /// One sender opens its first connection until this is dropped.
    pub(super) fn opening(&self) -> Opening<'_> {
        Opening { run: self, is_open: false }
    }

    async fn stopped(&self) {
        let mut phase = self.phase.subscribe();
        // The sender is ours: it cannot be gone.
        let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
    }

    fn begin(&self) {
        let plan = &self.plan;
        self.phase.send_if_modified(|phase| {
            if *phase != Phase::Opening {
                return false;
            }
            *phase = if self.opened.load(Ordering::SeqCst) == 0 {
                Phase::Unopened
            } else {
                let start = Instant::now();
                self.tickets
                    .get_or_init(|| Tickets::new(plan.messages, plan.rate, start, plan.duration));
                Phase::Sending
            };
            true
        });
    }
}

/// Counts a sender as one that has tried, however that ends.
pub(super) struct Opening<'a> {
    run: &'a Run,
    pub(super) is_open: bool,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.run.opened.fetch_add(usize::from(self.is_open), Ordering::SeqCst);
        if self.run.unopened.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.run.begin();
        }
    }
}

/// A run, which goes on in threads of its own until it ends or is stopped; dropped, it is stopped.
pub struct Load {
    run: Arc<Run>,
    lanes: Vec<Arc<Lane>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Starts to send.
    pub fn start(plan: Plan) -> io::Result<Self> {
        let connections = plan.connections.max(1);
        let count = plan.threads.clamp(1, connections);
        let runtimes: Vec<(Runtime, Arc<Lane>)> =
            (0..count).map(|_| runtime()).collect::<io::Result<_>>()?;
        let run = Arc::new(Run {
            plan,
            phase: watch::Sender::new(Phase::Opening),
            tickets: OnceLock::new(),
            unopened: AtomicUsize::new(connections),
            opened: AtomicUsize::new(0),
            threads: Mutex::new(count),
            ended: Condvar::new(),
        });
        let lanes = runtimes.iter().map(|(_, lane)| Arc::clone(lane)).collect();
        let mut load = Self { run, lanes, threads: Mutex::default() };
        for (index, (runtime, lane)) in runtimes.into_iter().enumerate() {
            let share = connections / count + usize::from(index < connections % count);
            load.spawn(runtime, lane, share)?;
        }
        Ok(load)
    }

    fn spawn(&mut self, runtime: Runtime, lane: Arc<Lane>, connections: usize) -> io::Result<()> {
        let running = Running(Arc::clone(&self.run));
        let builder = thread::Builder::new().name("guerrilla-bench".to_owned());
        let thread = builder.spawn(move || {
            runtime.block_on(send(&running.0, &lane, connections));
            // Tasks end with it, and they with their sockets.
            drop(runtime);
        })?;
        self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits until it has ended, for so long at most; whether it has.
    pub fn wait(&self, patience: Duration) -> bool {
        let threads = self.run.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.run.ended.wait_timeout_while(threads, patience, |left| *left > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }

    /// Ends it now; messages that are on their way stay without an end.
    pub fn stop(&self) {
        if !self.wait(Duration::ZERO) {
            self.run.phase.send_replace(Phase::Stopped);
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    /// What there is to tell.
    pub fn figures(&self) -> Figures {
        let has_ended = self.wait(Duration::ZERO);
        let mut tally = Tally::default();
        for lane in &self.lanes {
            tally.merge(&lane.tally());
        }
        let now = Instant::now();
        let tickets = self.run.tickets.get();
        let until = if has_ended { tally.last.unwrap_or(now) } else { now };
        let elapsed = tickets.map(|tickets| until.saturating_duration_since(tickets.start()));
        let end = has_ended.then(|| self.end(&tally));
        // One that ran to its end could have sent all that was due by then.
        let due = if end == Some(End::Stopped) { until } else { now };
        let due = tickets.map_or(0, |tickets| tickets.due_by(due));
        let unsent = due.saturating_sub(tally.begun);
        Figures { tally, elapsed: elapsed.unwrap_or_default(), unsent, end }
    }

    fn end(&self, tally: &Tally) -> End {
        match (*self.run.phase.borrow(), self.run.tickets.get()) {
            (Phase::Stopped, _) => End::Stopped,
            (_, None) => End::Unopened,
            _ if tally.begun >= self.run.plan.messages => End::Done,
            (_, Some(tickets)) if Instant::now() >= tickets.end() => End::Duration,
            // At a rate nobody waits for what would be due after the end.
            (_, Some(tickets))
                if tickets.is_paced() && tally.begun >= tickets.due_by(tickets.end()) =>
            {
                End::Duration
            }
            _ => End::GaveUp,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A thread that runs, until this is dropped.
struct Running(Arc<Run>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

fn runtime() -> io::Result<(Runtime, Arc<Lane>)> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let timer = {
        let _within = runtime.enter();
        Lane::timer()?
    };
    Ok((runtime, Arc::new(Lane::new(timer))))
}

/// What a thread does: its senders, until they have ended or are stopped.
async fn send(run: &Arc<Run>, lane: &Arc<Lane>, connections: usize) {
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        senders.spawn(Sender::new(Arc::clone(run), Arc::clone(lane)).work());
    }
    let all = async { while senders.join_next().await.is_some() {} };
    let (mut all, mut stopped) = (pin!(all), pin!(run.stopped()));
    poll_fn(|context| {
        let has_ended =
            stopped.as_mut().poll(context).is_ready() || all.as_mut().poll(context).is_ready();
        if has_ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
