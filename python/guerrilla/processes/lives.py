"""One process of a child, from its start to its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from guerrilla.processes.channel import Asking
from guerrilla.processes.wire import close_all

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT: Final = (
    "import sys; fd, sys.path[:] = int(sys.argv[1]), sys.argv[2:]; "
    "from guerrilla.processes.child import main; sys.exit(main(fd))"
)
"""What it runs. It imports from where its parent does, and not from the working directory, where
anybody may have put something: its parent may be root."""

_PARENTS: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "GUERRILLA_UPGRADE",
)
"""Variables that are for the parent alone."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Life:
    """A process that runs `guerrilla.processes.child`, and the channel to it.

    Args:
        number: of the child.
        patience: seconds that it has to end by itself once nothing can be asked of it any more.

    Raises:
        OSError: it cannot be started.
        RuntimeError: there is no thread to be had for it.
    """

    def __init__(self, number: int, patience: Callable[[], float]) -> None:
        self.number = number
        self.began = time.monotonic()
        self._patience = patience
        self._over = threading.Event()
        self._waiting = threading.Lock()
        here, there = socket.socketpair()
        with there, ExitStack() as undo:
            undo.callback(here.close)
            self._process = _spawn(there.fileno())
            undo.callback(_end, self._process)
            self.pid = self._process.pid
            self._pidfd = _pidfd(self.pid)
            undo.callback(close_all, [self._pidfd])
            self.asking = Asking(here, f"process {number}", self._cut)
            undo.pop_all()

    @property
    def uptime(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.began

    def terminate(self) -> None:
        """Asks it to stop, as one that does not answer requests yet."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once. It waits for nothing: a signal handler may call it."""
        self._signal(signal.SIGKILL)

    def wait(self) -> int:
        """Waits for its end; the status, below zero that of a signal."""
        with self._waiting:
            status = self._process.wait()
            self._over.set()
            self.asking.end()
            pidfd, self._pidfd = self._pidfd, -1
            if pidfd >= 0:
                os.close(pidfd)
        return status

    def discard(self) -> None:
        """Ends it, whatever it does, and waits for that."""
        if not self._over.is_set():
            self.kill()
            self.wait()

    def memory(self) -> int:
        """Octets of it that are in memory; 0 where that cannot be told."""
        with suppress(OSError, ValueError, IndexError), open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
        return 0

    def _cut(self) -> None:
        """Nothing can be asked of it: it has ended, or has to. In the channel's thread."""
        if not self._over.wait(self._patience()):
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        pidfd = self._pidfd
        with suppress(OSError):
            if pidfd >= 0:
                # Never another process: its number may be somebody else's once it has been waited
                # for.
                signal.pidfd_send_signal(pidfd, number)
            elif not self._over.is_set():
                self._process.send_signal(number)


def ending(status: int) -> str:
    """How a process has ended, for a person."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  # as multiprocessing does
    return subprocess.Popen(  # noqa: S603  # of ours alone
        [sys.executable, *flags, "-P", "-c", _BOOT, str(descriptor), *sys.path],
        stdin=subprocess.DEVNULL,
        pass_fds=[descriptor],
        env={name: value for name, value in os.environ.items() if name not in _PARENTS},
        # Not the parent's: what a terminal says (Ctrl-C) is for the parent alone.
        process_group=0,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _pidfd(pid: int) -> int:
    """A descriptor that means this process and no other; -1 where the system has none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
