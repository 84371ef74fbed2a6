"""One maildir: made at start, opened for each batch, written as `maildir(5)` says.

A message is written and synced in `tmp`, then renamed into `new`, and then `new` is synced. All of
that goes through descriptors of the two folders, whose owner was looked at when they were opened:
a user who puts a symbolic link in place of a folder gets nothing written where he could not write.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Final

from guerrilla.maildir.users import KEEP, Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from guerrilla._core import Envelope

__all__ = ["Folder", "base_name", "make", "remove_stale", "sync_made"]

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
STALE_AFTER: Final = 36 * 3600
"""Seconds after which a file in `tmp` is of a delivery that failed, by `maildir(5)`."""

_TMP: Final = "tmp"
_NEW: Final = "new"
_CUR: Final = "cur"
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = 0

_sequence: Final = itertools.count()


class Folder:
    """The `tmp` and `new` of one maildir, open; a context manager.

    Args:
        path: of the maildir.
        owner: whose the files become.

    Raises:
        OSError: it is not there, is no folder of this owner, or cannot be opened.
    """

    def __init__(self, path: str, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self._read: frozenset[str] | None = None
        with _named(path), contextlib.ExitStack() as opened, contextlib.ExitStack() as before:
            root = _opened(path, before, owner=owner)
            self._tmp = _opened(_TMP, opened, root, owner=owner, flags=os.O_NOFOLLOW)
            self._new = _opened(_NEW, opened, root, owner=owner, flags=os.O_NOFOLLOW)
            self._descriptors = opened.pop_all()

    def write(self, data: Iterable[bytes | memoryview]) -> tuple[str, int]:
        """Writes a file in `tmp`; it has to be synced and closed.

        Returns:
            Its name there, and its descriptor.

        Raises:
            OSError: it could not be written; nothing is left of it.
        """
        name, fd = self._created()
        try:
            _give(fd, self.owner)
            _write_all(fd, data)
        except BaseException:
            os.close(fd)
            self.discard(name)
            raise
        return name, fd

    def try_writing(self) -> None:
        """Makes a file and removes it.

        Raises:
            OSError: it cannot be made, or given to the owner.
        """
        name, fd = self._created()
        try:
            _give(fd, self.owner)
        finally:
            os.close(fd)
            self.discard(name)

    def has(self, name: str) -> bool:
        """Whether there is such a message in `new`."""
        try:
            os.stat(name, dir_fd=self._new, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def has_read(self, base: str) -> bool:
        """Whether there is a message of this `base_name` in `cur`: a reader moved it there.

        `cur` is read once, since it may hold a lot.
        """
        if self._read is None:
            names: list[str] = []
            with contextlib.suppress(FileNotFoundError):
                names = os.listdir(os.path.join(self.path, _CUR))
            self._read = frozenset(name.partition(",S=")[0] for name in names)
        return base in self._read

    def publish(self, temporary: str, name: str) -> None:
        """Makes a file of `tmp` a message; `new` has to be synced then."""
        os.rename(temporary, name, src_dir_fd=self._tmp, dst_dir_fd=self._new)

    def take_back(self, name: str) -> None:
        """Removes a message that was published a moment ago, where that can be done."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._new)

    def discard(self, temporary: str) -> None:
        """Removes a file from `tmp`, where that can be done; else it is stale some day."""
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=self._tmp)

    def remove_stale(self) -> int:
        """Removes files of `tmp` that nobody touched for `STALE_AFTER`; how many."""
        limit = time.time() - STALE_AFTER
        removed = 0
        for name in os.listdir(self._tmp):
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=self._tmp, follow_symlinks=False)
                is_old = max(found.st_atime, found.st_mtime) < limit
                if is_old and stat.S_ISREG(found.st_mode):
                    os.unlink(name, dir_fd=self._tmp)
                    removed += 1
        return removed

    def fileno(self) -> int:
        """Of `new`: when that is synced, what was published survives a power failure."""
        return self._new

    def close(self) -> None:
        """Idempotent."""
        self._descriptors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _created(self) -> tuple[str, int]:
        name = _unique_name()
        return name, os.open(name, _NEW_FILE, FILE_MODE, dir_fd=self._tmp)


def base_name(envelope: Envelope, index: int) -> str:
    """The name of the copy for `rcpt_to[index]` but for its size: the same at each repeat.

    `TIME.M…Q….HOST`: when it came, and the id that is unique over processes and hosts.
    """
    seconds, part = divmod(int(envelope.received_at * 1_000_000), 1_000_000)
    return f"{seconds}.M{part:06}Q{envelope.queued_id}_{index}.{_host()}"


