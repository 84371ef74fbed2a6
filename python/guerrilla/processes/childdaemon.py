"""The daemon of a child: it obeys another config in two steps, as its parent asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from guerrilla.daemon import Daemon
from guerrilla.errors import ConfigError, StartError
from guerrilla.processes.channel import StopsError
from guerrilla.running.parts import Plan
from guerrilla.running.reloading import Reload
from guerrilla.running.startup import named

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import ExitStack
    from os import PathLike

    from guerrilla.config import AppConfig
    from guerrilla.processes.place import Place
    from guerrilla.running.parts import HeldPid
    from guerrilla.running.reloading import ReloadReport


class _Prepared(NamedTuple):
    """A reload that waits for its second step."""

    turn: int
    reload: Reload
    file: Path | None
    place: Place


class ChildDaemon(Daemon):
    """A daemon whose parent has all of its children obey another config, or none.

    So what cannot start refuses the whole of it here, in place of leaving what was there before.
    """

    _prepared: _Prepared | None = None
    _turn = 0
    """Of the reload under way, or of the next: what is asked for an earlier one comes too late."""

    before_serving: Callable[[], object] = staticmethod(lambda: None)
    """Called when all is open: it may wait, or refuse by a `StartError`."""

    def prepare(
        self,
        config: AppConfig,
        file: str | PathLike[str] | None,
        sockets: Sequence[tuple[str, int]],
        resolved: Mapping[str, Sequence[str]],
        ours: Collection[str] = (),
        *,
        turn: int = 0,
    ) -> None:
        """Opens what another config needs; nothing else changes. One that was prepared is dropped.

        Args:
            config: all of which a running daemon can obey.
            file: where it came from.
            sockets: of servers that are new, as `Place.sockets`.
            resolved: as `Place.resolved`.
            ours: as `Place.ours`.
            turn: of the reload.

        Raises:
            ConfigError: something in it is wrong.
            StartError: something of it cannot start.
            LookupError: that reload is over.
            StopsError: it does not run.
        """
        self.check_that_it_runs()
        with self._lock:
            if turn < self._turn:
                message = "it comes too late: another reload has begun, or this one has ended"
                raise LookupError(message)
            self._turn = turn
            self._drop()
            self.check_that_it_runs()
            parts = self._parts
            if parts is None:
                raise StopsError("it does not run")
            path = None if file is None else Path(file)
            folder = None if path is None else path.parent
            plan = Plan(config, self._registry, folder, self._backend, resolved)
            problems = plan.problems()
            if problems:
                raise ConfigError(named(path, problems))
            reload = Reload(parts, plan)
            try:
                reload.prepare(sockets, ours)
            except StartError as error:
                raise StartError(named(path, error.problems)) from error
            except BaseException:
                # What it was given would listen, and nobody accept.
                reload.abandon()
                raise
            place = replace(self._place, resolved=resolved)
            self._prepared = _Prepared(turn, reload, path, place)

    def commit(self, turn: int = 0) -> ReloadReport:
        """Obeys what was prepared in that turn.

        Raises:
            LookupError: nothing was.
            StopsError: it does not run any more.
        """
        self.check_that_it_runs()
        with self._lock:
            self.check_that_it_runs()
            prepared, parts = self._prepared, self._parts
            if prepared is None or prepared.turn != turn or parts is None:
                raise LookupError("nothing was prepared")
            self._prepared = None
            self.config_file, self._place = prepared.file, prepared.place
            report = self._obeyed(parts, prepared.reload.commit())
        for change in report.changes:
            self.events.publish(change.event, change.payload)
        return report

    def abandon(self, turn: int = 0) -> None:
        """Drops what was prepared in that turn, if anything was, also where that comes later."""
        if self._busy:
            return  # A stop has dropped it, and holds the lock for long.
        with self._lock:
            if turn >= self._turn:
                self._turn = turn + 1
                self._drop()

    def check_that_it_runs(self) -> None:
        """Waits for nothing.

        Raises:
            StopsError: it does not: who begins to stop holds the lock for long.
        """
        if self._busy or not self._runs:
            raise StopsError("it stops")

    def serve_also(self, sockets: Sequence[tuple[str, int]]) -> None:
        """Serves these of another process too; those of an earlier call no more.

        Raises:
            StopsError: it does not run.
            ValueError: as `Core.serve_also`.
        """
        self.check_that_it_runs()
        if self._parts is not None:
            self._parts.core.serve_also(sockets)

    def _drop(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.reload.abandon()

    def _take_over(self, opened: ExitStack, addresses: Sequence[str], pid: HeldPid) -> None:
        del opened, addresses, pid  # The parent takes over.
        self.before_serving()

    def _stop(self, timeout: float) -> None:
        self._drop()
        super()._stop(timeout)
