//! A server that runs: what it obeys now, and who is connected to it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clients::{Clients, Refusal, Seat};
use super::stream::Stream;
use crate::config::{AddressLimits, ServerConfig, Swap};
use crate::log::Level;
use crate::server::Shared;
use crate::smtp::Reply;

/// A server, over all the addresses it listens on.
#[derive(Debug)]
pub(crate) struct Live {
    name: Arc<str>,
    config: Swap<ServerConfig>,
    open: AtomicUsize,
    clients: Arc<Clients>,
    /// It was taken out of the config: its sessions end where a transaction does.
    leaving: AtomicBool,
    refusal_logged: Mutex<Option<Instant>>,
}

impl Live {
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self {
            name: config.name.as_str().into(),
            config: Swap::new(config),
            open: AtomicUsize::new(0),
            clients: Arc::default(),
            leaving: AtomicBool::new(false),
            refusal_logged: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it obeys now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load()
    }

    /// Whether this is still what it obeys.
    pub(super) fn obeys(&self, config: &Arc<ServerConfig>) -> bool {
        self.config.holds(config)
    }

    /// Obeys another config: new connections at once, those that are open once they have no transaction.
    pub(crate) fn obey(&self, config: ServerConfig) {
        self.config.store(config);
    }

    /// Its sessions are to end; has to be followed by a word that wakes them.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Connections that it has now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A connection is taken, with a seat where its address is counted; or told why not.
    #[allow(clippy::option_option)] // Refused, taken, taken and counted.
    pub(super) fn admit(
        &self,
        config: &ServerConfig,
        ip: Option<IpAddr>,
        stream: &Stream,
        shared: &Shared,
    ) -> Option<Option<Seat>> {
        match self.seat(config, ip, shared) {
            Ok(seat) => Some(seat),
            Err((reply, why)) => {
                refuse(config, stream, &reply, shared);
                self.log_refusal(ip, why, shared);
                None
            }
        }
    }

    fn seat(
        &self,
        config: &ServerConfig,
        ip: Option<IpAddr>,
        shared: &Shared,
    ) -> Result<Option<Seat>, (Reply, &'static str)> {
        let stats = &shared.stats;
        if config.max_clients > 0 && self.open() >= config.max_clients {
            stats.connections_refused.add();
            return Err((Reply::too_many_clients(), "all of max_clients are connected"));
        }
        if config.proxy_protocol && !config.trusts(ip) {
            stats.proxies_refused.add();
            return Err((Reply::proxies_only(), "proxy_protocol, and it is no trusted proxy"));
        }
        // Whom a proxy speaks for is not known yet.
        let Some(ip) = ip.filter(|_| !config.is_proxy(ip)) else { return Ok(None) };
        self.clients.admit(ip, &config.per_address).map_err(|refusal| {
            stats.connections_limited.add();
            let why = match refusal {
                Refusal::TooMany => "max_connections_per_ip",
                Refusal::TooFast => "max_connection_rate_per_ip",
            };
            (refusal.reply(), why)
        })
    }

    /// At most once a second: a flood of connections must not be a flood of lines.
    fn log_refusal(&self, ip: Option<IpAddr>, why: &str, shared: &Shared) {
        let mut last = self.refusal_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return;
        }
        *last = Some(Instant::now());
        let (name, stats) = (&self.name, &shared.stats);
        let peer = ip.map_or_else(|| "local".to_owned(), |ip| ip.to_string());
        let all = stats.connections_refused.get()
            + stats.connections_limited.get()
            + stats.proxies_refused.get();
        shared.log.write_for(
            name,
            Level::Warning,
            "net",
            format_args!("{name}: refused {peer}: {why} ({all} refused so far)"),
        );
    }
}

/// Whether the peer takes the reply is its own affair; the accept loop does not wait. Where TLS comes
/// first, nothing can be said.
fn refuse(config: &ServerConfig, stream: &Stream, reply: &Reply, shared: &Shared) {
    if config.tls.as_ref().is_none_or(|tls| !tls.always_on) {
        let mut refusal = Vec::new();
        reply.write_to(&mut refusal);
        shared.replies.count(&refusal);
        let _ = stream.try_write(&refusal);
    }
}

/// One of `max_clients`, given back on drop.
pub(super) struct Place {
    live: Arc<Live>,
    seat: Option<Seat>,
    shared: Arc<Shared>,
    _counted: super::shutdown::Open,
}

impl Place {
    pub(super) fn take(live: &Arc<Live>, seat: Option<Seat>, shared: &Arc<Shared>) -> Self {
        live.open.fetch_add(1, Ordering::Relaxed);
        shared.stats.connections_open.add_many(1);
        Self {
            live: Arc::clone(live),
            seat,
            shared: Arc::clone(shared),
            _counted: shared.shutdown.enter(),
        }
    }

    /// Its server.
    pub(super) fn server(&self) -> &Live {
        &self.live
    }

    /// Counts it for the client that a proxy speaks for, in place of whom it was counted for before.
    pub(super) fn count(&mut self, ip: IpAddr, limits: &AddressLimits) -> Result<(), Refusal> {
        self.seat = None;
        self.seat = self.live.clients.admit(ip, limits)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.stats.connections_open.sub();
    }
}
