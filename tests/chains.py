"""Chains for tests: stages whose answers are given, and what became of the mails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from guerrilla._core import Envelope
from guerrilla.engine.base import Processor, TaskName
from guerrilla.engine.chain import Chain, ChainSettings
from guerrilla.reply import TRY_LATER, Outcome, Reply

Mail = Callable[..., Envelope]
NO = Reply.reject()


class Stage(Processor):
    """A stage whose `save` is given, and which notes what it is asked."""

    def __init__(self, save: Callable[[Envelope], Any] | None = None) -> None:
        super().__init__(self.Options())
        self.seen: list[str] = []
        self.did: list[str] = []
        self._given = save

    def open(self) -> None:
        self.did.append("open")

    def close(self) -> None:
        self.did.append("close")

    def save(self, envelope: Envelope) -> Outcome:
        self.seen.append(envelope.subject)
        return self._given(envelope) if self._given else None


class Batch(Stage):
    """A stage that takes batches; `batch` is given."""

    def __init__(self, batch: Callable[[Sequence[Envelope]], Any]) -> None:
        super().__init__()
        self._batch = batch
        self.sizes: list[int] = []

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        self.sizes.append(len(envelopes))
        answer: Sequence[Outcome] = self._batch(envelopes)
        return answer


class Atomic(Batch):
    atomic = True


class Store(Stage):
    stores = True


def chain_of(*processors: Processor, task: TaskName = "save", **settings: Any) -> Chain[Any]:
    stages = [(type(processor).__name__, processor) for processor in processors]
    return Chain(stages, task, ChainSettings(**settings))


def run(items: Sequence[Any], *processors: Processor, **settings: Any) -> None:
    with chain_of(*processors, **settings) as chain:
        chain.run(items)


def fate(envelope: Envelope) -> object:
    """The verdict, or a word where there is none. Ends the envelope."""
    if envelope.answered is not None:
        return envelope.answered
    return "unanswered" if envelope.answer(TRY_LATER) else "accepted"


def fates(envelopes: Sequence[Envelope]) -> list[object]:
    return [fate(envelope) for envelope in envelopes]


def when(subject: str, act: Callable[[], Any]) -> Callable[[Envelope], Any]:
    return lambda envelope: act() if envelope.subject == subject else None


def throw(error: BaseException) -> Callable[..., Any]:
    def act(*args: object) -> Any:
        raise error

    return act


def ids(envelopes: Sequence[Envelope]) -> set[str]:
    return {envelope.queued_id for envelope in envelopes}


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]
