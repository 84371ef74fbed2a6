"""From stages to segments: decided when a chain is opened, so that a mail costs no decisions."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guerrilla._core import StageFigures
from guerrilla.engine.base import (
    OF_MAILS,
    Processor,
    TaskName,
    implements,
    method,
    takes_batches,
)
from guerrilla.engine.stages import Batched, Claim, Concurrent, Loop, OneByOne, Pulse
from guerrilla.engine.tasks import Asker, CheckTask, LoginTask, SaveTask, SpooledTask
from guerrilla.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import StageTimer
    from guerrilla.engine.stages import Segment
    from guerrilla.engine.tasks import Task


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What a chain obeys besides its processors; times in seconds."""

    save_timeout: float = 30.0
    """`gw_save_timeout`."""
    check_timeout: float = 5.0
    """`gw_val_rcpt_timeout`."""
    auth_timeout: float = 10.0
    """`gw_auth_timeout`."""
    concurrency: int = 64
    """`save_concurrency`: items an async stage works on at a time."""
    figures: Callable[[str], StageFigures] = lambda _: StageFigures()
    """Where the stage of this name counts."""


def plan(
    stages: Sequence[tuple[str, Processor]],
    task: TaskName,
    settings: ChainSettings,
    pulse: Pulse,
    loop: Loop | None,
) -> list[Segment[Any]]:
    """The segments for `stages`, in order; a stage that does nothing for `task` costs nothing.

    `loop` is needed where any stage is async.
    """
    busy = [stage for stage in stages if implements(stage[1], task)]
    store = _first_store(busy) if task in OF_MAILS else None
    deciding = _deciding(busy)
    planner = _Planner(_work(task, settings, claimed=False), pulse, loop)
    for index, (name, processor) in enumerate(busy):
        if index == store and task == "save":  # What is spooled has nobody who waits for it.
            planner.claim(_work(task, settings, claimed=True))
        discards = store is not None and index < store
        timer = settings.figures(name).timer(pulse.watch, decides=index == deciding)
        planner.add(_asker(name, processor, task, timer, discards=discards), processor, task)
    return planner.finish()


class _Planner:
    """Collects segments; neighbouring one-by-one stages become one of them."""

    def __init__(self, work: Task[Any], pulse: Pulse, loop: Loop | None) -> None:
        self.work = work
        self.pulse = pulse
        self.loop = loop
        self.segments: list[Segment[Any]] = []
        self.group: list[Asker[Any]] = []

    def claim(self, work: Task[Any]) -> None:
        self._close_group()
        self.segments.append(Claim())
        self.work = work

    def add(self, asker: Asker[Any], processor: Processor, task: TaskName) -> None:
        awaited = inspect.iscoroutinefunction(method(processor, task))
        if not takes_batches(processor, task) and not awaited:
            self.group.append(asker)
            return
        self._close_group()
        if takes_batches(processor, task):
            asker = _awaiting(asker, self.work, self.loop) if awaited and self.loop else asker
            self.segments.append(Batched(asker, self.work, self.pulse))
        elif self.loop is not None:
            self.segments.append(Concurrent(asker, self.work, self.pulse, self.loop))

    def finish(self) -> list[Segment[Any]]:
        self._close_group()
        if self.segments and isinstance(self.segments[-1], OneByOne | Concurrent):
            self.segments[-1].last = True
        return self.segments

    def _close_group(self) -> None:
        if self.group:
            self.segments.append(OneByOne(self.group, self.work, self.pulse))
            self.group = []


def _first_store(stages: Sequence[tuple[str, Processor]]) -> int | None:
    return next((index for index, (_, stage) in enumerate(stages) if stage.stores), None)


def _deciding(stages: Sequence[tuple[str, Processor]]) -> int:
    """The stage whose success is that of the chain: the last that stores, else the last."""
    stores = [index for index, (_, stage) in enumerate(stages) if stage.stores]
    return stores[-1] if stores else len(stages) - 1


def _work(task: TaskName, settings: ChainSettings, *, claimed: bool) -> Task[Any]:
    if task == "validate":
        return CheckTask(settings.check_timeout)
    if task == "authenticate":
        return LoginTask(settings.auth_timeout)
    if task == "spooled":
        return SpooledTask(settings.save_timeout)
    # Claimed, an envelope has a second time limit before its sender is answered for us.
    return SaveTask(settings.save_timeout * (2 if claimed else 1))


def _asker(
    name: str, processor: Processor, task: TaskName, timer: StageTimer, *, discards: bool
) -> Asker[Any]:
    ask = method(processor, task)
    if not takes_batches(processor, task):
        ask = _of_one(ask, task)
    return Asker(
        name,
        ask,
        timer,
        # A question can be repeated at will; a mail only where nothing of the batch was saved.
        repeatable=task not in OF_MAILS or bool(processor.atomic),
        stores=task in OF_MAILS and bool(processor.stores),
        discards=discards,
        authorizes=bool(processor.authorizes),
    )


def _of_one(ask: Callable[..., Any], task: TaskName) -> Callable[[Any], Any]:
    """A method for single items that takes the item itself."""
    if task == "validate":
        return lambda check: ask(check.transaction, check.recipient)
    if task == "authenticate":
        return lambda login: ask(login.transaction, login.credentials)
    return ask


def _awaiting(asker: Asker[Any], work: Task[Any], loop: Loop) -> Asker[Any]:
    """Makes an async batch method a plain one, which ends with the last deadline of the batch.

    What it did until then is not known, and all its senders are answered: none is asked again.
    """

    async def limited(items: Sequence[Any]) -> object:
        limit = asyncio.timeout(max(work.time_left(item) for item in items))
        try:
            async with limit:
                return await asker.ask(items)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Unavailable("cancelled at its time limit") from error

    return dataclasses.replace(asker, ask=lambda items: loop.run(limited(items)))
