//! Binding, and the accept loop: it never waits for anything but the next connection.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::clients::{Clients, Refusal, Seat};
use super::connection::{self, Connection};
use super::stream::Stream;
use crate::config::{AddressLimits, ListenAddress, ServerConfig};
use crate::delivery::Client;
use crate::log::Level;
use crate::server::Shared;
use crate::smtp::Reply;

/// Connections that the kernel holds until they are accepted; it caps this at `somaxconn`.
const BACKLOG: i32 = 4_096;
/// After a failed accept: long enough not to spin, short enough not to be missed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A bound listener that nobody serves yet.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(SocketFile, StdUnixListener),
}

impl Bound {
    pub(crate) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address),
            ListenAddress::Unix(path) => bind_unix(path),
        }
    }

    /// The address as `listen_interface` writes it, with the port that was really taken.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(file, _) => format!("unix:{}", file.path.display()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]:25` beside `0.0.0.0:25` are two listeners.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok(Bound::Tcp(listener, bound))
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    remove_stale(path)?;
    let listener = StdUnixListener::bind(path)?;
    let file = SocketFile { path: path.to_owned(), inode: inode(path) };
    listener.set_nonblocking(true)?;
    Ok(Bound::Unix(file, listener))
}

/// The file of a unix socket, removed with its listener, unless someone else's stands there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Its device and number.
    inode: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && self.inode == inode(&self.path) {
            // Someone may have removed it before us.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// A socket file of a process that is gone would be "in use" for ever; one that answers is in use.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the file exists and is no socket",
        ));
    }
    // Not waiting: one that hangs with a full backlog is in use too.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// A listener inside the runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The listener, and what must live as long as it does.
    fn new(bound: Bound) -> io::Result<(Self, Option<SocketFile>)> {
        match bound {
            Bound::Tcp(listener, _) => Ok((Self::Tcp(TcpListener::from_std(listener)?), None)),
            Bound::Unix(file, listener) => {
                Ok((Self::Unix(UnixListener::from_std(listener)?), Some(file)))
            }
        }
    }

    /// A connection and its peer, which one of a unix socket has not.
    fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, peer)| {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                (Stream::Tcp(stream), Some(peer))
            }),
            Self::Unix(listener) => {
                listener.poll_accept(context).map_ok(|(stream, _)| (Stream::Unix(stream), None))
            }
        }
    }
}

