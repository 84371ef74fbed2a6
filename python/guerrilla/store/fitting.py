"""How rows fit a table that is there: which columns it has, and what they can hold.

A table of Go-Guerrilla may have shorter columns than ours, others that need a value, or a character
set that cannot hold every character. Under strict rules each would refuse a mail for ever, so the
text that is told about a mail is cut and narrowed to what the column holds. The mail itself never
is: a table that cannot hold its bytes is refused.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from guerrilla.store.schema import FIELDS, KEY, TEXT_LIMIT, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guerrilla.store.rows import Value
    from guerrilla.store.statement import Target

_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_IN_OWN_FORM: Final = frozenset({"date", "spam_score", "has_attach", "is_tls", "mail", "ip_addr"})


class Column(NamedTuple):
    """A column of a table that is there."""

    type: str
    """As the database names it, lower case."""
    binary: bool
    """It holds bytes."""
    length: int | None
    """Of text in characters, of bytes in bytes; None for no limit that matters."""
    optional: bool
    """An INSERT may leave it out."""
    codec: str | None = None
    """Of Python, for text that cannot hold every character: `latin-1`, `utf-8-bmp`."""


class Fitting(NamedTuple):
    """What is inserted into a table, and how."""

    columns: tuple[str, ...]
    fits: tuple[tuple[int, Callable[[Value], Value]], ...]
    """For some of the columns, by their place: makes the value fit. Never for `mail`."""
    mail_limit: int | None
    """Bytes of the column `mail`."""


def fit(found: Mapping[str, Column], target: Target, where: str) -> Fitting:
    """Compares a table with what is to be inserted.

    Args:
        found: its columns by their names in lower case.
        target: says which columns are wanted.
        where: the table, for errors.

    Raises:
        StoreError: a column is missing, or cannot hold what belongs there.
    """
    missing = [name for name in target.columns if name not in found and name != "queued_id"]
    if missing:
        raise _unusable(f"{where} has no column {', '.join(missing)}")
    columns = [name for name in target.columns if name in found]
    needed = [name for name, column in found.items() if not column.optional]
    columns += [name for name in needed if name in FIELDS and name not in columns]
    unknown = [name for name in needed if name not in columns and name != "mail_id"]
    if unknown:
        raise _unusable(f"{where} wants a value for {', '.join(unknown)}: give it a default")
    mail = found["mail"]
    if not mail.binary:
        raise _unusable(f"{where}: mail has to hold bytes, and is of the type {mail.type}")
    fits = [
        (place, change)
        for place, name in enumerate(columns)
        if (change := _fit_of(name, found[name])) is not None
    ]
    return Fitting(tuple(columns), tuple(fits), mail.length)


def require_key_length(found: Mapping[str, Column], where: str) -> None:
    """Whether a unique key on `KEY` tells all recipients apart.

    Raises:
        StoreError: a column of it is too short.
    """
    for name in KEY:
        length = found[name].length
        if length is not None and length < TEXT_LIMIT:
            raise _unusable(
                f"{where}: {name} is in a unique key and holds {length} characters, so that a mail "
                f"could be taken for another: it has to hold {TEXT_LIMIT}"
            )


def _unusable(what: str) -> StoreError:
    return StoreError(f"the table {what}", key="mail_table")


def _fit_of(name: str, column: Column) -> Callable[[Value], Value] | None:
    if name == "ip_addr":
        if not column.binary:
            return partial(_ip_text, column.length)
        return None
    if name in _IN_OWN_FORM or column.binary:
        return None
    short = column.length is not None and column.length < TEXT_LIMIT
    if not short and column.codec is None:
        return None
    return partial(_narrowed, column.length if short else None, column.codec)


def _narrowed(length: int | None, codec: str | None, value: Value) -> Value:
    text = str(value)
    if codec == "utf-8-bmp":
        if not text.isascii():
            text = "".join(char if char <= "\uffff" else "\ufffd" for char in text)
    elif codec is not None:
        text = text.encode(codec, "replace").decode(codec)
    return text if length is None else text[:length]


def _ip_text(length: int | None, value: Value) -> Value:
    """The address as text, where the column holds no bytes."""
    if not isinstance(value, bytes):
        return value
    if value.startswith(_V4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, value[len(_V4_MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, value)[:length]


def fitted(
    values: tuple[Value, ...], fits: Sequence[tuple[int, Callable[[Value], Value]]]
) -> Sequence[Value]:
    """The values of a row, made to fit."""
    if not fits:
        return values
    changed = list(values)
    for place, change in fits:
        changed[place] = change(changed[place])
    return changed
