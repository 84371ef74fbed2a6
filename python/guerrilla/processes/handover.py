"""What passes between a program that runs and the one that takes its place: an upgrade.

Both are this program, maybe of other versions. The one that runs starts the other, with one end of
a socket pair, whose descriptor `GUERRILLA_UPGRADE` names. Over it go lines of JSON, each with its
`event`:

    old: offer    the protocol, the version, sockets with their addresses, those of systemd with
                  their names, the pid file; their descriptors come with it
    new: failed   with its problems: the old one goes on as if nothing had been; at any time
    new: ready    everything is open; it takes no connection yet
    old: go       with the unix sockets whose files are the new one's now
    new: taken    it serves, pid file and control socket are its own; which files it takes over
    old:          closes the socket pair: a service manager knows of the new one; and stops

Until `taken` the old one goes on whatever happens.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guerrilla.errors import GuerrillaError, StartError
from guerrilla.processes.binding import passed_socket
from guerrilla.processes.channel import VERSION, readable_lines
from guerrilla.processes.wire import Wire, WireError, close_all

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence

    from guerrilla.processes.place import Passed

__all__ = ["GO_LIMIT", "PROTOCOL", "VARIABLE", "Offer", "Predecessor", "read_event"]

VARIABLE: Final = "GUERRILLA_UPGRADE"
"""Of the environment: the descriptor. Only of the new program, which passes it on to nobody."""

PROTOCOL: Final = 2
"""Changes with what the lines mean: two programs that do not understand each other say so."""

OFFER_LIMIT: Final = 30.0
"""Seconds until the offer has come."""

GO_LIMIT: Final = 60.0
"""Seconds that the one before has to say `go`, which it does at once."""

_LEAVE_LIMIT: Final = 10.0
"""Seconds that it has to tell a service manager who goes on."""


class Offer(NamedTuple):
    """What is handed over.

    Attributes:
        sockets: addresses with a descriptor each, as `Core.inherit` takes them: those that the new
            one has alone once the old one is gone.
        pid_file: the descriptor that holds its lock; None where there is none.
        control: the path of the control socket, which the new one takes; None likewise.
        passed: what systemd has passed, also where no server listens there now. It is not closed
            with the offer: who has it has it as long as the process runs.
    """

    sockets: Sequence[tuple[str, int]]
    pid_file: int | None = None
    control: str | None = None
    passed: Sequence[Passed] = ()

    def send(self, wire: Wire) -> None:
        """Makes the offer; the descriptors stay the giver's.

        Raises:
            WireError: the other side is gone, or does not read.
        """
        offer = {
            "event": "offer",
            "protocol": PROTOCOL,
            "version": VERSION,
            "addresses": [address for address, _ in self.sockets],
            "passed": [one.name for one in self.passed],
            "has_pid_file": self.pid_file is not None,
            "control": self.control,
        }
        pid_file = [] if self.pid_file is None else [self.pid_file]
        sockets = [descriptor for _, descriptor in self.sockets]
        wire.send(offer, [*pid_file, *sockets, *(one.fd for one in self.passed)])

    def close(self) -> None:
        """Closes the descriptors."""
        close_all([descriptor for _, descriptor in self.sockets])
        close_all([] if self.pid_file is None else [self.pid_file])


class Predecessor:
    """The one before, as the new program sees it.

    Args:
        end: of the socket pair.

    Raises:
        StartError: it does not hand anything over that this program understands.
    """

    def __init__(self, end: socket.socket) -> None:
        """Waits for the offer."""
        self._wire = Wire(end, takes_descriptors=True)
        self.is_open = True
        self.files: list[str] = []
        """As `took` was told."""
        self._has_pid_file = False
        try:
            self.offer = self._taken_offer()
        except BaseException:
            self._wire.close()
            raise

    @classmethod
    def find(cls, environment: MutableMapping[str, str] | None = None) -> Predecessor | None:
        """The one that has started this program to be upgraded, if one has.

        Args:
            environment: by default that of the process. The variable is removed there: no program
                that is started later is to take it for its own.

        Raises:
            StartError: it cannot be understood.
        """
        variables = os.environ if environment is None else environment
        text = variables.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            end = socket.socket(fileno=int(text))
            end.set_inheritable(False)
        except (ValueError, OSError, OverflowError):
            raise StartError(
                f"{VARIABLE}: expected the descriptor of a socket, as guerrillad upgrade sets it, "
                f"got {text[:40]!r}: unset it"
            ) from None
        return cls(end)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Around a start: the one before is told why it has failed, and the end."""
        try:
            yield
        except GuerrillaError as error:
            self._failed(*str(error).splitlines())
            raise
        except KeyboardInterrupt as error:
            self._failed(f"{str(error) or 'interrupted'}: stopped before it had started")
            raise
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.close()

    def ready(self) -> list[str]:
        """Says that everything is open, and waits for `go`.

        Returns:
            The addresses of unix sockets whose files are ours now.

        Raises:
            StartError: the one before goes on, or has ended.
        """
        try:
            self._wire.send({"event": "ready"})
            received = self._wire.receive(GO_LIMIT)
        except WireError as error:
            raise StartError(
                f"the process before this one does not let it begin: {error}"
            ) from error
        if received is None:
            raise StartError("the process before this one has ended, and handed nothing over")
        received.close()
        if received.value.get("event") != "go":
            raise StartError("the process before this one says something else than go")
        return readable_lines(received.value.get("files"))

    def took(self, files: Sequence[str], *, has_pid_file: bool) -> None:
        """What `taken` is to say.

        Args:
            files: the addresses of the unix sockets whose files it removes at its end.
            has_pid_file: it goes on with the file that was handed over.
        """
        self.files = list(files)
        self._has_pid_file = has_pid_file

    def taken(self) -> None:
        """Says that it serves, and waits until the one before has let go."""
        # Whoever is gone need not be told.
        with suppress(WireError):
            self._wire.send(
                {
                    "event": "taken",
                    "pid": os.getpid(),
                    "version": VERSION,
                    "files": self.files,
                    "has_pid_file": self._has_pid_file,
                }
            )
            self._wire.receive(_LEAVE_LIMIT)
        self.close()

    def close(self) -> None:
        """Closes everything; what others have taken of the offer is theirs."""
        if self.is_open:
            self.is_open = False
            self.offer.close()
            self._wire.close()

    def _failed(self, *problems: str) -> None:
        if self.is_open:
            with suppress(WireError):
                self._wire.send({"event": "failed", "problems": problems})

    def _taken_offer(self) -> Offer:
        try:
            return self._received_offer()
        except StartError as error:
            with suppress(WireError):
                self._wire.send({"event": "failed", "problems": error.problems})
            raise

    def _received_offer(self) -> Offer:
        try:
            received = self._wire.receive(OFFER_LIMIT)
        except WireError as error:
            raise StartError(f"what was handed over cannot be read: {error}") from error
        if received is None:
            raise StartError("the process before this one has ended, and handed nothing over")
        try:
            return _read_offer(received.value, received.descriptors)
        except StartError:
            received.close()
            raise


