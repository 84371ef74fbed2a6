//! A running core: bound listeners, one I/O thread; bind, start and stop.

mod shared;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::{CoreConfig, ListenAddress, ServerConfig};
use crate::log::{Level, Log};
use crate::net::{Bound, Failures, Inherited, Listeners, bind_all, turns};
use crate::shared::Tenant;
use crate::spool::Spool;

pub use self::shared::Shared;

/// Wakes handed over at once.
const WAKES_A_TURN: usize = 256;

/// How long sessions have for their last word when everything is closed.
const LAST_WORD: Duration = Duration::from_millis(250);

/// How long the spool has for its last commit.
const SPOOL_PATIENCE: Duration = Duration::from_secs(10);

/// A core: made, bound, then started once, then stopped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    state: Mutex<State>,
    inherited: Mutex<Inherited>,
}

#[derive(Debug)]
enum State {
    Made(UnboundedReceiver<Waker>),
    /// The kernel queues connections; nobody takes them yet.
    Bound(UnboundedReceiver<Waker>, Vec<(Bound, ServerConfig)>),
    Running(JoinHandle<()>, Listeners),
    Ended,
}

/// Why a core did not bind or start.
#[derive(Debug)]
pub enum StartError {
    /// It was bound or started before.
    Again,
    /// It is started before it is bound.
    Unbound,
    /// These servers could not be bound: name and reason each.
    Bind(Vec<(String, io::Error)>),
    /// The runtime or its thread could not be made.
    Runtime(io::Error),
}

impl Server {
    /// A core with these settings; nothing is bound yet. An error: there is no memory for what it counts.
    pub fn new(config: CoreConfig) -> io::Result<Self> {
        Ok(Self::with_tenant(config, Tenant::alone()?))
    }

    /// The same, that counts with other processes.
    pub fn with_tenant(config: CoreConfig, tenant: Tenant) -> Self {
        crate::allocator::map_large_buffers();
        let (wakes, woken) = unbounded_channel();
        let shared = Shared::new(config, tenant, wakes);
        Self {
            shared: Arc::new(shared),
            state: Mutex::new(State::Made(woken)),
            inherited: Mutex::default(),
        }
    }

    /// What its tasks and workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sockets that somebody else has bound to addresses of the settings: the next [`Self::bind`] or
    /// [`Self::reload`] that has a server there serves them. All of them, or none where one does not fit. What is
    /// `kept` is closed here without a word: somebody else goes on with it, and with who waits in its queue.
    pub fn inherit(
        &self,
        sockets: Vec<(ListenAddress, OwnedFd)>,
        kept: bool,
    ) -> Result<(), (ListenAddress, io::Error)> {
        let adopted = adopt(sockets, kept)?;
        let mut inherited = self.inherited();
        for (address, bound) in adopted {
            inherited.add(address, bound);
        }
        Ok(())
    }

    /// Serves sockets of another process, which does not do so now, beside its own, until the next call or
    /// [`Self::reload`]; those of an earlier call no more. As [`Self::inherit`] for what does not fit; `false` when it
    /// does not run.
    pub fn serve_also(
        &self,
        sockets: Vec<(ListenAddress, OwnedFd)>,
    ) -> Result<bool, (ListenAddress, io::Error)> {
        let mut lent = Inherited::default();
        for (address, bound) in adopt(sockets, true)? {
            lent.add(address, bound);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &mut *state else { return Ok(false) };
        listeners.serve_also(lent, &self.shared.config.load().servers);
        Ok(true)
    }

    /// Closes the sockets that no server has asked for; their addresses.
    pub fn drop_inherited(&self) -> Vec<ListenAddress> {
        self.inherited().clear()
    }

    /// The sockets that are served, once more, to be handed over; none when it does not run.
    pub fn sockets(&self) -> Vec<(ListenAddress, OwnedFd)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &*state else { return Vec::new() };
        listeners.sockets(&self.shared.config.load().servers)
    }

