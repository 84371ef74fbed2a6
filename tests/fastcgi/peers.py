"""FastCGI servers that misbehave, and the records that they are made of."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

BEGIN, END, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
PATIENCE = 10.0


def record(kind: int, content: bytes = b"", number: int = 1, padding: int = 0) -> bytes:
    return struct.pack("!BBHHBx", 1, kind, number, len(content), padding) + content + b"p" * padding


def end(status: int = 0, exit_status: int = 0) -> bytes:
    return record(END, struct.pack("!IB3x", exit_status, status))


def answer(body: bytes, head: bytes = b"Content-type: text/html\r\n\r\n") -> bytes:
    """As PHP-FPM has it."""
    return record(STDOUT, head + body, padding=5) + record(STDOUT) + end()


class Asked(NamedTuple):
    """A request."""

    params: dict[str, str]
    content: bytes
    kinds: list[int]
    """Types of its records, in their order."""


def asked(stream: bytes) -> Asked:
    """Reads a request, by the specification and not by our code."""
    parts: dict[int, bytes] = {PARAMS: b"", STDIN: b""}
    kinds = []
    while stream:
        version, kind, number, length, padding = struct.unpack("!BBHHBx", stream[:8])
        assert (version, number) == (1, 1)
        content, stream = stream[8 : 8 + length], stream[8 + length + padding :]
        assert len(content) == length
        kinds.append(kind)
        if kind == BEGIN:
            assert content == b"\x00\x01\x01\x00\x00\x00\x00\x00"
        else:
            parts[kind] += content
    return Asked(dict(_pairs(parts[PARAMS])), parts[STDIN], kinds)


def _pairs(block: bytes) -> Iterator[tuple[str, str]]:
    while block:
        lengths = []
        for _ in range(2):
            size = 4 if block[0] & 0x80 else 1
            lengths.append(int.from_bytes(block[:size]) & 0x7FFF_FFFF)
            block = block[size:]
        name, value = block[: lengths[0]], block[lengths[0] : sum(lengths)]
        yield name.decode(), value.decode()
        block = block[sum(lengths) :]


def request_on(connection: socket.socket) -> bytes:
    """The octets of the next request; empty when the client has closed."""
    stream = bytearray()
    with contextlib.suppress(ConnectionResetError):
        # The empty record of STDIN is the last, and no content of ours looks like it.
        while not stream.endswith(record(STDIN)):
            received = connection.recv(1 << 16)
            if not received:
                return b""
            stream += received
    return bytes(stream)


Behaviour = Callable[[socket.socket], object]
"""What is done with a connection; it is closed after it."""


def says(*answers: bytes) -> Behaviour:
    """Reads a request and says that, for each."""

    def act(connection: socket.socket) -> None:
        for octets in answers:
            if not request_on(connection):
                return
            connection.sendall(octets)

    return act


def says_and_waits(octets: bytes) -> Behaviour:
    """Reads a request, says that, and nothing more until the client closes."""

    def act(connection: socket.socket) -> None:
        request_on(connection)
        connection.sendall(octets)
        while connection.recv(1 << 16):
            pass

    return act


class Peer:
    """A server that does with its first connection the first thing, and so on, the last for ever.

    A context manager.
    """

    def __init__(self, *behaviours: Behaviour) -> None:
        self.connections = 0
        self._behaviours: Sequence[Behaviour] = behaviours
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    @property
    def keys(self) -> dict[str, object]:
        """The keys of `backend_config` that lead to it."""
        port = self._listener.getsockname()[1]
        return {"fcgi_connection_type": "tcp", "fcgi_connection_address": f"127.0.0.1:{port}"}

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE)
                behaviour = self._behaviours[min(self.connections, len(self._behaviours) - 1)]
                self.connections += 1
                thread = threading.Thread(
                    target=self._act, args=(behaviour, connection), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _act(behaviour: Behaviour, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behaviour(connection)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Only so does an accept that waits return.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
