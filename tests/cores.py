"""Cores without a daemon, and clients of theirs."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from guerrilla import Envelope
from guerrilla._core import Core

MIB = 1 << 20
AUTH: dict[str, Any] = {
    "offered": False,
    "required": False,
    "relay": False,
    "allow_plaintext": False,
    "failure_delay": 0.0,
    "max_failures": 0,
}
SERVER: dict[str, Any] = {
    "name": "test",
    "address": "127.0.0.1:0",
    "unix_mode": None,
    "host_name": "mx.example.net",
    "max_size": 32 * MIB,
    "timeout": 10.0,
    "max_clients": 1000,
    "max_recipients": 100,
    "max_errors": 5,
    "max_idle_commands": 50,
    "max_header_size": MIB,
    "max_received_hops": 50,
    "helo_required": True,
    "bare_newline": "fix",
    "data_timeout": 600.0,
    "min_data_rate": 100,
    "xclient": False,
    "proxy_protocol": False,
    "trusted_proxies": [],
    "max_messages": 0,
    "max_connections_per_ip": 0,
    "max_connection_rate_per_ip": 0,
    "ipv6_prefix": 64,
    "greet_delay": 0.0,
    "protocol": "smtp",
    "extensions": {},
    "auth": AUTH,
    "backend": "default",
    "tls": None,
}
BACKEND: dict[str, Any] = {
    "name": "default",
    "save_timeout": 10.0,
    "check_timeout": 10.0,
    "check_recipients": False,
    "auth_timeout": 10.0,
    "authenticate": True,
    "cache_ttl": 0.0,
    "breaker_failures": 0,
    "breaker_reset": 10.0,
    "spools": "never",
}


@contextmanager
def core(*, server: dict[str, Any] | None = None, **more: Any) -> Iterator[tuple[Core, str]]:
    settings: dict[str, Any] = {
        "servers": [SERVER | (server or {})],
        "allowed_hosts": ["."],
        "max_memory": 256 * MIB,
        "spill_size": 0,
        "backends": [BACKEND | {key: more.pop(key) for key in BACKEND if key in more}],
        "log_level": 30,
    }
    made = Core(settings | more)  # type: ignore[arg-type]
    try:
        (address,) = made.bind()
        made.start()
        yield made, address
    finally:
        made.close()


def unstarted(address: str) -> Core:
    return Core(
        {
            "servers": [SERVER | {"address": address}],  # type: ignore[list-item]
            "allowed_hosts": ["."],
            "max_memory": MIB,
            "spill_size": 0,
            "backends": [BACKEND],  # type: ignore[list-item]
            "log_level": 30,
        }
    )


_clients: list[Client] = []


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    """Closes what a test has opened."""
    yield
    while _clients:
        _clients.pop().socket.close()


class Client:
    """A client that says what it is told."""

    def __init__(self, address: str) -> None:
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address.removeprefix("unix:"))
        else:
            host, port = address.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(20)
        _clients.append(self)
        self.read(1)

    def read(self, lines: int) -> bytes:
        """So many lines, or what there is when the server closes."""
        data = b""
        while data.count(b"\r\n") < lines:
            octets = self.socket.recv(65536)
            if not octets:
                break
            data += octets
        return data

    def ask(self, text: str, lines: int = 1) -> bytes:
        self.socket.sendall(text.encode())
        return self.read(lines)

    def data(self, parameters: str = "") -> bytes:
        """Everything up to the answer to DATA."""
        self.ask("HELO client\r\n")
        self.ask(f"MAIL FROM:<a@example.com>{parameters}\r\n")
        self.ask("RCPT TO:<b@example.net>\r\n")
        return self.ask("DATA\r\n")

    def message(self, octets: int, parameters: str = "") -> None:
        assert self.data(parameters).startswith(b"354")
        self.socket.sendall(b"x" * octets + b"\r\n.\r\n")

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def take(made: Core, count: int = 1) -> list[Envelope]:
    taken: list[Envelope] = []
    while len(taken) < count:
        batch = made.receive(count - len(taken), 20)
        assert batch, "nothing came"
        taken += batch
    return taken
