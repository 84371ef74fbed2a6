//! The settings the core obeys: immutable values behind a swap.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ipnet::IpNet;

use crate::backends::{Asking, Limits};
use crate::smtp::Settings;
use crate::tls::Context;

/// One listener and what its sessions obey.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `listen_interface` as it was configured.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
    /// The mode of the file of a unix socket; none: what the umask leaves.
    pub unix_mode: Option<u32>,
    /// Connections at a time; one more is told 421. 0: no limit.
    pub max_clients: usize,
    /// For a command line, a reply to be taken, and between two reads of a message.
    pub timeout: Duration,
    /// For a message in all; zero: no limit.
    pub data_timeout: Duration,
    /// Octets a second that a message must come with after its first minute; 0: no limit.
    pub min_data_rate: u64,
    /// Limits of one client address.
    pub per_address: AddressLimits,
    /// What becomes of logins that fail.
    pub logins: LoginLimits,
    /// How long a client is watched before it is greeted; zero: not at all.
    pub greet_delay: Duration,
    /// Whether each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Peers whose PROXY header and XCLIENT are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Its TLS, where it has any.
    pub tls: Option<Tls>,
    /// What its sessions obey.
    pub session: Arc<Settings>,
    /// What saves its mails.
    pub backend: Arc<Asking>,
}

impl ServerConfig {
    /// One that is open to all, without TLS and without limits: what tests and benchmarks begin with.
    pub fn open(name: &str, address: ListenAddress, backend: Arc<Asking>) -> Self {
        Self {
            name: name.to_owned(),
            address,
            unix_mode: None,
            max_clients: 0,
            timeout: Duration::from_secs(30),
            data_timeout: Duration::ZERO,
            min_data_rate: 0,
            per_address: AddressLimits::default(),
            logins: LoginLimits::default(),
            greet_delay: Duration::ZERO,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            tls: None,
            session: Arc::default(),
            backend,
        }
    }

    /// Whether a peer is a proxy that is believed. One of a unix socket is: its file says who may connect.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|ip| self.trusted_proxies.iter().any(|network| network.contains(&ip)))
    }

    /// Whether this peer may speak for others: then it is not counted as a client itself.
    pub fn is_proxy(&self, peer: Option<IpAddr>) -> bool {
        (self.proxy_protocol || self.session.xclient) && self.trusts(peer)
    }
}

/// TLS of a server.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whether a connection begins with the handshake (RFC 8314 §3.3), without STARTTLS.
    pub always_on: bool,
    /// Its certificates and all else of a handshake.
    pub context: Arc<Context>,
}

/// What becomes of logins that fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoginLimits {
    /// Before the answer to the first that fails; twice as long with each further one of a connection.
    pub failure_delay: Duration,
    /// Of a connection, or of one client address in ten minutes, after which none is tried. 0: no limit.
    pub max_failures: u32,
}

/// Limits of one client address; 0: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressLimits {
    /// Connections at a time.
    pub connections: u32,
    /// New connections a minute.
    pub rate: u32,
    /// Bits of an IPv6 address that make a client.
    pub ipv6_prefix: u8,
}

impl AddressLimits {
    /// Whether anything has to be counted.
    pub fn are_set(&self) -> bool {
        self.connections > 0 || self.rate > 0
    }
}

/// Where a server listens, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and port.
    Tcp(std::net::SocketAddr),
    /// A unix socket.
    Unix(std::path::PathBuf),
    /// Sockets that are handed over by this name, wherever they listen.
    Named(String),
}

impl ListenAddress {
    /// `ip:port`, `[v6]:port`, `unix:/path` or `systemd:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("unix" | "systemd", "") => None,
            ("unix", path) => Some(Self::Unix(path.into())),
            ("systemd", name) => Some(Self::Named(name.to_owned())),
            _ => text.parse().ok().map(Self::Tcp),
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Named(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// What all servers share.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The listeners.
    pub servers: Vec<ServerConfig>,
    /// Octets for bodies, over all servers.
    pub max_memory: u64,
    /// Octets of a body over which it goes to a file; 0: none does.
    pub spill_size: u64,
    /// What saves mails, with what each is to obey; the default one among them.
    pub backends: Vec<(Arc<Asking>, Limits)>,
    /// Log level, as Python's `logging` counts.
    pub log_level: u8,
}

impl CoreConfig {
    /// The backend of that name.
    pub fn backend(&self, name: &str) -> Option<&Arc<Asking>> {
        self.backends.iter().map(|(backend, _)| backend).find(|backend| backend.name == name)
    }
}

/// A value that is replaced whole: readers keep what they have, new ones get the new one.
#[derive(Debug)]
pub struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    /// A swap that holds `value`.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The value now.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it.
    pub fn store(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
