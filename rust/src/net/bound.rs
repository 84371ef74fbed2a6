//! A socket that listens and that nobody serves yet: bound here, or by who has handed it over.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::config::{ListenAddress, ServerConfig};

/// Connections that the kernel holds until they are accepted; it caps this at `somaxconn`.
pub(super) const BACKLOG: i32 = 4_096;

/// A listening socket that nobody serves yet.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Goes first: nobody finds it once the socket is closed.
    file: Option<SocketFile>,
    socket: Listening,
    /// Somebody else has it too, and goes on with it when nobody serves it here.
    kept: bool,
}

/// A listening socket with where it listens.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Bound {
    pub(crate) fn bind(server: &ServerConfig) -> io::Result<Self> {
        match &server.address {
            ListenAddress::Tcp(address) => bind_tcp(*address, false),
            ListenAddress::Unix(path) => bind_unix(path, server.unix_mode),
            ListenAddress::Named(_) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no socket of that name was handed over; is it the FileDescriptorName of a socket unit?",
            )),
        }
    }

    /// Binds beside sockets of ours on the same port, which allow it: see [`allow_beside`].
    pub(super) fn bind_beside(server: &ServerConfig) -> io::Result<Self> {
        match &server.address {
            ListenAddress::Tcp(address) => bind_tcp(*address, true),
            _ => Self::bind(server),
        }
    }

    /// A socket that somebody else has bound to this address, and listens on. The file of a unix socket stays
    /// that one's, and so is the socket where it is `kept`.
    pub(crate) fn adopt(address: &ListenAddress, socket: OwnedFd, kept: bool) -> io::Result<Self> {
        let socket = Socket::from(socket);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return unfit("what was handed over does not listen for connections");
        }
        socket.set_nonblocking(true)?;
        let takes_v4 = socket.domain()? == Domain::IPV6 && !socket.only_v6()?;
        let socket = Listening::new(socket)?;
        match (address, &socket) {
            (ListenAddress::Named(_), _) => {}
            (ListenAddress::Tcp(wanted), Listening::Tcp(_, bound)) => {
                if !is_of(*bound, *wanted, takes_v4) {
                    return unfit(&format!("the socket that was handed over is of {bound}"));
                }
            }
            (ListenAddress::Unix(wanted), Listening::Unix(_, bound)) => {
                if wanted != bound {
                    let bound = bound.display();
                    return unfit(&format!("the socket that was handed over is of unix:{bound}"));
                }
            }
            _ => {
                let what = socket.address();
                return unfit(&format!("the socket that was handed over is of {what}"));
            }
        }
        Ok(Self { file: None, socket, kept })
    }

    /// One that was served here, for who goes on with it.
    pub(super) fn again(address: &ListenAddress, left: Left) -> io::Result<Self> {
        Ok(Self { file: left.file, ..Self::adopt(address, left.socket, left.kept)? })
    }

    /// The address as `listen_interface` writes it, with the port that was really taken.
    pub(crate) fn address(&self) -> String {
        self.socket.address()
    }

    pub(super) fn split(self) -> (Listening, Option<SocketFile>, bool) {
        (self.socket, self.file, self.kept)
    }
}

/// A socket that is no longer served, with what goes with it: see [`Bound`].
#[derive(Debug)]
pub(super) struct Left {
    pub(super) file: Option<SocketFile>,
    pub(super) socket: OwnedFd,
    pub(super) kept: bool,
}

fn unfit<T>(text: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Whether a socket that is bound there is what a server wants: any port, for port 0; and one of all addresses that
/// takes IPv4 as well serves those of IPv4.
fn is_of(bound: SocketAddr, wanted: SocketAddr, takes_v4: bool) -> bool {
    let is_port = wanted.port() == 0 || wanted.port() == bound.port();
    let is_any = |ip: IpAddr| ip.is_unspecified();
    let covers = takes_v4 && wanted.is_ipv4() && is_any(wanted.ip()) && is_any(bound.ip());
    is_port && (wanted.ip() == bound.ip() || covers)
}

impl Listening {
    fn new(socket: Socket) -> io::Result<Self> {
        let domain = socket.domain()?;
        if domain == Domain::UNIX {
            let listener = UnixListener::from(socket);
            let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
            return match path {
                Some(path) => Ok(Self::Unix(listener, path)),
                None => unfit("the socket that was handed over is one of no file"),
            };
        }
        if domain != Domain::IPV4 && domain != Domain::IPV6 {
            return unfit("the socket that was handed over is neither TCP nor unix");
        }
        // Those that it accepts have it from here. Replies are short and waited for; a socket that refuses is as
        // good as any.
        let _ = socket.set_tcp_nodelay(true);
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Self::Tcp(listener, address))
    }

    /// The same socket once more, to be handed over.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// As [`Bound::address`].
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

/// An interface that no machine has.
const NOWHERE: Option<NonZeroU32> = NonZeroU32::new(0x7fff_ffff);

/// Has the kernel bring it no more connections: it is as if it listened at an interface that is not there. Who
/// waits in its queue still does, and is not reset as by closing it. This is for all who have the socket, and who is
/// not root can neither undo it nor do it again. Whether it is so: where it cannot be, some come until it is closed.
pub(super) fn turn_away(socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    socket.bind_device_by_index_v4(NOWHERE).is_ok()
        || socket.device_index_v4().is_ok_and(|index| index == NOWHERE)
}

/// Lets others of this user bind addresses that this socket covers, or that cover its own.
pub(super) fn allow_beside(socket: &OwnedFd) -> io::Result<()> {
    SockRef::from(socket).set_reuse_port(true)
}

fn bind_tcp(address: SocketAddr, beside: bool) -> io::Result<Bound> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if beside {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]:25` beside `0.0.0.0:25` are two listeners.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound { file: None, socket: Listening::new(socket)?, kept: false })
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = Some(SocketFile::new(path));
    // Nobody connects before: it does not listen yet.
    if let Some(mode) = mode {
        set_mode(path, mode)?;
    }
    socket.listen(BACKLOG)?;
    let socket = Listening::Unix(socket.into(), path.to_owned());
    Ok(Bound { file, socket, kept: false })
}

/// Says who may connect to a unix socket. By a descriptor: whoever can write to the folder could else put
/// a link to a file of the system there.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
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

/// The file of a unix socket that is ours: removed with its listener, unless someone else's stands there by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and number.
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    /// What stands there now is ours.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path) }
    }

    /// It stays, whatever becomes of the listener.
    pub(super) fn leave(mut self) {
        self.inode = None;
    }
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
