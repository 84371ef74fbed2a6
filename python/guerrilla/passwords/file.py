"""A file of passwords that is read again when it has changed."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
import threading
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from guerrilla.passwords.lines import LinesError, parse

__all__ = ["PasswordFile", "Users", "shared"]

log = logging.getLogger("guerrilla.passwords")

_KEY: Final = secrets.token_bytes(32)
_OPEN: Final[WeakValueDictionary[str, PasswordFile]] = WeakValueDictionary()
_OPENING: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Users:
    """What a file says."""

    hashes: dict[str, str]
    """By user."""
    all: tuple[str, ...]

    def stand_in(self, user: str) -> str:
        """The hash to check a password of somebody unknown against, for the time that it takes.

        Always the same for a name, and one of the file: so the times of names that are not there
        are spread as those of names that are, whatever the hashes cost. There has to be one.
        """
        digest = hmac.digest(_KEY, user.encode("utf-8", "surrogatepass"), "sha256")
        return self.all[int.from_bytes(digest[:8]) % len(self.all)]


def shared(path: str) -> PasswordFile:
    """The file of that path, one for all who use it at a time."""
    with _OPENING:
        found = _OPEN.get(path)
        if found is None:
            found = _OPEN[path] = PasswordFile(path)
        return found


class PasswordFile:
    """A file; may be used by several threads.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        """Reads nothing."""
        self.path = path
        self._lock = threading.Lock()
        self._users = Users({}, ())
        self._stamp: object = None
        """Of the file that was read last, whether or not it could be used."""
        self._is_good = False

    def open(self) -> None:
        """Reads it, where that has not been done since it changed.

        Raises:
            OSError: it cannot be read.
            LinesError: it cannot be used.
        """
        with self._lock:
            if not self._is_good or self._stamp != _stamp(self.path):
                self._read()

    def users(self) -> Users:
        """Those of now; where the file of now cannot be used, of the last one that could."""
        with self._lock:
            stamp = _stamp_or_why(self.path)
            if stamp != self._stamp:
                self._try_to_read(stamp)
            return self._users

    def _try_to_read(self, stamp: object) -> None:
        try:
            self._read()
        except (OSError, LinesError) as error:
            self._stamp = stamp  # Told once.
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.error("%s: %s; what was there before stays", self.path, why)  # noqa: TRY400 - no fault of code
        else:
            log.info("%s: read again, %d users", self.path, len(self._users.all))

    def _read(self) -> None:
        self._is_good = False
        with open(self.path, "rb") as file:
            # Of the file that is open: another may take its place at any time.
            found = os.fstat(file.fileno())
            octets = file.read()
        self._stamp = _seen(found)
        hashes = parse(octets)
        self._users = Users(hashes, tuple(hashes.values()))
        self._is_good = True
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            log.warning(
                "%s: every user of this machine can read or write it (mode %03o): chmod o= %s",
                self.path, stat.S_IMODE(found.st_mode), self.path,
            )  # fmt: skip
        if not hashes:
            log.warning("%s: there is no user in it, so nobody can log in", self.path)


def _stamp(path: str) -> object:
    return _seen(os.stat(path))


def _stamp_or_why(path: str) -> object:
    try:
        return _stamp(path)
    except OSError as error:
        return error.errno


def _seen(found: os.stat_result) -> object:
    """What changes with the content; the times alone have steps, and may be set."""
    return found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns
