"""How stages are asked: one mail at a time, a batch at once, or many at the same time.

A *segment* takes the items (envelopes or checks) that have no answer yet, answers those whose fate
it settles, and returns the rest in their order. Neighbouring stages that look at one item at a
time make one segment, so that each item goes through all of them before the next begins and, at
the end of the chain, is answered right after its own save rather than with the batch.

What a stage raises is dealt with here and nowhere else; only a `BaseException` (exit, a panic of
the core) passes through to the worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, cast

from guerrilla import _core
from guerrilla.engine.tasks import Item, harmless
from guerrilla.errors import DeliveryError, Unavailable
from guerrilla.reply import TRY_LATER, Replies, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Sequence

    from guerrilla._core import Envelope
    from guerrilla.engine.tasks import Asker, Task

log = logging.getLogger("guerrilla.chain")


class Segment(Protocol[Item]):
    """One or more stages that are asked together."""

    def run(self, items: Sequence[Item]) -> Sequence[Item]:
        """Asks about `items`, answers those that are settled, returns the others in order."""


class Pulse:
    """How far a chain has come: one whose pulse stands still hangs."""

    __slots__ = ("abandoned", "asker", "count", "watch")

    def __init__(self) -> None:
        """Starts at zero."""
        self.count = 0
        """Items and batches it has gone through."""
        self.asker: Any = None
        """The plain stage or batch stage that was asked last."""
        self.watch = _core.Stopwatch()
        """Times its stages."""
        self.abandoned = False
        """It was given up: what is left of its batch is for others, and begun here no more."""

    def state(self) -> tuple[int, object]:
        """Another one whenever there was progress."""
        return self.count, self.asker


class Claim:
    """Stands before the first storing stage: who is not waited for any more drops out."""

    def __init__(self) -> None:
        """Has no state: the core knows who waits."""

    def run(self, items: Sequence[Envelope]) -> Sequence[Envelope]:
        """See `Segment`."""
        claimed = _core.claim(items)
        if all(claimed):
            return items
        kept = []
        for envelope, wanted in zip(items, claimed, strict=True):
            if wanted:
                kept.append(envelope)
            else:
                log.info("%s: not saved, its sender is answered or gone", envelope.queued_id)
                # Takes no effect where the deadline answered; ends the transaction elsewhere.
                envelope.answer(TRY_LATER)
        return kept


class OneByOne(Generic[Item]):
    """Plain stages that look at one item at a time, each item through all of them."""

    def __init__(self, askers: Sequence[Asker[Item]], task: Task[Item], pulse: Pulse) -> None:
        """`askers`: at least one stage."""
        self.askers = tuple(askers)
        self.task = task
        self.pulse = pulse
        self.last = False
        """What passes is accepted here and now: no segment follows."""
        self._steps = tuple((one.ask, one.timer.done, one.name, one) for one in askers)

    def run(self, items: Sequence[Item]) -> Sequence[Item]:  # noqa: C901 - calls cost each mail
        """See `Segment`."""
        passed: list[Item] = []
        pulse = self.pulse
        task = self.task
        is_timed = task.is_timed()
        end = task.end
        start = pulse.watch.start
        for index, item in enumerate(items):
            pulse.count += 1
            outcome = None
            start()
            try:
                # The pulse beats with each stage, at the price of the loop's own assignment.
                for ask, done, name, pulse.asker in self._steps:
                    if pulse.abandoned:
                        return passed
                    if is_timed:
                        task.enter(item, name)
                    outcome = ask(item)
                    done()
                    if outcome is not None:
                        break
            except Unavailable as error:
                # Each of the others would only run into the same time limit.
                pulse.asker.timer.done(len(items) - index)
                _unavailable(pulse.asker, items[index:], task, error)
                break
            except Exception as error:  # noqa: BLE001 - a stage may raise anything
                pulse.asker.timer.done()
                item.answer(_refusal(pulse.asker, item, task, error))
                continue
            if outcome is not None:
                task.settle(item, outcome, pulse.asker)
            elif self.last:
                item.answer(end)
            else:
                if is_timed:
                    task.leave(item)
                passed.append(item)
        return passed


class Batched(Generic[Item]):
    """A stage that takes the whole batch."""

    def __init__(self, asker: Asker[Item], task: Task[Item], pulse: Pulse) -> None:
        """`asker.ask` takes a sequence of items and gives as many outcomes."""
        self.asker = asker
        self.task = task
        self.pulse = pulse

    def run(self, items: Sequence[Item]) -> Sequence[Item]:
        """See `Segment`."""
        self.pulse.count += 1
        self.pulse.asker = self.asker
        is_timed = self.task.is_timed()
        if is_timed:
            for item in items:
                self.task.enter(item, self.asker.name)
        timer = self.asker.timer
        self.pulse.watch.start()
        try:
            outcomes = self.asker.ask(items)
        except Unavailable as error:
            timer.done(len(items))
            _unavailable(self.asker, items, self.task, error)
            return []
        except Exception as error:  # noqa: BLE001 - a stage may raise anything
            # Those that are asked again are counted then.
            timer.done(0 if self._asks_again(items) else len(items))
            return self._failed(items, error)
        timer.done(len(items))
        if is_timed:
            for item in items:
                self.task.leave(item)
        return self._settle(items, outcomes)

    def _settle(self, items: Sequence[Item], outcomes: object) -> list[Item]:
        if not isinstance(outcomes, list | tuple) or isinstance(outcomes, Replies):
            given = type(outcomes).__name__
        elif len(outcomes) != len(items):
            given = f"{len(outcomes)} outcomes"
        else:
            passed = []
            for item, outcome in zip(items, outcomes, strict=True):
                if outcome is None:
                    passed.append(item)
                else:
                    self.task.settle(item, outcome, self.asker)
            return passed
        # Nobody knows which outcome is whose, so none may become a 250.
        log.error(
            "%s gave %s for a batch of %d: answered %d: %s",
            self.asker.name, given, len(items), self.task.later.code, _labels(items, self.task),
        )  # fmt: skip
        self.asker.timer.fail(len(items))
        _answer_all(items, self.task.later)
        return []

    def _asks_again(self, items: Sequence[Item]) -> bool:
        return self.asker.repeatable and len(items) > 1

    def _failed(self, items: Sequence[Item], error: Exception) -> Sequence[Item]:
        if len(items) == 1:
            items[0].answer(_refusal(self.asker, items[0], self.task, error))
            return []
        if self._asks_again(items):
            log.warning(
                "%s failed for a batch of %d (%s): asked again one by one",
                self.asker.name, len(items), type(error).__name__,
            )  # fmt: skip
            return self._one_by_one(items)
        # A reply made for one of them must not reach the others: it might be a 550.
        log.error(
            "%s failed%s: answered %d: %s",
            self.asker.name, _kind(items, error), self.task.later.code,
            _labels(items, self.task), exc_info=harmless(items, error),
        )  # fmt: skip
        self.asker.timer.fail(len(items))
        _answer_all(items, self.task.later)
        return []

    def _one_by_one(self, items: Sequence[Item]) -> list[Item]:
        passed: list[Item] = []
        for index, item in enumerate(items):
            self.pulse.count += 1
            if self.pulse.abandoned:
                return passed
            if item.expired:  # Its sender is answered: saved now, it would be a second copy.
                self.asker.timer.took(0.0, 1)
                self.asker.timer.fail(1)
                item.answer(self.task.later)
                continue
            alone = (item,)
            self.pulse.watch.start()
            try:
                outcomes = self.asker.ask(alone)
            except Unavailable as error:
                self.asker.timer.done(len(items) - index)
                _unavailable(self.asker, items[index:], self.task, error)
                break
            except Exception as error:  # noqa: BLE001 - a stage may raise anything
                self.asker.timer.done()
                self._failed(alone, error)
            else:
                self.asker.timer.done()
                passed.extend(self._settle(alone, outcomes))
        return passed


class Concurrent(Generic[Item]):
    """An async stage: many items at a time on the worker's own event loop.

    Each has until its own deadline; then it is cancelled, and waited for, so that nothing of it
    runs on when the sender has been told to come again.
    """

    def __init__(self, asker: Asker[Item], task: Task[Item], pulse: Pulse, loop: Loop) -> None:
        """`asker.ask` takes one item and gives what to await for its outcome."""
        self.asker = asker
        self.task = task
        self.pulse = pulse
        self.loop = loop
        self.last = False
        """As for `OneByOne`."""

    def run(self, items: Sequence[Item]) -> Sequence[Item]:
        """See `Segment`."""
        passed = self.loop.run(self._all(items))
        return [item for item, through in zip(items, passed, strict=True) if through]

    async def _all(self, items: Sequence[Item]) -> list[bool]:
        gate = asyncio.Semaphore(self.loop.concurrency)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(item, gate)) for item in items]
        return [task.result() for task in tasks]

    async def _one(self, item: Item, gate: asyncio.Semaphore) -> bool:
        """Whether the item passes on; when not, it has been answered, or is for others."""
        async with gate:
            if self.pulse.abandoned:
                return False
            is_timed = self.task.is_timed()
            if is_timed:
                self.task.enter(item, self.asker.name)
            began = time.perf_counter()
            outcome = await self._outcome(item)
            # Others run meanwhile: each has a time of its own.
            self.asker.timer.took(time.perf_counter() - began, 1)
            if is_timed:
                self.task.leave(item)
        self.pulse.count += 1
        if isinstance(outcome, _Failed):
            item.answer(outcome.reply)
            return False
        if outcome is not None:
            self.task.settle(item, outcome, self.asker)
            return False
        if self.last:
            item.answer(self.task.end)
            return False
        return True

    async def _outcome(self, item: Item) -> object:
        limit = asyncio.timeout(self.task.time_left(item))
        try:
            async with limit:
                return await cast("Awaitable[object]", self.asker.ask(item))
        except TimeoutError as error:
            if not limit.expired():
                return _Failed(_refusal(self.asker, item, self.task, error))
            _log_late(self.asker, item, self.task)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Not us: the stage let a cancellation of its own escape.
            return _Failed(_refusal(self.asker, item, self.task, error))
        except Unavailable as error:
            self.asker.timer.fail(1)
            _log_unavailable(self.asker, (item,), self.task, error)
        except Exception as error:  # noqa: BLE001 - a stage may raise anything
            return _Failed(_refusal(self.asker, item, self.task, error))
        return _Failed(self.task.later)


class _Failed(NamedTuple):
    """In place of an outcome: the stage raised something, which is counted and logged."""

    reply: Reply


class Loop:
    """The event loop of one worker; it runs while an async stage is asked."""

    def __init__(self, concurrency: int) -> None:
        """`concurrency` is `save_concurrency`: items at a time."""
        self.concurrency = concurrency
        self._runner = asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs to the end, in the calling thread."""
        return self._runner.run(coroutine)

    def close(self) -> None:
        """Cancels what stages left running, then closes."""
        self._runner.close()


