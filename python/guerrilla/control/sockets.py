"""Unix sockets in the file system that only their owner may use."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODE: Final = 0o600
_BACKLOG: Final = 16
_MAX_PATH: Final = 107
"""Bytes; Linux's sun_path holds 108 with the NUL."""

_PROBE: Final = 1.0
"""Seconds for whoever has the path to take a connection."""

_NO_SOCKET: Final = "something that is no socket is there"

_LOCK_PATIENCE: Final = 5.0
"""Seconds that another start may take between looking at the path and having it."""


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0600 from its first moment; it replaces a stale one.

    Raises:
        OSError: somebody listens there (EADDRINUSE), something else is there (EEXIST), or it cannot
            be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(os.path.dirname(path) or os.curdir), _near(path) as near:
            _clear(near)
            # The file gets the mode of the socket. The umask would do it too, and is that of every
            # thread of the process.
            os.fchmod(listener.fileno(), _MODE)
            listener.bind(near)
            listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def listen_beside(path: str) -> tuple[socket.socket, str]:
    """A listening socket as `listen` makes it, to be renamed to `path`, where somebody answers.

    Returns:
        It, and the name it has until then.

    Raises:
        OSError: something that is no socket is at `path` (EEXIST), or it cannot be made.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, _NO_SOCKET)
    beside = f"{path}.{os.getpid()}"
    return listen(beside), beside


def connect(path: str, timeout: float) -> socket.socket:
    """A connection to `path`; `timeout` in seconds is that of the socket from then on.

    Raises:
        OSError: nobody listens there, or takes it in time.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout)
        with _near(path) as near:
            client.connect(near)
    except BaseException:
        client.close()
        raise
    return client


def identity(path: str) -> tuple[int, int] | None:
    """What tells the file at `path` from one of the same name; None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove(path: str, known: tuple[int, int] | None) -> None:
    """Removes the file if it is still the one of that identity; what cannot be removed stays."""
    with suppress(OSError):
        if known is not None and identity(path) == known:
            os.unlink(path)


def _clear(path: str) -> None:
    """Removes a socket that nobody listens at."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, _NO_SOCKET)
    if _is_answered(path):
        raise OSError(errno.EADDRINUSE, "in use: a daemon answers there")
    os.unlink(path)


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):
            return True  # One that has more to do than it can.
        return True


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Holds the folder, so that of two starts one sees what the other has made."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        limit = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Whoever may read a folder can hold it for ever; that is not to stop a start.
                if time.monotonic() > limit:
                    break
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


@contextmanager
def _near(path: str) -> Iterator[str]:
    """A name of `path` that is short enough for a socket: by its folder's descriptor."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder or os.curdir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        near = f"/proc/self/fd/{fd}/{name}"
        if len(os.fsencode(near)) > _MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        yield near
    finally:
        os.close(fd)