def make(parent: str, names: Sequence[str], owner: Owner) -> bool:
    """Makes what is missing of a maildir, with mode 0700 and of its owner, and tries to write it.

    Args:
        parent: a folder that is there.
        names: of the folders below it; the last is the maildir.
        owner: whose they become.

    Returns:
        Whether anything was made; `sync_made` has to follow then.

    Raises:
        OSError: one cannot be made, given or used; `filename` is its path.
    """
    path = parent.rstrip("/")
    is_made = False
    with contextlib.ExitStack() as opened:
        with _named(parent):
            at = _opened(parent, opened)
        for name in names:
            path = f"{path}/{name}"
            at, is_new = _made(name, opened, at, owner, path)
            is_made |= is_new
        with _named(path):
            _check(at, owner, path)  # Before anything is made in it.
        for name in (_TMP, _NEW, _CUR):
            is_made |= _made(name, opened, at, owner, f"{path}/{name}")[1]
    with Folder(path, owner) as folder, _named(f"{path}/{_TMP}"):
        folder.try_writing()
    return is_made


def sync_made(parent: str, names: Sequence[str]) -> None:
    """Makes folders that were made survive a power failure; arguments as for `make`."""
    path = parent
    for name in ("", *names):
        path = os.path.join(path, name)
        fd = os.open(path, _OPEN_FOLDER)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def remove_stale(path: str, owner: Owner) -> int:
    """Removes files of `tmp` that nobody touched for 36 hours; how many.

    Raises:
        OSError: `tmp` cannot be read, or is not the owner's.
    """
    with Folder(path, owner) as folder:
        return folder.remove_stale()


def _made(
    name: str, opened: contextlib.ExitStack, at: int, owner: Owner, path: str
) -> tuple[int, bool]:
    """A folder, opened; made and given where it is missing, which the second value tells."""
    with _named(path):
        try:
            os.mkdir(name, FOLDER_MODE, dir_fd=at)
        except FileExistsError:
            return _found(name, opened, at, owner), False
        try:
            fd = _opened(name, opened, at, flags=os.O_NOFOLLOW)
            _give(fd, owner)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=at)
            raise
        return fd, True


def _found(name: str, opened: contextlib.ExitStack, at: int, owner: Owner) -> int:
    """A folder that is there; where a symbolic link leads to it, it has to be the owner's.

    Who may write in a folder on the way could else have folders made for him anywhere.
    """
    try:
        return _opened(name, opened, at, flags=os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
    return _opened(name, opened, at, owner=owner)


def _opened(
    path: str,
    opened: contextlib.ExitStack,
    at: int | None = None,
    *,
    owner: Owner | None = None,
    flags: int = 0,
) -> int:
    """A folder, which has to be the owner's where one is given."""
    fd = os.open(path, _OPEN_FOLDER | flags, dir_fd=at)
    opened.callback(os.close, fd)
    if owner is not None:
        _check(fd, owner, path)
    return fd


def _check(fd: int, owner: Owner, path: str) -> None:
    """Only root could be led to write where the owner of the folder may not.

    Raises:
        PermissionError: the folder is somebody else's.
    """
    if os.geteuid() == _ROOT:
        wanted = owner.uid if owner.uid != KEEP else _ROOT
        found = os.fstat(fd).st_uid
        if found != wanted:
            raise PermissionError(errno.EPERM, f"it is of user id {found}, expected {wanted}", path)


def _give(fd: int, owner: Owner) -> None:
    if owner.uid != KEEP or owner.gid != KEEP:
        os.fchown(fd, owner.uid, owner.gid)


def _write_all(fd: int, parts: Iterable[bytes | memoryview]) -> None:
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        written = os.writev(fd, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]


def _unique_name() -> str:
    """A name for `tmp`, never used before by any process of any host."""
    seconds, part = divmod(time.time_ns() // 1_000, 1_000_000)
    return f"{seconds}.M{part:06}P{os.getpid()}_{next(_sequence)}.{_host()}"


@functools.cache
def _host() -> str:
    """The name of this machine, as it may stand in the name of a file."""
    name = socket.gethostname()
    for mark in "/:,":
        name = name.replace(mark, f"\\{ord(mark):03o}")
    return name


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Names a path whole in an error of what is reached by a descriptor."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise
