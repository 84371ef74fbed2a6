"""Messages in Redis: a kept connection, and a batch of commands in one go.

Imported where a chain that needs it is opened: only then is the package `redis` needed.

The client library makes the connection, logs in, writes commands and reads replies. Which reply
belongs to which mail is decided here, and that nothing is tried a second time: its own retries
would take longer than a sender waits, and hide what became of the first try.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import redis

from guerrilla.errors import ConfigError, StartError, Unavailable
from guerrilla.kept import Kept
from guerrilla.redisstore.place import TOO_LONG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla.redisstore.place import Entry, RedisOptions

__all__ = ["RedisStore"]

log = logging.getLogger("guerrilla.redis")

_SLICE: Final = 1 << 20
"""Octets that are sent within one time limit."""
_GATHERED: Final = 64 << 10
"""Octets of small commands that are sent together."""
_LARGEST: Final = 512 << 20
"""`proto-max-bulk-len` where Redis does not say it."""
_SHOWN: Final = 200
"""Characters of an error that are logged."""

_DEMOTED: Final = "READONLY"
_DOWN: Final = "if it goes down"
_FULL: Final = "when it is full"

_warned: set[str] = set()
"""What was said once about a Redis is not said by each worker."""


class RedisConnection(Protocol):
    """What is used of a connection of the client library, which says no types of it."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def pack_command(self, *words: object) -> Sequence[bytes]: ...
    def send_packed_command(self, octets: Iterator[bytes | memoryview]) -> None: ...
    def read_response(self, *, timeout: float) -> object: ...


