"""A socket to the far side, with or without TLS, that never waits but where it is told to."""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from guerrilla.config import ListenAddress

__all__ = ["Link", "checking", "connect"]

_READ: Final = 1 << 16
"""More than a record of TLS holds: nothing stays behind that the socket would not tell of."""


def connect(address: ListenAddress, deadline: float) -> socket.socket:
    """A connected socket. Only the resolver of the machine has a time limit of its own.

    Raises:
        OSError: nobody is there, or not in time.
    """
    if address.kind == "unix":
        return _connected(socket.AF_UNIX, address.path, deadline)
    why = OSError("the host has no address")
    for family, _, _, _, where in socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    ):
        try:
            connection = _connected(family, where, deadline)
        except OSError as error:
            why = error
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise why


def _connected(family: int, where: Any, deadline: float) -> socket.socket:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no connection in time")
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(left)
        connection.connect(where)
    except BaseException:
        connection.close()
        raise
    return connection


def checking(ca_file: str) -> ssl.SSLContext:
    """TLS with a certificate and a name that are checked.

    Args:
        ca_file: PEM file of the authorities; empty for those of the machine.

    Raises:
        OSError: the file cannot be read, or has no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    # Python 3.13 sets it, and authorities that people make themselves do not satisfy it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Link:
    """One connection, for one thread.

    Args:
        connection: a connected socket, which it owns from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)

    @property
    def tls(self) -> str | None:
        """The version of TLS it speaks."""
        return self._socket.version() if isinstance(self._socket, ssl.SSLSocket) else None

    def close(self) -> None:
        """Closes it. Idempotent."""
        self._socket.close()

    def secure(self, context: ssl.SSLContext, name: str | None, deadline: float) -> None:
        """Begins TLS.

        Raises:
            TimeoutError: it takes too long.
            OSError: it cannot be, as for a certificate that is not as it has to be.
        """
        wrapped = context.wrap_socket(
            self._socket, server_hostname=name, do_handshake_on_connect=False
        )
        self._socket = wrapped
        while True:
            try:
                wrapped.do_handshake()
            except ssl.SSLWantReadError:
                self._poll(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._poll(select.POLLOUT, deadline)
            else:
                return

    def send(self, octets: memoryview) -> int:
        """Sends what there is room for; the number of octets that was.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self._socket.send(octets)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def receive(self) -> bytes | None:
        """What has come; None where nothing has, empty at the end of the connection.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self._socket.recv(_READ)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def wait(self, deadline: float, *, sending: bool) -> None:
        """Waits until something has come, or, where there is more to send, has room.

        Raises:
            TimeoutError: it is too late.
        """
        self._poll(select.POLLIN | select.POLLOUT if sending else select.POLLIN, deadline)

    def _poll(self, events: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, events)
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError("no answer in time")
