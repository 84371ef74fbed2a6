"""The pytest plugin: fixtures for tests of programs that send mail.

Every run of pytest imports this module, also those that need nothing of it; so it imports nothing
but pytest, which is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guerrilla.testing.server import GuerrillaServer


@pytest.fixture
def guerrilla_server_options() -> dict[str, Any]:
    """The arguments of the `GuerrillaServer` of `guerrilla_server`; a test overrides it."""
    return {}


@pytest.fixture
def guerrilla_server(guerrilla_server_options: dict[str, Any]) -> Iterator[GuerrillaServer]:
    """A running SMTP server of the test's own, on a free port of 127.0.0.1."""
    from guerrilla.testing.server import GuerrillaServer  # noqa: PLC0415 - see above

    with GuerrillaServer(**guerrilla_server_options) as server:
        yield server
