"""What a process has that the one which takes its place goes on with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from guerrilla.errors import StartError, UpgradeError
from guerrilla.processes.handover import Offer
from guerrilla.processes.wire import close_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla.control.server import Control
    from guerrilla.processes.handover import Predecessor
    from guerrilla.processes.place import Passed
    from guerrilla.running.parts import HeldPid


class Listeners(Protocol):
    """What listens: a core, or the sockets of several processes."""

    def leave_files(self) -> list[str]:
        """Files of unix sockets stay at the end; their addresses."""

    def own_files(self, addresses: Sequence[str]) -> None:
        """They are removed at the end."""


def not_within_a_program() -> dict[str, Any]:
    """As an `upgrader`, of a daemon that nobody else has started.

    Raises:
        UpgradeError: always.
    """
    raise UpgradeError(
        "a Daemon within a program ends with that: only guerrillad serve can be upgraded"
    )


def take_over(
    before: Predecessor, addresses: Sequence[str], pid: HeldPid, control: Control | None
) -> None:
    """Waits until the process before this one lets it begin, and has all that was that one's.

    Args:
        before: that process.
        addresses: where this one listens.
        pid: the pid file, maybe one that was handed over.
        control: the control socket, maybe beside the one before.

    Raises:
        StartError: it has not let it begin, or something cannot be had.
    """
    files = [file for file in before.ready() if file in addresses]
    file = pid.file
    try:
        if file is not None and file.was_handed_over:
            file.write()
        if control is not None:
            control.take()
    except OSError as error:
        raise StartError(f"what was handed over cannot be had: {error}") from error
    before.took(files, has_pid_file=file is not None and file.was_handed_over)


def duplicated(sockets: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Descriptors for the same sockets, which are the caller's: all of them, or none.

    Raises:
        OSError: no descriptor is free.
    """
    found: list[tuple[str, int]] = []
    try:
        for address, descriptor in sockets:
            found.append((address, os.dup(descriptor)))
    except OSError:
        close_all(descriptor for _, descriptor in found)
        raise
    return found


def settle(before: Predecessor, listeners: Listeners) -> None:
    """After `take_over`, and once it serves: files of unix sockets are its own; the other stops."""
    listeners.own_files(before.files)
    before.taken()


class Estate:
    """It is offered, left once the other one is ready, and taken back where that has failed.

    Args:
        sockets: addresses with a descriptor each of all that is served, which are the estate's from
            now on.
        listeners: whose they are.
        pid: the pid file of now.
        control: the control socket.
        passed: what systemd has passed, served or not: the next one has it as this one had.
    """

    def __init__(
        self,
        sockets: Sequence[tuple[str, int]],
        listeners: Listeners,
        pid: HeldPid,
        control: Control | None,
        passed: Sequence[Passed] = (),
    ) -> None:
        self._passed = passed
        self._sockets = _but_passed(sockets, passed)
        self._listeners = listeners
        self._pid = pid
        self._control = control
        self._files: list[str] = []

    def offer(self) -> Offer:
        """What is handed over; the descriptors are whoever's that asks, once."""
        offer, file = Offer(self._sockets), self._pid.file
        try:
            pid_file = None if file is None else os.dup(file.fileno())
        except OSError:
            offer.close()
            raise
        control = None if self._control is None else self._control.path
        return Offer(self._sockets, pid_file, control, self._passed)

    def leave(self) -> list[str]:
        """Files of unix sockets are the other's; their addresses."""
        self._files = self._listeners.leave_files()
        return self._files

    def handed_over(self, files: Sequence[str], *, has_pid_file: bool) -> None:
        """The other one serves; what it does not go on with is ours.

        Args:
            files: those of unix sockets that it removes at its end.
            has_pid_file: it has the pid file.
        """
        self._listeners.own_files([file for file in self._files if file not in files])
        if has_pid_file and self._pid.file is not None:
            # At once, and not at the end: it is to be free as soon as the other one lets go of it.
            self._pid.file.leave()
            self._pid.file.remove()
            self._pid.file = None

    def take_back(self) -> None:
        """The other one has failed after it was let go.

        Raises:
            OSError: the pid file or the control socket cannot be had again; the rest is.
        """
        self._listeners.own_files(self._files)
        try:
            if self._pid.file is not None:
                self._pid.file.take_back()
        finally:
            if self._control is not None:
                self._control.take_back()


def _but_passed(
    sockets: Sequence[tuple[str, int]], passed: Sequence[Passed]
) -> list[tuple[str, int]]:
    """Those that systemd has not passed, at whatever address they are served; closes the others."""
    theirs = {os.fstat(one.fd).st_ino for one in passed}
    found: list[tuple[str, int]] = []
    for address, descriptor in sockets:
        if os.fstat(descriptor).st_ino in theirs:
            os.close(descriptor)
        else:
            found.append((address, descriptor))
    return found
