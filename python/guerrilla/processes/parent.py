"""The parent of several processes: what `guerrillad serve` runs where `processes` is more than one.

It serves no mail. It has what there is one of: the listening sockets, the memory of all, the pid
file, the control socket, the signals; and it looks after its children, each of which is a `Daemon`.
Where it was started as root it stays that, and its children become `user`: so that a successor may
do what the first one could, as open a log that only root can.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerrilla.errors import StartError
from guerrilla.processes import merging
from guerrilla.processes.belongings import Belongings
from guerrilla.processes.channel import ChannelError, RefusedError, TooLargeError, readable_lines
from guerrilla.processes.children import READY_LIMIT, too_large
from guerrilla.processes.estate import (
    Estate,
    duplicated,
    not_within_a_program,
    settle,
    take_over,
)
from guerrilla.processes.family import AT_ONCE, Family
from guerrilla.processes.lending import Lending
from guerrilla.processes.lives import Life
from guerrilla.processes.place import ALONE, GRACE
from guerrilla.processes.reloads import Reloads
from guerrilla.processes.rotation import rotating
from guerrilla.processes.sockets import ListeningSockets
from guerrilla.processes.spools import FamilyDesk
from guerrilla.processes.starts import make_memory, starting, told
from guerrilla.processes.vigil import Vigil
from guerrilla.running.opening import unusable
from guerrilla.running.startup import named, raise_file_limit, resolve_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from os import PathLike

    from guerrilla._core import SharedMemory
    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.processes.agreement import Agreed
    from guerrilla.processes.channel import Asked, Asking
    from guerrilla.processes.place import Place

log = logging.getLogger("guerrilla.processes")


class Parent:
    """The parent, with as many children as there are to be processes.

    Methods may be called from any thread. It is started once.

    Args:
        config: what to run.
        config_file: where it came from.
        processes: how many children.
        overrides: fields of `AppConfig` that go before those of the file, at each reload too.
        place: what it is given rather than opens itself, by the process before it or by systemd.
    """

    def __init__(
        self,
        config: AppConfig,
        config_file: str | PathLike[str] | None,
        processes: int,
        *,
        overrides: Mapping[str, Any] | None = None,
        place: Place = ALONE,
    ) -> None:
        """Opens nothing."""
        self._place = place
        self.before = place.before
        self.overrides = dict(overrides or {})
        self.config = config.model_copy(update=self.overrides) if self.overrides else config
        self.config_file = Path(config_file) if config_file is not None else None
        self.processes = processes
        self.around_reload: Callable[[], AbstractContextManager[object]] = nullcontext
        """As `Daemon.around_reload`."""
        self.on_stop: Callable[[], object] = lambda: None
        """As `Daemon.on_stop`."""
        self.upgrader: Callable[[], dict[str, Any]] = not_within_a_program
        """As `Daemon.upgrader`."""
        self.changing = threading.RLock()
        """Held while what children start with changes, and where it is put together."""
        self.generation = 0
        """Of the config: a child that was starting while it changed is replaced."""
        self.servers: list[tuple[ServerConfig, str]] = []
        """Those that are enabled, with each of their addresses."""
        self.sockets: ListeningSockets | None = None
        self.memory: SharedMemory | None = None
        self.own = Belongings()
        self._family = Family(processes, self)
        self.children = self._family.children
        self.ask_all = self._family.ask_all
        self.reloads = Reloads(self)
        self.lending = Lending(self)
        self._vigil = Vigil(self.children, self.lending.look)
        self.cause: str | None = None
        """Why it has given up, where it has."""
        self._lock = threading.RLock()
        """Held while it starts, obeys another config, and stops: one waits for the other."""
        self._started = False
        self._graceful = True
        self._done = threading.Event()
        self._opened = ExitStack()
        self._warnings: list[str] = []
        self._desks = itertools.count()
        self.began = time.monotonic()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, in the order of the servers, with real ports; empty before start."""
        return [] if self.sockets is None else self.sockets.addresses()

    def addresses_of(self, name: str) -> list[str]:
        """Where a server listens, with real ports."""
        return [] if self.sockets is None else self.sockets.addresses_of(name)

    def warnings(self) -> list[str]:
        """As `Daemon.warnings`: those of the first child."""
        return list(self._warnings)

    def start(self) -> None:
        """Starts all children, and returns when they serve.

        Order: the first child checks the config → log → pid file → sockets are bound → the first
        child starts → the others do → the control socket. What fails undoes what came before.

        Raises:
            StartError: everything that could not start, a line each; what several children say is
                said once.
        """
        with self._lock:
            self._started = True
            self.began = time.monotonic()
            try:
                with ExitStack() as opened:
                    self._open(opened)
                    self._opened = opened.pop_all()
            except BaseException:
                self._done.set()
                raise
        log.info("started %d processes", self.processes)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has stopped; False when `timeout` seconds passed first."""
        return self._done.wait(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stops all children gracefully and at once; a second call waits for the first.

        Args:
            timeout: seconds that transactions have; by default `shutdown_timeout`.

        Returns:
            Whether all of them ended by themselves, with nothing cut off.
        """
        self.reloads.stops.set()
        with self._lock:
            if self._started and not self._done.is_set():
                try:
                    self._stop(self.config.shutdown_timeout if timeout is None else timeout)
                finally:
                    self._done.set()
        return self._graceful and self.cause is None

    def kill(self) -> None:
        """Ends all children at once. It waits for nothing: a signal handler may call it."""
        self._family.kill()

    def is_well(self, within: float) -> bool:
        """Whether it looks after its children: those of them that are not well are ended alone."""
        return self._vigil.is_kept(within)

    def reopen_logs(self) -> None:
        """Opens log files anew, its own and those of all children.

        Raises:
            OSError: one cannot be opened; the old one stays in use there.
        """
        problems: list[str] = []
        try:
            self.own.reopen_logs()
        except OSError as error:
            problems.append(str(error))
        for number, answer in self.ask_all("reopen-logs").items():
            if isinstance(answer, Exception):
                problems.append(f"process {number}: {answer}")
        if problems:
            raise OSError("; ".join(problems))

    def reload_config_file(self, path: str | PathLike[str] | None = None) -> Agreed:
        """As `Daemon.reload_config_file`: all children obey, or none does.

        Raises:
            ConfigError: it cannot be read, something is wrong, or a child cannot obey; nothing was
                changed.
            RuntimeError: it does not run, or there is no file.
        """
        file = self.config_file if path is None else Path(path)
        if file is None:
            message = "reload_config_file needs a path: it was started without a file"
            raise RuntimeError(message)
        # Not with the lock: a stop has no need to wait for this.
        self.reloads.settle()
        with self.around_reload(), self._lock:
            if not self._started or self._done.is_set() or self.sockets is None:
                message = "reload_config_file needs a daemon that runs"
                raise RuntimeError(message)
            report = self.reloads.obey(file, self.sockets)
            self._warnings = list(report.warnings)
            return report

    def status(self) -> dict[str, Any]:
        """As `Daemon.status`, of all children, and `processes`: what each of them does."""
        return merging.status(self, self.ask_all("status"))

    def hand_over(self) -> Estate:
        """As `Daemon.hand_over`.

        Raises:
            RuntimeError: it does not run.
            OSError: no descriptor is free.
        """
        with self.changing:
            if self.sockets is None or not self._started or self._done.is_set():
                message = "it does not run"
                raise RuntimeError(message)
            sockets = duplicated(self.sockets.all())
            own = self.own
            return Estate(sockets, self.sockets, own.pid, own.control, self._place.passed)

    def stats(self) -> dict[str, Any]:
        """As `Daemon.stats`, of all children."""
        return merging.stats(self, self.ask_all("stats").values())

    def spool_desk(self) -> FamilyDesk:
        """As `Daemon.spool_desk`, of all children."""
        return FamilyDesk(self, next(self._desks))

    # What a child needs of it: `guerrilla.processes.children.Hub`.

    def begin_start(self, number: int, asking: Asking) -> tuple[Asked, int]:
        """Asks a child to start with what is in force now."""
        with self.changing:
            arguments, descriptors = starting(self, number)
            return asking.begin("start", arguments, descriptors), self.generation

    def is_current(self, generation: int) -> bool:
        """Whether a child that has started with that config has the one of now."""
        with self.changing:
            return generation == self.generation

    def has_ended(self, number: int) -> None:
        """What the process of a child held is given back."""
        if self.memory is not None:
            self.memory.bury(number)

    def give_up(self, cause: str) -> None:
        """Stops all: another start would fail as the last ones."""
        self.cause = cause
        log.critical("%s: all stop", cause)
        threading.Thread(target=self.shutdown, name="guerrilla-stop", daemon=True).start()

    def patience(self) -> float:
        """Seconds that a child may take to end once its parent says nothing any more."""
        return self.config.shutdown_timeout + GRACE

    def _open(self, opened: ExitStack) -> None:
        """Opens everything; `opened` undoes it, the last first."""
        first = self._checked(opened)
        config = self.config
        self.servers, unresolved = resolve_servers(config)
        self._refuse([*unresolved, *raise_file_limit(self.servers)])
        with self._naming():
            self.own.open(
                config, opened, None if self.before is None else self.before.offer.pid_file
            )
        self._listen(opened)
        self.memory = make_memory(self.processes)
        opened.enter_context(rotating(self.memory))
        opened.callback(self._end_children, AT_ONCE)
        answer = self._begin(first, opened)
        self._warnings = readable_lines(answer.get("warnings"))
        self.own.watch_config(self, opened)
        opened.enter_context(self._vigil.keeping())

    def _begin(self, first: Life | None, opened: ExitStack) -> Mapping[str, Any]:
        """Has all children serve, and takes requests; what the first one answers.

        Where there is a process before this one, not before that lets it.
        """
        before, sockets = self.before, self.sockets
        if before is None or sockets is None:
            answer = self._family.begin(first)
            with self._naming():
                self.own.open_control(self, opened)
            return answer
        self._family.hold()
        self._family.begin(first)
        with self._naming():
            self.own.open_control(self, opened, before.offer.control)
        addresses = [address for _, address in self.servers]
        take_over(before, addresses, self.own.pid, self.own.control)
        answer = self._family.release()
        settle(before, sockets)
        return answer

    def _checked(self, opened: ExitStack) -> Life | None:
        """The first child, which has checked the config, before anything is opened.

        It and not the parent: modules of `import` are somebody else's code, which may take its
        time, start threads, or crash; and they stay in the memory of who has imported them.
        """
        life = Life(0, self.patience)
        opened.callback(life.discard)
        try:
            life.asking.ask("check", told(self), timeout=READY_LIMIT)
        except RefusedError as error:
            raise StartError(error.errors) from error
        except TooLargeError as error:
            raise StartError(named(self.config_file, [too_large(error)])) from error
        except ChannelError:
            # It has died: the places of children know what to do.
            life.discard()
            return None
        return life

    def _listen(self, opened: ExitStack) -> None:
        """Binds everything.

        Raises:
            StartError: what cannot be, and what of TLS cannot be read either.
        """
        self.sockets = ListeningSockets(
            self.processes,
            shared=self.config.shared_sockets,
            identity=self.own.identity,
            passed=self._place.passed,
        )
        opened.callback(self.sockets.close)
        try:
            self.sockets.open(self.config, self.servers, self._place.sockets)
        except StartError as error:
            # What a start of one process would tell, which reads the files of TLS first.
            problems = unusable(self.config, self.servers, self._place)
            self._refuse(problems or error.problems)

    def _stop(self, timeout: float) -> None:
        """Whatever interrupts it, nothing stays open."""
        try:
            self.on_stop()
            log.info("stopping")
            self._graceful = False  # Until the end says otherwise.
            self._graceful = self._end_children(timeout)
            log.info("stopped")
        finally:
            self._opened.close()

    def _end_children(self, timeout: float) -> bool:
        """Ends all children; whether all of them did by themselves."""
        # They listen no more once they are told: who would wait in their queues would do in vain.
        return self._family.end(timeout, self._close_sockets)

    def _close_sockets(self) -> None:
        # Not beside a start, which passes their numbers on: they may be somebody else's by then.
        with self.changing:
            if self.sockets is not None:
                self.sockets.close()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Names the config file in what could not start."""
        try:
            yield
        except StartError as error:
            raise StartError(named(self.config_file, error.problems)) from error

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise StartError(named(self.config_file, problems))