    /// The files of unix sockets that were ours stay at the end; their addresses.
    pub fn leave_files(&self) -> Vec<ListenAddress> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &*state else { return Vec::new() };
        listeners.leave_files()
    }

    /// The files of unix sockets that are served are ours from now on: removed at the end.
    pub fn own_files(&self, addresses: &[ListenAddress]) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(_, listeners) = &*state {
            listeners.own_files(addresses);
        }
    }

    /// Binds every server, and gives the bound addresses. Nobody is served before [`Self::start`]:
    /// what a low port needs the privileges for is done by then, and they can be dropped between.
    pub fn bind(&self) -> Result<Vec<String>, StartError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Made(_)) {
            return Err(StartError::Again);
        }
        let config = self.shared.config.load();
        let (bound, failures) = bind_all(&config.servers, &mut self.inherited(), Bound::bind);
        if !failures.is_empty() {
            return Err(StartError::Bind(failures));
        }
        let mut addresses: Vec<String> =
            bound.iter().map(|(listener, _)| listener.address()).collect();
        // Several sockets of one address.
        addresses.dedup();
        if let State::Made(woken) = std::mem::replace(&mut *state, State::Ended) {
            *state = State::Bound(woken, bound);
        }
        Ok(addresses)
    }

    /// Serves what is bound, on a thread of its own.
    pub fn start(&self) -> Result<(), StartError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (woken, bound) = match std::mem::replace(&mut *state, State::Ended) {
            State::Bound(woken, bound) => (woken, bound),
            other => {
                let unbound = matches!(other, State::Made(_));
                *state = other;
                return Err(if unbound { StartError::Unbound } else { StartError::Again });
            }
        };
        let runtime = turns::runtime().map_err(StartError::Runtime)?;
        let mut listeners = Listeners::new(runtime.handle().clone(), Arc::clone(&self.shared));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("guerrilla-io".to_owned())
            .spawn(move || run(&runtime, &shared, woken))
            .map_err(StartError::Runtime)?;
        listeners.serve(bound);
        *state = State::Running(thread, listeners);
        Ok(())
    }

    /// Obeys another config from now on: see [`Listeners::reload`] for the servers. Gives those that could
    /// not be bound, and why; the rest is in force then. `None` when it does not run.
    pub fn reload(&self, config: CoreConfig) -> Option<Failures> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &mut *state else { return None };
        let shared = &self.shared;
        shared.obey(&config);
        let failures = listeners.reload(&config.servers, &mut self.inherited());
        shared.log.set_level(config.log_level);
        shared.budget.set_limit(config.max_memory);
        shared.budget.set_spill_size(config.spill_size);
        shared.config.store(config);
        // There may be more of it now.
        shared.memory_freed.notify_waiters();
        Some(failures)
    }

    /// The addresses that are listened on, in the order of the servers; none when it does not run.
    pub fn addresses(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &*state else { return Vec::new() };
        listeners.addresses(&self.shared.config.load().servers)
    }

    /// The same by the name of each server; none when it does not run.
    pub fn addresses_by_server(&self) -> Vec<(String, Vec<String>)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &*state else { return Vec::new() };
        listeners.addresses_by_server(&self.shared.config.load().servers)
    }

    /// How many connections each server has.
    pub fn clients(&self) -> Vec<(String, usize)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(_, listeners) = &*state else { return Vec::new() };
        listeners.clients()
    }

    /// Reads the TLS files of every server again: for each whose files changed its name, and why it stays
    /// with what it has, if it does.
    pub fn reload_tls(&self) -> Vec<(String, Option<String>)> {
        let config = self.shared.config.load();
        let mut seen = HashSet::new();
        let mut changed = Vec::new();
        for server in &config.servers {
            let Some(tls) = server.tls.as_ref().filter(|_| seen.insert(&server.name)) else {
                continue;
            };
            match tls.context.reload() {
                Ok(false) => {}
                Ok(true) => changed.push((server.name.clone(), None)),
                Err(problems) => {
                    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    changed.push((server.name.clone(), Some(problems.join("; "))));
                }
            }
        }
        changed
    }

    /// Closes the listeners, tells idle sessions 421, lets transactions finish. Blocks; `false` when
    /// sessions were left after `timeout`.
    pub fn stop(&self, timeout: Duration) -> bool {
        if let Some(spool) = self.shared.spool() {
            // Nobody waits for what is spooled: the next start does it, rather than half of it now.
            spool.stop_giving();
        }
        self.shared.shutdown.stop();
        self.shared.shutdown.wait(timeout)
    }

    /// No more questions come: workers take what is queued, and then `None`.
    pub fn close_queues(&self) {
        self.shared.all_backends().iter().for_each(|backend| backend.close());
    }

    /// Ends what is left, at once. A second call, from any thread, waits for the first.
    pub fn close(&self) {
        if let Some(spool) = self.shared.spool() {
            spool.stop_giving();
        }
        self.shared.shutdown.close();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(thread, _) = std::mem::replace(&mut *state, State::Ended) {
            // A panic of that thread was its end all the same.
            let _ = thread.join();
        }
        self.close_queues();
        let backends = self.shared.all_backends().clone();
        for backend in &backends {
            backend.clear();
        }
        if let Some(spool) = self.shared.spool() {
            close_spool(spool, &self.shared.log);
        }
        self.shared.budget.close();
        self.shared.events.close();
        self.shared.log.close();
        self.shared.tenant.leave();
    }
}

