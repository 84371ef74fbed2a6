"""A TCP relay before a server, which can be told to spoil what the server says."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator


class Relay:
    """Connections to `port` of this machine, by another port.

    Args:
        port: of the server.
        host: where the relay listens.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.garbage = False
        """What the server says is replaced by as much of something else."""
        self._target = port
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections; those that are there go on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            answers = threading.Thread(target=self._copy, args=(far, near), daemon=True)
            answers.start()
            self._copy(near, far)
            answers.join()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65_536):
                spoilt = self.garbage and sink.getsockname()[1] == self.port
                sink.sendall(os.urandom(len(octets)) if spoilt else octets)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relay(port: int, host: str = "127.0.0.1") -> Iterator[Relay]:
    """A relay that takes connections until the end."""
    made = Relay(port, host)
    try:
        yield made
    finally:
        made.close()
