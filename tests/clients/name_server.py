"""A name server for tests: knows one host, by its name and by its address."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Final, Self

_A: Final = 1
_PTR: Final = 12
_IN: Final = 1
_ANSWER: Final = 0x8180
"""Flags: a response, recursion desired and available, no error."""
_QUESTION: Final = b"\xc0\x0c"
"""The name of the question, by its place in the message (RFC 1035 §4.1.4)."""


class NameServer:
    """Answers on UDP until the end of the `with` block.

    Args:
        name: of the host.
        address: its IPv4 address.
    """

    def __init__(self, name: str, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        self._records = {
            (_labels(name), _A): socket.inet_aton(address),
            (_labels(reverse), _PTR): _labels(name),
        }
        self._thread = threading.Thread(target=self._serve, name="name server")
        self._thread.start()

    @property
    def address(self) -> str:
        """As `ip:port`."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())  # an empty datagram ends it
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        """To a message with one question, as nginx asks it."""
        question = query[12 : query.index(b"\0", 12) + 5]
        name, (kind, _) = question[:-4].lower(), struct.unpack("!HH", question[-4:])
        found = self._records.get((name, kind))
        header = query[:2] + struct.pack("!HHHHH", _ANSWER, 1, int(found is not None), 0, 0)
        if found is None:
            return header + question
        record = struct.pack("!HHIH", kind, _IN, 60, len(found))
        return header + question + _QUESTION + record + found


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
