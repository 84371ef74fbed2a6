//! The settings the core obeys: immutable values behind a swap.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::smtp::Settings;

/// One listener and what its sessions obey.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `listen_interface` as it was configured.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
    /// Connections at a time; one more is told 421. 0: no limit.
    pub max_clients: usize,
    /// For a command line, a reply to be taken, and between two reads of a message.
    pub timeout: Duration,
    /// For a message in all; zero: no limit.
    pub data_timeout: Duration,
    /// Octets a second that a message must come with after its first minute; 0: no limit.
    pub min_data_rate: u64,
    /// What its sessions obey.
    pub session: Arc<Settings>,
}

/// Where a server listens, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and port.
    Tcp(std::net::SocketAddr),
    /// A unix socket.
    Unix(std::path::PathBuf),
}

impl ListenAddress {
    /// `ip:port`, `[v6]:port` or `unix:/path`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some("") => None,
            Some(path) => Some(Self::Unix(path.into())),
            None => text.parse().ok().map(Self::Tcp),
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
    /// From the final dot to the answer.
    pub save_timeout: Duration,
    /// From RCPT to its answer.
    pub check_timeout: Duration,
    /// Log level, as Python's `logging` counts.
    pub log_level: u8,
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
