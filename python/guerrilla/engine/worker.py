"""Workers: threads that take batches from the core through their chain.

Each worker has a chain of its own and opens, asks and closes it in its own thread. A pool holds the
workers of one task; the supervisor replaces those that die and those that hang.

A worker ends in one of three ways:

- the core has nothing more after the pool was told to end: it closes its chain and returns;
- something that is no `Exception` came out of a stage (an exit, a panic of the core): its mails get
  `451`, it closes its chain and is replaced;
- it stands still for longer than the core holds an answer back, or for half as long when all its
  mails have got their `451` meanwhile: it is *abandoned*. A thread cannot be killed, so it keeps
  its chain and its batch, whose senders are answered already; a new worker takes over, and when
  the old one comes back it closes its chain and returns quietly. What it had of the spool is
  others' by then: it begins nothing more of that.

One that cannot open its chain has a successor too, after a while: see `WorkerPool.problems`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic

from guerrilla.engine.backends import DEFAULT
from guerrilla.engine.base import PROCESS
from guerrilla.engine.chain import AwayError
from guerrilla.engine.tasks import LATER, Item, harmless, label_of
from guerrilla.errors import ConfigError, StartError
from guerrilla.reply import TRY_LATER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla.engine.base import TaskName
    from guerrilla.engine.breaker import Breaker
    from guerrilla.engine.chain import Chain

log = logging.getLogger("guerrilla.worker")

SPARE: Final = 4
"""So many abandoned workers beyond the size of a pool close the intake."""

_RECEIVE_WAIT: Final = 2.0
"""Seconds an idle thread stays in the core; it wakes at once when there is something."""
_DRAIN_POLL: Final = 0.05
"""Seconds between looks at a queue that is empty while the last sessions end."""
_MAX_BACKOFF: Final = 30.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a pool obeys."""

    name: TaskName
    """What they do: stands in thread names and logs."""
    size: int
    """Workers."""
    batch_size: int
    """Items a worker takes at once."""
    hang_after: float
    """Seconds without progress on one batch until a worker is abandoned; half of it is enough
    where nobody waits for the batch any more."""
    open_limit: float = 60.0
    """Seconds a worker has to open its chain at the start."""
    breaks: bool = False
    """Whether they are asked no more for a while where they fail again and again."""
    backend: str = DEFAULT
    """The name of the backend whose work they do."""

    @property
    def label(self) -> str:
        """What threads and log lines call the pool."""
        return self.name if self.backend == DEFAULT else f"{self.name}-{self.backend}"


