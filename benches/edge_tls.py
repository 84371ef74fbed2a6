"""What TLS costs: a session with STARTTLS, one that is resumed, and mails on kept connections."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Final

import clients
from measuring import WARM_UP, Bench, cpu_us
from postfix import BenchError
from receivers import Receiver

TURNS: Final = 5
SESSIONS: Final = 500
MESSAGES: Final = 5_000
"""In each turn."""
CONNECTIONS: Final = 100
"""As in scenario b of load.py, whose messages are as large."""


def unverified() -> ssl.SSLContext:
    """A client that takes any certificate: checking it is not the server's work."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclasses.dataclass(frozen=True)
class StartTls:
    """Makes a connection that has said EHLO one with TLS 1.3 that has said EHLO again.

    A full handshake each time; where a session is given, one that resumes it.
    """

    context: ssl.SSLContext = dataclasses.field(default_factory=unverified)
    session: ssl.SSLSession | None = None

    def __call__(self, connection: socket.socket) -> ssl.SSLSocket:
        """Negotiates; what it takes over is closed with what it returns."""
        clients.ask(connection, b"STARTTLS\r\n")
        secure = self.context.wrap_socket(connection, session=self.session)
        if secure.version() != "TLSv1.3" or secure.session_reused != (self.session is not None):
            raise BenchError(f"not the handshake that was asked for: {secure.version()}")
        clients.ask(secure, clients.EHLO)
        return secure

    def resuming(self, port: int) -> StartTls:
        """One that resumes a session which it begins here."""
        with contextlib.closing(clients.open_session(port, self)) as connection:
            # The ticket came with the reply to EHLO, at the latest.
            session = connection.session if isinstance(connection, ssl.SSLSocket) else None
        if session is None or not session.has_ticket:
            raise BenchError("the server gave no ticket")
        return StartTls(self.context, session)


def tls(bench: Bench) -> None:
    """Sessions and mails with TLS, beside the same without.

    In short turns: what else the machine does then falls upon all alike.
    """
    with bench.serve(f"max_clients = 1000\n{bench.tls}") as receiver:
        start = StartTls()
        ways = {"plain": None, "STARTTLS": start, "resumed": start.resuming(receiver.port)}
        _sessions(bench, receiver, ways)
        _mails(bench, receiver, {"kept, plain": None, "kept, TLS": start})


Ways = Mapping[str, clients.Secure | None]


def _sessions(bench: Bench, receiver: Receiver, ways: Ways) -> None:
    count = bench.count(SESSIONS)
    ones = {name: partial(clients.session, receiver.port, way) for name, way in ways.items()}
    for one in ones.values():
        clients.repeat(bench.count(WARM_UP), one)
    for _, (name, one) in product(range(TURNS), ones.items()):
        each = cpu_us(receiver, partial(clients.repeat, count, one)) / count
        bench.samples.add(f"session, {name} server µs", each)


def _mails(bench: Bench, receiver: Receiver, ways: Ways) -> None:
    count = bench.count(MESSAGES)
    with contextlib.ExitStack() as open_:
        kept = {}
        for name, way in ways.items():
            kept[name] = clients.Kept(receiver.port, CONNECTIONS, way)
            open_.callback(kept[name].close)
            kept[name].send(bench.count(WARM_UP))
        for _, (name, one) in product(range(TURNS), kept.items()):
            each = cpu_us(receiver, partial(one.send, count)) / count
            bench.samples.add(f"{name} server µs", each)