/// All of them, or none where one does not fit.
fn adopt(
    sockets: Vec<(ListenAddress, OwnedFd)>,
    kept: bool,
) -> Result<Vec<(ListenAddress, Bound)>, (ListenAddress, io::Error)> {
    let each =
        sockets.into_iter().map(|(address, socket)| match Bound::adopt(&address, socket, kept) {
            Ok(bound) => Ok((address, bound)),
            Err(error) => Err((address, error)),
        });
    each.collect()
}

/// Waits for the last commit, but not for a disk that hangs: what it has taken is there at the next start.
fn close_spool(spool: &Arc<Spool>, log: &Log) {
    let (closed, wait) = std::sync::mpsc::channel();
    let closing = Arc::clone(spool);
    let close = move || {
        closing.close();
        // Nobody may wait any more.
        let _ = closed.send(());
    };
    match std::thread::Builder::new().name("spool-close".to_owned()).spawn(close) {
        Ok(_) if wait.recv_timeout(SPOOL_PATIENCE).is_ok() => {}
        Ok(_) => {
            let path = spool.path().display();
            log.write(
                Level::Error,
                "spool",
                format_args!(
                    "{path}: its disk hangs: not waited for; what was answered 250 is there"
                ),
            );
        }
        Err(_) => spool.close(),
    }
}

/// A core that is dropped holds no port and no thread.
impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

/// The I/O thread, until the core closes.
fn run(runtime: &Runtime, shared: &Arc<Shared>, woken: UnboundedReceiver<Waker>) {
    runtime.block_on(async {
        tokio::spawn(hand_over_wakes(woken));
        let ringing = Arc::clone(shared);
        tokio::spawn(async move { ringing.bell.call_workers().await });
        loop {
            let changed = shared.shutdown.changed();
            if shared.shutdown.is_closing() {
                break;
            }
            changed.await;
        }
        // What is answered is still told, where the peer takes it at once; then the runtime drops what
        // is left.
        let limit = Instant::now() + LAST_WORD;
        while shared.shutdown.open() > 0 && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// Wakes the tasks that other threads answered: see [`Wakes`].
async fn hand_over_wakes(mut woken: UnboundedReceiver<Waker>) {
    let mut wakers = Vec::with_capacity(WAKES_A_TURN);
    while woken.recv_many(&mut wakers, WAKES_A_TURN).await > 0 {
        wakers.drain(..).for_each(Waker::wake);
    }
}
