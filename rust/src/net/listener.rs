//! Binding, and the accept loop: it never waits for anything but the next connection.

use std::fs::{OpenOptions, Permissions};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::connection::{self, Connection};
use super::live::{Live, Place};
use super::stream::Stream;
use crate::config::{ListenAddress, ServerConfig};
use crate::delivery::Client;
use crate::log::Level;
use crate::server::Shared;

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
    pub(crate) fn bind(server: &ServerConfig) -> io::Result<Self> {
        match &server.address {
            ListenAddress::Tcp(address) => bind_tcp(*address),
            ListenAddress::Unix(path) => bind_unix(path, server.unix_mode),
        }
    }

    /// A socket that somebody else has bound to this address, and listens on. The file of a unix socket stays
    /// that one's.
    pub(crate) fn adopt(address: &ListenAddress, socket: OwnedFd) -> io::Result<Self> {
        let unfit = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let socket = Socket::from(socket);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return unfit("what was handed over does not listen for connections");
        }
        socket.set_nonblocking(true)?;
        match (address, socket.domain()? == Domain::UNIX) {
            (ListenAddress::Tcp(wanted), false) => {
                let listener = std::net::TcpListener::from(socket);
                let bound = listener.local_addr()?;
                let is_of_it = wanted.port() == 0 || wanted.port() == bound.port();
                if wanted.ip() != bound.ip() || !is_of_it {
                    return unfit(&format!("the socket that was handed over is of {bound}"));
                }
                Ok(Self::Tcp(listener, bound))
            }
            (ListenAddress::Unix(path), true) => {
                let file = SocketFile { path: path.to_owned(), inode: None };
                Ok(Self::Unix(file, StdUnixListener::from(socket)))
            }
            _ => unfit("the socket that was handed over is of another kind"),
        }
    }

    /// The same socket once more, to be handed over.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(_, listener) => listener.as_fd().try_clone_to_owned(),
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

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), inode: inode(path) };
    // Nobody connects before: it does not listen yet.
    if let Some(mode) = mode {
        set_mode(path, mode)?;
    }
    socket.listen(BACKLOG)?;
    Ok(Bound::Unix(file, StdUnixListener::from(socket)))
}

/// Says who may connect to a unix socket. By a descriptor: whoever can write to the folder could else put
/// a link to a file of the system there.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is no socket"));
    }
    std::fs::set_permissions(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        Permissions::from_mode(mode),
    )
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

/// What an accept loop and who may end it share; the core's shutdown ends all.
#[derive(Debug)]
pub(crate) struct Door {
    closing: AtomicBool,
    /// The socket, as long as it is served: whoever has it keeps it open.
    socket: Mutex<Option<OwnedFd>>,
}

impl Door {
    pub(crate) fn new(socket: Option<OwnedFd>) -> Self {
        Self { closing: AtomicBool::new(false), socket: Mutex::new(socket) }
    }

    /// Has to be followed by a word that wakes the loop.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Its socket once more, to be handed over; none where it is not served any more.
    pub(crate) fn share(&self) -> Option<OwnedFd> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.as_ref().and_then(|socket| socket.try_clone().ok())
    }

    fn is_shut(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Accepts for a server until the core stops, or this listener is to close.
pub(crate) async fn serve(bound: Bound, live: Arc<Live>, door: Arc<Door>, shared: Arc<Shared>) {
    accept_all(bound, &live, &door, &shared).await;
    door.is_shut();
}

async fn accept_all(bound: Bound, live: &Arc<Live>, door: &Door, shared: &Arc<Shared>) {
    let (listener, _file) = match Listener::new(bound) {
        Ok(served) => served,
        Err(error) => {
            shared.log.write(
                Level::Error,
                "net",
                format_args!("{}: cannot be served: {error}", live.name()),
            );
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let changed = shared.shutdown.changed();
        if shared.shutdown.is_stopping() || door.is_closing() {
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
                take(stream, peer, live, shared);
            }
            // The peer left before it was its turn.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(error)) => {
                // Most often out of descriptors or memory: the connection stays in the backlog, and
                // an immediate retry would spin.
                shared.stats.accept_errors.add();
                shared.log.write_for(
                    live.name(),
                    Level::Error,
                    "net",
                    format_args!("{}: accept failed: {error}", live.name()),
                );
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

fn take(stream: Stream, peer: Option<SocketAddr>, live: &Arc<Live>, shared: &Arc<Shared>) {
    let ip = peer.map(|peer| peer.ip());
    let config = live.config();
    let Some(admitted) = live.admit(&config, ip, &stream, shared) else { return };
    // Replies are short and waited for. A socket that refuses is as good as any.
    let _ = stream.set_nodelay();
    shared.stats.connections_accepted.add();
    let client = Client {
        id: shared.tenant.number_connection(),
        server: Arc::clone(live.name()),
        host_name: config.session.host_name.as_str().into(),
        remote_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
        remote_port: peer.map_or(0, |peer| peer.port()),
        local: stream.local(),
        ..Client::default()
    };
    let place = Place::take(admitted, shared);
    let connection = Connection::new(stream, client, config, Arc::clone(shared), place);
    tokio::spawn(connection::run(Box::new(connection)));
}
