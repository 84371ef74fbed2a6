"""`fsync` of many files at the same time.

One after the other, each waits for the disk on its own; at the same time, the file system writes
what belongs to all of them at once, which takes about as long as one.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Syncer"]

THREADS: Final = 16
"""How many files wait for the disk at a time."""


class Syncer:
    """A few threads that wait for the disk. Used by one thread.

    They are daemon threads: a disk that hangs keeps nobody from exiting.
    """

    def __init__(self) -> None:
        """Starts no thread before there are several files."""
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def sync(self, descriptors: Sequence[int]) -> list[OSError | None]:
        """Syncs files and folders.

        Returns:
            Of each what went wrong, or None.
        """
        jobs = [_Job(descriptor) for descriptor in descriptors]
        # This thread takes part.
        for _ in range(len(self._threads), min(len(jobs) - 1, THREADS - 1)):
            thread = threading.Thread(target=self._work, name="maildir-sync", daemon=True)
            thread.start()
            self._threads.append(thread)
        for job in jobs[1:]:
            self._queue.put(job)
        for job in jobs:
            job.run()
        for job in jobs:
            job.done.acquire()
        return [job.error for job in jobs]

    def close(self) -> None:
        """Ends the threads. Idempotent."""
        for _ in self._threads:
            self._queue.put(None)
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run()


class _Job:
    """One file, for whoever comes first."""

    __slots__ = ("_turn", "descriptor", "done", "error")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None
        self.done = threading.Lock()
        self.done.acquire()
        self._turn = threading.Lock()

    def run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return  # Another thread has it.
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            self.error = error
        finally:
            self.done.release()
