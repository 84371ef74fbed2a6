"""What a parent has beside sockets and children: log, pid file, control socket, config watch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from guerrilla.control.server import Controlled, move_control, open_control
from guerrilla.errors import StartError
from guerrilla.logs.output import LogSettings, log_problem
from guerrilla.running.configwatch import ConfigWatch
from guerrilla.running.opening import open_log, take_pid_file
from guerrilla.running.parts import HeldPid
from guerrilla.running.privileges import give_socket, take_groups, wanted_identity
from guerrilla.running.reloading import read_again

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from guerrilla.config import AppConfig
    from guerrilla.control.server import Control
    from guerrilla.logs.output import LogOutput
    from guerrilla.running.privileges import Identity


class Owner(Controlled, Protocol):
    """The parent."""

    config_file: Path | None
    """Where its config came from."""

    @property
    def before(self) -> object | None:
        """The process whose place it takes, where there is one."""


class Belongings:
    """They are opened in this order: `open`, `open_control`, `watch_config`."""

    def __init__(self) -> None:
        """Opens nothing."""
        self.identity: Identity | None = None
        """Who the children become; the parent stays who it is."""
        self.logs: LogOutput | None = None
        self.pid = HeldPid(None)
        self.control: Control | None = None
        self._watch: ConfigWatch | None = None
        self._watched: Path | None = None

    def open(self, config: AppConfig, opened: ExitStack, held: int | None = None) -> None:
        """Opens the log and takes the pid file; `opened` undoes it. `held` as `PidFile` has it.

        Raises:
            StartError: what cannot be.
        """
        self.identity = wanted_identity(config)
        if self.identity is not None:
            take_groups(self.identity)
        self.logs = open_log(config, opened, identity=self.identity)
        self.pid.file = take_pid_file(config, held, self.identity)
        opened.callback(self.pid.remove)

    def open_control(self, owner: Owner, opened: ExitStack, replaced: str | None = None) -> None:
        """Takes requests; `opened` ends it. `replaced` as `open_control` of the socket has it.

        Raises:
            StartError: the socket that the config names cannot be made.
        """
        self.control = open_control(owner, owner.config_file, opened, replaced)
        self._give_control()

    def watch_config(self, owner: Owner, opened: ExitStack | None = None) -> None:
        """Begins or ends to look at the config file, as `watch_config` says now."""
        if opened is not None:
            opened.callback(self._stop_watch)
        wanted = owner.config_file if owner.config.watch_config else None
        if wanted == self._watched:
            return
        self._stop_watch()
        self._watched = wanted
        if wanted is not None:
            read = partial(read_again, owner, "watch_config")
            # What a reload has just read is in force; behind an upgrade it may not be.
            known = opened is None or owner.before is None
            self._watch = ConfigWatch(wanted, read, known=known)
            self._watch.start()

    def reopen_logs(self) -> None:
        """Opens the log anew.

        Raises:
            OSError: as `LogOutput.reopen`.
        """
        if self.logs is not None:
            self.logs.reopen()

    def replace(self, old: AppConfig, new: AppConfig) -> list[str]:
        """Log and pid file of another config; a line for each that stays as it was."""
        failures = []
        logs = self.logs
        if logs is not None:
            try:
                logs.change(LogSettings.of(new))
            except OSError as error:
                failures.append(log_problem(new, error))
        if new.pid_file != old.pid_file:
            try:
                fresh = take_pid_file(new, identity=self.identity)
            except StartError as error:
                failures += error.problems
            else:
                self.pid.remove()
                self.pid.file = fresh
        return failures

    def move_control(self, config: AppConfig, file: Path | None) -> None:
        """Has the control socket where those look for it who read the config of now."""
        before = None if self.control is None else self.control.path
        move_control(self.control, config, file)
        if self.control is not None and self.control.path != before:
            self._give_control()

    def _give_control(self) -> None:
        """Who becomes the user of one process has its control socket too."""
        if self.control is not None and self.identity is not None:
            give_socket(self.identity, self.control.file)

    def _stop_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()