class Worker(Generic[Item]):
    """One thread with one chain.

    Args:
        name: of the thread.
        make: makes its chain; called in the thread.
        pool: what it shares with its fellows.
    """

    def __init__(self, name: str, make: Callable[[], Chain[Item]], pool: WorkerPool[Item]) -> None:
        """Starts nothing."""
        self.name = name
        self.opened = threading.Event()
        """The chain is open, or `problem` says why not."""
        self.problem: BaseException | None = None
        self.abandoned = False
        self.batch: Sequence[Item] | None = None
        """What it works on: None while it waits."""
        self.batches = 0
        self.ended = False
        """Nothing more comes of it; the thread is gone or about to."""
        self._make = make
        self._pool = pool
        self._chain: Chain[Item] | None = None
        self._seen: tuple[int, object] | None = None
        self._seen_at = 0.0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self.thread.start()

    @property
    def is_ready(self) -> bool:
        """Its chain is open, and it has not ended."""
        return self.opened.is_set() and not self.ended

    def abandon(self) -> None:
        """Lets it end when it comes back; of spooled mail it begins no more, since others have it.

        Mail with a sender who is answered comes to its end where it would be stored: see `Claim`.
        """
        self.abandoned = True
        if self._chain is not None and self._pool.settings.name == "spooled":
            self._chain.pulse.abandoned = True

    def stands_still(self, now: float) -> float:
        """Seconds since it last made progress, as far as it was looked at; 0 while it waits."""
        if self.batch is None:
            self._seen = None
            return 0.0
        state = (self.batches, self._chain.pulse.state() if self._chain is not None else None)
        if state != self._seen:
            self._seen = state
            self._seen_at = now
        return now - self._seen_at

    def is_forsaken(self) -> bool:
        """Whether all it works on is answered: waiting on would only delay the mails behind it."""
        batch = self.batch
        return bool(batch) and all(item.expired for item in batch or ())

    def opening(self) -> str:
        """What it opens, for a person."""
        key = PROCESS[self._pool.settings.name]
        return self._chain.opening if self._chain is not None else key

    def stack(self) -> str:
        """Where its thread is now."""
        frame = sys._current_frames().get(self.thread.ident or 0)  # noqa: SLF001 - no other way
        return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""

    def _run(self) -> None:
        try:
            self.batch = ()  # Opening counts as work: it can hang as well.
            self._chain = chain = self._make()
            chain.open()
        except BaseException as error:  # noqa: BLE001 - also an exit; told to who started it
            self.problem = error
            self.ended = True
            return
        finally:
            self.batch = None
            self.opened.set()
            self._pool.wake()
        try:
            self._pool.begun.wait()
            if not self._pool.cancelled:
                self._serve(chain)
        except BaseException as error:  # noqa: BLE001 - the thread ends here; it is replaced
            log.critical("%s died of %s", self.name, type(error).__name__)
        finally:
            self._close(chain)
            self.ended = True
            self._pool.wake()

    def _serve(self, chain: Chain[Item]) -> None:
        most = chain.most(self._pool.settings.batch_size)
        while not self.abandoned and not self._pool.retired:
            batch = self._pool.receive(most, _RECEIVE_WAIT)
            if not batch:
                if batch is None and self._pool.draining:
                    self._pool.ending.set()
                # None: the core is stopping. Sessions may bring something until the pool ends.
                if self._pool.ending.wait(_DRAIN_POLL if batch is None else 0.0):
                    return
            else:
                self.batches += 1
                self.batch = batch
                try:
                    self._ask(chain, batch)
                except BaseException as error:
                    self._fail(batch, error)
                    if not isinstance(error, Exception):
                        raise
                finally:
                    self.batch = None
            # Waiting with a batch in hand would keep its bytes.
            del batch
        if self.abandoned:
            log.warning("%s came back after it was abandoned; it ends now", self.name)

    def _ask(self, chain: Chain[Item], batch: Sequence[Item]) -> None:
        breaker = self._pool.breaker
        if breaker is None:
            chain.run(batch)
        elif breaker.admits(len(batch)):
            chain.run(batch)
            breaker.report(failed=chain.failed(len(batch)))
        else:
            for item in batch:
                item.answer(TRY_LATER)

    def _fail(self, batch: Sequence[Item], error: BaseException) -> None:
        """The one place where what escaped the stages ends."""
        later, trace = LATER[self._pool.settings.name], harmless(batch, error)
        log.error(
            "%s failed: answered %d: %s", self.name, later.code, labels(batch), exc_info=trace
        )
        for item in batch:
            item.answer(later)  # Takes no effect on those that are answered.
        self._pool.report_failure()

    def _close(self, chain: Chain[Item]) -> None:
        try:
            chain.close()
        except BaseException as error:
            log.error("%s: closing its chain failed", self.name, exc_info=error)  # noqa: TRY400


