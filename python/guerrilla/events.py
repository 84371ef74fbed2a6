"""Events: what a daemon tells while it runs, and the bus that carries them.

A reload publishes one event for each difference between two configs; the daemon's own parts and a
program's handlers hear the same ones. The names are Go-Guerrilla's. Beside them there are events
of mails and connections, and any text of one's own.
"""

from __future__ import annotations

import inspect
import logging
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from guerrilla._core import Address, Envelope, Reply, TLSInfo, Transaction
    from guerrilla.config import AppConfig, ServerConfig

__all__ = [
    "Change",
    "ConfigChange",
    "ConnectionEvent",
    "Event",
    "EventBus",
    "Handler",
    "MailEvent",
    "ServerChange",
]

log = logging.getLogger("guerrilla.events")

Handler: TypeAlias = "Callable[[Any], object]"
"""What is called with the payload of an event; what it returns does not matter."""


class Event(StrEnum):
    """The events of a daemon. Each is a text, so that its name alone means the same."""

    NEW_CONFIG = "config_change:new_config"
    """Anything of the config changed. `ConfigChange`, as all up to `BACKEND_CONFIG`."""
    ALLOWED_HOSTS = "config_change:allowed_hosts"
    """`allowed_hosts` changed."""
    PID_FILE = "config_change:pid_file"
    """`pid_file` changed."""
    LOG_FILE = "config_change:log_file"
    """`log_file` changed."""
    REOPEN_LOG_FILE = "config_change:reopen_log_file"
    """The main log is opened anew, as `Daemon.reopen_logs` does; a reload does not."""
    LOG_LEVEL = "config_change:log_level"
    """`log_level` changed."""
    BACKEND_CONFIG = "config_change:backend_config"
    """`backend_config` or `backends` changed."""

    SERVER_NEW = "server_change:new_server"
    """A server was added: `old` is None. `ServerChange`, as all up to `SERVER_TLS_CONFIG`."""
    SERVER_REMOVE = "server_change:remove_server"
    """A server was removed: `new` is None."""
    SERVER_UPDATE_CONFIG = "server_change:update_config"
    """Anything of a server changed; comes before the events that say what."""
    SERVER_START = "server_change:start_server"
    """A server was enabled; it starts with the whole new config."""
    SERVER_STOP = "server_change:stop_server"
    """A server was disabled."""
    SERVER_LOG_FILE = "server_change:new_log_file"
    """`log_file` of a server changed."""
    SERVER_REOPEN_LOG_FILE = "server_change:reopen_log_file"
    """The log of a server is opened anew: as the main one, and at each reload that leaves its
    `log_file` as it was."""
    SERVER_TIMEOUT = "server_change:timeout"
    """`timeout` of a server changed."""
    SERVER_MAX_CLIENTS = "server_change:max_clients"
    """`max_clients` of a server changed."""
    SERVER_TLS_CONFIG = "server_change:tls_config"
    """A key of `tls`, or a file that it names, changed."""

    MAIL_SAVED = "mail:saved"
    """A mail was answered 2xx. `MailEvent`."""
    MAIL_REFUSED = "mail:refused"
    """A mail was answered 4xx or 5xx after its data. `MailEvent`."""
    CONNECTION_OPENED = "connection:opened"
    """A client connected. `ConnectionEvent`."""
    CONNECTION_CLOSED = "connection:closed"
    """A connection has ended. `ConnectionEvent`."""


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """The payload of a `config_change` event: the whole config before and after."""

    old: AppConfig
    new: AppConfig


@dataclass(frozen=True, slots=True)
class ServerChange:
    """The payload of a `server_change` event."""

    name: str
    """`ServerConfig.name`, by which servers of two configs are matched."""
    old: ServerConfig | None
    """None for a new server."""
    new: ServerConfig | None
    """None for one that was removed."""


