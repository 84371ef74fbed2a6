"""What a session of faults has found: a row a fault, as a table on the terminal and in its page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN: Final = "<!-- faults: written by make faults WRITE=1 -->\n"
END: Final = "<!-- end of faults -->\n"

HEAD: Final = (
    "fault",
    "store",
    "rounds",
    "sent",
    "answered 250",
    "refused 4xx",
    "refused 5xx",
    "unanswered",
    "stored",
    "lost",
    "doubled",
    "note",
)


@dataclass(frozen=True)
class Row:
    """One fault before one store; `docs/reliability.md` says what the figures are."""

    fault: str
    store: str
    rounds: int = 1
    sent: int = 0
    answered: int = 0
    refused: int = 0
    rejected: int = 0
    unanswered: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    note: str = ""

    @property
    def cells(self) -> list[str]:
        """As text, in the order of `HEAD`."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [f"{value:,}" if isinstance(value, int) else value for value in values]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By name, whatever the order of the tests was."""
    return sorted(rows, key=lambda row: (row.fault, row.store))


def summed(rows: Iterable[Row]) -> str:
    """The line below the table."""
    rows = list(rows)
    return (
        f"sent {sum(row.sent for row in rows):,}, "
        f"answered {sum(row.answered for row in rows):,}, "
        f"stored {sum(row.stored for row in rows):,}, "
        f"lost {sum(row.lost for row in rows):,}, "
        f"doubled {sum(row.doubled for row in rows):,}"
    )


def as_lines(rows: Sequence[Row]) -> list[str]:
    """The table for a terminal, and its sum."""
    table = [list(HEAD), *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        padded = [
            cell.rjust(width) if 2 <= at < len(HEAD) - 1 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return [*lines, "", summed(rows)]


def as_markdown(rows: Sequence[Row]) -> str:
    """The table for the page, and its sum."""
    rule = ["---", "---", *["---:"] * (len(HEAD) - 3), "---"]
    lines = [f"| {' | '.join(HEAD)} |", f"|{'|'.join(rule)}|"]
    lines += [f"| {' | '.join(row.cells)} |" for row in rows]
    return "\n".join([*lines, "", f"In all: {summed(rows)}.", ""])


def write(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Puts the table between the marks of the page.

    Raises:
        AssertionError: a row that was there is missing: a part of the tests has run, or one does
            not judge any more. Where a fault is gone for good, its row is removed by hand.
    """
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, mark, after = rest.partition(END)
    assert mark, f"{page} has no marks"
    lines = [line for line in old.splitlines()[2:] if line.startswith("| ")]
    known = {tuple(line.removeprefix("| ").split(" | ")[:2]) for line in lines}
    gone = sorted(known - {(row.fault, row.store) for row in rows})
    assert not gone, f"no rows of {gone}"
    page.write_text(f"{before}{BEGIN}{as_markdown(rows)}{END}{after}", encoding="utf-8")
