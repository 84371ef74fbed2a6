"""Clients in Python, where Postfix's smtp-source cannot do what is measured: TLS above all.

They cost more than the server. So only the server's CPU time is compared, and the same client on a
plain connection stands beside each figure of TLS.

    python benches/clients.py PORT CONNECTIONS

sends mails over so many connections until it is ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import selectors
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from postfix import BenchError

PATIENCE: Final = 30.0
AT_ONCE: Final = 4
"""Sessions at a time."""
SOURCES: Final = [f"127.0.0.{number}" for number in range(2, 10)]
"""More than one, so that ports do not run short."""
BIND_ADDRESS_NO_PORT: Final = 24
"""Of Linux: the port is chosen at the connect, when the other end is known."""

EHLO: Final = b"EHLO client.example\r\n"
COMMANDS: Final = (b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.net>\r\n", b"DATA\r\n")
Secure = Callable[[socket.socket], ssl.SSLSocket]
"""Makes a connection that has said EHLO one with TLS that has said EHLO again."""
LINE: Final = b"x" * 78 + b"\r\n"
MESSAGE: Final = b"Subject: load\r\n\r\n" + LINE * 51 + b".\r\n"
"""4 KiB."""
WHOLE: Final = b"".join(COMMANDS) + MESSAGE


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection; the greeting is not read."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def reply(connection: socket.socket, codes: bytes = b"23") -> bytes:
    """Reads one whole reply, whose code has to begin with one of these."""
    text = b""
    while not (text.endswith(b"\r\n") and text.split(b"\r\n")[-2][3:4] == b" "):
        received = connection.recv(4_096)
        if not received:
            raise BenchError(f"a connection was closed behind {text.decode('ascii', 'replace')!r}")
        text += received
    if text[:1] not in codes:
        raise BenchError(f"a connection was refused: {text.decode('ascii', 'replace')}")
    return text


def ask(connection: socket.socket, octets: bytes) -> bytes:
    """Sends, and reads one reply."""
    connection.sendall(octets)
    return reply(connection)


def deliver(connection: socket.socket) -> None:
    """Sends a message of 4 KiB."""
    for octets in (*COMMANDS, MESSAGE):
        ask(connection, octets)


def open_session(
    port: int, secure: Secure | None = None, source: str = "127.0.0.1"
) -> socket.socket:
    """A connection that has said EHLO, and is then secured where that is asked for."""
    connection = connect(port, source)
    reply(connection)
    ask(connection, EHLO)
    return secure(connection) if secure is not None else connection


def session(port: int, secure: Secure | None = None, *, mails: int = 0) -> None:
    """EHLO, perhaps STARTTLS and EHLO again, mails, QUIT."""
    with open_session(port, secure) as connection:
        for _ in range(mails):
            deliver(connection)
        ask(connection, b"QUIT\r\n")


def quit_at_once(port: int) -> None:
    """A connection that is accepted and says QUIT."""
    with connect(port) as connection:
        reply(connection)
        ask(connection, b"QUIT\r\n")
        _end(connection)


def refused(port: int) -> None:
    """A connection that hears 421, from where the first of those that are held is."""
    with connect(port, SOURCES[0]) as connection:
        reply(connection, b"4")
        _end(connection)


def _end(connection: socket.socket) -> None:
    if connection.recv(1):
        raise BenchError("a connection was not closed")


def repeat(count: int, one: Callable[[], object]) -> None:
    """Does it so often, `AT_ONCE` at a time."""
    turns = iter(range(count))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                if next(turns, None) is None:
                    return
            one()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(client) for _ in range(AT_ONCE)]:
            done.result()


@contextlib.contextmanager
def hold(count: int, begin: Callable[[str], socket.socket]) -> Iterator[None]:
    """Holds so many connections, begun from one of `SOURCES` each."""
    sources = itertools.cycle(SOURCES)
    with contextlib.ExitStack() as open_:
        repeat(count, lambda: open_.enter_context(begin(next(sources))))
        yield


@contextlib.contextmanager
def held(port: int, count: int, secure: Secure | None = None) -> Iterator[None]:
    """Holds so many connections that have said EHLO and are silent."""

    def begin(source: str) -> socket.socket:
        connection = open_session(port, secure, source)
        if isinstance(connection, ssl.SSLSocket):
            # The server cannot tell a silent client from one that has lost its keys; this one
            # then costs no more than its descriptor.
            return socket.socket(fileno=connection.detach())
        return connection

    with hold(count, begin):
        yield


class Kept:
    """Connections that each send one message after the other, without pipelining."""

    def __init__(self, port: int, connections: int, secure: Secure | None = None) -> None:
        self._selector = selectors.DefaultSelector()
        self._left = 0
        for _ in range(connections):
            connection = open_session(port, secure)
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, self._talk(connection))

    def send(self, messages: int) -> None:
        """Sends so many in all, and waits for their replies."""
        self._left = messages
        busy = sum(next(key.data) for key in self._selector.get_map().values())
        while busy:
            ready = self._selector.select(PATIENCE)
            if not ready:
                raise BenchError("no connection was answered in time")
            for key, _ in ready:
                busy -= not next(key.data)

    def close(self) -> None:
        """Closes them."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.data.close()
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _talk(self, connection: socket.socket) -> Iterator[bool]:
        """Goes on as far as it can at each turn: whether it is at work."""
        while True:
            if not self._left:
                yield False
                continue
            self._left -= 1
            for octets in (*COMMANDS, MESSAGE):
                connection.send(octets)
                yield True
                while not self._answered(connection):
                    yield True

    def _answered(self, connection: socket.socket) -> bool:
        try:
            text = connection.recv(4_096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        if text[:1] not in (b"2", b"3") or not text.endswith(b"\r\n"):
            raise BenchError(f"a message was answered {text!r}")
        return True


WINDOW: Final = 8
"""Messages of a connection that are on their way at a time."""
REPLIES: Final = 4
"""To MAIL, RCPT, DATA and the message: a line each."""


class Piped:
    """Connections that each send whole messages, one behind the other, and wait for no reply.

    No sender may do that (RFC 2920 §3.1: the message waits for 354), so it tells what a receiver
    costs by itself: nothing of it is the to and fro.
    """

    def __init__(self, port: int, connections: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._left = 0
        for _ in range(connections):
            connection = open_session(port)
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, _Piping())

    def send(self, messages: int) -> None:
        """Sends so many in all, and waits for their replies."""
        self._left = messages
        waiting = messages
        for key in self._selector.get_map().values():
            self._follow(key, WINDOW)
        while waiting:
            ready = self._selector.select(PATIENCE)
            if not ready:
                raise BenchError("no connection was answered in time")
            for key, _ in ready:
                answered = key.data.hear(_socket(key).recv(65_536))
                waiting -= answered
                self._follow(key, answered)

    def close(self) -> None:
        """Closes them."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            _socket(key).close()
        self._selector.close()

    def _follow(self, key: selectors.SelectorKey, count: int) -> None:
        """Sends so many more, where there are as many."""
        count = min(count, self._left)
        self._left -= count
        octets = WHOLE * count
        if octets and _socket(key).send(octets) != len(octets):
            raise BenchError("a socket does not take what is on its way: is WINDOW too large?")


@dataclasses.dataclass
class _Piping:
    """What one of them has heard."""

    rest: bytes = b""
    lines: int = 0

    def hear(self, octets: bytes) -> int:
        """How many messages more are answered."""
        if not octets:
            raise BenchError("a connection was closed")
        *lines, self.rest = (self.rest + octets).split(b"\r\n")
        if bad := [line for line in lines if line[:1] not in (b"2", b"3")]:
            raise BenchError(f"a message was answered {bad[0]!r}")
        before = self.lines // REPLIES
        self.lines += len(lines)
        return self.lines // REPLIES - before


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


if __name__ == "__main__":
    Kept(int(sys.argv[1]), int(sys.argv[2])).send(sys.maxsize)
