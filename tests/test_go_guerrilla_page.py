"""`docs/go-guerrilla.md`: each fact has its test, and none of them is gone."""

from __future__ import annotations

from typing import Final

import pytest

from guerrilla.events import Event
from tests.documents import ROOT, conversations, functions, missing, rows

TEXT: Final = (ROOT / "docs" / "go-guerrilla.md").read_text(encoding="utf-8")
ROWS: Final = rows(TEXT)


def section(title: str) -> list[list[str]]:
    """The rows below a heading."""
    return rows(TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_each_fact_has_its_test(row: list[str]) -> None:
    fact, here, shown = row
    assert fact
    assert here
    assert functions(shown) | {(name, "") for name in conversations(shown)}


def test_the_tests_it_names_exist() -> None:
    assert missing(TEXT) == []


def test_a_test_that_is_gone_is_missed() -> None:
    here = "tests/test_go_guerrilla_page.py"
    text = f"`none.smtp` `{here}::test_gone` `{here}::section` `tests/gone.py::test_it` `ehlo.smtp`"
    assert missing(f"{text} `{here}::test_each_fact_has_its_test` `rust/src/few.rs::gone`") == [
        "none.smtp",
        "rust/src/few.rs::gone",
        "tests/gone.py::test_it",
        f"{here}::section",
        f"{here}::test_gone",
    ]


def test_no_event_and_no_fault_is_left_out() -> None:
    """Of what is known: 17 events, 22 faults, and 20 things that a program can do or finds set."""
    events = [event for event in Event if event.partition(":")[0].endswith("_change")]
    assert [row[0] for row in section("Events")] == [f"`{event}`" for event in events]
    assert len(section("Faults that it has, and what happens here")) == 22
    assert len(section("As a package")) == 20
