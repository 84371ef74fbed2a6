"""An upgrade, as the process sees it that is replaced: the new program has all before it lets go.

See `guerrilla.processes.handover` for what is said between them.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from guerrilla.errors import GuerrillaError, NotNowError, UpgradeError
from guerrilla.processes.channel import readable_lines
from guerrilla.processes.handover import VARIABLE, read_event
from guerrilla.processes.lives import ending
from guerrilla.processes.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from guerrilla.config import AppConfig
    from guerrilla.processes.estate import Estate

__all__ = ["READY_LIMIT", "Launch", "Upgrade"]

log = logging.getLogger("guerrilla.upgrade")

READY_LIMIT = 60.0
"""Seconds that the new program has to be ready. Not a constant: tests have less patience."""

TAKEN_LIMIT = 30.0
"""Seconds from there until it serves. As the one above."""

_END_LIMIT: Final = 5.0
"""Seconds that one which has said why it failed has to end by itself."""

_MAX_SHEBANG: Final = 4096
"""Octets of the first line of a script; Linux takes 255."""

_OURS: Final = (VARIABLE, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
"""Variables of this process alone: the new one has its sockets over the wire."""


class Upgraded(Protocol):
    """What is upgraded. All may be called from any thread."""

    @property
    def config(self) -> AppConfig:
        """What is in force."""

    def hand_over(self) -> Estate:
        """What the new one goes on with; raises `RuntimeError` where it does not run."""

    def shutdown(self) -> object:
        """Stops gracefully."""


class Launch(NamedTuple):
    """How this program was started, and another is.

    Attributes:
        command: the program and its arguments.
        folder: where.
        environment: its variables.
    """

    command: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]

    @classmethod
    def of_now(cls) -> Launch:
        """Of this process, before it has changed any of it."""
        left_out = set(_OURS)
        if os.environ.get("WATCHDOG_PID") == str(os.getpid()):
            # Who takes our place is watched as we are.
            left_out.add("WATCHDOG_PID")
        environment = {name: text for name, text in os.environ.items() if name not in left_out}
        return cls(_command(), os.getcwd(), environment)

    def start(self, descriptor: int) -> subprocess.Popen[bytes]:
        """Starts the new program, which has that descriptor.

        Raises:
            OSError: it cannot be started.
        """
        return subprocess.Popen(  # noqa: S603  # what this one was started as
            self.command,
            cwd=self.folder,
            env={**self.environment, VARIABLE: str(descriptor)},
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )


class Upgrade:
    """Upgrades of one process: one at a time, and the last one is the last.

    Args:
        daemon: what is replaced.
        launch: how the new program is started.
        tell: called with the process id of the one that serves now.
    """

    def __init__(
        self, daemon: Upgraded, launch: Launch, tell: Callable[[int], object] = lambda _: None
    ) -> None:
        """Starts nothing."""
        self._daemon = daemon
        self._launch = launch
        self._tell = tell
        self._lock = threading.Lock()
        self._is_under_way = False
        self._reloads = 0
        self._stopping = threading.Event()
        self._is_let_go = False
        self._new: subprocess.Popen[bytes] | None = None
        self.is_done = False
        """Another one has taken the place of this process, which stops."""

    def run(self) -> dict[str, Any]:
        """Has the new program take over; this one stops then, beside.

        Returns:
            `pid` and `version` of the new one.

        Raises:
            UpgradeError: it has not taken over: this one goes on.
        """
        self._begin()
        try:
            found = self._replace()
        except UpgradeError as error:
            for problem in str(error).splitlines():
                log.error("upgrade: %s", problem)  # noqa: TRY400  # no fault of code
            log.error("upgrade: this process goes on")  # noqa: TRY400
            raise
        finally:
            with self._lock:
                self._is_under_way = self._is_let_go = False
                self._new = None
        log.info("upgrade: process %s (%s) has taken over", found["pid"], found["version"])
        threading.Thread(target=self._daemon.shutdown, name="guerrilla-stop", daemon=True).start()
        return found

    def run_beside(self) -> None:
        """The same for a signal, which waits for no answer."""
        threading.Thread(target=self._run_quietly, name="guerrilla-upgrade", daemon=True).start()

    def stop(self) -> None:
        """The process stops: a new program that has not taken over ends too."""
        with self._lock:
            self._stopping.set()
            if self._new is not None and not self._is_let_go:
                self._new.kill()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around a reload: the new program has read the config of before it.

        Raises:
            NotNowError: an upgrade is under way.
        """
        with self._lock:
            if self._is_under_way:
                raise NotNowError("an upgrade is under way: reload when it has ended")
            self._reloads += 1
        try:
            yield
        finally:
            with self._lock:
                self._reloads -= 1

    def _run_quietly(self) -> None:
        with suppress(UpgradeError):  # It is in the log.
            self.run()

    def _begin(self) -> None:
        with self._lock:
            problem = self._hindrance()
            if problem is None:
                self._is_under_way = True
        if problem is not None:
            log.error("upgrade: %s", problem)
            raise UpgradeError(problem)

    def _hindrance(self) -> str | None:
        if self.is_done or self._stopping.is_set():
            return "this process stops already"
        if self._is_under_way:
            return "another upgrade is under way"
        if self._reloads:
            return "a reload is under way: try again when it has ended"
        if os.getpid() == 1:
            return (
                "this is process 1 of its container, which ends with it: replace the container, "
                "or start guerrillad by an init such as tini"
            )
        return None

    def _replace(self) -> dict[str, Any]:
        try:
            estate = self._daemon.hand_over()
            offer = estate.offer()
        except (RuntimeError, OSError) as error:
            raise UpgradeError(str(error)) from error
        try:
            here, there = socket.socketpair()
            wire = Wire(here)
            try:
                with there:
                    new = self._start(there.fileno())
                try:
                    with suppress(WireError):  # What it says, or how it ends, tells more.
                        offer.send(wire)
                    _await(wire, new, "ready", READY_LIMIT)
                    return self._let_go(wire, new, estate)
                except (UpgradeError, WireError) as error:
                    raise self._failure(error, new) from error
                except BaseException:
                    new.kill()
                    raise
            finally:
                wire.close()
        except OSError as error:
            problem = f"the new program cannot be started: {error}"
            raise UpgradeError("\n".join([problem, *self._advice()])) from error
        finally:
            offer.close()

    def _start(self, descriptor: int) -> subprocess.Popen[bytes]:
        log.info("upgrade: starting %s", " ".join(self._launch.command))
        with self._lock:
            if self._stopping.is_set():
                raise UpgradeError("this process stops")
            self._new = self._launch.start(descriptor)
            return self._new

    def _let_go(self, wire: Wire, new: subprocess.Popen[bytes], estate: Estate) -> dict[str, Any]:
        """It is ready: it gets all, and serves."""
        with self._lock:
            if self._stopping.is_set():
                raise UpgradeError("this process stops")
            self._is_let_go = True
        try:
            with suppress(WireError):
                wire.send({"event": "go", "files": estate.leave()})
            said = _await(wire, new, "taken", TAKEN_LIMIT)
        except (UpgradeError, WireError):
            _end(new, 0)
            self._take_back(estate)
            raise
        self.is_done = True
        estate.handed_over(
            readable_lines(said.get("files")), has_pid_file=said.get("has_pid_file") is True
        )
        # Another process than we have started, where the command is a script that starts it.
        told = said.get("pid")
        pid = told if isinstance(told, int) and told > 0 else new.pid
        self._tell(pid)
        if self._stopping.is_set():
            new.terminate()  # Somebody has asked this one to stop, and meant all of it.
        return {"pid": pid, "version": "".join(readable_lines([said.get("version")]))}

    def _take_back(self, estate: Estate) -> None:
        try:
            estate.take_back()
        except OSError:
            log.exception("upgrade: not all that was given away could be had again")

    def _failure(self, error: GuerrillaError, new: subprocess.Popen[bytes]) -> UpgradeError:
        """Why it has failed, once the new program has ended."""
        _end(new, _END_LIMIT if isinstance(error, _ToldError) else 0)
        if self._stopping.is_set():
            return UpgradeError("this process stops, and the new program was ended with it")
        advice = self._advice() if isinstance(error, _ToldError) else []
        return UpgradeError("\n".join([str(error), *advice]))

    def _advice(self) -> list[str]:
        """What to do where root has started this process, which is somebody else since."""
        config = self._daemon.config
        user = config.user or config.group
        if user is None or os.geteuid() == 0:
            return []
        advice = (
            f"the new program is started by {user}, which this process has become: what only root "
            "may run, read or bind has to be that user's too, or stop this one and start the other"
        )
        return [advice]