/// Accepts until the core stops.
///
/// `guests` counts the connections of the server, over all the addresses it listens on.
pub(crate) async fn serve(
    bound: Bound,
    config: ServerConfig,
    guests: Arc<Guests>,
    shared: Arc<Shared>,
) {
    let (listener, _file) = match Listener::new(bound) {
        Ok(served) => served,
        Err(error) => {
            shared.log.write(
                Level::Error,
                "net",
                format_args!("{}: cannot be served: {error}", config.name),
            );
            return;
        }
    };
    let server = Server {
        name: config.name.as_str().into(),
        host_name: config.session.host_name.as_str().into(),
        guests,
        config: Arc::new(config),
        shared,
        refusal_logged: Mutex::default(),
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let changed = server.shared.shutdown.changed();
        if server.shared.shutdown.is_stopping() {
            return;
        }
        let mut changed = pin!(changed);
        let next = poll_fn(|context| match changed.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => listener.poll_accept(context).map(Some),
        });
        match next.await {
            None => {}
            Some(Ok((stream, peer))) => {
                pause = FIRST_PAUSE;
                server.take(stream, peer);
            }
            // The peer left before it was its turn.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(error)) => {
                // Most often out of descriptors or memory: the connection stays in the backlog, and
                // an immediate retry would spin.
                server.accept_failed(&error);
                let mut pausing = pin!(tokio::time::sleep(pause));
                poll_fn(|context| match changed.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => pausing.as_mut().poll(context),
                })
                .await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

struct Server {
    name: Arc<str>,
    host_name: Arc<str>,
    guests: Arc<Guests>,
    config: Arc<ServerConfig>,
    shared: Arc<Shared>,
    refusal_logged: Mutex<Option<Instant>>,
}

impl Server {
    fn take(&self, stream: Stream, peer: Option<SocketAddr>) {
        let ip = peer.map(|peer| peer.ip());
        let seat = match self.admit(ip) {
            Ok(seat) => seat,
            Err((reply, why)) => {
                self.refuse(&stream, &reply);
                self.log_refusal(ip, why);
                return;
            }
        };
        // Replies are short and waited for. A socket that refuses is as good as any.
        let _ = stream.set_nodelay();
        let stats = &self.shared.stats;
        stats.connections_accepted.add();
        let client = Client {
            id: stats.connections_accepted.get(),
            server: Arc::clone(&self.name),
            host_name: Arc::clone(&self.host_name),
            remote_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            remote_port: peer.map_or(0, |peer| peer.port()),
            local: stream.local(),
            ..Client::default()
        };
        let place = Place::take(&self.guests, seat, &self.shared);
        let config = Arc::clone(&self.config);
        let connection = Connection::new(stream, client, config, Arc::clone(&self.shared), place);
        tokio::spawn(connection::run(Box::new(connection)));
    }

    /// A seat, where its address is counted; else what to say, and why.
    fn admit(&self, ip: Option<IpAddr>) -> Result<Option<Seat>, (Reply, &'static str)> {
        let (stats, config) = (&self.shared.stats, &self.config);
        if config.max_clients > 0 && self.guests.open() >= config.max_clients {
            stats.connections_refused.add();
            return Err((Reply::too_many_clients(), "all of max_clients are connected"));
        }
        if config.proxy_protocol && !config.trusts(ip) {
            stats.proxies_refused.add();
            return Err((Reply::proxies_only(), "proxy_protocol, and it is no trusted proxy"));
        }
        // Whom a proxy speaks for is not known yet.
        let Some(ip) = ip.filter(|_| !config.is_proxy(ip)) else { return Ok(None) };
        self.guests.clients.admit(ip, &config.per_address).map_err(|refusal| {
            stats.connections_limited.add();
            let why = match refusal {
                Refusal::TooMany => "max_connections_per_ip",
                Refusal::TooFast => "max_connection_rate_per_ip",
            };
            (refusal.reply(), why)
        })
    }

    /// Whether the peer takes the reply is its own affair; the accept loop does not wait. Where TLS comes
    /// first, nothing can be said.
    fn refuse(&self, stream: &Stream, reply: &Reply) {
        if self.config.tls.as_ref().is_none_or(|tls| !tls.always_on) {
            let mut refusal = Vec::new();
            reply.write_to(&mut refusal);
            let _ = stream.try_write(&refusal);
        }
    }

    /// At most once a second: a flood of connections must not be a flood of lines.
    fn log_refusal(&self, ip: Option<IpAddr>, why: &str) {
        let mut last = self.refusal_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return;
        }
        *last = Some(Instant::now());
        let (name, stats) = (&self.name, &self.shared.stats);
        let peer = ip.map_or_else(|| "local".to_owned(), |ip| ip.to_string());
        let all = stats.connections_refused.get()
            + stats.connections_limited.get()
            + stats.proxies_refused.get();
        self.shared.log.write_for(
            name,
            Level::Warning,
            "net",
            format_args!("{name}: refused {peer}: {why} ({all} refused so far)"),
        );
    }

    fn accept_failed(&self, error: &io::Error) {
        self.shared.stats.accept_errors.add();
        self.shared.log.write_for(
            &self.name,
            Level::Error,
            "net",
            format_args!("{}: accept failed: {error}", self.name),
        );
    }
}

/// Who is connected to a server, over all its addresses.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    open: AtomicUsize,
    clients: Arc<Clients>,
}

impl Guests {
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// One of `max_clients`, given back on drop.
pub(super) struct Place {
    guests: Arc<Guests>,
    seat: Option<Seat>,
    shared: Arc<Shared>,
    _counted: super::shutdown::Open,
}

impl Place {
    fn take(guests: &Arc<Guests>, seat: Option<Seat>, shared: &Arc<Shared>) -> Self {
        guests.open.fetch_add(1, Ordering::Relaxed);
        shared.stats.connections_open.add_many(1);
        Self {
            guests: Arc::clone(guests),
            seat,
            shared: Arc::clone(shared),
            _counted: shared.shutdown.enter(),
        }
    }

    /// Connections of its server now.
    pub(super) fn active(&self) -> usize {
        self.guests.open()
    }

    /// Counts it for the client that a proxy speaks for, in place of whom it was counted for before.
    pub(super) fn count(&mut self, ip: IpAddr, limits: &AddressLimits) -> Result<(), Refusal> {
        self.seat = None;
        self.seat = self.guests.clients.admit(ip, limits)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guests.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.stats.connections_open.sub();
    }
}
