"""A reload of several processes, in two steps: all of them obey another config, or none does."""

from __future__ import annotations

import logging
import time
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guerrilla.errors import ConfigError, NotNowError, StartError
from guerrilla.processes.channel import (
    STOPS,
    ChannelError,
    RefusedError,
    TooLargeError,
    pack,
    readable_lines,
)
from guerrilla.processes.place import by_interface
from guerrilla.running.startup import named, resolve_servers
from guerrilla.running.staying import kept_until_start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.processes.channel import Asked, Asking
    from guerrilla.processes.children import Child
    from guerrilla.processes.sockets import ListeningSockets, SocketChange

log = logging.getLogger("guerrilla.reload")

PREPARE_LIMIT: Final = 600.0
"""Seconds until a child has opened what is new: as those of a start."""

COMMIT_LIMIT: Final = 60.0
"""Seconds until it has replaced what was there; one that takes longer is replaced itself."""

_STEP: Final = 0.2
"""Seconds between two looks whether all are to stop."""


class LostError(NotNowError):
    """A process has ended, or begun to, and said nothing: without it the others may agree."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What came of a reload of several processes: as `ReloadReport`, with lines for changes."""

    changes: tuple[str, ...]
    failures: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all of it is in force."""
        return not self.failures


class Wanted(NamedTuple):
    """What all are to obey."""

    config: AppConfig
    file: Path | None
    servers: list[tuple[ServerConfig, str]]
    failures: list[str]
    """A line for each key that has to wait for another start."""


def wanted(old: AppConfig, new: AppConfig, file: Path | None) -> Wanted:
    """What of another config running processes can obey.

    Raises:
        ConfigError: a name of a server is not known now.
    """
    config, failures = kept_until_start(old, new)
    servers, unresolved = resolve_servers(config)
    if unresolved:
        raise ConfigError(named(file, unresolved))
    for failure in failures:
        log.error("%s; what was there before stays", failure)
    return Wanted(config, file, servers, failures)


class Agreement:
    """One reload.

    Args:
        children: all of them. One that does not serve starts with what is in force by then.
        sockets: of all; those that are new are given to the children.
        wanted: what they are to obey.
        turn: of this reload; each has a higher one.
        stops: whether all are to stop: what is asked for is waited for no longer then.

    Used by one thread, which holds what keeps children from starting while it commits.
    """

    def __init__(
        self,
        children: Sequence[Child],
        sockets: ListeningSockets,
        wanted: Wanted,
        turn: int,
        stops: Callable[[], bool],
    ) -> None:
        """Asks nobody."""
        self._children = children
        self._asking = {child: asking for child in children if (asking := child.asking) is not None}
        self._sockets = sockets
        self._wanted = wanted
        self._turn = turn
        self._stops = stops

    def prepare(self) -> SocketChange:
        """Binds what is new, and has all children prepare; the change of sockets to be committed.

        Raises:
            ConfigError: what is wrong, with the process that says so where not all do. Nothing has
                changed then.
            LostError: none of them is against it, and not all of them are there any more.
        """
        try:
            change = self._sockets.change(self._wanted.config, self._wanted.servers)
        except StartError as error:
            raise ConfigError(named(self._wanted.file, error.problems)) from error
        try:
            self._prepare(change)
        except BaseException:
            change.abandon()
            raise
        return change

    def _prepare(self, change: SocketChange) -> None:
        answers = self._ask("prepare", PREPARE_LIMIT, lambda child: self._told(child, change))
        refused = {child: one for child, one in answers.items() if isinstance(one, Exception)}
        if not refused:
            return
        gone = [child for child, error in refused.items() if self._is_gone(child, error)]
        self._ask("abandon", COMMIT_LIMIT)
        # That one is gone says nothing of what the others say.
        told = [child for child in refused if child not in gone]
        lines = {child.number: lines_of(refused[child]) for child in told or gone}
        problems = said_by(lines, len(answers) - (len(gone) if told else 0))
        if not told:
            raise LostError(problems)
        answered = any(isinstance(refused[child], RefusedError | TooLargeError) for child in told)
        raise ConfigError(problems) if answered else NotNowError(problems)

    def commit(self) -> Agreed:
        """Has all children obey what they have prepared.

        One that does not is replaced by another, which starts with it. So is one that has begun to
        serve since they were asked: with what was in force before.
        """
        answers = self._ask("commit", COMMIT_LIMIT)
        failed: dict[int, list[str]] = {}
        changes: list[str] = []
        warnings: dict[str, None] = {}
        for child in self._children:
            if child.asking not in (None, self._asking.get(child)):
                child.replace()
        for child, answer in answers.items():
            if isinstance(answer, Exception):
                if not self._is_gone(child, answer):
                    log.error("process %d is replaced: %s", child.number, answer)
                    child.replace()
                continue
            found = answer if isinstance(answer, dict) else {}
            changes = changes or readable_lines(found.get("changes"))
            warnings |= dict.fromkeys(readable_lines(found.get("warnings")))
            if failures := readable_lines(found.get("failures")):
                failed[child.number] = failures
        failures = [*self._wanted.failures, *said_by(failed, len(answers))]
        return Agreed(tuple(changes), tuple(failures), tuple(warnings))

    def _is_gone(self, child: Child, error: Exception) -> bool:
        """Whether it has ended, or ends: then it has a successor anyway."""
        if isinstance(error, RefusedError) and error.kind == STOPS:
            life = child.life
            if life is not None and life.asking is self._asking[child]:
                child.leaves(life)
            return True
        return self._asking[child].has_ended

    def _told(self, child: Child, change: SocketChange) -> tuple[dict[str, Any], list[int]]:
        """What a child is asked to prepare."""
        wanted = self._wanted
        sockets = change.for_child(child.number)
        arguments = {
            "config": pack(wanted.config),
            "config_file": None if wanted.file is None else str(wanted.file),
            "addresses": [address for address, _ in sockets],
            "ours": change.ours(),
            "resolved": by_interface(wanted.servers),
        }
        return arguments, [descriptor for _, descriptor in sockets]

    def _ask(
        self,
        command: str,
        limit: float,
        told: Callable[[Child], tuple[Mapping[str, Any], Sequence[int]]] = lambda _: ({}, ()),
    ) -> dict[Child, Any]:
        """Asks all at the same time; the result of each, or why there is none.

        Raises:
            NotNowError: all are to stop.
        """
        end = time.monotonic() + limit
        begun: list[tuple[Child, Asking, Asked]] = []
        found: dict[Child, Any] = {}
        for child, asking in self._asking.items():
            arguments, descriptors = told(child)
            try:
                asked = asking.begin(command, {**arguments, "turn": self._turn}, descriptors)
                begun.append((child, asking, asked))
            except ChannelError as error:
                found[child] = error
        self._wait([asked.answer for *_, asked in begun], end)
        for child, asking, asked in begun:
            try:
                found[child] = asking.answer(asked, 0, of=limit)
            except (ChannelError, RefusedError) as error:
                found[child] = error
        return found

    def _wait(self, answers: Sequence[Future[Any]], end: float) -> None:
        """Until all are there, or it is too late."""
        left = True
        while left:
            if self._stops():
                raise NotNowError("all processes stop")
            now = time.monotonic()
            left = now < end and bool(wait(answers, min(_STEP, end - now)).not_done)


def lines_of(error: Exception) -> list[str]:
    """What a child, or the channel to it, says."""
    return list(error.errors) if isinstance(error, RefusedError) else [str(error)]


def said_by(problems: Mapping[int, Sequence[str]], children: int) -> list[str]:
    """Problems by the numbers of processes; without them where all of several say the same."""
    found: dict[str, list[int]] = {}
    for number, lines in problems.items():
        for line in lines:
            found.setdefault(line, []).append(number)
    return [
        line if len(numbers) == children else _said_by_them(numbers, line)
        for line, numbers in found.items()
    ]


def _said_by_them(numbers: Sequence[int], line: str) -> str:
    who = f"process {', '.join(map(str, numbers))}"
    return line if line.startswith(f"{who} ") else f"{who}: {line}"
