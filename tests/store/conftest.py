"""A database of its own for each test of the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guerrilla.store import database, sqlite
from tests.store.mails import TABLE
from tests.store.opened import OPEN

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail.db"


@pytest.fixture
def store(path: Path) -> Iterator[sqlite.SQLiteStore]:
    opened = sqlite.connect(str(path), TABLE)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    """Closes what a test has opened on a server."""
    yield
    while OPEN:
        OPEN.pop().close()
