"""How far a load is, on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guerrilla._core import LoadFigures

__all__ = ["watching"]


@contextmanager
def watching(messages: int, duration: float) -> Iterator[Callable[[LoadFigures], object]]:
    """Shows a bar on stderr where that is a terminal, and takes it away at the end.

    It is full when all messages are sent or the time is over, whichever comes first.

    Yields:
        What is told the figures, now and then.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  # which no other command has to load
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("opening connections", total=1.0)
        last = (0.0, 0)

        def show(figures: LoadFigures) -> None:
            nonlocal last
            seconds, accepted = figures["seconds"], figures["accepted"]
            ended = accepted + figures["refused"] + figures["failed"]
            if seconds <= last[0]:
                return
            rate = (accepted - last[1]) / (seconds - last[0])
            last = seconds, accepted
            wrong = ended - accepted
            text = f"{rate:,.0f} messages/s, {accepted:,} accepted"
            bar.update(
                task,
                completed=min(1.0, max(ended / messages, seconds / duration)),
                description=f"{text}, {wrong:,} not" if wrong else text,
            )

        yield show