@dataclass(frozen=True, slots=True)
class MailEvent:
    """The payload of a `mail` event: all but the message, which it would keep in memory."""

    queued_id: str | None
    """None where it was refused before it had one, as for its size."""
    server: str
    """`ServerConfig.name` of the server that took it."""
    client_id: int
    """The number of the connection."""
    remote_ip: str
    helo: str
    mail_from: Address
    rcpt_to: tuple[Address, ...]
    size: int
    """Octets of the message."""
    tls: TLSInfo | None
    reply: Reply
    """What the sender was told."""

    @classmethod
    def of(cls, envelope: Envelope, reply: Reply) -> Self:
        """What there is to tell of an envelope whose sender was told `reply`.

        `envelope.answered` does not know it: a time limit answers as well.
        """
        return cls.about(envelope, envelope.queued_id, envelope.size, reply)

    @classmethod
    def about(
        cls, transaction: Transaction, queued_id: str | None, size: int, reply: Reply
    ) -> Self:
        """Where there is no envelope, or none any more."""
        return cls(
            queued_id=queued_id,
            server=transaction.server,
            client_id=transaction.client_id,
            remote_ip=transaction.remote_ip,
            helo=transaction.helo,
            mail_from=transaction.mail_from,
            rcpt_to=transaction.rcpt_to,
            size=size,
            tls=transaction.tls,
            reply=reply,
        )

    @property
    def event(self) -> Event:
        """Which of the two it is the payload of."""
        return Event.MAIL_SAVED if self.reply.is_success else Event.MAIL_REFUSED


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """The payload of a `connection` event."""

    client_id: int
    """The number of the connection, from 1 since the daemon started."""
    server: str
    """`ServerConfig.name` of the server."""
    remote_ip: str
    """Empty for a unix socket, or where a proxy does not know it."""
    remote_port: int


@dataclass(frozen=True, slots=True)
class Change:
    """One event that a reload publishes, with its payload."""

    event: Event
    payload: ConfigChange | ServerChange

    def __str__(self) -> str:
        """A line for people: `server_change:timeout 127.0.0.1:25: timeout 30 -> 60`.

        Secrets are masked.
        """
        from guerrilla.config.diff import describe  # noqa: PLC0415 - with pydantic, on request

        return describe(self)


class EventBus:
    """Carries events to those who subscribed to them. From any thread.

    A handler runs in the thread of who publishes, so it should not take long. What it raises is
    logged, and stops neither the handlers after it nor the publisher.
    """

    def __init__(self) -> None:
        """Nobody has subscribed."""
        self._lock = threading.Lock()
        """Held by who subscribes; a publisher reads a tuple that never changes."""
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self.on_change: Callable[[], object] = lambda: None
        """Called when somebody has subscribed, or does no longer."""

    def subscribe(self, event: Event | str, handler: Handler) -> None:
        """Has `handler` called with the payload of each such event, after those before it.

        Args:
            event: one of `Event` or a name of one's own.
            handler: a plain function of one argument; one that subscribes twice is called twice.

        Raises:
            TypeError: not callable, or an `async` function, which nobody would await.
        """
        if not _is_handler(handler):
            message = f"a handler is a plain function of one argument, not {handler!r}"
            raise TypeError(message)
        with self._lock:
            self._handlers[event] = (*self._handlers.get(event, ()), handler)
        self.on_change()

    def unsubscribe(self, event: Event | str, handler: Handler) -> None:
        """Undoes one `subscribe`. An event that is under way may still reach the handler.

        Raises:
            ValueError: it is not subscribed to that event.
        """
        with self._lock:
            left = list(self._handlers.get(event, ()))
            if handler not in left:
                message = f"not subscribed to {event}: {handler!r}"
                raise ValueError(message)
            left.remove(handler)
            if left:
                self._handlers[event] = tuple(left)
            else:
                del self._handlers[event]
        self.on_change()

    def publish(self, event: Event | str, payload: Any = None) -> None:
        """Calls everyone who subscribed to `event` with `payload`, in the order they did."""
        for handler in self._handlers.get(event, ()):
            try:
                handler(payload)
            except Exception:
                log.exception("%s: the handler %r failed", event, handler)

    def has(self, event: Event | str) -> bool:
        """Whether anybody would hear it: a payload that nobody reads need not be made."""
        return event in self._handlers


def _is_handler(found: object) -> bool:
    return callable(found) and not inspect.iscoroutinefunction(found)
