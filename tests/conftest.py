"""What the tests of the engine share."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import hypothesis
import pytest

from guerrilla._core import Envelope
from guerrilla.engine.registry import DECORATED
from tests.daemons import keeper, make  # fixtures  # noqa: F401
from tests.redises import open_redis  # a fixture  # noqa: F401
from tests.reloads import running  # a fixture  # noqa: F401
from tests.services.fixtures import (  # fixtures  # noqa: F401
    database_authority,
    mariadb,
    mortal,
    mortal_mariadb,
    mortal_postgresql,
    place,
    postgresql,
)
from tests.services.redis import empty_redis, own_redis, redis_server  # fixtures  # noqa: F401
from tests.shelves import shelf, spooling  # fixtures  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The same few examples each time; `make fuzz-dialogues` takes many others.
hypothesis.settings.register_profile("short", max_examples=500, derandomize=True, deadline=None)
hypothesis.settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what makes a test a long one."""
    parser.addoption("--abuse", default=40, type=int, help="connections of each kind of abuse")
    parser.addoption(
        "--faults", default="short", choices=["short", "full"], help="rounds of tests/faults"
    )


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    """Forgets, after each test, what it registered by decorator."""
    before = dict(DECORATED._classes)
    yield
    DECORATED._classes.clear()
    DECORATED._classes.update(before)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A test that fails between must not leave its handlers to the next."""
    logger = logging.getLogger("guerrilla")
    before, level = list(logger.handlers), logger.level
    yield
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


@pytest.fixture
def mail() -> Callable[..., Envelope]:
    """Makes envelopes from nowhere: `mail("subject", rcpt_to=[...])`."""

    def create(subject: str = "hello", *rcpt_to: str, queued_id: str | None = None) -> Envelope:
        return Envelope.create(
            f"Subject: {subject}\r\n\r\nbody\r\n".encode(),
            mail_from="from@example.org",
            rcpt_to=rcpt_to or ("to@example.com",),
            queued_id=queued_id,
        )

    return create


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Waits until something is true, and fails when it does not become so in 10 s."""

    def wait(true: Callable[[], object]) -> None:
        limit = time.monotonic() + 10
        while not true():
            assert time.monotonic() < limit, "it did not happen within 10 s"
            time.sleep(0.005)

    return wait
