"""A server for tests of programs that send mail: it keeps what it receives, and can misbehave."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, Self

from guerrilla._core import Envelope
from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.reply import AUTHENTICATED, TAKEN, Outcome, Reply
from guerrilla.testing.faults import Fault, Faults, Where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from guerrilla._core import Check, Credentials, Login

__all__ = ["GuerrillaServer"]

PATIENCE: Final = 10.0
"""Seconds to wait for mails, by default."""

_UNHEARD: Final = Reply.retry("4.3.2", "Nobody hears this")
"""The outcome of a mail whose sender is dropped."""
_AUTH: Final[dict[str, Any]] = {"allow_plaintext": True, "failure_delay": 0, "max_failures": 0}
"""A test that fails to log in, as often as it likes, waits for nothing."""
_STOP: Final = 1.0
"""Seconds that clients have to finish at the end of a test."""


class GuerrillaServer:
    """An SMTP server on a free port of 127.0.0.1 that takes mail for any host and keeps it.

    A real daemon in threads of this process; a context manager. Nothing is shared between two of
    them, nor with other processes: no file, no port, no log but `logging`'s `guerrilla`.

    `refuse`, `delay` and `drop` make it misbehave at a stage of a session; several at the same
    stage are used up in the order they were asked for. They come before all else that the server
    would look at, but the syntax of a command. What is not used up ends with `behave` or `stop`.

    Args:
        server: keys of the server, as `max_size` or `tls`.
        users: passwords by user; then AUTH is offered, also outside TLS, and those can log in.
            `server={"auth": {"required": True}}` makes that everybody has to.
        config: keys of the config as a whole, as `allowed_hosts`.
    """

    def __init__(
        self,
        *,
        server: Mapping[str, Any] | None = None,
        users: Mapping[str, str] | None = None,
        **config: Any,
    ) -> None:
        """Makes the daemon; `start` opens it.

        Raises:
            ConfigError: a key or a value that is wrong.
        """
        base: dict[str, Any] = {"listen_interface": "127.0.0.1:0", "host_name": "localhost"}
        keys = {"allowed_hosts": ["."], "log_file": "off", "log_level": "info", **config}
        base |= dict(server or {})
        if users is not None:
            base["auth"] = _AUTH | base.get("auth", {})
        keys["servers"] = [base]
        self.daemon = Daemon(from_mapping(keys), backend=_Keeper(self, users))
        self._changed = threading.Condition()
        self._received: list[Envelope] = []
        self._refused: list[Envelope] = []
        self._faults = Faults()
        self._late: set[threading.Timer] = set()
        self._ending = False

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
        """Copies of the mails that were taken, in order.

        A mail is here before its sender is answered.
        """
        with self._changed:
            return list(self._received)

    @property
    def refused(self) -> list[Envelope]:
        """Copies of the mails that were refused or dropped after their data, in order."""
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

    def refuse(self, reply: Reply, *, at: Where = "message", count: int | None = None) -> None:
        """Answers with `reply`, 4xx or 5xx, the next `count` times; each time without it.

        A 421 closes the connection too, and so does any refusal at `connect`.

        Args:
            reply: what is said.
            at: `connect`, `helo`, `mail`, `rcpt`, `data`, `message` (the final dot) or `saved`: the
                final dot of a mail that is taken all the same.
            count: how often.

        Raises:
            ValueError: a reply that takes the mail, or another argument that is none.
        """
        if reply.is_success:
            message = f"a refusal is a 4xx or 5xx reply, not {reply.code}"
            raise ValueError(message)
        self._add(Fault(at, count, reply))

    def delay(self, seconds: float, *, at: Where = "message", count: int | None = None) -> None:
        """Answers so much later the next `count` times; each time without it.

        At the final dot the time limit of the config holds: `gw_save_timeout`, 30 s.

        Raises:
            ValueError: an argument that is none.
        """
        self._add(Fault(at, count, seconds=seconds))

    def drop(self, *, at: Where = "message", count: int | None = None, reset: bool = False) -> None:
        """Closes the connection without a word the next `count` times; each time without it.

        Args:
            at: as for `refuse`.
            count: how often.
            reset: by a RST, as a machine does that has lost the connection; else by a FIN.

        Raises:
            ValueError: an argument that is none.
        """
        self._add(Fault(at, count, cut="reset" if reset else "close"))

    def behave(self) -> None:
        """Undoes `refuse`, `delay` and `drop`, but for answers that are under way."""
        with self._changed:
            self._faults.clear()

    def start(self) -> None:
        """Starts to serve.

        Raises:
            StartError: it cannot, as where a file of `tls` is not there.
        """
        self._ending = False
        self.daemon.start()
        parts = self.daemon._parts  # noqa: SLF001  # what misbehaves is the core itself
        if parts is not None:
            with self._changed:
                self._faults.begin(parts.core)

    def stop(self) -> None:
        """Stops; what is delayed is answered at once, clients have a second to finish."""
        with self._changed:
            self._ending = True
            late = set(self._late)
        for timer in late:
            timer.cancel()
            timer.function()
        self.daemon.shutdown(_STOP)
        with self._changed:
            self._faults.end()

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

    def _add(self, fault: Fault) -> None:
        with self._changed:
            self._faults.add(fault)

    def _save(self, envelope: Envelope) -> Outcome:
        with self._changed:
            fault = self._faults.take("message", "saved")
        if fault is None:
            self._keep(envelope, self._received)
            return None
        if fault.cut is not None:
            with self._changed:
                self._faults.cut(envelope.queued_id, fault.cut)
        is_taken = fault.at == "saved"
        if is_taken:
            self._keep(envelope, self._received)
        elif fault.is_refusal:
            self._keep(envelope, self._refused)
        if fault.seconds:
            self._answer_late(envelope, fault.seconds, is_kept=is_taken)
            return TAKEN
        return _UNHEARD if fault.cut is not None and not is_taken else fault.reply

    def _answer_late(self, envelope: Envelope, seconds: float, *, is_kept: bool) -> None:
        def answer() -> None:
            with self._changed:
                if timer not in self._late:
                    return
                self._late.remove(timer)
            if not is_kept:
                self._keep(envelope, self._received)
            envelope.answer(None)

        timer = threading.Timer(seconds, answer)
        timer.daemon = True
        with self._changed:
            self._late.add(timer)
            is_ending = self._ending
        if is_ending:
            answer()  # `stop` has answered all that were late before
        else:
            timer.start()

    def _keep(self, envelope: Envelope, among: list[Envelope]) -> None:
        # A copy: the test may keep it, or change its values, for as long as it likes.
        copy = Envelope.from_bytes(envelope.to_bytes())
        with self._changed:
            among.append(copy)
            self._changed.notify_all()


class _Keeper:
    """The backend of every worker."""

    checks_recipients: Final = False

    def __init__(self, server: GuerrillaServer, users: Mapping[str, str] | None) -> None:
        self._server = server
        self._users = users or {}
        self.authenticates = users is not None

    def __call__(self) -> _Keeper:
        return self

    def open(self) -> None:
        """There is nothing to open."""

    def close(self) -> None:
        """Nor to close."""

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        return [self._server._save(envelope) for envelope in envelopes]  # noqa: SLF001

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        return [None] * len(checks)  # it is not asked

    def authenticate_batch(self, logins: Sequence[Login]) -> Sequence[Reply | None]:
        return [self._authenticate(login.credentials) for login in logins]

    def _authenticate(self, credentials: Credentials) -> Reply | None:
        is_right = self._users.get(credentials.username) == credentials.password
        is_itself = credentials.authorization_identity in ("", credentials.username)
        return AUTHENTICATED if is_right and is_itself else None