def _labels(items: Sequence[Item], task: Task[Item]) -> str:
    return ", ".join(task.label(item) for item in items)


def _answer_all(items: Sequence[Item], reply: Reply) -> None:
    for item in items:
        item.answer(reply)


def _refusal(asker: Asker[Item], item: Item, task: Task[Item], error: BaseException) -> Reply:
    """The reply for an error that concerns one item; logged once."""
    reply = task.reply_for(error)
    label, kind = task.label(item), _kind((item,), error)
    if reply.code == task.later.code:
        asker.timer.fail(1)
    if not isinstance(error, DeliveryError):
        trace = harmless((item,), error)
        log.error(
            "%s: %s failed%s: answered %d", label, asker.name, kind, reply.code, exc_info=trace
        )
    else:
        text = kind or f": {error}"
        log.info("%s: %s answered %d%s", label, asker.name, reply.code, text)
    return reply


def _unavailable(
    asker: Asker[Item], items: Sequence[Item], task: Task[Item], error: Unavailable
) -> None:
    """Answers all of them: what the stage needs is away, and the senders keep their mails."""
    asker.timer.fail(len(items))
    _log_unavailable(asker, items, task, error)
    _answer_all(items, task.later)


def _kind(items: Sequence[Any], error: BaseException) -> str:
    """What stands for an error that may not be logged; empty for one that may."""
    return "" if harmless(items, error) else f": {type(error).__name__} with a secret in it"


def _log_late(asker: Asker[Item], item: Item, task: Task[Item]) -> None:
    asker.timer.fail(1)
    log.error(
        "%s: %s cancelled at its time limit: answered %d",
        task.label(item), asker.name, task.later.code,
    )  # fmt: skip


def _log_unavailable(
    asker: Asker[Item], items: Sequence[Item], task: Task[Item], error: Unavailable
) -> None:
    text = _kind(items, error) or f": {error}"
    # The text says what is away. A traceback for every batch of an outage would bury it.
    trace = harmless(items, error) if log.isEnabledFor(logging.DEBUG) else None
    log.error(
        "%s unavailable%s: answered %d: %s",
        asker.name, text, task.later.code, _labels(items, task), exc_info=trace,
    )  # fmt: skip
