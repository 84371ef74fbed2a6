"""A folder of its own for each test of the commands."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that no config of the machine is found, and no signal handler outlives its test."""
    monkeypatch.chdir(tmp_path)
    numbers = (*(getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "HUP", "USR1")),)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