class WorkerPool(Generic[Item]):
    """The workers of one task.

    Args:
        settings: names, sizes, limits.
        make: makes a chain, not yet opened; called once a worker, in its thread.
        receive: `Backend.receive` or `Backend.receive_checks`; it may be set later, before `begin`.
    """

    def __init__(
        self,
        settings: PoolSettings,
        make: Callable[[], Chain[Item]],
        receive: Callable[[int, float], list[Item] | None] = lambda _most, _timeout: [],
    ) -> None:
        """Starts nothing."""
        self.settings = settings
        self.receive = receive
        self.begun = threading.Event()
        self.ending = threading.Event()
        self.cancelled = False
        """It ended before it began: nothing must be taken from the core."""
        self.replaced = 0
        """Workers that died or hung and have a successor."""
        self.problems: tuple[str, ...] = ()
        """Why the last worker could not open its chain; empty once another could."""
        self.retired = False
        """Another pool takes what comes."""
        self.draining = False
        """Nobody else takes what still comes: it ends behind the last of it."""
        self.breaker: Breaker | None = None
        """Whether it is worth asking; None where that is not to be known."""
        self.set_intake: Callable[[bool], None] = lambda _open: None
        """Opens and closes the intake of its backend."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a worker ended or opened; must not block."""
        self._make = make
        self._workers: list[Worker[Item]] = []
        self._abandoned: list[Worker[Item]] = []
        self._adding = threading.Lock()
        """Held while a worker is replaced: the end of the pool waits for that one too."""
        self._made = 0
        self._vacant = 0
        """Workers that died or hung and have no successor yet."""
        self._trial: Worker[Item] | None = None
        """The one that tries whether a chain can be opened again."""
        self._failures = 0
        self._not_before = 0.0

    @property
    def size(self) -> int:
        """Workers at work."""
        return len(self._workers)

    @property
    def ready(self) -> int:
        """Workers whose chain is open."""
        return sum(worker.is_ready for worker in list(self._workers))

    @property
    def abandoned(self) -> int:
        """Workers that hang."""
        return len(self._abandoned)

    @property
    def exhausted(self) -> bool:
        """So many workers hang that no more are started and the intake must be closed."""
        return len(self._abandoned) >= self.settings.size + SPARE

    def open(self, *, may_be_away: bool = False) -> None:
        """Starts the workers, one after the other, and waits until the chain of each is open.

        Args:
            may_be_away: what a chain needs may be away, and `problems` then says what: it is tried
                again, and until then there are fewer workers.

        Raises:
            StartError: a chain could not be made or opened, or not within `open_limit`; the workers
                before it have ended.
        """
        try:
            for _ in range(self.settings.size):
                worker = self._add()
                try:
                    self._open_one(worker)
                except AwayError as error:
                    if not may_be_away:
                        raise
                    self.problems, self._trial = error.problems, worker
                    if worker.ended:
                        self._bury(worker, time.monotonic())
                    break  # Each of the others would only run into the same.
        except BaseException:  # Ctrl-C as well, which must not wait for one that hangs
            # What hangs in opening ends quietly when it comes back: the pool is cancelled.
            self._workers = [worker for worker in self._workers if worker.opened.is_set()]
            self.end(self.settings.open_limit)
            raise

    def _open_one(self, worker: Worker[Item]) -> None:
        limit = self.settings.open_limit
        if not worker.opened.wait(limit):
            problem = f"{worker.opening()}: open has not ended within {limit:g} s ({worker.name})"
            _log_stack(worker, problem)
            raise AwayError(problem)
        if worker.problem is not None:
            kind = AwayError if isinstance(worker.problem, AwayError) else StartError
            raise kind(_problems(worker.problem)) from worker.problem

    def begin(self) -> None:
        """Lets the workers take batches."""
        self.begun.set()

    def end(self, timeout: float | None) -> bool:
        """Lets each worker end once the core has nothing more, and waits for them.

        Returns:
            False when some did not end within `timeout` seconds; abandoned ones are not waited for.
        """
        self.cancelled = not self.begun.is_set()
        with self._adding:
            self.ending.set()
        self.begun.set()
        limit = None if timeout is None else time.monotonic() + timeout
        for worker in list(self._workers):
            worker.thread.join(None if limit is None else max(0.0, limit - time.monotonic()))
        return not any(worker.thread.is_alive() for worker in self._workers)

    def retire(self) -> None:
        """Lets each worker end once it has answered what it has in hand: others take the rest."""
        with self._adding:
            self.retired = True
            self.ending.set()

    def drain(self) -> None:
        """Lets the workers end once the core has nothing more for them, and no sooner."""
        self.draining = True

    def report_failure(self) -> None:
        """A batch came to no end of its own."""
        if self.breaker is not None:
            self.breaker.report(failed=True)

    def wake(self) -> None:
        """A worker tells that its state changed."""
        self.on_change()

    def check(self, now: float) -> None:
        """Replaces workers that ended or hang; `now` is a monotonic time. For the supervisor."""
        for worker in list(self._workers):
            still = worker.stands_still(now)
            if worker.ended:
                self._bury(worker, now)
            elif still >= self.settings.hang_after or (
                still >= self.settings.hang_after / 2 and worker.is_forsaken()
            ):
                self._abandon(worker, still)
        self._abandoned = [worker for worker in self._abandoned if not worker.ended]
        self._look_at_trial()
        with self._adding:
            while len(self._workers) < self.settings.size and self._may_add(now):
                worker = self._add()
                if self.problems:
                    self._trial = worker
                if self._vacant:
                    self._vacant -= 1
                    self.replaced += 1

    def _look_at_trial(self) -> None:
        """Where the chain can be opened again, all others may try too."""
        if self._trial is not None and self._trial.is_ready:
            log.warning("%s opened its chain", self._trial.name)
            self.problems, self._trial = (), None

    def _may_add(self, now: float) -> bool:
        if self.ending.is_set() or self.exhausted or now < self._not_before:
            return False
        # One at a time, where the last one could not open its chain.
        return not self.problems or self._trial not in self._workers

    def _add(self) -> Worker[Item]:
        self._made += 1
        worker = Worker(f"guerrilla-{self.settings.label}-{self._made}", self._make, self)
        # Only what has started can be waited for.
        worker.start()
        self._workers.append(worker)
        return worker

    def _bury(self, worker: Worker[Item], now: float) -> None:
        """Takes a dead worker out; one that never did anything delays its successor."""
        self._workers.remove(worker)
        if worker.batches:
            self._failures, self._not_before = 0, now
        elif now >= self._not_before:  # Those that fail together count once.
            # A store may be away for days: of 2.0**1024 there is no float.
            delay = min(2.0 ** min(self._failures, 10), _MAX_BACKOFF)
            self._failures, self._not_before = self._failures + 1, now + delay
        if worker.problem is None:
            self._vacant += 1
        else:
            self.problems = tuple(_problems(worker.problem))
            log.error(
                "%s could not open its chain, tried again in %.0f s: %s",
                worker.name, self._not_before - now, "; ".join(self.problems),
            )  # fmt: skip

    def _abandon(self, worker: Worker[Item], still: float) -> None:
        # Before it hears of it: it may come back at any moment, and puts its batch away then.
        batch = worker.batch or ()
        worker.abandon()
        self._workers.remove(worker)
        self._abandoned.append(worker)
        self._vacant += 1
        self.report_failure()
        _log_stack(
            worker,
            f"{worker.name} hangs for {still:.0f} s, abandoned: {labels(batch)}",
        )
        if self.settings.name == "spooled":
            # No deadline answers for it. Where it comes back with a success, that still counts.
            for item in batch:
                item.answer(TRY_LATER)


def labels(items: Sequence[Any]) -> str:
    """What a log line calls the items of a batch, before and after a chain is there to say it."""
    return ", ".join(map(label_of, items))


def _log_stack(worker: Worker[Any], message: str) -> None:
    """Logs an error with the stack of the worker's thread in place of our own."""
    record = log.makeRecord(
        log.name, logging.ERROR, __file__, 0, message, (), None, sinfo=worker.stack()
    )
    if log.isEnabledFor(logging.ERROR):
        log.handle(record)


def _problems(error: BaseException) -> list[str]:
    if isinstance(error, ConfigError | StartError):
        return list(error.problems)
    return [f"{type(error).__name__}: {error}"]
