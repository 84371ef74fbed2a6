"""What runs in a child: a daemon, and the answers to what the parent asks of it.

The first request is `start`, or `check` before it, both answered in the main thread; the others are
answered beside each other. It ends by `stop`, by SIGTERM, and when its parent is gone: gracefully,
with status 0, or 1 where it had to cut something off.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guerrilla._core import SharedMemory
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.errors import StartError
from guerrilla.processes.channel import VERSION, Answering, unpack
from guerrilla.processes.childdaemon import ChildDaemon
from guerrilla.processes.place import GRACE, Place
from guerrilla.processes.spools import ChildDesks
from guerrilla.running.parts import Plan
from guerrilla.running.signals import Signals, StoppedEarly
from guerrilla.running.startup import named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guerrilla._core import Spool
    from guerrilla.processes.channel import Command, Request

log = logging.getLogger("guerrilla.processes")

_PARENTS: Final = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that the parent obeys, and passes on as requests."""

ORPHAN_LIMIT: Final = 5.0
"""Seconds that a start may take once the parent is gone: for one that is nearly done."""


def main(descriptor: int) -> int:
    """Runs a child; its exit status.

    Args:
        descriptor: of the socket to the parent.
    """
    # A crash in somebody's C code says on stderr where Python was; the parent says that it was one.
    faulthandler.enable()
    os.set_inheritable(descriptor, False)  # its name there
    end = socket.socket(fileno=descriptor)
    try:
        with Signals([signal.SIGTERM], (), _PARENTS) as signals:
            child = _Child(end)
            threading.Thread(target=child.watch, args=(end,), daemon=True).start()
            return child.run(signals)
    except StoppedEarly:
        return 0


