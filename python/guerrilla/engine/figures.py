"""The figures of every stage of a daemon: how many items, how many errors, how long."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from guerrilla._core import StageFigures

if TYPE_CHECKING:
    from guerrilla.engine.base import TaskName


class StageBook:
    """What all stages have done since the daemon started.

    A stage is known by backend, task and name, so what it did stays when a worker is replaced and
    when a reload opens another chain. Workers count without a lock.
    """

    def __init__(self) -> None:
        """Knows no stage."""
        self._lock = threading.Lock()
        """Held where a chain is opened and where the figures are read."""
        self._stages: dict[tuple[str, TaskName, str], StageFigures] = {}

    def of(self, backend: str, task: TaskName, stage: str) -> StageFigures:
        """Where a stage counts; the name as the chain has it, in any case."""
        with self._lock:
            for known, figures in self._stages.items():
                if known[:2] == (backend, task) and known[2].casefold() == stage.casefold():
                    return figures
            return self._stages.setdefault((backend, task, stage), StageFigures())

    def snapshot(self) -> list[dict[str, Any]]:
        """The figures of each stage, in values of JSON; in the order in which they were opened.

        `count` items it was asked about, `errors` of them that it failed for, `calls` to it (a
        batch is one), their time in `seconds`, and in `buckets` how many took at most so many
        seconds.
        """
        with self._lock:
            stages = list(self._stages.items())
        return [
            {"backend": backend, "task": task, "stage": name, **figures.snapshot()}
            for (backend, task, name), figures in stages
        ]
