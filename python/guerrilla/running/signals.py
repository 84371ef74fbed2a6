"""Signals of a process that serves, in line for its main thread."""

from __future__ import annotations

import atexit
import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType, TracebackType

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What stops a process that a person or a service manager has started."""

_NONE: Final = 0
"""In the line of signals: none, but wakes who waits for one."""


class StoppedEarly(KeyboardInterrupt):  # no error: the start gets out of the way
    """A signal to stop in the middle of the start, which it gets out of; the text is its name."""


class Signals:
    """Puts signals in line for the main loop: in a handler hardly anything may be done.

    The line is a socket, which the interpreter writes to whichever thread the kernel gives a
    signal. A handler runs in the main thread alone, and only a signal of its own wakes that: of two
    in quick succession the kernel may give the second to another thread.

    Args:
        stopping: those that stop it. The second one ends the process at once, with status 1.
        others: those that are put in line besides.
        ignored: those that are somebody else's business.
        last: called before a second signal ends the process; in the handler, so it waits for none.
    """

    def __init__(
        self,
        stopping: Sequence[signal.Signals] = STOPPING,
        others: Sequence[signal.Signals] = (signal.SIGHUP, signal.SIGUSR1),
        ignored: Sequence[signal.Signals] = (),
        last: Callable[[], object] = lambda: None,
    ) -> None:
        self._stopping = stopping
        self._others = others
        self._ignored = ignored
        self.last = last
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self.queued = False
        """The main loop looks at the line; a start that hangs would never come to it."""
        self._stops = 0
        self._ended = False

    def __enter__(self) -> Self:
        """Takes over the signals of the process."""
        # First, and so the last that is called.
        atexit.register(self._ignore_stops)
        # Full, it holds more signals than anyone could mean.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._ignored:
            signal.signal(number, signal.SIG_IGN)
        for number in self._stopping:
            signal.signal(number, self._stop)
        for number in self._others:
            # Not ignored: of such a signal nothing would be written.
            signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the line; a second signal to stop still stops at once."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def line(self) -> Iterator[int]:
        """Signals as they come, until `end`."""
        while not self._ended:
            yield from (number for number in self._reader.recv(4096) if number != _NONE)

    def end(self) -> None:
        """Ends the line; from any thread."""
        self._ended = True
        # Full or closed: then nobody waits for it.
        with suppress(OSError):
            self._writer.send(bytes([_NONE]))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._stops += 1
        if self._stops > 1:
            os.write(2, b"guerrillad: stopped at once\n")
            try:
                self.last()
            finally:
                os._exit(1)
        if not self.queued:
            raise StoppedEarly(signal.Signals(number).name)

    def _ignore_stops(self) -> None:
        """Lets the process end by itself.

        In its last moment an interpreter gives the handlers up: a second signal would then be what
        it ends by, and hide how the first one's stop has ended.
        """
        for number in self._stopping:
            signal.signal(number, signal.SIG_IGN)
