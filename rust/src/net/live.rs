//! A server that runs: what it obeys now, and who is connected to it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clients::{Clients, Refusal, Seat};
use super::logins::Logins;
use super::stream::Stream;
use crate::config::{AddressLimits, ServerConfig, Swap};
use crate::log::Level;
use crate::server::Shared;
use crate::shared::{Key, Kind, Tenant, now};
use crate::smtp::{Phase, Reply};
use crate::stats::{Counter, Stats};

/// A server, over all the addresses it listens on.
#[derive(Debug)]
pub(crate) struct Live {
    name: Arc<str>,
    config: Swap<ServerConfig>,
    /// Of its configs, from 1: a look at it is cheaper than one at the config.
    generation: AtomicU64,
    open: AtomicUsize,
    tenant: Arc<Tenant>,
    /// Of its connections in all processes.
    key: Key,
    clients: Arc<Clients>,
    logins: Logins,
    /// It was taken out of the config: its sessions end where a transaction does.
    leaving: AtomicBool,
    refusal_logged: Mutex<Option<Instant>>,
}

impl Live {
    pub(crate) fn new(config: ServerConfig, tenant: &Arc<Tenant>) -> Self {
        let name = config.name.as_str();
        Self {
            name: name.into(),
            key: tenant.keys(Kind::Server, name).server(),
            tenant: Arc::clone(tenant),
            clients: Arc::new(Clients::new(tenant, name)),
            logins: Logins::new(tenant, name),
            config: Swap::new(config),
            generation: AtomicU64::new(1),
            open: AtomicUsize::new(0),
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

    /// Obeys another config: new connections at once, those that are open once they have no transaction.
    pub(crate) fn obey(&self, config: ServerConfig) {
        self.config.store(config);
        // Behind the store: whoever sees the new number finds the new config.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Its sessions are to end; has to be followed by a word that wakes them.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// The logins that failed here.
    pub(super) fn logins(&self) -> &Logins {
        &self.logins
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Connections that it has now, in this process.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A connection is taken, or told why not.
    pub(super) fn admit(
        self: &Arc<Self>,
        config: &ServerConfig,
        ip: Option<IpAddr>,
        stream: &Stream,
        shared: &Shared,
    ) -> Option<Admitted> {
        match self.seat(config, ip, shared) {
            Ok(admitted) => Some(admitted),
            Err((reply, why)) => {
                refuse(config, stream, &reply, shared);
                self.log_refusal(ip, why, shared);
                None
            }
        }
    }

    fn seat(
        self: &Arc<Self>,
        config: &ServerConfig,
        ip: Option<IpAddr>,
        shared: &Shared,
    ) -> Result<Admitted, (Reply, &'static str)> {
        let stats = &shared.stats;
        let Some(entrance) = self.enter(config.max_clients) else {
            stats.connections_refused.add();
            return Err((Reply::too_many_clients(), "all of max_clients are connected"));
        };
        if config.proxy_protocol && !config.trusts(ip) {
            stats.proxies_refused.add();
            return Err((Reply::proxies_only(), "proxy_protocol, and it is no trusted proxy"));
        }
        // Whom a proxy speaks for is not known yet.
        let Some(ip) = ip.filter(|_| !config.is_proxy(ip)) else {
            return Ok(Admitted { entrance, seat: None });
        };
        let seat = self.clients.admit(ip, &config.per_address).map_err(|refusal| {
            stats.connections_limited.add();
            let why = match refusal {
                Refusal::TooMany => "max_connections_per_ip",
                Refusal::TooFast => "max_connection_rate_per_ip",
            };
            (refusal.reply(), why)
        })?;
        Ok(Admitted { entrance, seat: seat.map(Box::new) })
    }

    /// Counts a connection, here and for all processes; none where there are so many already.
    fn enter(self: &Arc<Self>, max_clients: usize) -> Option<Entrance> {
        let here = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let everywhere =
            if self.tenant.is_alone() { None } else { self.tenant.open(self.key, now()) };
        // Gives it back where it is one too many.
        let entrance = Entrance(Arc::clone(self));
        let everywhere = everywhere.map_or(0, |all| usize::try_from(all.held).unwrap_or(here));
        (max_clients == 0 || here.max(everywhere) <= max_clients).then_some(entrance)
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
pub(super) fn refuse(config: &ServerConfig, stream: &Stream, reply: &Reply, shared: &Shared) {
    if config.tls.as_ref().is_none_or(|tls| !tls.always_on) {
        let mut refusal = Vec::new();
        reply.write_as(config.session.form(), &mut refusal);
        shared.replies.count(&refusal);
        let _ = stream.write_now(&refusal);
        // Else who says something between this and the close, as QUIT, is reset, and so is who has said
        // something already, maybe before it has read why.
        stream.finish_writing();
    }
}

/// One of `max_clients`, given back on drop.
struct Entrance(Arc<Live>);

impl Drop for Entrance {
    fn drop(&mut self) {
        let live = &self.0;
        live.open.fetch_sub(1, Ordering::Relaxed);
        if !live.tenant.is_alone() {
            live.tenant.close(live.key, false);
        }
    }
}

/// A connection that is taken, with a seat where its address is counted. Boxed: most are not.
pub(super) struct Admitted {
    entrance: Entrance,
    seat: Option<Box<Seat>>,
}

/// What a connection does, by which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// What comes before the greeting, but for TLS.
    Opening,
    Handshake,
    Idle,
    Transaction,
    Data,
    Waiting,
    Closing,
}

impl Activity {
    fn gauge(self, stats: &Stats) -> &Counter {
        match self {
            Self::Opening => &stats.sessions_opening,
            Self::Handshake => &stats.sessions_handshake,
            Self::Idle => &stats.sessions_idle,
            Self::Transaction => &stats.sessions_transaction,
            Self::Data => &stats.sessions_data,
            Self::Waiting => &stats.sessions_waiting,
            Self::Closing => &stats.sessions_closing,
        }
    }
}

impl From<Phase> for Activity {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Idle => Self::Idle,
            Phase::Transaction => Self::Transaction,
            Phase::Data => Self::Data,
            Phase::Waiting => Self::Waiting,
            Phase::Negotiating => Self::Handshake,
            Phase::Closed => Self::Closing,
        }
    }
}

/// What a connection counts in, until it is dropped.
pub(super) struct Place {
    entrance: Entrance,
    seat: Option<Box<Seat>>,
    activity: Activity,
    /// The generation of the config that was seen last; 0 for none.
    seen: u64,
    shared: Arc<Shared>,
    _counted: super::shutdown::Open,
}

impl Place {
    pub(super) fn take(admitted: Admitted, shared: &Arc<Shared>) -> Self {
        let Admitted { entrance, seat } = admitted;
        let activity = Activity::Opening;
        shared.stats.connections_open.add();
        activity.gauge(&shared.stats).add();
        Self {
            entrance,
            seat,
            activity,
            seen: 0,
            shared: Arc::clone(shared),
            _counted: shared.shutdown.enter(),
        }
    }

    /// Its server.
    pub(super) fn server(&self) -> &Live {
        &self.entrance.0
    }

    /// What its server obeys now, where that has changed since it was last asked.
    pub(super) fn changed_config(&mut self) -> Option<Arc<ServerConfig>> {
        let generation = self.server().generation.load(Ordering::Acquire);
        if generation == self.seen {
            return None;
        }
        self.seen = generation;
        Some(self.server().config())
    }

    /// What it does from now on. Only a change costs anything.
    pub(super) fn turn_to(&mut self, activity: Activity) {
        if activity != self.activity {
            let stats = &self.shared.stats;
            self.activity.gauge(stats).sub();
            activity.gauge(stats).add();
            self.activity = activity;
        }
    }

    /// Counts it for the client that a proxy speaks for, in place of whom it was counted for before.
    pub(super) fn count(&mut self, ip: IpAddr, limits: &AddressLimits) -> Result<(), Refusal> {
        self.seat = None;
        self.seat = self.server().clients.admit(ip, limits)?.map(Box::new);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.activity.gauge(&self.shared.stats).sub();
        self.shared.stats.connections_open.sub();
    }
}

#[cfg(test)]
impl Admitted {
    /// One that nobody could refuse.
    pub(super) fn to(config: ServerConfig, shared: &Shared) -> Option<Self> {
        let entrance = Arc::new(Live::new(config, &shared.tenant)).enter(0)?;
        Some(Self { entrance, seat: None })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::backends::{Asking, Limits};
    use crate::config::{CoreConfig, ListenAddress};
    use crate::server::Server;

    const ALL: [Activity; 7] = [
        Activity::Opening,
        Activity::Handshake,
        Activity::Idle,
        Activity::Transaction,
        Activity::Data,
        Activity::Waiting,
        Activity::Closing,
    ];

    fn place() -> (Arc<Shared>, Place) {
        let backend = Arc::new(Asking::new("", Limits::default()));
        let server = ServerConfig::open("test", ListenAddress::Unix("x".into()), backend);
        let core = Server::new(CoreConfig {
            servers: Vec::new(),
            max_memory: 0,
            spill_size: 0,
            backends: Vec::new(),
            log_level: 0,
        })
        .unwrap();
        let shared = Arc::clone(core.shared());
        let place = Place::take(Admitted::to(server, &shared).unwrap(), &shared);
        (shared, place)
    }

    fn gauges(shared: &Shared) -> [u64; 7] {
        ALL.map(|activity| activity.gauge(&shared.stats).get())
    }

    #[test]
    fn a_config_is_seen_once() {
        let (_, mut place) = place();
        let first = place.changed_config().unwrap();
        assert!(place.changed_config().is_none());
        place.server().obey(ServerConfig { max_clients: 7, ..ServerConfig::clone(&first) });
        place.server().obey(ServerConfig { max_clients: 8, ..ServerConfig::clone(&first) });
        assert_eq!(place.changed_config().unwrap().max_clients, 8);
        assert!(place.changed_config().is_none());
    }

    #[test]
    fn a_connection_is_in_one_gauge_and_leaves_it_however_it_ends() {
        let (shared, mut place) = place();
        assert_eq!(gauges(&shared), [1, 0, 0, 0, 0, 0, 0]);
        for (index, activity) in ALL.into_iter().enumerate() {
            place.turn_to(activity);
            place.turn_to(activity);
            let mut expected = [0; 7];
            expected.iter_mut().skip(index).take(1).for_each(|gauge| *gauge = 1);
            assert_eq!(gauges(&shared), expected);
        }
        place.turn_to(Activity::Data);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut place = place;
            place.turn_to(Activity::Waiting);
            panic!("in the middle");
        }));
        assert!(panicked.is_err());
        assert_eq!(gauges(&shared), [0; 7]);
        assert_eq!(shared.stats.connections_open.get(), 0);
    }
}