def _command() -> tuple[str, ...]:
    """What this process was started as.

    A script that names its Python is started by itself: another environment may stand where this
    one did by then, whose script names another Python.
    """
    interpreter, *arguments = sys.orig_argv
    if arguments and "/" in arguments[0]:
        with suppress(OSError), open(arguments[0], "rb") as script:
            if script.readline(_MAX_SHEBANG).rstrip() == b"#!" + os.fsencode(interpreter):
                return tuple(arguments)
    return (sys.executable, *arguments)


class _ToldError(UpgradeError):
    """The new program has said why it cannot start."""


def _await(wire: Wire, new: subprocess.Popen[bytes], event: str, patience: float) -> dict[str, Any]:
    """Waits until the new program says that; the line.

    Raises:
        UpgradeError: it says something else, nothing, or has ended.
    """
    limit = time.monotonic() + patience
    state = "ready" if event == "ready" else "serving"
    try:
        received = wire.receive(patience)
    except WireError as error:
        what = f"not {state} within {patience:g} s" if time.monotonic() >= limit else str(error)
        raise UpgradeError(f"the new program (process {new.pid}): {what}") from error
    if received is None:
        raise UpgradeError(
            f"the new program (process {new.pid}) {_how_it_ended(new)} before it was {state}; "
            "it may have said why on stderr"
        )
    if read_event(received.value) == "failed":
        lines = readable_lines(received.value.get("problems")) or ["it does not say why"]
        raise _ToldError("\n".join(f"the new program cannot start: {line}" for line in lines))
    if read_event(received.value) != event:
        raise UpgradeError(f"the new program (process {new.pid}) says something else than {event}")
    return received.value


def _how_it_ended(new: subprocess.Popen[bytes]) -> str:
    try:
        return ending(new.wait(_END_LIMIT))
    except subprocess.TimeoutExpired:
        return "has closed its connection"


def _end(new: subprocess.Popen[bytes], patience: float) -> None:
    """Ends it, where it has not ended by itself within so many seconds."""
    try:
        new.wait(patience)
    except subprocess.TimeoutExpired:
        new.kill()
        new.wait()
