//! Listening sockets that somebody else has bound: the process above this one, the one before it, or systemd.

use std::collections::HashMap;

use super::bound::Bound;
use crate::config::ListenAddress;

/// Sockets by the address that a server has in the settings. There may be several of one, where each has a
/// queue of its own (`SO_REUSEPORT`): all of them are served.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<ListenAddress, Vec<Bound>>);

impl Inherited {
    /// Keeps one until a server asks for it.
    pub(crate) fn add(&mut self, address: ListenAddress, socket: Bound) {
        self.0.entry(address).or_default().push(socket);
    }

    /// Whether there are any of an address.
    pub(super) fn has(&self, address: &ListenAddress) -> bool {
        self.0.contains_key(address)
    }

    /// All that there are of an address. Of port 0, which several servers may have: those of one port, in the
    /// order in which they came.
    pub(super) fn take(&mut self, address: &ListenAddress) -> Vec<Bound> {
        let Some(mut all) = self.0.remove(address) else { return Vec::new() };
        if let (ListenAddress::Tcp(wanted), Some(first)) = (address, all.first())
            && wanted.port() == 0
        {
            let port = first.address();
            let (taken, left) = all.into_iter().partition(|socket| socket.address() == port);
            all = taken;
            if !left.is_empty() {
                self.0.insert(address.clone(), left);
            }
        }
        all
    }

    /// Closes those that nobody has asked for, and says of which addresses they were.
    pub(crate) fn clear(&mut self) -> Vec<ListenAddress> {
        self.0.drain().map(|(address, _)| address).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn address(text: &str) -> ListenAddress {
        ListenAddress::parse(text).unwrap()
    }

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = listener.local_addr().unwrap().to_string();
        (listener, text)
    }

    fn adopt(wanted: &str, socket: impl Into<OwnedFd>) -> Result<String, String> {
        let bound = Bound::adopt(&address(wanted), socket.into(), true);
        bound.map(|bound| bound.address()).map_err(|error| error.to_string())
    }

    #[test]
    fn all_of_an_address_are_taken_and_of_port_0_a_port_at_a_time() {
        let (one, first) = listener();
        let (other, second) = listener();
        let mut inherited = Inherited::default();
        for listener in [one.try_clone().unwrap(), other, one] {
            let wanted = address("127.0.0.1:0");
            let bound = Bound::adopt(&wanted, listener.into(), true).unwrap();
            inherited.add(wanted, bound);
        }
        let mut take = || -> Vec<String> {
            let taken = inherited.take(&address("127.0.0.1:0"));
            taken.iter().map(Bound::address).collect()
        };
        assert_eq!(take(), [first.clone(), first]);
        assert_eq!(take(), [second]);
        assert_eq!(take(), Vec::<String>::new());
        assert_eq!(inherited.clear(), []);
    }

    #[test]
    fn only_what_listens_there_is_taken() {
        let (one, there) = listener();
        let again = || one.try_clone().unwrap();
        assert_eq!(adopt(&there, again()), Ok(there.clone()));
        assert_eq!(adopt("127.0.0.1:0", again()), Ok(there.clone()));
        assert_eq!(adopt("systemd:smtp", again()), Ok(there.clone()));
        let of = |what: &str| Err(format!("the socket that was handed over is of {what}"));
        assert_eq!(adopt("127.0.0.1:1", again()), of(&there));
        assert_eq!(adopt("0.0.0.0:0", again()), of(&there));
        assert_eq!(adopt("[::1]:0", again()), of(&there));
        assert_eq!(adopt("unix:/x", again()), of(&there));
        let (stream, _peer) = UnixStream::pair().unwrap();
        let deaf = Err("what was handed over does not listen for connections".to_owned());
        assert_eq!(adopt("systemd:smtp", stream), deaf);
        assert_eq!(adopt("unix:/x", UnixDatagram::unbound().unwrap()), deaf);
    }
}
