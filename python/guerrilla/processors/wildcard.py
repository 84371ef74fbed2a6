"""Wildcard: takes recipients at hosts that match a pattern, and refuses all others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import pydantic

from guerrilla._core import Reply
from guerrilla.config.fields import is_literal, pattern_in_ascii
from guerrilla.engine.base import Processor
from guerrilla.errors import expected

if TYPE_CHECKING:
    from guerrilla._core import Address, Transaction

__all__ = ["Wildcard"]

_PLAIN: Final = re.compile(r"[a-z0-9_.:*?\[\]^!-]+")
_SCHEMA: Final = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}


class Wildcard(Processor):
    """Refuses a recipient whose host matches none of `wildcard_hosts`, with `550 5.1.2`.

    It only narrows: a host that `allowed_hosts` does not have is refused before any processor is
    asked. It stores nothing.
    """

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        wildcard_hosts: Annotated[
            tuple[str, ...],
            pydantic.Field(validate_default=True),
            pydantic.WithJsonSchema(_SCHEMA),
        ] = ()
        """Hosts that are served, in any case and either form of IDNA: names and patterns, as a
        list, or as a text with commas between them. `*` is any number of characters, `?` is one,
        `[a-z]` one of a set and `[!a-z]` one of no set; they match dots too. A chain that names
        Wildcard needs at least one."""

        @pydantic.field_validator("wildcard_hosts", mode="before")
        @classmethod
        def _hosts(cls, value: object) -> tuple[str, ...]:
            return _folded(value)

    def __init__(self, options: Options) -> None:
        """Makes one expression of all patterns."""
        super().__init__(options)
        hosts = options.wildcard_hosts
        self._matches = re.compile("|".join(map(_expression, hosts)), re.DOTALL).fullmatch

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Refuses a host that matches no pattern; passes the question on otherwise."""
        del transaction
        host = recipient.host
        if self._matches(recipient.ascii_host):
            return None
        return Reply(550, "5.1.2", f"Host {host} is not served here")


def _folded(value: object) -> tuple[str, ...]:
    """The patterns, trimmed, in lower case and the A-form, each checked.

    Raises:
        ValueError: what was expected and what was found.
    """
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise expected("a list of hosts, or a text with commas between them", value)
    found = []
    for item in items:
        if not isinstance(item, str):
            raise expected("a host name or a pattern such as '*.example.com'", item)
        if not item.strip() and isinstance(value, str):
            continue  # "a.example, b.example," has no third host
        try:
            pattern = pattern_in_ascii(item.strip())
        except ValueError:
            pattern = ""
        if not _PLAIN.fullmatch(pattern):
            raise expected("a host name or a pattern such as '*.example.com'", item)
        _expression(pattern)
        found.append(pattern)
    if not found:
        raise expected("at least one host, as every recipient would be refused", value)
    return tuple(found)


def _expression(pattern: str) -> str:
    """The regular expression of one pattern, for the whole of a host in lower case.

    It takes linear time for each star: what a star has taken is not tried again, since whatever an
    earlier one could take the last can take too.

    Raises:
        ValueError: a set that is not closed, empty, or with a range that runs backwards.
    """
    if is_literal(pattern):  # [127.0.0.1] is no set of characters.
        return re.escape(pattern)
    first, *rest = re.split(r"\*+", pattern)
    parts = [_piece(first, pattern)]
    parts += [f"(?>.*?{_piece(piece, pattern)})" for piece in rest[:-1]]
    parts += [f".*{_piece(piece, pattern)}" for piece in rest[-1:]]
    return "".join(parts)


def _piece(text: str, pattern: str) -> str:
    """What stands between stars."""
    made = []
    while text:
        mark, text = text[0], text[1:]
        if mark == "[":
            inner, closed, text = text.partition("]")
            made.append(_set(inner, closed, pattern))
        else:
            made.append("." if mark == "?" else re.escape(mark))
    return "".join(made)


def _set(inner: str, closed: str, pattern: str) -> str:
    negated = "^" if inner[:1] in {"!", "^"} else ""
    inner = inner[1:] if negated else inner
    if not closed or not inner:
        raise expected("a set of characters such as [a-z], closed and not empty", pattern)
    members = ""
    while inner:
        low, high, length = inner[0], inner[0], 1
        if len(inner) > 2 and inner[1] == "-":  # noqa: PLR2004 - a range is three characters
            high, length = inner[2], 3
        if low > high:
            raise expected("a range of characters that runs forwards", pattern)
        members += f"{re.escape(low)}-{re.escape(high)}"
        inner = inner[length:]
    return f"[{negated}{members}]"
