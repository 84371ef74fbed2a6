"""Keys of TLS tickets get old, whatever becomes of one."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import pytest

from guerrilla.processes import rotation
from tests.wire import until


class Memory:
    """Counts rotations, of which the second fails."""

    def __init__(self) -> None:
        self.rotations = 0

    def rotate_tickets(self) -> None:
        self.rotations += 1
        if self.rotations == 2:
            raise OSError("no random octets")


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "guerrilla-tickets"]


def test_keys_are_made_again_and_again_until_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()
    monkeypatch.setattr(rotation, "EVERY", 0.005)
    with caplog.at_level(logging.INFO, "guerrilla.tls"), rotation.rotating(cast("Any", memory)):
        until(lambda: memory.rotations >= 4)
        assert len(threads()) == 1
    assert threads() == []
    rotations = memory.rotations
    assert [record.getMessage() for record in caplog.records] == [
        "no new key for TLS tickets, the old one stays: no random octets"
    ]
    assert memory.rotations == rotations


def test_the_end_waits_for_no_rotation() -> None:
    """Two keys are as long as a ticket is good."""
    memory = Memory()
    with rotation.rotating(cast("Any", memory)):
        assert len(threads()) == 1
    assert (memory.rotations, rotation.EVERY * 2) == (0, 12 * 60 * 60)
