"""Figures of several processes as those of one; nothing that a child says is believed to be right.

What is counted is added, also what is there now, as connections; of ages and of what is only on or
off the largest counts.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from guerrilla.processes.agreement import said_by
from guerrilla.processes.channel import readable, readable_lines
from guerrilla.running.status import status as of_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from guerrilla.processes.children import Child
    from guerrilla.processes.parent import Parent

    Number = int | float

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_NUMBER: Final = 2**63
_MAX_NAMES: Final = 1_000
"""Figures, backends or stages of one process, and steps of a histogram."""
_MAX_TEXT: Final = 200

_LARGEST: Final = frozenset({"breaker_open", "spool_broken"})
"""Figures that are 0 or 1; an age is among the others of which the largest counts."""

_AGE: Final = "_age_ms"

_STAGE: Final = ("backend", "task", "stage")
_BUCKETS: Final = "buckets"


def status(parent: Parent, answers: Mapping[int, object]) -> dict[str, Any]:
    """What a parent tells of itself and its children.

    Args:
        parent: one that runs.
        answers: to `status`, of the children that serve, by their numbers.
    """
    found = of_one(None, parent.config, _warnings(parent, answers))
    clients: dict[str, int] = {}
    for answer in answers.values():
        for name, count in _clients(answer):
            clients[name] = clients.get(name, 0) + count
    for server in found["servers"]:
        server["addresses"] = parent.addresses_of(server["name"])
        server["clients"] = clients.get(server["name"], 0)
    figures = {number: _table(answer).get("stats") for number, answer in answers.items()}
    return found | {
        "uptime": round(time.monotonic() - parent.began, 3),
        "reloads": parent.reloads.count,
        "stats": stats(parent, figures.values()),
        "chain": parent.config.backend_config.save_process,
        "processes": [
            _described(child, _table(figures.get(child.number)))
            | {"served_by": parent.lending.served_by.get(child.number)}
            for child in parent.children
        ],
    }


def _warnings(parent: Parent, answers: Mapping[int, object]) -> list[str]:
    """Those of now, of all that say any; those of the start or the last reload where none does."""
    said = {
        number: readable_lines(answer.get("warnings"))
        for number, answer in answers.items()
        if isinstance(answer, dict)
    }
    return said_by(said, len(said)) if said else parent.warnings()


def stats(parent: Parent, answers: Iterable[object]) -> dict[str, Any]:
    """The figures of a parent and its children; `answers` are those to `stats`."""
    found = merge_stats(answers)
    if parent.memory is not None:
        # With what those have counted that are gone.
        found |= parent.memory.stats()
    logs = parent.own.logs
    if logs is not None and "log_records_dropped" in found:
        found["log_records_dropped"] += logs.lost
    # Each child counts them too.
    return found | {"reloads": parent.reloads.count, "reload_failures": parent.reloads.failures}


def _described(child: Child, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What `status` tells of a child."""
    life = child.life
    return {
        "number": child.number,
        "pid": None if life is None else life.pid,
        "state": str(child.state),
        "uptime": 0.0 if life is None else round(life.uptime, 3),
        "starts": child.starts,
        "clients": int(number(figures.get("connections_open"))),
        "messages": int(number(figures.get("messages_received"))),
        "memory": 0 if life is None else life.memory(),
    }


def merge_stats(found: Iterable[object]) -> dict[str, Any]:
    """The figures of all: numbers, `backends` and `stages`, as `Daemon.stats` has them."""
    figures: dict[str, Any] = {}
    backends: dict[str, dict[str, Number]] = {}
    stages: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in found:
        told = _table(one)
        _add(figures, told)
        for name, values in _items(told.get("backends")):
            _add(backends.setdefault(name, {}), _table(values))
        rows = told.get("stages")
        for row in rows[:_MAX_NAMES] if isinstance(rows, list) else ():
            _add_stage(stages, _table(row))
    return figures | {"backends": backends, "stages": list(stages.values())}


def _clients(status: object) -> Iterator[tuple[str, int]]:
    """How many each server has, by its name, of a child's `status`."""
    servers = _table(status).get("servers")
    for server in servers[:_MAX_NAMES] if isinstance(servers, list) else ():
        name, count = _table(server).get("name"), _table(server).get("clients")
        if isinstance(name, str):
            yield name, int(number(count))


def number(value: object) -> Number:
    """A number that can be shown and added; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return value if 0 <= value < _MAX_NUMBER else 0


def _add(to: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Adds the numbers among the values."""
    for name, value in list(values.items())[:_MAX_NAMES]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if _NAME.fullmatch(name) is None:
            continue
        before = to.get(name, 0)
        largest = name in _LARGEST or name.endswith(_AGE)
        to[name] = max(before, number(value)) if largest else before + number(value)


def _add_stage(stages: dict[tuple[str, ...], dict[str, Any]], row: Mapping[str, Any]) -> None:
    place = [row.get(key) for key in _STAGE]
    texts = [readable(text, _MAX_TEXT) for text in place if isinstance(text, str)]
    if len(texts) != len(_STAGE):
        return
    whole = stages.setdefault(tuple(texts), {**dict(zip(_STAGE, texts, strict=True))})
    _add(whole, {name: value for name, value in row.items() if name != _BUCKETS})
    buckets = whole.setdefault(_BUCKETS, {})
    for bound, count in _items(row.get(_BUCKETS)):
        buckets[bound] = buckets.get(bound, 0) + number(count)


def _items(value: object) -> list[tuple[str, Any]]:
    items = list(_table(value).items())[:_MAX_NAMES]
    return [(readable(name, _MAX_TEXT), one) for name, one in items]


def _table(value: object) -> Mapping[str, Any]:
    """An object of JSON, whose names are texts; empty for what is none."""
    return value if isinstance(value, dict) else {}
