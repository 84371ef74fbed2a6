"""What nobody may see of a login: the password of an error, the name, the values of a stack."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from guerrilla._core import Credentials, Login, Reply, Transaction
from guerrilla.engine.base import Processor
from guerrilla.engine.worker import PoolSettings, WorkerPool, labels
from guerrilla.errors import NoSuchUser, Unavailable
from guerrilla.reply import LOG_IN_LATER
from tests.chains import chain_of, errors_logged
from tests.logins import SECRET, Asked, Batch, login, throws, told


class Quoting(Exception):
    """An error of a library that says what it was given."""


def seen(caplog: pytest.LogCaptureFixture) -> str:
    """All that a log of any form could have of the records: traces and arguments too."""
    form = logging.Formatter("%(name)s %(message)s")
    return "\n".join(form.format(record) + repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    "error",
    [
        Quoting(f"bad password {SECRET}"),
        Quoting({"password": SECRET}),
        Unavailable(f"refused {SECRET!r}"),
        NoSuchUser(SECRET),
        ExceptionGroup("several", [Quoting(SECRET)]),
    ],
)
def test_a_password_in_an_error_reaches_no_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def act(user: str, password: str) -> Any:
        raise type(error)(*error.args) from error

    def batch(logins: Sequence[Login]) -> Any:
        raise error

    class Waiting(Processor):
        async def authenticate(  # type: ignore[override]
            self, transaction: Transaction, credentials: Credentials
        ) -> Reply | None:
            raise error

    for stage in (Asked(act), Batch(batch), Waiting(Processor.Options())):
        caplog.clear()
        several = [login(), login()]
        with chain_of(stage, task="authenticate") as chain:
            chain.run(several)
        assert [one.answered for one in several] == [LOG_IN_LATER] * 2
        text = seen(caplog)
        assert "client" in text
        assert type(error).__name__ in text
        for form in (SECRET, repr(SECRET)[1:-1], "tanst"):
            assert form not in text


def test_an_error_without_the_password_keeps_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    assert told(throws(Quoting("of the network"))) == LOG_IN_LATER
    (record,) = errors_logged(caplog)
    assert record.exc_info is not None
    assert "of the network" in seen(caplog)


def test_what_logs_call_a_login_is_its_client_and_not_the_name_it_gave() -> None:
    """Which may be a password in the wrong field."""
    assert re.fullmatch(r"PLAIN login of client \d+", labels([login("hunter2")]))


def test_the_stack_of_a_worker_that_hangs_has_no_values(
    caplog: pytest.LogCaptureFixture, until: Callable[[Callable[[], object]], None]
) -> None:
    caplog.set_level(logging.DEBUG)
    release = threading.Event()
    entered = threading.Event()

    def act(user: str, password: str) -> Any:
        entered.set()
        release.wait(30)

    batches: list[list[Login]] = [[login()]]
    pool: WorkerPool[Login] = WorkerPool(
        PoolSettings("authenticate", 1, 64, 0.01),
        lambda: chain_of(Asked(act), task="authenticate"),
        lambda _most, _timeout: batches.pop() if batches else None,
    )
    pool.open()
    pool.begin()
    try:
        until(entered.is_set)
        until(lambda: "release.wait(30)" in pool._workers[0].stack())
        pool.check(0.0)
        pool.check(1.0)
        assert pool.abandoned == 1
        text = seen(caplog)
        assert "hangs for 1 s, abandoned: PLAIN login of client" in text
        assert "release.wait(30)" in text
        assert SECRET not in text
    finally:
        release.set()
        pool.end(5)
