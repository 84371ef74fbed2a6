"""A private redis-server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import pytest
import redis

from tests.certificates import Authority, Pair
from tests.services.base import Service, free_port, program

DURABLE: Mapping[str, str] = {"appendonly": "yes", "appendfsync": "always"}
"""What a mail that was answered 250 survives any crash by."""


class RedisServer(Service):
    """Redis on 127.0.0.1 and on a unix socket, which keeps nothing unless told to.

    Args:
        folder: an empty one of its own.
        settings: directives of redis.conf, beside or in place of its own.
        tls: an authority: it speaks TLS on its port with a certificate of that, and asks for one.
        secret: the password of the user that `client` logs in as.
    """

    name = "redis"

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        tls: Authority | None = None,
        secret: str | None = None,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.socket = str(folder / "redis.sock")
        self.secret = secret
        self.settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": self.socket,
            "dir": str(folder),
            "save": "",
            "databases": "4",
            **(_tls(tls.issue_server(), tls.certificate, self.port) if tls is not None else {}),
            **({"requirepass": f'"{secret}"'} if secret is not None else {}),
            **(settings or {}),
        }

    @property
    def address(self) -> str:
        """As `redis_interface` has it."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        config = self.folder / "redis.conf"
        lines = [f"{name} {value or chr(34) * 2}\n" for name, value in self.settings.items()]
        config.write_text("".join(lines), encoding="utf-8")
        return [program("redis-server"), str(config)]

    def is_ready(self) -> bool:
        with self.client() as client:
            return bool(client.ping())

    def client(self, database: int = 0) -> redis.Redis:
        """A client over its unix socket."""
        return redis.Redis(unix_socket_path=self.socket, password=self.secret, db=database)

    def values(self, database: int = 0) -> dict[bytes, bytes]:
        """Everything that is stored."""
        with self.client(database) as client:
            keys = cast("list[bytes]", client.keys("*"))
            found = cast("list[bytes | None]", client.mget(keys)) if keys else []
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    def ask(self, *words: Any) -> Any:
        """The answer to one command."""
        with self.client() as client:
            return client.execute_command(*words)


class Babbler:
    """Takes connections as Redis does, and answers what a test says to each batch of commands.

    Args:
        answer: to a batch, as it comes in; None closes the connection in place of an answer.
        hello: to PING.
        pause: seconds after each octet of an answer.
    """

    def __init__(
        self, answer: bytes | None, *, hello: bytes = b"+PONG\r\n", pause: float = 0.0
    ) -> None:
        self.answer = answer
        self.hello = hello
        self.pause = pause
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """As `redis_interface` has it."""
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while asked := connection.recv(1 << 20):
                if b"PING" in asked:
                    answer: bytes | None = self.hello
                elif b"CONFIG" in asked:
                    answer = b"-ERR unknown command 'CONFIG'\r\n"
                else:
                    answer = self.answer
                if answer is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                self._say(connection, answer)

    def _say(self, connection: socket.socket, answer: bytes) -> None:
        if not self.pause or answer != self.answer:
            connection.sendall(answer)
            return
        for octet in answer:
            connection.sendall(bytes((octet,)))
            time.sleep(self.pause)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests that do it no harm."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def empty_redis(redis_server: RedisServer) -> RedisServer:
    """The same, empty."""
    redis_server.ask("FLUSHALL")
    return redis_server


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Starts one that a test may do anything with; takes what `RedisServer` does."""
    with contextlib.ExitStack() as stack:

        def start(**keys: Any) -> RedisServer:
            return stack.enter_context(RedisServer(tmp_path_factory.mktemp("redis"), **keys))

        yield start


def _tls(pair: Pair, authority: Path, port: int) -> dict[str, str]:
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(pair.certificate),
        "tls-key-file": str(pair.key),
        "tls-ca-cert-file": str(authority),
    }
