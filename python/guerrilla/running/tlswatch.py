"""Certificates that change while the daemon runs: taking them over, and `tls.watch`."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from guerrilla.running.settings import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guerrilla._core import Core
    from guerrilla.config import AppConfig

log = logging.getLogger("guerrilla.tls")

INTERVAL: Final = 1.0
"""Seconds between two looks."""

_PATIENCE: Final = 5.0
"""Seconds that a look may take at the end, as on a file system that does not answer."""

Look = tuple[object, ...]
"""What was seen of each file: enough to tell a change, without reading it."""


def reload_tls(config: AppConfig, core: Core) -> list[str]:
    """Reads all files of TLS again and logs what came of it.

    Returns:
        A line for each problem: the key, and why what was loaded before stays in use.
    """
    told: dict[str, None] = {}
    problems: dict[str, None] = {}
    for name, reason in core.reload_tls():
        where = place(config, name)
        if reason is None:
            told[where] = None
        else:
            problems |= dict.fromkeys(_problem(where, name, line) for line in reason.splitlines())
    for where in told:
        log.info("%s.tls: what changed in its files is taken over for new connections", where)
    for problem in problems:
        log.error("%s; what was loaded before stays in use", problem)
    return list(problems)


def make_watch(config: AppConfig, reload: Callable[[], object]) -> TLSWatch | None:
    """A watch on the files of all servers with `tls.watch`; None when there is none.

    Made before the core reads the files: what changes in between is then noticed too.
    """
    watched = [
        file
        for server in config.servers
        if server.is_enabled and server.tls.is_on and server.tls.watch
        for file in server.tls.files
    ]
    return TLSWatch(watched, reload, INTERVAL) if watched else None


class TLSWatch:
    """A thread that looks at files, and calls `reload` once what changed has come to rest.

    A renewed pair is two files, and copying takes time; so it waits until two looks in a row see
    the same. A file that is not there is seen as such, and is no end of the watch.
    """

    def __init__(self, files: Iterable[str], reload: Callable[[], object], interval: float) -> None:
        """Takes the first look: `reload` follows what differs from it."""
        self._files = tuple(dict.fromkeys(files))
        self._reload = reload
        self._interval = interval
        self._loaded = self._last = self._see()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guerrilla-tls", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; a reload under way is waited for."""
        self._end.set()
        self._thread.join(_PATIENCE)

    def look(self) -> None:
        """Looks once, and reloads where a change has come to rest."""
        seen = self._see()
        if seen != self._loaded and seen == self._last:
            # Before the reload: it reads what is seen now or something newer, which differs then.
            self._loaded = seen
            self._reload()
        self._last = seen

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            try:
                self.look()
            except Exception:
                log.exception("changed files of TLS could not be looked at")

    def _see(self) -> Look:
        return tuple(see(file) for file in self._files)


def see(file: str) -> tuple[int, ...] | None:
    """What a change of a file changes, through links; None while it cannot be seen.

    The time of the last change of its inode is among it, since that tells of new modes too.
    """
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _problem(where: str, name: str, line: str) -> str:
    """A line of a reason as a start would tell it: with the key."""
    text = line.removeprefix(f"{name}: ")
    return f"{where}.{text}" if text.startswith("tls.") else f"{where}.tls: {text}"