def read_event(value: dict[str, Any]) -> str:
    """The event of a line of the new program; empty where it has none."""
    event = value.get("event")
    return event if isinstance(event, str) else ""


def _read_offer(value: dict[str, Any], descriptors: Sequence[int]) -> Offer:
    """What was handed over.

    Raises:
        StartError: another protocol, or not what it says.
    """
    protocol = value.get("protocol")
    if protocol != PROTOCOL:
        raise StartError(
            f"the program that runs ({str(value.get('version'))[:60]}) hands over by protocol "
            f"{str(protocol)[:20]}, and the new one ({VERSION}) knows {PROTOCOL} alone: "
            "stop the one and start the other"
        )
    addresses, names = _texts(value.get("addresses")), _texts(value.get("passed"))
    has_pid_file = value.get("has_pid_file") is True
    sockets = descriptors[1:] if has_pid_file else descriptors
    told = len(addresses) + len(names)
    if told != len(sockets):
        raise StartError(f"{len(sockets)} sockets were handed over, and {told} addresses were told")
    own, theirs = sockets[: len(addresses)], sockets[len(addresses) :]
    control = value.get("control")
    try:
        passed = tuple(map(passed_socket, theirs, names))
    except ValueError as error:
        raise StartError(f"what was handed over as systemd's cannot be used: {error}") from error
    return Offer(
        tuple(zip(addresses, own, strict=True)),
        descriptors[0] if has_pid_file else None,
        control if isinstance(control, str) else None,
        passed,
    )


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
