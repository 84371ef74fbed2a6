"""The INSERT of a store: our own, or one that a config writes as Go-Guerrilla has it.

Go-Guerrilla's `sql_insert` is the statement up to its first row, and `sql_values` is one row with a
mark for each value; it fills in the marks in an order of its own (`GO_MARKS`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from guerrilla.store.schema import COLUMNS, FIELDS, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla.store.dialects import Dialect
    from guerrilla.store.rows import Value

GO_MARKS: Final = (
    "to",
    "from",
    "subject",
    "body",
    "mail",
    "hash",
    "content_type",
    "recipient",
    "ip_addr",
    "return_path",
    "is_tls",
    "message_id",
    "reply_to",
    "sender",
)
"""What the marks of `sql_values` stand for, in their order."""

GO_COLUMNS: Final = (
    "date",
    *GO_MARKS[:5],
    "spam_score",
    *GO_MARKS[5:8],
    "has_attach",
    *GO_MARKS[8:],
)
"""The columns of Go-Guerrilla's own INSERT, in its order."""

_TOKEN: Final = re.compile(
    r"(?P<quoted>'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`)"
    r"|(?P<plain>\?)|\$(?P<number>[0-9]+)|(?<!:):(?P<name>[a-z_]+)"
)


class Target(NamedTuple):
    """Where rows go."""

    table: str
    columns: tuple[str, ...] = COLUMNS
    """Of `schema.FIELDS`; an existing table may lack `queued_id`."""
    insert: str = ""
    """`sql_insert`; empty for an INSERT into `table`."""
    values: str = ""
    """`sql_values`; empty for a value a column."""

    @property
    def is_own(self) -> bool:
        """The INSERT is ours; else the config wrote a part of it."""
        return not (self.insert or self.values)


@dataclass(frozen=True)
class Statement:
    """An INSERT of any number of rows: `head`, rows with commas between, `tail`.

    Attributes:
        head: up to the first row.
        literals: the text of one row around its values: one more than those.
        columns: the field that each value is, of `schema.FIELDS`.
        tail: what follows the last row.
    """

    head: str
    literals: tuple[str, ...]
    columns: tuple[str, ...]
    tail: str = ""

    def picker(self) -> Callable[[tuple[Value, ...]], tuple[Value, ...]]:
        """Takes the values of `columns` from those of a row."""
        if not self.columns:
            return lambda _: ()
        if len(self.columns) == 1:
            only = FIELDS.index(self.columns[0])
            return lambda values: (values[only],)
        return itemgetter(*(FIELDS.index(name) for name in self.columns))

    def row(self, marks: Sequence[str]) -> str:
        """One row with these in the places of its values."""
        pairs = zip(self.literals, (*marks, ""), strict=True)
        return "".join(literal + mark for literal, mark in pairs)


def own_statement(
    dialect: Dialect, table: str, columns: Sequence[str], *, skip_repeats: bool
) -> Statement:
    """Our INSERT of these columns; a repeat is passed over by `KEY` alone when it is to be."""
    return Statement(
        dialect.insert_head(table, columns),
        ("(", *([", "] * (len(columns) - 1)), ")"),
        tuple(columns),
        dialect.skip_repeats() if skip_repeats else "",
    )


def written_statement(dialect: Dialect, target: Target) -> Statement:
    """The INSERT of a config; what of the two keys is empty is as in Go-Guerrilla.

    `date` is then the time of receipt, not `NOW()`.

    Raises:
        StoreError: the marks are wrong; its `key` is the key to mend.
    """
    head = target.insert.rstrip() or dialect.insert_head(target.table, GO_COLUMNS).rstrip()
    if not target.values:
        row = own_statement(dialect, target.table, GO_COLUMNS, skip_repeats=False)
        return Statement(head + " ", row.literals, row.columns)
    literals, columns = _parse(target.values)
    return Statement(head + " ", literals, columns)


def _parse(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text around the marks, and what each of them stands for."""
    literals = [""]
    columns: list[str] = []
    kinds: set[str] = set()
    end = 0
    for found in _TOKEN.finditer(text):
        if found["quoted"] is not None:
            continue
        kinds.add(str(found.lastgroup))
        literals[-1] += text[end : found.start()]
        literals.append("")
        columns.append(_column(found, len(columns)))
        end = found.end()
    literals[-1] += text[end:]
    if len(kinds) > 1:
        raise _wrong("marks of one kind, not several")
    if kinds == {"plain"} and len(columns) != len(GO_MARKS):
        raise _wrong(f"{len(GO_MARKS)} marks '?', found {len(columns)}: {', '.join(GO_MARKS)}")
    if "mail" not in columns:
        raise _wrong("a mark for the column mail: without it no mail is stored")
    return tuple(literals), tuple(columns)


def _column(found: re.Match[str], index: int) -> str:
    if found["name"] is not None:
        if found["name"] not in FIELDS:
            raise _wrong(f"a name of {', '.join(FIELDS)} after ':', found {found['name']!r}")
        return found["name"]
    if found["number"] is None:
        # More marks than there are values are told with their count.
        return GO_MARKS[min(index, len(GO_MARKS) - 1)]
    number = int(found["number"])
    if not 1 <= number <= len(GO_MARKS):
        raise _wrong(f"marks $1 to ${len(GO_MARKS)}, found ${number}")
    return GO_MARKS[number - 1]


def _wrong(what: str) -> StoreError:
    return StoreError(f"expected {what}", key="sql_values")
