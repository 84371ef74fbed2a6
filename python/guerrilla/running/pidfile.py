"""The pid file of a daemon."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from guerrilla.running.rights import with_rights

if TYPE_CHECKING:
    from guerrilla.running.privileges import Identity

__all__ = ["PidFile"]


class PidFile:
    """A file with the process id, locked as long as the daemon lives.

    The lock, not the number, says whether a daemon is alive: after a crash or a reboot the number
    may be that of any process, or our own in a container.

    Args:
        path: made, with its content replaced; the folder must exist.
        held: a descriptor of the process before this one, with the lock of the file that it has
            now; it stays the giver's. If it is that of `path`, it is taken over with its lock, and
            is the other's in all else until `write`.
        identity: who the process becomes, or others beside it, as of `with_rights`.

    Raises:
        OSError: it cannot be written.
        FileExistsError: a live daemon holds it; the message has its pid.
    """

    def __init__(
        self, path: str | Path, held: int | None = None, identity: Identity | None = None
    ) -> None:
        """Takes and writes the file."""
        self.path = Path(path)
        self._identity = identity
        self.was_handed_over = held is not None and self._is_current(held)
        """Whether the process before this one had it."""
        self._is_ours = not self.was_handed_over
        if held is not None and self.was_handed_over:
            # The lock is that of the open file, which both descriptors are.
            self._fd = fcntl.fcntl(held, fcntl.F_DUPFD_CLOEXEC, 0)
            return
        self._fd = self._take()
        try:
            self.write()
        except BaseException:
            # Else the lock would live on with the descriptor: a second try would find "a daemon".
            self.remove()
            raise

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def write(self) -> None:
        """Writes the process id: it is ours from now on.

        Raises:
            OSError: it cannot be written.
        """
        text = f"{os.getpid()}\n".encode("ascii")
        # Never empty between, for who reads it.
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))
        self._is_ours = True

    def take_back(self) -> None:
        """Has it again, whatever somebody else has done with it who had it after us.

        Raises:
            OSError: as at first.
        """
        if not self._is_current(self._fd):
            os.close(self._fd)
            self._fd = self._take()
        self.write()

    def leave(self) -> None:
        """It is somebody else's, who has its descriptor too."""
        self._is_ours = False

    def remove(self) -> None:
        """Removes the file, then lets go of it; empties it where it may not be removed.

        One that is somebody else's stays as it is.
        """
        # Unlinked while locked, so that nobody's new file is removed.
        try:
            if self._is_ours and self._is_current(self._fd):
                with_rights(self._identity, str(self.path), self.path.unlink)
        except FileNotFoundError:
            pass
        except OSError:
            # As where the folder is not ours any more since we became another user: so it names
            # nobody.
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)

    def _take(self) -> int:
        while True:
            fd = with_rights(self._identity, str(self.path), self._open, os.close)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
                os.close(fd)
                message = f"{self.path} belongs to a running daemon, pid {pid or 'unknown'}"
                raise FileExistsError(message) from None
            except BaseException:
                os.close(fd)
                raise
            if self._is_current(fd):
                return fd
            # Its last owner removed it between our open and our lock.
            os.close(fd)

    def _open(self) -> int:
        """Opens it, or makes it; no link is followed, which would have any file written to.

        Raises:
            OSError: it cannot be, or is no plain file.
        """
        try:
            # Not to wait, where it is some device.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self.path, flags, 0o644)
        except OSError as error:
            if error.errno == errno.ELOOP and self.path.is_symlink():
                what = "is a link, which is not followed: name the file itself"
                raise OSError(errno.ELOOP, what, str(self.path)) from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "is no plain file", str(self.path))
        return fd

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.lstat())
        except FileNotFoundError:
            return False
