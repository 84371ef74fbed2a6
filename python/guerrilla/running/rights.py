"""With whose rights root opens a file for one who is not: `user` may have put links on the way.

Where only root can change what a path leads to, root opens the file and makes it. Where `user` can,
it is opened with that user's rights, always: else whoever has those, as a process that somebody has
taken over, could have root write to any file of the system.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from guerrilla.logs.handlers import open_file
from guerrilla.running.privileges import give_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guerrilla.logs.handlers import Opener
    from guerrilla.running.privileges import Identity

T = TypeVar("T")

LIMIT = 30.0
"""Seconds for a call with another's rights: a file system of that user's need not answer at all.
Not a constant: tests have less patience."""

_ROOT: Final = 0
_MAX_LINKS: Final = 40
"""On the way to a file, as for the kernel: path_resolution(7)."""
_LIST: Final = "system.posix_acl_access"


def log_opener(identity: Identity | None) -> Opener:
    """What opens logs before the process becomes somebody, or in its stead; as `open_file`.

    A file that root makes, or has made, is given to the user, who may open it again then.
    """
    if identity is None:
        return open_file

    def opened(path: str, flags: int) -> int:
        if _has_become(identity):
            return open_file(path, flags)
        if is_users(identity, path):
            return as_user(identity, path, partial(_open_plain, identity, path, flags), os.close)
        fd = open_file(path, flags)
        give_file(identity, fd, path)
        return fd

    return opened


def with_rights(
    identity: Identity | None,
    path: str,
    call: Callable[[], T],
    late: Callable[[T], object] = lambda _: None,
) -> T:
    """Calls what opens or removes the file at `path`, with no more rights than it may have there.

    Args:
        identity: who is to be become, or might; None for nobody.
        path: of the file.
        call: what is to be done.
        late: as of `as_user`.
    """
    if identity is None or not is_users(identity, path):
        return call()
    return as_user(identity, path, call, late)


def is_users(identity: Identity, path: str) -> bool:
    """Whether the user can change what a path leads to: any folder or link on its way.

    Never for who is that user, or where that is root.
    """
    if identity.uid in (_ROOT, os.geteuid()):
        return False
    try:
        return _is_led(identity, os.path.join(os.getcwd(), path))
    except OSError:
        return True  # What cannot be looked at is nothing that root should open.


def as_user(
    identity: Identity,
    path: str,
    call: Callable[[], T],
    late: Callable[[T], object] = lambda _: None,
) -> T:
    """Calls it in a thread that has the user's rights to files, and not root's: setfsuid(2).

    Args:
        identity: the user.
        path: what it is about, for errors.
        call: what is to be done.
        late: is given what comes when nobody waits for it any more.

    Raises:
        OSError: it has none of these rights, or takes too long; and what the call raises.
    """
    made: Future[T] = Future()

    def run() -> None:
        try:
            _take_rights(identity)
            found = call()
        except BaseException as error:  # noqa: BLE001  # raised by who has asked
            with suppress(InvalidStateError):
                made.set_exception(error)
            return
        try:
            made.set_result(found)
        except InvalidStateError:
            late(found)

    with _groups_of(identity):
        threading.Thread(target=run, name="guerrilla-user", daemon=True).start()
        try:
            return made.result(LIMIT)
        except PermissionError as error:
            what = f"{error.strerror} for {identity}, who can change its folder"
            raise PermissionError(error.errno, what, path) from error
        except TimeoutError:
            if made.cancel():
                what = f"has not answered {identity} for {LIMIT:g} s"
                raise OSError(errno.ETIMEDOUT, what, path) from None
            raise  # It is the file's own.


def _has_become(identity: Identity) -> bool:
    return (os.geteuid(), os.getegid()) == (identity.uid, identity.gid)


def _open_plain(identity: Identity, path: str, flags: int) -> int:
    """Opens a log with the user's rights: a plain file alone, to which nobody can make us wait."""
    fd = open_file(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        what = f"is no plain file, and {identity} can change its folder: put it into one of root's"
        raise OSError(errno.EINVAL, what, path)
    return fd


def _is_led(identity: Identity, path: str) -> bool:
    """See `is_users`; the path is absolute."""
    where, left, links = "/", path.split("/")[::-1], 0
    while left and links <= _MAX_LINKS:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            where = os.path.dirname(where)
            continue
        entry = os.path.join(where, name)
        found = _found(entry)
        if _may_change(identity, where, found):
            return True
        if found is None or where == f"/proc/{os.getpid()}/fd":
            # It is root's to make, or to be told that there is no such folder; or, as /dev/stdout,
            # what this process has open, whatever its name.
            return False
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(entry)
            links += 1
            left += target.split("/")[::-1]
            where = "/" if target.startswith("/") else where
        else:
            where = entry
    return links > _MAX_LINKS


def _found(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _may_change(identity: Identity, folder: str, entry: os.stat_result | None) -> bool:
    """Whether the user can put something in the place of this entry of a folder."""
    about = os.stat(folder)
    if about.st_uid == identity.uid:
        return True
    mode = about.st_mode
    # Of a folder with a list of who may what, the group's mode is the most that anybody there has.
    is_groups = mode & stat.S_IWGRP and (about.st_gid in identity.groups or _has_list(folder))
    if not (mode & stat.S_IWOTH or is_groups):
        return False
    is_kept = (
        mode & stat.S_ISVTX
        and entry is not None
        and entry.st_uid in (_ROOT, os.geteuid())
        and (stat.S_ISDIR(entry.st_mode) or entry.st_nlink == 1)
    )
    return not is_kept


def _has_list(folder: str) -> bool:
    with suppress(OSError):
        return _LIST in os.listxattr(folder)
    return False


def _take_rights(identity: Identity) -> None:
    """Of this thread alone, which ends with them.

    Raises:
        PermissionError: it has not got them.
    """
    library = ctypes.CDLL(None)
    library.setfsgid(identity.gid)
    library.setfsuid(identity.uid)
    # The second call of each says whether the first has worked.
    now = library.setfsuid(-1) & 2**32 - 1, library.setfsgid(-1) & 2**32 - 1
    if now != (identity.uid, identity.gid):
        raise PermissionError(errno.EPERM, "rights cannot be had")


@contextmanager
def _groups_of(identity: Identity) -> Iterator[None]:
    """The process has the user's groups meanwhile: they are those of all its threads.

    Nothing changes in one that stays root beside the user, which has them from its start.
    """
    before = os.getgroups()
    if set(before) == set(identity.groups):
        yield
        return
    os.setgroups(identity.groups)
    try:
        yield
    finally:
        os.setgroups(before)
