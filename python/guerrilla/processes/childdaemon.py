"""The daemon of a child: it obeys another config in two steps, as its parent asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from guerrilla.daemon import Daemon
from guerrilla.errors import ConfigError, StartError
from guerrilla.running.parts import Plan
from guerrilla.running.reloading import Reload

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

    reload: Reload
    file: Path | None
    place: Place


class ChildDaemon(Daemon):
    """A daemon whose parent has all of its children obey another config, or none.

    So what cannot start refuses the whole of it here, in place of leaving what was there before.
    """

    _prepared: _Prepared | None = None

    before_serving: Callable[[], object] = staticmethod(lambda: None)
    """Called when all is open: it may wait, or refuse by a `StartError`."""

    def prepare(
        self,
        config: AppConfig,
        file: str | PathLike[str] | None,
        sockets: Sequence[tuple[str, int]],
        resolved: Mapping[str, Sequence[str]],
        ours: Collection[str] = (),
    ) -> None:
        """Opens what another config needs; nothing else changes. One that was prepared is dropped.

        Args:
            config: all of which a running daemon can obey.
            file: where it came from.
            sockets: of servers that are new, as `Place.sockets`.
            resolved: as `Place.resolved`.
            ours: as `Place.ours`.

        Raises:
            ConfigError: something in it is wrong.
            StartError: something of it cannot start.
            LookupError: it does not run.
        """
        with self._lock:
            self.abandon()
            parts = self._parts
            if parts is None or not self._runs or self._busy:
                raise LookupError("it does not run")
            path = None if file is None else Path(file)
            folder = None if path is None else path.parent
            plan = Plan(config, self._registry, folder, self._backend, resolved)
            problems = plan.problems()
            if problems:
                raise ConfigError(_named(path, problems))
            reload = Reload(parts, plan)
            try:
                reload.prepare(sockets, ours)
            except StartError as error:
                raise StartError(_named(path, error.problems)) from error
            self._prepared = _Prepared(reload, path, replace(self._place, resolved=resolved))

    def commit(self) -> ReloadReport:
        """Obeys what was prepared.

        Raises:
            LookupError: nothing was, or it does not run any more.
        """
        with self._lock:
            prepared, self._prepared = self._prepared, None
            parts = self._parts
            if prepared is None or parts is None or not self._runs:
                raise LookupError("nothing was prepared")
            self.config_file, self._place = prepared.file, prepared.place
            report = self._obeyed(parts, prepared.reload.commit())
        for change in report.changes:
            self.events.publish(change.event, change.payload)
        return report

    def abandon(self) -> None:
        """Drops what was prepared, if anything was."""
        with self._lock:
            prepared, self._prepared = self._prepared, None
            if prepared is not None:
                prepared.reload.abandon()

    def _take_over(self, opened: ExitStack, addresses: Sequence[str], pid: HeldPid) -> None:
        del opened, addresses, pid  # The parent takes over.
        self.before_serving()

    def _stop(self, timeout: float) -> None:
        self.abandon()
        super()._stop(timeout)


def _named(file: Path | None, problems: Sequence[str]) -> Sequence[str]:
    return problems if file is None else [f"{file}: {problem}" for problem in problems]
