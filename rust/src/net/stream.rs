//! TCP and unix sockets as one type.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// When what is written goes to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Now,
    /// With the word that nothing more comes, which has to [follow](Stream::finish_writing).
    WithTheEnd,
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Reads what is there. On a short read the socket counts as empty, which saves the read that
    /// would only say so.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    /// Of a socket that was just accepted: its first octets are waited for. The runtime takes them to be there, and
    /// here the client hears something first. If they are, the runtime is yet told so.
    pub(super) fn await_input(&self) {
        let nothing = || Err(io::ErrorKind::WouldBlock.into());
        let _: io::Result<()> = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
        };
    }

    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// As [`try_write`](Self::try_write).
    pub(super) fn try_send(&self, octets: &[u8], how: Sent) -> io::Result<usize> {
        match how {
            Sent::Now => self.try_write(octets),
            Sent::WithTheEnd => {
                let send =
                    || self.socket().send_with_flags(octets, libc::MSG_NOSIGNAL | libc::MSG_MORE);
                match self {
                    Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, send),
                    Self::Unix(stream) => stream.try_io(Interest::WRITABLE, send),
                }
            }
        }
    }

    pub(crate) fn try_write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(octets),
            Self::Unix(stream) => stream.try_write(octets),
        }
    }

    /// Also where the runtime has not yet heard that it takes anything.
    pub(super) fn write_now(&self, octets: &[u8]) -> io::Result<usize> {
        self.socket().send_with_flags(octets, libc::MSG_NOSIGNAL)
    }

    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }

    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Unix(stream) => stream.poll_write_ready(context),
        }
    }

    /// Waits until the connection is broken; a peer that only stopped sending is not.
    pub(super) async fn broken(&self) {
        // Whether the wait itself fails makes no difference: the connection is of no use then.
        let _ = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
    }

    /// The error that broke the connection, if one did.
    pub(super) fn is_broken(&self) -> bool {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        };
        !matches!(error, Ok(None))
    }

    /// Sends what is written at once.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Where the peer connected to; nowhere for a unix socket.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
        .map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()))
    }

    /// Makes the close a RST; of a unix socket it stays a close.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // It fails when the connection is gone already.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Sends a FIN; what the peer still sends can be read.
    pub(super) fn finish_writing(&self) {
        // It fails when the peer has closed already, which is all the same.
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;
    use std::task::Waker;

    use super::*;
    use crate::config::ListenAddress;
    use crate::net::bound::{Bound, Listening};

    /// One that the kernel has accepted, as a listener gets it, and its client; nothing waits in it.
    async fn accepted() -> (TcpStream, Client) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(socket.local_addr().unwrap());
        let (socket, ..) = Bound::adopt(&address, socket.into(), false).unwrap().split();
        let Listening::Tcp(listener, at) = socket else { panic!("it is one of TCP") };
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let client = Client::connect(at).unwrap();
        client.set_nonblocking(true).unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn what_goes_with_the_end_waits_for_it() {
        run(async {
            let (stream, mut client) = accepted().await;
            let (stream, mut buffer) = (Stream::Tcp(stream), [0; 9]);
            assert_eq!(stream.try_send(b"221", Sent::WithTheEnd).unwrap(), 3);
            assert_eq!(client.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            stream.finish_writing();
            client.set_nonblocking(false).unwrap();
            assert_eq!(client.read(&mut buffer).unwrap(), 3);
            assert_eq!(client.read(&mut buffer).unwrap(), 0);
        });
    }

    #[test]
    fn an_accepted_socket_is_read_once_something_is_there() {
        run(async {
            let (stream, mut client) = accepted().await;
            let stream = Stream::Tcp(stream);
            stream.await_input();
            let mut context = Context::from_waker(Waker::noop());
            assert!(stream.poll_read_ready(&mut context).is_pending());
            client.write_all(b"x").unwrap();
            poll_fn(|context| stream.poll_read_ready(context)).await.unwrap();
        });
    }

    #[test]
    fn an_accepted_socket_holds_no_reply_back() {
        run(async {
            assert!(accepted().await.0.nodelay().unwrap());
        });
    }
}
