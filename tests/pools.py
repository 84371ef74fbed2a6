"""A pool of workers with a queue and processors of the test's own."""

from __future__ import annotations

import queue
import threading

from guerrilla._core import Envelope
from guerrilla.engine.base import Processor, TaskName
from guerrilla.engine.chain import Chain
from guerrilla.engine.worker import PoolSettings, WorkerPool
from guerrilla.reply import Outcome, Reply
from tests.chains import Mail

HANG_AFTER = 60.0


class Feed:
    """A queue as the core's."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        self.stopping = False
        self.error: Exception | None = None

    def put(self, *envelopes: Envelope) -> None:
        for envelope in envelopes:
            self._queue.put(envelope)

    def receive(self, most: int, timeout: float) -> list[Envelope] | None:
        if self.error is not None:
            raise self.error
        try:
            found = [self._queue.get(timeout=min(timeout, 0.02))]
        except queue.Empty:
            return None if self.stopping else []
        while len(found) < most and not self._queue.empty():
            found.append(self._queue.get())
        return found


class Trial(Processor):
    """Does what the subject says."""

    def __init__(self) -> None:
        super().__init__(self.Options())
        self.closed_in: str | None = None
        self.opened_in: str | None = None
        self.release = threading.Event()
        self.entered = threading.Event()

    def open(self) -> None:
        self.opened_in = threading.current_thread().name

    def close(self) -> None:
        self.closed_in = threading.current_thread().name

    def save(self, envelope: Envelope) -> Outcome:
        match envelope.subject:
            case "exit":
                raise SystemExit(3)
            case "hang":
                self.entered.set()
                assert self.release.wait(30)
            case "no":
                return Reply.reject()
        return None


class Bench:
    """A pool with its feed and the trials of its workers."""

    def __init__(
        self,
        size: int = 1,
        batch: int = 8,
        open_limit: float = 30.0,
        backend: str = "default",
        task: TaskName = "save",
    ) -> None:
        self.feed = Feed()
        self.trials: list[Trial] = []
        self.fail: Exception | None = None
        self.task = task
        self.pool: WorkerPool[Envelope] = WorkerPool(
            PoolSettings(task, size, batch, HANG_AFTER, open_limit, backend=backend),
            self.make,
            self.feed.receive,
        )

    def make(self) -> Chain[Envelope]:
        if self.fail is not None:
            raise self.fail
        trial = Trial()
        self.trials.append(trial)
        return Chain([("Trial", trial)], self.task)

    def start(self) -> None:
        self.pool.open()
        self.pool.begin()

    def stop(self) -> bool:
        self.feed.stopping = True
        for trial in self.trials:
            trial.release.set()
        return self.pool.end(10)

    def hang(self, mail: Mail, number: int, now: float = 0.0) -> Envelope:
        """Makes the worker of trial `number` hang, and the pool see it at `now`."""
        envelope = mail("hang")
        self.feed.put(envelope)
        assert self.trials[number].entered.wait(10)
        self.pool.check(now)
        return envelope
