//! Listening sockets that somebody else has bound: the process above this one, the one before it, or systemd.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use crate::config::ListenAddress;

/// Sockets by the address that a server has in the settings. There may be several of one, where each has a
/// queue of its own (`SO_REUSEPORT`): all of them are served.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<ListenAddress, Vec<OwnedFd>>);

impl Inherited {
    /// Keeps one until a server asks for it.
    pub(crate) fn add(&mut self, address: ListenAddress, socket: OwnedFd) {
        self.0.entry(address).or_default().push(socket);
    }

    /// All that there are of an address.
    pub(crate) fn take(&mut self, address: &ListenAddress) -> Vec<OwnedFd> {
        self.0.remove(address).unwrap_or_default()
    }

    /// Closes those that nobody has asked for, and says of which addresses they were.
    pub(crate) fn clear(&mut self) -> Vec<ListenAddress> {
        self.0.drain().map(|(address, _)| address).collect()
    }
}
