"""What the faults share: how long they take, their verdicts, and the table at the end.

`--faults short` is what `make test` runs; `--faults full` (`make faults`) has more rounds and more
mails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults import table
from tests.faults.disk.disk import Disk, build
from tests.faults.tally import Tally

WRITE: Final = "GUERRILLA_WRITE_FAULTS"
"""Environment variable: a full session of all tests that passes writes its table into the page."""

_TIMEOUTS: Final = {"short": 120, "full": 600}
"""Seconds a test, where it does not say otherwise: a machine that is busy is slow."""

_ROWS: Final = pytest.StashKey[list[table.Row]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begins the table."""
    config.stash[_ROWS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives each fault its time."""
    seconds = _TIMEOUTS[config.getoption("--faults")]
    for item in items:
        if "tests/faults/" in item.nodeid and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Prints the table; writes it where that is wished and everything passed."""
    found = config.stash[_ROWS]
    rows = table.in_order(found)
    if not rows:
        return
    is_full = config.getoption("--faults") == "full"
    if is_full or config.get_verbosity() > 0:
        terminalreporter.section("faults")
        for line in table.as_lines(rows):
            terminalreporter.write_line(line)
    if not (os.environ.get(WRITE) and is_full and exitstatus == pytest.ExitCode.OK):
        return
    if any(terminalreporter.stats.get(kind) for kind in ("deselected", "skipped")):
        terminalreporter.write_line(f"not written to {table.PAGE.name}: not every test has run")
        return
    table.write(rows)
    terminalreporter.write_line(f"written to {table.PAGE.name}")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all rounds."""
    return bool(request.config.getoption("--faults") == "full")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str, str], Tally]:
    """`tally(fault, store)`: what judges that fault, and records its row."""

    def make(fault: str, store: str) -> Tally:
        return Tally(request.config.stash.setdefault(_ROWS, []), fault, store)

    return make


@pytest.fixture(scope="session")
def disk_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that rules over a disk, compiled."""
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def disk(disk_library: Path, tmp_path: Path) -> Iterator[Disk]:
    """An empty disk."""
    folder = tmp_path / "ruled"
    folder.mkdir()
    made = Disk(disk_library, folder)
    yield made
    made.close()
