"""The pid file of a daemon."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

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

    Raises:
        OSError: it cannot be written.
        FileExistsError: a live daemon holds it; the message has its pid.
    """

    def __init__(self, path: str | Path, held: int | None = None) -> None:
        """Takes and writes the file."""
        self.path = Path(path)
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
                self.path.unlink(missing_ok=True)
        except PermissionError:
            # The folder is not ours any more since we became another user: so it names nobody.
            os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)

    def _take(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except FileNotFoundError:
            return False
