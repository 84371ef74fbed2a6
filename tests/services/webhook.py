"""Web servers that mails are posted to: the example's, and one that says what a test wants."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.services.base import Service, free_port

RECEIVER = Path(__file__).parents[2] / "examples" / "webhook" / "receiver.py"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Receiver(Service):
    """The example's receiver.

    Args:
        folder: an empty folder of its own; mails come into one below it.
        secret: what requests have to be signed with.
    """

    name = "receiver"

    def __init__(self, folder: Path, secret: str = "") -> None:
        super().__init__(folder)
        self.port = free_port()
        self.secret = secret
        self.mails = folder / "mails"
        self.mails.mkdir()

    @property
    def url(self) -> str:
        """As `http_url` has it."""
        return f"http://127.0.0.1:{self.port}/mail"

    def command(self) -> Sequence[str]:
        return [sys.executable, str(RECEIVER), str(self.port), str(self.mails)]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "WEBHOOK_SECRET": self.secret}

    def is_ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 5).close()
        return True

    def stored(self) -> list[bytes]:
        """What it has saved, in the order of the ids."""
        paths = sorted(path for path in self.mails.iterdir() if path.suffix != ".part")
        return [path.read_bytes() for path in paths]


class Request(NamedTuple):
    """A request as it came."""

    connection: int
    """The number of its connection."""
    line: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


Say = Callable[[Request], bytes | None]


class Scripted:
    """A web server on a port of 127.0.0.1 whose answers are given, octet by octet.

    Args:
        say: the answer to each request; None closes the connection without one.
        pause: seconds after each octet of an answer.
        closes: whether it closes the connection after an answer, without having said so.
        early: whether it answers before it has read the body, and then closes.
        port: where it listens, if not on a free port.
    """

    def __init__(
        self,
        say: Say | bytes,
        *,
        pause: float = 0.0,
        closes: bool = False,
        early: bool = False,
        port: int = 0,
    ) -> None:
        self._say: Say = (lambda _: say) if isinstance(say, bytes) else say
        self._pause = pause
        self._closes = closes or early
        self._early = early
        self.requests: list[Request] = []
        self.connections = 0
        self.closed = 0
        """Connections that it has closed."""
        self.sent = 0
        """Octets of answers that the client has taken."""
        self._server = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """As `http_url` has it."""
        return f"{self.origin}/hook"

    @property
    def origin(self) -> str:
        """What logs call it."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes everything. Idempotent."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(connection)
            talk = threading.Thread(
                target=self._talk, args=(connection, self.connections), daemon=True
            )
            self._threads.append(talk)
            talk.start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            for request in _requests(connection, number, early=self._early):
                with self._lock:
                    self.requests.append(request)
                answer = self._say(request)
                if answer is None:
                    break
                self._send(connection, answer)
                if self._closes:
                    break
        self.closed += 1

    def _send(self, connection: socket.socket, answer: bytes) -> None:
        step = 1 if self._pause else 65_536
        for start in range(0, len(answer), step):
            piece = answer[start : start + step]
            connection.sendall(piece)
            self.sent += len(piece)
            if self._pause:
                time.sleep(self._pause)


def _requests(connection: socket.socket, number: int, *, early: bool) -> Iterator[Request]:
    stream = connection.makefile("rb")
    while line := stream.readline():
        head = b""
        while (field := stream.readline()) not in {b"\r\n", b""}:
            head += field
        headers = BytesHeaderParser().parsebytes(head)
        body = b"" if early else stream.read(int(headers["Content-Length"]))
        yield Request(number, line.decode().strip(), headers, body)


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answer_json(value: object, status: int = 200) -> bytes:
    """A whole answer in JSON."""
    return answer(status, json.dumps(value).encode(), "Content-Type: application/json")
