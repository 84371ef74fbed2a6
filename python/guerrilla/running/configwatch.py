"""`watch_config`: a change of the config file, seen by itself."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Final

from guerrilla.running.tlswatch import INTERVAL, see

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

log = logging.getLogger("guerrilla.config")

SETTLE: Final = 0.25
"""Seconds that a file has to stay as it is before it counts."""

_STEP: Final = 200
"""Milliseconds without an event that end a group of them, and that a stop may take."""
_DEBOUNCE: Final = 1_000
"""Milliseconds after which a group of events ends anyway, as in a folder that is never quiet."""

AGAIN: Final = 10.0
"""Seconds until a change that could not be taken over for the moment is told of again."""

_MAX_LINKS: Final = 40
"""As many as Linux follows."""

_PATIENCE: Final = 1.0
"""Seconds that a stop waits for a look or a call under way, which may itself wait for the stop."""

Trail = tuple[tuple[str, str], ...]
"""Folder and name of each link that leads to a file, and at last of the file."""


class ConfigWatch:
    """A thread that calls `changed` once for each change of a file that has come to rest.

    What counts is the content. Editors and Kubernetes put another file, or a link to another
    folder, in the place of the old one, so the folders are watched of each link on the way. A file
    that is gone, empty or unreadable for a while is none that anybody meant; nor is one that is
    written again as it was. Where the system tells of no events, as for a network's file system, a
    look in each interval finds the change.

    Args:
        path: of the config file.
        changed: called in the watch's own thread; it may call `stop`. What it raises is logged.
            Where it says False, it is called again for what is there by then.
        interval: seconds between looks without an event.
        settle: seconds that the file has to stay as it is.
        again: seconds until it is called again.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        changed: Callable[[], object],
        *,
        interval: float = INTERVAL,
        settle: float = SETTLE,
        again: float = AGAIN,
    ) -> None:
        """Takes the first look: `changed` follows what differs from it."""
        # Not normalised: behind a link, `..` is another folder than the text says.
        self._path = os.path.join(os.getcwd(), path)
        self._changed = changed
        self._interval = interval
        self._settle = settle
        self._again = again
        self._due: float | None = None
        """When what is there is told of once more, though it may be what it was."""
        self._seen = see(self._path)
        self._loaded = _digest(self._path)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guerrilla-config", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; a call of `changed` under way has a moment for its end, but for its own stop."""
        self._end.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def look(self, *, happened: bool = True) -> None:
        """Looks, waits for the end of a change, and tells of it.

        Args:
            happened: something did, so that the content is read even if the file looks the same.
        """
        seen = see(self._path)
        is_due = self._due is not None and time.monotonic() >= self._due
        if not happened and seen == self._seen and not is_due:
            return
        # Before the content is read, which may be newer than this, and then differs at the next.
        self._seen = seen
        if is_due:
            self._loaded = self._due = None
        content = self._settled()
        if content is None or content == self._loaded:
            return
        self._loaded, self._due = content, None
        log.info("%s has changed", self._path)
        try:
            if self._changed() is False:
                self._due = time.monotonic() + self._again
                log.warning("%s is read once more in %g s", self._path, self._again)
        except Exception:
            log.exception("%s has changed and could not be taken over", self._path)

    def _settled(self) -> bytes | None:
        """What the content is, once two looks in a row find the same; None where there is none."""
        found = _digest(self._path)
        while found != self._loaded and not self._end.wait(self._settle):
            again = _digest(self._path)
            if again == found:
                return found
            found = again
        return None

    def _run(self) -> None:
        told = False
        while not self._end.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, looking goes on
                # As many watches as the system allows, or a folder that went meanwhile.
                if not told:
                    log.warning("%s is looked at every %g s: %s", self._path, self._interval, error)
                told = True
                self._end.wait(self._interval)

    def _follow(self) -> None:
        """Looks at events and in between, until the way to the file is another one."""
        from watchfiles import watch  # takes its time, and most do without  # noqa: PLC0415

        self.look(happened=False)
        way = _way(self._path)
        names = {os.path.join(folder, name) for folder, name, *_ in way}
        folders = {folder for folder, _, found in way if found is not None}
        for changes in watch(
            *folders,
            watch_filter=lambda _, path: path in names,
            step=_STEP,
            debounce=_DEBOUNCE,
            stop_event=self._end,
            rust_timeout=max(1, int(self._interval * 1000)),
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            self.look(happened=bool(changes))
            if self._end.is_set() or _way(self._path) != way:
                return


def trail(path: str) -> Trail:
    """The way to a file: each link on it, and the file or the first part that is not there."""
    found: list[tuple[str, str]] = []
    folder, left = "/", _parts(path)
    while left and len(found) < _MAX_LINKS:
        name = left.pop(0)
        where = os.path.join(folder, name)
        try:
            target = os.readlink(where)
        except FileNotFoundError:
            return (*found, (folder, name))
        except OSError:  # no link
            if not left:
                return (*found, (folder, name))
            folder = os.path.normpath(where) if name == ".." else where
            continue
        found.append((folder, name))
        if target.startswith("/"):
            folder = "/"
        left = _parts(target) + left
    return tuple(found)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _way(path: str) -> tuple[tuple[str, str, tuple[int, int] | None], ...]:
    """The trail with what each folder is: another one may stand at its path."""
    return tuple((folder, name, _identity(folder)) for folder, name in trail(path))


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _digest(path: str) -> bytes | None:
    """Stands for the content; None while there is none to read. Never waits, as at a pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            content = file.read()
    except OSError:
        return None
    # Between truncating and writing, an editor's file is empty, which would be a config too.
    return hashlib.sha256(content).digest() if content.strip() else None
