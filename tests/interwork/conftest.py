"""What the tests with other mail servers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.dovecot import shared_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """For a sender: its own user has to enter it."""
    with shared_folder(in_memory=True) as found:
        yield found
