"""A server for tests of programs that send mail: it keeps what it receives, and can misbehave."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from guerrilla._core import Check, Envelope
from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.reply import TAKEN, Outcome, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["GuerrillaServer", "Where"]

Where: TypeAlias = Literal["rcpt", "data"]
"""The command that misbehaviour answers: RCPT, for each recipient, or the end of DATA."""

PATIENCE: Final = 10.0
"""Seconds to wait for mails, by default."""

_CLOSING: Final = Reply(421, "4.3.2", "Closing the connection")
_STOP: Final = 1.0
"""Seconds that clients have to finish at the end of a test."""


@dataclass(slots=True)
class _Fault:
    """Something that goes wrong on purpose."""

    at: Where
    left: int | None
    """How often; None: each time."""
    reply: Reply | None = None
    seconds: float = 0.0


class GuerrillaServer:
    """An SMTP server on a free port of 127.0.0.1 that takes mail for any host and keeps it.

    A real daemon in threads of this process; a context manager. Nothing is shared between two of
    them, nor with other processes: no file, no port, no log but `logging`'s `guerrilla`.

    `refuse`, `delay` and `drop` make it misbehave; several are used up in the order they were
    asked for. There is nothing to hook on before RCPT, so a connection, EHLO or MAIL cannot be
    refused by them; `max_clients` and the other limits of a config can.

    Args:
        server: keys of the server, as `max_size` or `tls`.
        config: keys of the config as a whole, as `allowed_hosts`.
    """

    def __init__(self, *, server: Mapping[str, Any] | None = None, **config: Any) -> None:
        """Makes the daemon; `start` opens it.

        Raises:
            ConfigError: a key or a value that is wrong.
        """
        base = {"listen_interface": "127.0.0.1:0", "host_name": "localhost"}
        keys = {"allowed_hosts": ["."], "log_file": "off", "log_level": "info", **config}
        keys["servers"] = [base | dict(server or {})]
        # What is delayed at RCPT has a thread to wait in.
        keys["backend_config"] = {"validate_workers_size": 4, **keys.get("backend_config", {})}
        self.daemon = Daemon(from_mapping(keys), backend=lambda: _Keeper(self))
        self._changed = threading.Condition()
        self._received: list[Envelope] = []
        self._refused: list[Envelope] = []
        self._faults: list[_Fault] = []
        self._late: set[threading.Timer] = set()
        self._ending = threading.Event()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return self.daemon.addresses[0]

    @property
    def host(self) -> str:
        """`127.0.0.1`."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.address.rpartition(":")[2])

    @property
    def received(self) -> list[Envelope]:
        """Copies of the mails that were answered 2xx, in order.

        A mail is here before its sender is answered.
        """
        with self._changed:
            return list(self._received)

    @property
    def refused(self) -> list[Envelope]:
        """Copies of the mails that were refused after their data, in order."""
        with self._changed:
            return list(self._refused)

    def wait_for(self, count: int = 1, timeout: float = PATIENCE) -> list[Envelope]:
        """Waits until `count` mails were received since the start or `clear`; all there are then.

        Raises:
            TimeoutError: fewer came within `timeout` seconds; the message names them.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._received) >= count, timeout):
                subjects = [envelope.subject for envelope in self._received]
                message = f"{len(subjects)} of {count} mails within {timeout:g} s: {subjects}"
                raise TimeoutError(message)
            return list(self._received)

    def clear(self) -> None:
        """Forgets all mails."""
        with self._changed:
            self._received.clear()
            self._refused.clear()

    def refuse(self, reply: Reply, *, at: Where = "data", count: int | None = None) -> None:
        """Answers with `reply`, 4xx or 5xx, the next `count` times; each time without it.

        Raises:
            ValueError: a reply that takes the mail.
        """
        if reply.is_success:
            message = f"a refusal is a 4xx or 5xx reply, not {reply.code}"
            raise ValueError(message)
        self._add(_Fault(at, count, reply))

    def delay(self, seconds: float, *, at: Where = "data", count: int | None = None) -> None:
        """Answers so much later the next `count` times; each time without it.

        The time limits of the config hold: `gw_val_rcpt_timeout`, 5 s, and `gw_save_timeout`, 30 s.
        """
        self._add(_Fault(at, count, seconds=seconds))

    def drop(self, *, at: Where = "data", count: int | None = None) -> None:
        """Says 421 and closes the connection the next `count` times; each time without it.

        The core closes none without a word (RFC 5321 section 3.8).
        """
        self._add(_Fault(at, count, _CLOSING))

    def behave(self) -> None:
        """Undoes `refuse`, `delay` and `drop`, but for answers that are under way."""
        with self._changed:
            self._faults.clear()

    def start(self) -> None:
        """Starts to serve.

        Raises:
            StartError: it cannot, as where a file of `tls` is not there.
        """
        self.daemon.start()

    def stop(self) -> None:
        """Stops; what is delayed is answered at once, clients have a second to finish."""
        self._ending.set()
        with self._changed:
            late = set(self._late)
        for timer in late:
            timer.cancel()
            timer.function()
        self.daemon.shutdown(_STOP)

    def __enter__(self) -> Self:
        """Starts."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops."""
        self.stop()

    def _add(self, fault: _Fault) -> None:
        with self._changed:
            self._faults.append(fault)

    def _next(self, at: Where) -> tuple[Reply | None, float]:
        """What goes wrong now: a reply, and seconds to wait before it."""
        with self._changed:
            for fault in self._faults:
                if fault.at != at:
                    continue
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left <= 0:
                        self._faults.remove(fault)
                return fault.reply, fault.seconds
        return None, 0.0

    def _recipient(self) -> Reply | None:
        reply, seconds = self._next("rcpt")
        if seconds:
            self._ending.wait(seconds)
        return reply

    def _save(self, envelope: Envelope) -> Outcome:
        reply, seconds = self._next("data")
        if seconds:
            self._answer_late(envelope, reply, seconds)
            return TAKEN
        self._keep(envelope, reply)
        return reply

    def _answer_late(self, envelope: Envelope, reply: Reply | None, seconds: float) -> None:
        def answer() -> None:
            with self._changed:
                if timer not in self._late:
                    return
                self._late.remove(timer)
            self._keep(envelope, reply)
            envelope.answer(reply)

        timer = threading.Timer(seconds, answer)
        timer.daemon = True
        with self._changed:
            self._late.add(timer)
        timer.start()

    def _keep(self, envelope: Envelope, reply: Reply | None) -> None:
        # A copy: the test may keep it, or change its values, for as long as it likes.
        copy = Envelope.from_bytes(envelope.to_bytes())
        with self._changed:
            (self._received if reply is None else self._refused).append(copy)
            self._changed.notify_all()


class _Keeper:
    """The backend of one worker."""

    def __init__(self, server: GuerrillaServer) -> None:
        self._server = server

    def open(self) -> None:
        """There is nothing to open."""

    def close(self) -> None:
        """Nor to close."""

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        return [self._server._save(envelope) for envelope in envelopes]  # noqa: SLF001

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        return [self._server._recipient() for _ in checks]  # noqa: SLF001
