"""A request on the control socket: one line, which names a command and what it is given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_LINE: Final = 64 * 2**10
"""Bytes of a request with its line end; and of an answer about the spool, which comes in pages."""

_NO_REQUEST: Final = 'a request is an object such as {"command": "status"}'
_KEYS: Final = frozenset({"command", "arguments"})


class Request(NamedTuple):
    """What is asked for."""

    command: str
    arguments: Mapping[str, Any]


class Arguments(BaseModel):
    """What a command is given; a subclass has its fields. As strict as JSON is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def read_request(line: bytes, known: Collection[str]) -> Request:
    """Reads a line.

    Raises:
        ValueError: it is no request, or for a command that is not `known`.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    request: dict[str, Any] = found if isinstance(found, dict) else {}
    name = request.get("command")
    if not isinstance(name, str) or not request.keys() <= _KEYS:
        raise ValueError(f'{_NO_REQUEST}, with "arguments" beside it where it takes some')
    arguments = request.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError("arguments: expected an object")  # noqa: TRY004  # of who asks, as above
    if name not in known:
        raise ValueError(f"unknown command {name[:60]!r}; known: {', '.join(known)}")
    return Request(name, arguments)


def read_arguments(kind: type[Arguments], given: Mapping[str, Any]) -> Any:
    """The arguments of a command, checked; one of `kind`.

    Raises:
        ValueError: the first that is wrong, by its name.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step)[:60] for step in ("arguments", *first["loc"]))
        raise ValueError(f"{where}: {first['msg']}") from None
