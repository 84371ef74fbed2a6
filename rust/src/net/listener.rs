//! The accept loop: it never waits for anything but the next connection.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bound::{BACKLOG, Left, Listening, SocketFile, allow_beside, turn_away};
use super::connection::{self, Connection};
use super::live::{Live, Place, refuse};
use super::stream::Stream;
use crate::delivery::Client;
use crate::log::Level;
use crate::server::Shared;
use crate::smtp::Reply;

/// After a failed accept: long enough not to spin, short enough not to be missed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long the answer may be under way of somebody who connects, and was answered already: over a network, and
/// within a machine, where a busy kernel leaves it to a thread of its own, which waits for its turn.
const LAST_ACKS: Duration = Duration::from_millis(300);
const LAST_ACKS_LOCAL: Duration = Duration::from_millis(50);

/// A connection and its peer, which one of a unix socket has not.
type Accepted = (Stream, Option<SocketAddr>);

/// A listener inside the runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: Listening) -> io::Result<Self> {
        match socket {
            Listening::Tcp(listener, _) => TcpListener::from_std(listener).map(Self::Tcp),
            Listening::Unix(listener, _) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, peer)| (Stream::Tcp(stream), Some(canonical(peer)))),
            Self::Unix(listener) => {
                listener.poll_accept(context).map_ok(|(stream, _)| (Stream::Unix(stream), None))
            }
        }
        .map_ok(|(stream, peer)| {
            stream.await_input();
            (stream, peer)
        })
    }

    /// How long somebody may be connecting; who comes to a unix socket is in its queue at once.
    fn last_acks(&self) -> Option<Duration> {
        let Self::Tcp(listener) = self else { return None };
        let is_local = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
        Some(if is_local { LAST_ACKS_LOCAL } else { LAST_ACKS })
    }

    /// Those that are connecting at this moment.
    async fn accept_late(&self, within: Duration, mut take: impl FnMut(Accepted)) {
        let mut rest = pin!(tokio::time::sleep(within));
        for _ in ALL {
            let next = poll_fn(|context| match self.poll_accept(context) {
                Poll::Pending => rest.as_mut().poll(context).map(|()| None),
                ready @ Poll::Ready(_) => ready.map(Some),
            });
            match next.await {
                Some(Ok(accepted)) => take(accepted),
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                _ => return,
            }
        }
    }

    /// Those that wait at this moment, whether or not the runtime knows of them. Then it is closed.
    fn accept_rest(self, mut take: impl FnMut(Accepted)) {
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                accept_all_of(
                    || listener.accept(),
                    |(stream, peer)| {
                        stream.set_nonblocking(true)?;
                        take((Stream::Tcp(TcpStream::from_std(stream)?), Some(canonical(peer))));
                        Ok(())
                    },
                );
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                accept_all_of(
                    || listener.accept(),
                    |(stream, _)| {
                        stream.set_nonblocking(true)?;
                        take((Stream::Unix(UnixStream::from_std(stream)?), None));
                        Ok(())
                    },
                );
            }
        }
    }
}

/// More can come all the time: who would take them is no longer there. The kernel queues one more than it was asked.
const ALL: std::ops::RangeInclusive<i32> = 0..=BACKLOG;

