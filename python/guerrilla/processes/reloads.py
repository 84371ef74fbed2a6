"""A reload of a parent and its children, from the file to what is in force."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from guerrilla.config import load
from guerrilla.errors import NotNowError
from guerrilla.processes.agreement import Agreed, Agreement, LostError, wanted
from guerrilla.processes.children import State

if TYPE_CHECKING:
    from pathlib import Path

    from guerrilla.processes.agreement import Wanted
    from guerrilla.processes.parent import Parent
    from guerrilla.processes.sockets import ListeningSockets

log = logging.getLogger("guerrilla.processes")

_TRIES: Final = 3
"""Of a reload that meets processes which end: as many in a row die hardly by chance."""

START_PATIENCE: Final = 30.0
"""Seconds that it waits for a child which is just starting, to be asked along with others."""

_PATIENCE: Final = 10.0
"""Seconds that it waits for any process to serve: without one nobody says what is wrong with a
config. Not for longer: it may be what they need."""

_LOOK: Final = 0.05
"""Seconds between two looks at who starts."""


class Reloads:
    """Reloads of one parent, one at a time.

    Args:
        parent: whose they are.
    """

    def __init__(self, parent: Parent) -> None:
        """Reads nothing."""
        self._parent = parent
        self._turns = itertools.count(1)
        self.stops = threading.Event()
        """Set when all are to stop: a reload under way is refused, so that nobody waits for it."""
        self.count = 0
        self.failures = 0
        """Reloads of which some part could not be put in force."""

    def settle(self) -> None:
        """Waits until none is just starting, and any serves; not for ever.

        One that a reload does not ask has to start once more: with reloads that come faster than
        it starts it would never serve.

        Raises:
            NotNowError: all are to stop.
        """
        begun = time.monotonic()
        while self._is_unsettled(time.monotonic() - begun):
            if self.stops.wait(_LOOK):
                raise NotNowError("all processes stop")

    def _is_unsettled(self, waited: float) -> bool:
        children = self._parent.children
        if any(child.is_starting for child in children):
            return waited < START_PATIENCE
        askings = [child.asking for child in children]
        # One that has just died starts soon.
        is_dying = any(
            child.state is State.SERVING and asking is None
            for child, asking in zip(children, askings, strict=True)
        )
        return waited < _PATIENCE and (is_dying or not any(askings))

    def obey(self, file: Path, sockets: ListeningSockets) -> Agreed:
        """Has all children obey the file, or none; the parent too.

        Raises:
            ConfigError: as `Parent.reload_config_file`.
        """
        parent = self._parent
        config = load(file)
        if parent.overrides:
            config = config.model_copy(update=parent.overrides)
        asked = wanted(parent.config, config, file)
        for _ in range(_TRIES - 1):
            try:
                return self._agree(asked, sockets)
            except LostError as error:
                log.warning("%s: the reload begins again", "; ".join(error.problems))
                self.settle()
        return self._agree(asked, sockets)

    def _agree(self, asked: Wanted, sockets: ListeningSockets) -> Agreed:
        parent = self._parent
        agreement = Agreement(parent.children, sockets, asked, next(self._turns), self.stops.is_set)
        change = agreement.prepare()
        change.turn_away()
        # A child that starts meanwhile waits, and starts with what is in force then.
        with parent.changing:
            try:
                report = agreement.commit()
            except BaseException:
                change.abandon()
                raise
            # First: whatever becomes of the rest, a successor has to start with what the others
            # obey.
            old, parent.config = parent.config, asked.config
            parent.config_file, parent.servers = asked.file, asked.servers
            parent.generation += 1
            change.commit()
        failures = [*report.failures, *parent.own.replace(old, parent.config)]
        self.count += 1
        self.failures += bool(failures)
        parent.own.watch_config(parent)
        parent.own.move_control(parent.config, parent.config_file)
        log.info("reloaded: %d changes, %d failures", len(report.changes), len(failures))
        return Agreed(report.changes, tuple(failures), report.warnings)
