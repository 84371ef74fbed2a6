"""Several daemons in one process: each has its own log, its own level, and its own records."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from guerrilla.daemon import Daemon
from tests.daemons import Make, config, send

ROOT = logging.getLogger("guerrilla")


def lines(path: Path, part: str = " guerrilla.mail ") -> int:
    """How often a log has it."""
    return path.read_text().count(part) if path.exists() else 0


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one.log", tmp_path / "two.log"


@pytest.fixture
def two(make: Make, logs: tuple[Path, Path]) -> tuple[Daemon, Daemon]:
    """Two daemons that do not run, both with their logs at info."""
    one, other = (make({**config(), "log_file": str(log), "log_level": "info"}) for log in logs)
    return one, other


def test_the_lines_of_messages_go_to_the_log_of_their_daemon(
    two: tuple[Daemon, Daemon], logs: tuple[Path, Path]
) -> None:
    one, other = two
    with one, other:
        assert [send(daemon)[0] for daemon in (one, one, other)] == [250] * 3
    assert [lines(log) for log in logs] == [2, 1]


def test_the_end_of_one_takes_nothing_from_another(
    two: tuple[Daemon, Daemon], logs: tuple[Path, Path]
) -> None:
    """Whichever started first."""
    before = ROOT.level
    one, other = two
    with other:
        with one:
            pass
        assert send(other)[0] == 250
    assert lines(logs[1]) == 1
    one.start()
    with other:
        one.shutdown()
        assert send(other)[0] == 250
    assert lines(logs[1]) == 2
    assert ROOT.level == before


def test_each_has_its_level(make: Make, logs: tuple[Path, Path]) -> None:
    quiet = make({**config(), "log_file": str(logs[0]), "log_level": "error"})
    loud = make({**config(), "log_file": str(logs[1]), "log_level": "debug"})
    with loud, quiet:
        logging.getLogger("guerrilla.own").info("of a program")
        logging.getLogger("guerrilla.own").error("of a program")
        assert send(loud)[0] == send(quiet)[0] == 250
    assert lines(logs[0]) == 0
    assert lines(logs[1]) == 1
    # What Python code logs is nobody's: each has it from its own level on.
    assert [lines(log, "of a program") for log in logs] == [1, 2]


def test_an_applications_handler_hears_all_of_them(
    two: tuple[Daemon, Daemon], logs: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    with caplog.at_level(logging.INFO), one, other:
        assert [send(daemon)[0] for daemon in two] == [250] * 2
    assert sum(record.name == "guerrilla.mail" for record in caplog.records) == 2
    assert [lines(log) for log in logs] == [1, 1]