class RedisStore:
    """Keys of one Redis; each worker has its own, used by one thread."""

    def __init__(self, options: RedisOptions) -> None:
        """Opens nothing."""
        self._options = options
        self._place = options.place()
        self.name = f"redis {self._place}"
        self._timeout = min(options.redis_timeout, options.gw_save_timeout)
        self._limit = options.gw_save_timeout
        self._largest = _LARGEST
        self._kept = Kept(self.name, self._connect, _disconnect)
        seconds = options.redis_expire_seconds
        self._expiry: tuple[bytes, ...] = (b"%d" % seconds,) if seconds else ()
        self._verb = b"SETEX" if seconds else b"SET"

    def open(self) -> None:
        """Connects, logs in, and warns once of a Redis that can forget what it has taken.

        Raises:
            ConfigError: it does not let us in, or a file of TLS cannot be read.
            StartError: it cannot be reached. The key to mend is named.
        """
        _check_files(self._options)
        try:
            self._kept.open()
        except redis.AuthenticationError as error:
            key = "redis_username or redis_password" if self._place.username else "redis_password"
            raise ConfigError(f"backend_config.{key}: {self.name}: {_text(error)}") from error
        except Exception as error:
            raise StartError(
                f"backend_config.redis_interface: {self.name}: {_text(error)}"
            ) from error
        self._warn()

    def close(self) -> None:
        """Disconnects. Idempotent."""
        self._kept.close()

    def save(self, entries: Sequence[Entry]) -> list[str | None]:
        """Stores entries by one pipeline; a key that is there already gets the new value.

        Returns:
            Why Redis does not have an entry, for each; None where all its keys are stored.
            `TOO_LONG` is what Redis would never take.

        Raises:
            Unavailable: it cannot be reached, or its answers are not known.
        """
        connection = self._ready()
        deadline = time.monotonic() + self._limit
        wanted = [self._takes(entry) for entry in entries]
        sent = [entry for entry, is_wanted in zip(entries, wanted, strict=True) if is_wanted]
        try:
            connection.send_packed_command(self._octets(connection, sent, deadline))
            reasons = [
                self._result(connection, entry, deadline) if is_wanted else TOO_LONG
                for entry, is_wanted in zip(entries, wanted, strict=True)
            ]
        except Exception as error:
            self._kept.lost()
            raise Unavailable(f"{self.name}: {_text(error)}") from error
        except BaseException:
            self._kept.lost()
            raise
        if any(reason and reason.startswith(_DEMOTED) for reason in reasons):
            # Another may be the main one by now, at the same address.
            self._kept.lost()
        return reasons

    def _takes(self, entry: Entry) -> bool:
        """Whether Redis takes values as long as those of this entry: else it would hang up."""
        slack = 1 << 10  # The forms of recipients differ by their Delivered-To.
        return entry.size < self._largest or len(entry.form(0)) + slack <= self._largest

    def _ready(self) -> RedisConnection:
        """A connection with nothing left to be read: an old reply must not answer a new mail.

        Of one that Redis has closed meanwhile, by its `timeout` or since it was restarted, nobody
        needs to hear.
        """
        connection = self._kept.get()
        with contextlib.suppress(Exception):
            if not connection.can_read(timeout=0):
                return connection
        self._kept.lost()
        return self._kept.get()

    # --- What is sent ----------------------------------------------------------------------------

    def _octets(
        self, connection: RedisConnection, entries: Sequence[Entry], deadline: float
    ) -> Iterator[bytes | memoryview]:
        """All commands: small ones together, large ones in slices and one after the other."""
        gathered: list[bytes] = []
        size = 0
        for entry in entries:
            for command in self._commands(entry):
                for piece in connection.pack_command(*command):
                    if size + len(piece) <= _GATHERED:
                        gathered.append(piece)
                        size += len(piece)
                        continue
                    _left(deadline)
                    if gathered:
                        yield b"".join(gathered)
                    gathered, size = [], 0
                    view = memoryview(piece)
                    for start in range(0, len(view), _SLICE):
                        _left(deadline)
                        yield view[start : start + _SLICE]
        if gathered:
            yield b"".join(gathered)

    def _commands(self, entry: Entry) -> Iterator[tuple[bytes, ...]]:
        several = len(entry.keys) > 1
        if several:
            yield (b"MULTI",)
        for index, key in enumerate(entry.keys):
            yield (self._verb, key, *self._expiry, entry.form(index))
        if several:
            yield (b"EXEC",)

    # --- What is answered ------------------------------------------------------------------------

    def _result(self, connection: RedisConnection, entry: Entry, deadline: float) -> str | None:
        if len(entry.keys) == 1:
            return self._read(connection, deadline, b"OK")
        first = self._read(connection, deadline, b"OK")
        queued = [self._read(connection, deadline, b"QUEUED") for _ in entry.keys]
        done = self._read(connection, deadline, [b"OK"] * len(entry.keys))
        # The reason stands where a command was not queued; EXEC then only says that there was one.
        return next((reason for reason in (first, *queued) if reason), done)

    def _read(self, connection: RedisConnection, deadline: float, wanted: object) -> str | None:
        """One reply: None when it is the one wanted, the text of an error; anything else raises."""
        try:
            reply = connection.read_response(timeout=min(self._timeout, _left(deadline)))
        except redis.ResponseError as error:
            return _text(error)
        if reply == wanted:
            return None
        if isinstance(reply, list) and isinstance(wanted, list) and len(reply) == len(wanted):
            # A command of a transaction can fail by itself; the others are done.
            errors = [one for one in reply if isinstance(one, Exception)]
            if errors:
                return _text(errors[0])
        raise ValueError(f"an answer that is none of Redis: {str(reply)[:40]!r}")

    # --- The connection --------------------------------------------------------------------------

    def _connect(self) -> RedisConnection:
        connection = self._make()
        try:
            connection.connect()
            _expect_pong(self._ask(connection, "PING"))
            largest = self._setting(connection, "proto-max-bulk-len")
            self._largest = int(largest) if largest.isdigit() else _LARGEST
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _make(self) -> RedisConnection:
        place, options = self._place, self._options
        kind: Any = redis.Connection
        keys: dict[str, Any] = {
            "username": place.username or None,
            "password": place.password or None,
            "db": place.database,
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "protocol": 2,
            "driver_info": None,  # It would be told to Redis by two commands more.
        }
        if place.path:
            kind = redis.UnixDomainSocketConnection
            keys["path"] = place.path
        else:
            keys |= {"host": place.host, "port": place.port}
        if place.tls:
            kind = redis.SSLConnection
            keys |= {
                "ssl_ca_certs": options.redis_tls_root_cas_file or None,
                "ssl_keyfile": options.redis_tls_private_key_file or None,
                "ssl_certfile": options.redis_tls_public_key_file or None,
            }
        return cast("RedisConnection", kind(**keys))

    def _ask(self, connection: RedisConnection, *words: str) -> object:
        connection.send_packed_command(iter(connection.pack_command(*words)))
        return connection.read_response(timeout=self._timeout)

    def _setting(self, connection: RedisConnection, name: str) -> bytes:
        """A setting of Redis; empty where it does not tell."""
        try:
            answer = self._ask(connection, "CONFIG", "GET", name)
        except redis.ResponseError:  # Such users, and services, exist.
            return b""
        is_pair = isinstance(answer, list) and len(answer) == 2  # noqa: PLR2004 - name and value
        return bytes(answer[1]) if is_pair and isinstance(answer, list) else b""

    def _warn(self) -> None:
        """Says what a 250 is worth, where Redis tells it."""
        connection = self._kept.get()
        try:
            keeps = self._setting(connection, "appendonly")
            syncs = self._setting(connection, "appendfsync")
            limit = self._setting(connection, "maxmemory")
            policy = self._setting(connection, "maxmemory-policy")
        except Exception as error:
            self._kept.lost()
            raise StartError(
                f"backend_config.redis_interface: {self.name}: {_text(error)}"
            ) from error
        mails = "mails answered 250"
        if keeps == b"no":
            self._warn_once(f"appendonly is 'no': {mails} since its last snapshot are lost", _DOWN)
        elif keeps and syncs != b"always":
            self._warn_once(
                f"appendfsync is '{syncs.decode()}': {mails} a moment ago are lost", _DOWN
            )
        # The policies `volatile-*` forget only what would be forgotten some day.
        forgets = (b"allkeys", b"volatile") if self._expiry else (b"allkeys",)
        if limit.strip(b"0") and policy.startswith(forgets):
            self._warn_once(
                f"maxmemory-policy is '{policy.decode()}': {mails} are forgotten", _FULL
            )

    def _warn_once(self, text: str, when: str) -> None:
        if text + self.name not in _warned:
            _warned.add(text + self.name)
            log.warning("%s: %s %s; see docs/processors/redis.md", self.name, text, when)


def _expect_pong(answer: object) -> None:
    if answer != b"PONG":
        raise ValueError(f"no Redis: it answered {str(answer)[:40]!r} to PING")


def _disconnect(connection: RedisConnection) -> None:
    connection.disconnect()


def _check_files(options: RedisOptions) -> None:
    for key in (
        "redis_tls_root_cas_file",
        "redis_tls_private_key_file",
        "redis_tls_public_key_file",
    ):
        if path := getattr(options, key):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConfigError(f"backend_config.{key}: {path}: {error.strerror}") from error


def _left(deadline: float) -> float:
    """Seconds until then."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("not done within gw_save_timeout")
    return left


def _text(error: BaseException) -> str:
    """One short line."""
    code = getattr(error, "status_code", None)
    text = " ".join(f"{code or ''} {error}".split()) or type(error).__name__
    return text[:_SHOWN]
