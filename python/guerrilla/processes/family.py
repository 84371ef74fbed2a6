"""All children of a parent: begun one after the other, asked and ended at the same time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from guerrilla.errors import StartError
from guerrilla.processes.channel import ChannelError, RefusedError
from guerrilla.processes.children import Child
from guerrilla.processes.place import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from guerrilla.processes.channel import Asked, Asking
    from guerrilla.processes.children import Hub
    from guerrilla.processes.lives import Life

log = logging.getLogger("guerrilla.processes")

AT_ONCE: Final = 2.0
"""Seconds that children have to end where the start has failed."""

SERVING_LIMIT = 20.0
"""Seconds that those who are ready have until they serve: all together, as the process before this
one waits for its `TAKEN_LIMIT` alone. Not a constant: tests have less patience."""

FIGURES_LIMIT: Final = 5.0
"""Seconds for what a child is asked for a status: one that hangs is shown without figures."""


class Family:
    """The children.

    Args:
        processes: how many.
        hub: the parent.
    """

    def __init__(self, processes: int, hub: Hub) -> None:
        """Starts none."""
        self.children = [Child(number, hub) for number in range(processes)]

    def begin(self, life: Life | None) -> Mapping[str, Any]:
        """Starts the first child, and with that the others; what the first one answers.

        One after the other: what is made in a store when it is opened for the first time is made
        by one, and what is wrong is said by one.

        Args:
            life: the process of the first, where it has one.

        Raises:
            StartError: what they say against it.
        """
        first, *others = self.children
        first.begin(life)
        answer = first.first.result()
        for child in others:
            child.begin()
        problems: dict[str, None] = {}
        for child in others:
            try:
                child.first.result()
            except StartError as error:
                problems |= dict.fromkeys(error.problems)
        if problems:
            raise StartError(problems)
        return answer

    def hold(self) -> None:
        """Before they begin: who is ready serves nobody until `release`."""
        for child in self.children:
            child.hold()

    def release(self) -> Mapping[str, Any]:
        """Lets all of them serve; what the first one answers.

        One that does not is started again, as one that dies.
        """
        for child in self.children:
            child.release()
        limit = time.monotonic() + SERVING_LIMIT
        answers = [_served(child, limit - time.monotonic()) for child in self.children]
        return answers[0]

    def end(self, timeout: float, between: Callable[[], object]) -> bool:
        """Ends all children; whether all of them did by themselves, with nothing cut off.

        Args:
            timeout: seconds that transactions have.
            between: called once all are told, before they have ended.
        """
        for child in self.children:
            child.stop(timeout)
        between()
        firsts = [child.first for child in self.children]
        # Those of a start that has failed have nothing to end.
        has_started = all(first.done() and first.exception() is None for first in firsts)
        limit = time.monotonic() + timeout + (GRACE if has_started else 0.0)
        late = [child for child in self.children if not child.join(limit - time.monotonic())]
        for child in late:
            log.error("process %d has not ended in time: it is killed", child.number)
            child.kill()
        for child in late:
            child.join()
        return not late and all(child.graceful for child in self.children)

    def kill(self) -> None:
        """Ends all children at once. It waits for nothing: a signal handler may call it."""
        for child in self.children:
            child.kill()

    def ask_all(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: float = FIGURES_LIMIT,
    ) -> dict[int, Any]:
        """Asks all children that serve, at the same time.

        Returns:
            Of each, by its number, the result, or the `RefusedError` or `ChannelError`.
        """
        limit = time.monotonic() + timeout
        begun: list[tuple[int, Asking, Asked]] = []
        found: dict[int, Any] = {}
        for child in self.children:
            asking = child.asking
            if asking is None:
                continue
            try:
                asked = asking.begin(command, arguments, timeout=timeout)
                begun.append((child.number, asking, asked))
            except ChannelError as error:
                found[child.number] = error
        for number, asking, asked in begun:
            try:
                found[number] = asking.answer(asked, limit - time.monotonic(), of=timeout)
            except (ChannelError, RefusedError) as error:
                found[number] = error
        return found


def _served(child: Child, timeout: float) -> Mapping[str, Any]:
    try:
        return child.serves.result(max(0.0, timeout))
    except TimeoutError:
        log.error("process %d was ready, and does not serve", child.number)  # noqa: TRY400
        return {}
