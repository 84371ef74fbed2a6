"""A reload of several processes, in two steps: all of them obey another config, or none does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guerrilla.errors import ConfigError, StartError
from guerrilla.processes.channel import ChannelError, RefusedError, pack, readable_lines
from guerrilla.processes.place import by_interface
from guerrilla.running.startup import resolve_servers
from guerrilla.running.staying import kept_until_start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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

    def resolved(self) -> dict[str, list[str]]:
        """As `Place.resolved`."""
        return by_interface(self.servers)


def wanted(old: AppConfig, new: AppConfig, file: Path | None) -> Wanted:
    """What of another config running processes can obey.

    Raises:
        ConfigError: a name of a server is not known now.
    """
    config, failures = kept_until_start(old, new)
    servers, unresolved = resolve_servers(config)
    if unresolved:
        raise ConfigError(_named(file, unresolved))
    for failure in failures:
        log.error("%s; what was there before stays", failure)
    return Wanted(config, file, servers, failures)


class Agreement:
    """One reload.

    Args:
        children: all of them. One that does not serve starts with what is in force by then.
        sockets: of all; those that are new are given to the children.
        wanted: what they are to obey.

    Used by one thread, which holds what keeps children from starting meanwhile.
    """

    def __init__(
        self, children: Sequence[Child], sockets: ListeningSockets, wanted: Wanted
    ) -> None:
        """Asks nobody."""
        self._asking = {child: asking for child in children if (asking := child.asking) is not None}
        self._sockets = sockets
        self._wanted = wanted

    def prepare(self) -> SocketChange:
        """Binds what is new, and has all children prepare; the change of sockets to be committed.

        Raises:
            ConfigError: what is wrong, with the process that says so where not all do. Nothing has
                changed then.
        """
        try:
            change = self._sockets.change(self._wanted.config, self._wanted.servers)
        except StartError as error:
            raise ConfigError(_named(self._wanted.file, error.problems)) from error
        answers = self._ask("prepare", PREPARE_LIMIT, lambda child: self._told(child, change))
        refused = {
            child.number: lines_of(answer)
            for child, answer in answers.items()
            if isinstance(answer, Exception)
        }
        if refused:
            self._ask("abandon", COMMIT_LIMIT)
            change.abandon()
            raise ConfigError(said_by(refused, len(answers)))
        return change

    def commit(self) -> Agreed:
        """Has all children obey what they have prepared.

        One that does not is replaced by another, which starts with it.
        """
        answers = self._ask("commit", COMMIT_LIMIT)
        failed: dict[int, list[str]] = {}
        changes: list[str] = []
        warnings: dict[str, None] = {}
        for child, answer in answers.items():
            if isinstance(answer, Exception):
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

    def _told(self, child: Child, change: SocketChange) -> tuple[dict[str, Any], list[int]]:
        """What a child is asked to prepare."""
        wanted = self._wanted
        sockets = change.for_child(child.number)
        arguments = {
            "config": pack(wanted.config),
            "config_file": None if wanted.file is None else str(wanted.file),
            "addresses": [address for address, _ in sockets],
            "ours": change.ours(),
            "resolved": wanted.resolved(),
        }
        return arguments, [descriptor for _, descriptor in sockets]

    def _ask(
        self,
        command: str,
        limit: float,
        told: Callable[[Child], tuple[Mapping[str, Any], Sequence[int]]] = lambda _: ({}, ()),
    ) -> dict[Child, Any]:
        """Asks all at the same time; the result of each, or why there is none."""
        begun: list[tuple[Child, Asking, Asked]] = []
        found: dict[Child, Any] = {}
        for child, asking in self._asking.items():
            try:
                begun.append((child, asking, asking.begin(command, *told(child))))
            except ChannelError as error:
                found[child] = error
        for child, asking, asked in begun:
            try:
                found[child] = asking.answer(asked, limit)
            except (ChannelError, RefusedError) as error:
                found[child] = error
        return found


def _named(file: Path | None, problems: Sequence[str]) -> list[str]:
    return [problem if file is None else f"{file}: {problem}" for problem in problems]


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
        line if len(numbers) == children else f"process {', '.join(map(str, numbers))}: {line}"
        for line, numbers in found.items()
    ]