/// Until nobody waits, or nobody more can be accepted.
fn accept_all_of<T>(
    mut accept: impl FnMut() -> io::Result<T>,
    mut take: impl FnMut(T) -> io::Result<()>,
) {
    for _ in ALL {
        match accept() {
            // An error is of that one alone.
            Ok(accepted) => drop(take(accepted)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

/// A client of IPv4 that came to a socket of IPv6 is one of IPv4.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

const OPEN: u8 = 0;
/// Nobody else has the socket: who waits in its queue is told so.
const CLOSING: u8 = 1;
/// Somebody else goes on with the socket, and with who waits in its queue.
const HANDED_OVER: u8 = 2;

/// What an accept loop and who may end it share; the core's shutdown ends all.
#[derive(Debug)]
pub(super) struct Door {
    state: AtomicU8,
    /// Somebody else has the socket too, and goes on with it.
    kept: bool,
    /// As long as it is served.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// Goes first: nobody finds it once the socket is closed.
    file: Option<SocketFile>,
    /// The socket once more: whoever has it keeps it open.
    socket: Option<OwnedFd>,
}

impl Door {
    pub(super) fn new(socket: Option<OwnedFd>, file: Option<SocketFile>, kept: bool) -> Self {
        Self { state: AtomicU8::new(OPEN), kept, held: Mutex::new(Held { file, socket }) }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has to be followed by a word that wakes the loop.
    pub(super) fn close(&self) {
        // Who keeps it has its queue too: to turn clients away would be for all who have the socket.
        let end = if self.kept { HANDED_OVER } else { CLOSING };
        // One that was handed over stays so.
        let _ = self.state.compare_exchange(OPEN, end, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Closes, and gives socket and file to who goes on with them; none where there is no socket to give.
    /// Has to be followed by a word that wakes the loop.
    pub(super) fn hand_over(&self) -> Option<Left> {
        let mut held = self.held();
        let socket = held.socket.take()?;
        self.state.store(HANDED_OVER, Ordering::SeqCst);
        Some(Left { file: held.file.take(), socket, kept: self.kept })
    }

    /// Its socket once more, to be handed over; none where it is not served any more.
    pub(super) fn share(&self) -> Option<OwnedFd> {
        self.held().socket.as_ref().and_then(|socket| socket.try_clone().ok())
    }

    /// Lets another socket be bound beside it; whether that is so. One of somebody else's stays as it is.
    pub(super) fn allow_beside(&self) -> bool {
        !self.kept && self.held().socket.as_ref().is_some_and(|socket| allow_beside(socket).is_ok())
    }

    /// The file of its unix socket stays; whether it would have been removed.
    pub(super) fn leave_file(&self) -> bool {
        self.held().file.take().map(SocketFile::leave).is_some()
    }

    /// Whether the file of its unix socket is for us to change: not that of somebody who keeps the socket.
    pub(super) fn has_file(&self) -> bool {
        !self.kept || self.held().file.is_some()
    }

    /// The file of its unix socket is removed with it.
    pub(super) fn own_file(&self, path: &Path) {
        let mut held = self.held();
        if held.socket.is_some() && held.file.is_none() {
            held.file = Some(SocketFile::new(path));
        }
    }

    /// Nobody comes any more; who waits in the queue stays there. Whether that is so.
    fn turn_away(&self) -> bool {
        let mut held = self.held();
        held.file = None;
        // Not kept for longer: where descriptors are short, it is the one that the next client needs.
        held.socket.take().is_some_and(|socket| turn_away(&socket))
    }
}

/// Shuts a door, however its loop ends: a socket that nobody serves is not to look as if somebody did.
struct Shut(Arc<Door>);

impl Drop for Shut {
    fn drop(&mut self) {
        let mut held = self.0.held();
        held.file = None;
        held.socket = None;
    }
}

/// Accepts for a server until the core stops, or this listener is to close.
pub(super) async fn serve(
    socket: Listening,
    live: Arc<Live>,
    door: Arc<Door>,
    shared: Arc<Shared>,
) {
    // Goes after the listener.
    let _shut = Shut(Arc::clone(&door));
    match Listener::new(socket) {
        Ok(listener) => accept_all(listener, &live, &door, &shared).await,
        Err(error) => shared.log.write(
            Level::Error,
            "net",
            format_args!("{}: cannot be served: {error}", live.name()),
        ),
    }
}

async fn accept_all(listener: Listener, live: &Arc<Live>, door: &Door, shared: &Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let changed = shared.shutdown.changed();
        let state = door.state.load(Ordering::SeqCst);
        if state == CLOSING {
            // They hear 421, instead of a reset.
            let end = |(stream, peer)| {
                if live.is_leaving() {
                    tell_gone(&stream, live, shared);
                } else {
                    take(stream, peer, live, shared);
                }
            };
            if door.turn_away()
                && let Some(within) = listener.last_acks()
            {
                listener.accept_late(within, end).await;
            }
            listener.accept_rest(end);
            return;
        }
        if state == HANDED_OVER || shared.shutdown.is_stopping() {
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

/// Nobody serves a client any more: one descriptor is enough for all that are told so.
fn tell_gone(stream: &Stream, live: &Live, shared: &Shared) {
    shared.stats.connections_refused.add();
    refuse(&live.config(), stream, &Reply::server_gone(), shared);
}

fn take(stream: Stream, peer: Option<SocketAddr>, live: &Arc<Live>, shared: &Arc<Shared>) {
    let ip = peer.map(|peer| peer.ip());
    let config = live.config();
    let Some(admitted) = live.admit(&config, ip, &stream, shared) else { return };
    shared.stats.connections_accepted.add();
    let client = Client {
        id: shared.tenant.number_connection(),
        server: Arc::clone(live.name()),
        host_name: Arc::clone(&config.session.host_name),
        remote_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
        remote_port: peer.map_or(0, |peer| peer.port()),
        local: stream.local(),
        ..Client::default()
    };
    let place = Place::take(admitted, shared);
    let connection = Connection::new(stream, client, config, Arc::clone(shared), place);
    tokio::spawn(connection::run(Box::new(connection)));
}