class _Child:
    """One child."""

    def __init__(self, end: socket.socket) -> None:
        self._daemon: ChildDaemon | None = None
        self._serves = threading.Event()
        self._request: Request | None = None
        """The one that is done before it serves."""
        self._desks = ChildDesks(self._spool)
        self._answering = Answering(end, self._commands())

    def _commands(self) -> dict[str, Command]:
        """What answers which command."""
        return {
            "check": self._check,
            "start": self._start,
            "prepare": self._prepare,
            "commit": self._commit,
            "abandon": lambda arguments, _: self._now.abandon(arguments["turn"]),
            "serve-also": self._serve_also,
            "stop": self._stop,
            "reopen-logs": self._reopen_logs,
            "reload-tls": lambda *_: self._now.reload_tls(),
            "status": lambda *_: self._now.status(),
            "stats": lambda *_: self._now.stats(),
            "ping": self._ping,
            "spool": self._desks.answer,
            "spool-close": self._desks.close,
        }

    def run(self, signals: Signals) -> int:
        """Until the end; the exit status."""
        while self._daemon is None:
            request = self._request = self._answering.take()
            if request is None:
                return 0  # Nothing is open, and nobody is there any more.
            self._answering.run(request)
            if request.command == "start" and self._daemon is None:
                return 1  # It has said why.
        daemon = self._daemon
        self._serves.set()
        signals.queued = True
        threading.Thread(target=self._serve, name="guerrilla-parent", daemon=True).start()
        threading.Thread(target=_await_end, args=(daemon, signals), daemon=True).start()
        for number in signals.line():
            if number == signal.SIGTERM:
                log.info("SIGTERM: stopping")
                self._stop_beside(None)
        # It only asks how it has ended.
        return 0 if daemon.shutdown() else 1

    def watch(self, end: socket.socket) -> None:
        """Ends a start whose parent is gone: with it the sockets, which another one waits for.

        Nobody has been served; and what it waits for may never come.
        """
        poll = select.poll()
        poll.register(end, select.POLLRDHUP)
        poll.poll()
        if not self._serves.wait(ORPHAN_LIMIT):
            os._exit(1)

    @property
    def _now(self) -> ChildDaemon:
        """The daemon.

        Raises:
            LookupError: it has not started.
        """
        if self._daemon is None:
            raise LookupError("it has not started")
        return self._daemon

    def _spool(self) -> Spool | None:
        return self._now.spool()

    def _serve(self) -> None:
        self._answering.serve()
        if not self._now.wait(0):
            log.warning("the parent process is gone: stopping")
            self._stop_beside(None)
            if not self._now.wait(self._now.config.shutdown_timeout + GRACE):
                log.critical("it has not stopped in time: it ends at once")
                os._exit(1)

    def _check(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Says what is wrong with the config, as far as a start tells before it opens anything.

        Raises:
            StartError: all problems.
        """
        del descriptors
        _refuse_another(arguments)
        file = arguments["config_file"]
        path = None if file is None else Path(file)
        folder = None if path is None else path.parent
        try:
            Plan(unpack(arguments["config"]), Registry(DECORATED), folder, None).check()
        except StartError as error:
            raise StartError(named(path, error.problems)) from error

    def _start(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        """Starts the daemon.

        Raises:
            StartError: all that could not start.
        """
        _refuse_another(arguments)
        place = _place(arguments, descriptors)
        daemon = ChildDaemon(unpack(arguments["config"]), arguments["config_file"], place=place)
        if arguments.get("hold"):
            daemon.before_serving = self._hold
        daemon.start()
        self._daemon = daemon
        return {"warnings": daemon.warnings()}

    def _hold(self) -> None:
        """Says that everything is open, and waits for `go`.

        Raises:
            StartError: the parent is gone.
        """
        request = self._request
        if request is None or not self._answering.pause(request, {"held": True}, "go"):
            raise StartError("the parent is gone")

    def _prepare(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """See `ChildDaemon.prepare`."""
        sockets = list(zip(arguments["addresses"], descriptors, strict=True))
        self._now.prepare(
            unpack(arguments["config"]),
            arguments["config_file"],
            sockets,
            arguments["resolved"],
            arguments.get("ours", ()),
            turn=arguments["turn"],
        )

    def _commit(
        self, arguments: Mapping[str, Any], descriptors: Sequence[int]
    ) -> dict[str, list[str]]:
        """See `ChildDaemon.commit`."""
        del descriptors
        report = self._now.commit(arguments["turn"])
        return {
            "changes": [str(change) for change in report.changes],
            "failures": list(report.failures),
            "warnings": list(report.warnings),
        }

    def _serve_also(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """See `ChildDaemon.serve_also`."""
        self._now.serve_also(list(zip(arguments["addresses"], descriptors, strict=True)))

    def _stop(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Begins to stop; the end of the process says that it has."""
        del descriptors
        self._stop_beside(arguments.get("timeout"))

    def _stop_beside(self, timeout: float | None) -> None:
        threading.Thread(
            target=self._now.shutdown, args=(timeout,), name="guerrilla-stop", daemon=True
        ).start()

    def _reopen_logs(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        del arguments, descriptors
        self._now.reopen_logs()

    def _ping(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> bool:
        """Whether it is well, as `Daemon.is_well`.

        Raises:
            StopsError: it stops.
        """
        del descriptors
        self._now.check_that_it_runs()
        return self._now.is_well(arguments["within"])


def _await_end(daemon: ChildDaemon, signals: Signals) -> None:
    daemon.wait()
    signals.end()


def _refuse_another(arguments: Mapping[str, Any]) -> None:
    """Where the program was replaced while the parent runs: they may not understand each other.

    Raises:
        StartError: it is of another version.
    """
    if arguments["version"] != VERSION:
        raise StartError(
            f"the program on the disk is {VERSION}, and the one that runs is "
            f"{arguments['version']}: guerrillad upgrade lets the new one take over"
        )


def _place(arguments: Mapping[str, Any], descriptors: Sequence[int]) -> Place:
    """What the parent gives.

    Raises:
        StartError: the memory cannot be used.
    """
    addresses = arguments["addresses"]
    memory, sockets = None, descriptors
    if arguments["has_memory"]:
        try:
            memory = SharedMemory.attach(descriptors[0], arguments["number"])
        except (OSError, ValueError) as error:
            raise StartError(f"the memory of all processes: {error}") from error
        sockets = descriptors[1:]
    return Place(
        sockets=tuple(zip(addresses, sockets, strict=True)),
        ours=frozenset(arguments.get("ours", ())),
        number=arguments["number"],
        processes=arguments["processes"],
        memory=memory,
        is_child=True,
        resolved=arguments["resolved"],
    )
