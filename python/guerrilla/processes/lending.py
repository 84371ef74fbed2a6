"""The sockets of places that nobody serves, lent to processes that live.

A place whose process cannot start, or ends in its own time, has its share of the connections all
the same: the kernel knows nothing of it. So another one takes them meanwhile, beside its own.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from guerrilla.processes.channel import ChannelError, RefusedError

if TYPE_CHECKING:
    import threading

    from guerrilla.processes.channel import Asked, Asking
    from guerrilla.processes.children import Child
    from guerrilla.processes.sockets import ListeningSockets

    Lent = dict[int, list[tuple[str, int]]]
    """Sockets, as `ListeningSockets.for_child` gives them, by the number of the place."""

    Told = tuple[int, frozenset[int]]
    """The generation of the config, and the numbers of places."""

log = logging.getLogger("guerrilla.processes")

AFTER = 3.0
"""Seconds that a place is without a process that serves: more than a start takes, mostly. Not a
constant: tests have less patience."""

_LIMIT = 5.0
"""Seconds for all answers of a look."""

_PATIENCE = 1.0
"""Seconds to wait for a start or another config: whoever looks is looked at itself."""

_UNKNOWN: Final = (-1, frozenset[int]())
"""Of one that has not answered: it may do it all the same, and is told anew."""


class Lender(Protocol):
    """The parent."""

    changing: threading.RLock
    generation: int
    children: list[Child]
    sockets: ListeningSockets | None


class Lending:
    """What is lent, as `look` finds that it should be.

    Args:
        parent: whose sockets they are.
    """

    def __init__(self, parent: Lender) -> None:
        """Lends nothing."""
        self._parent = parent
        self._told: dict[Asking, Told] = {}
        """What those are serving beside their own."""
        self.served_by: dict[int, int] = {}
        """The place that serves for another one, by the number of that."""

    def look(self) -> None:
        """Has every place served that should be, and gives back what its own process serves.

        While another config comes into force nothing is lent: a later look finds it.
        """
        if not self._parent.changing.acquire(timeout=_PATIENCE):
            return
        try:
            alive, wanted = self._wanted()
            self._forget(alive, wanted)
            asked = [one for one in map(self._tell, alive, wanted) if one is not None]
        finally:
            self._parent.changing.release()
        end = time.monotonic() + _LIMIT
        for number, asking, told, request in asked:
            try:
                asking.answer(request, end - time.monotonic(), of=_LIMIT)
            except (ChannelError, RefusedError) as error:
                log.info("process %d does not serve for others: %s", number, error)
                self._told[asking] = _UNKNOWN
                continue
            self._told[asking] = told
            for place in sorted(told[1] - self.served_by.keys()):
                log.warning("process %d does not serve: %d does meanwhile", place, number)
            self.served_by |= dict.fromkeys(told[1], number)

    def _wanted(self) -> tuple[list[Child], list[Lent]]:
        """Those that serve, and what each of them should have of others."""
        sockets, children = self._parent.sockets, self._parent.children
        alive = [child for child in children if child.asking is not None]
        wanted: list[Lent] = [{} for _ in alive]
        for child in children if alive else ():
            if sockets is None or child.away < AFTER or child in alive:
                continue
            index = child.number % len(alive)
            # Some are of several processes, and so of this one already.
            own = sockets.for_child(alive[index].number)
            if lent := [one for one in sockets.for_child(child.number) if one not in own]:
                wanted[index][child.number] = lent
        return alive, wanted

    def _forget(self, alive: list[Child], wanted: list[Lent]) -> None:
        """What is so no more."""
        askings = {child.asking for child in alive}
        self._told = {asking: told for asking, told in self._told.items() if asking in askings}
        places = {
            place: child.number for child, lent in zip(alive, wanted, strict=True) for place in lent
        }
        served_by = self.served_by.items()
        self.served_by = {place: one for place, one in served_by if places.get(place) == one}

    def _tell(self, child: Child, lent: Lent) -> tuple[int, Asking, Told, Asked] | None:
        """Says what it is to serve from now on, where that is not what it does."""
        asking, told = child.asking, (self._parent.generation, frozenset(lent))
        # A reload has taken what was lent before it.
        if asking is None or told == self._told.get(asking, (told[0], frozenset())):
            return None
        lines = list(dict.fromkeys(one for sockets in lent.values() for one in sockets))
        arguments = {"addresses": [address for address, _ in lines]}
        descriptors = [descriptor for _, descriptor in lines]
        try:
            asked = asking.begin("serve-also", arguments, descriptors, _LIMIT)
        except ChannelError:
            return None
        return child.number, asking, told, asked
