"""The spool before stores that are away: no sender hears of it, and each gets each mail once."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guerrilla.control.client import ask
from tests.faults.behind import Behind, php_behind, redis_behind, table_behind
from tests.faults.outages import until
from tests.faults.tally import Tally
from tests.ledger import Ledger, audit, deliver, mixed_mails
from tests.running import RunningDaemon
from tests.services.mariadb import MariaDB

CONNECTIONS = 50
DRAINED = 120.0
"""Seconds: a mail that has failed waits five, and twice as long each time."""


@contextlib.contextmanager
def stopped(stores: list[Behind]) -> Iterator[None]:
    """As its owner would."""
    for store in stores:
        store.server.stop()
    try:
        yield
    finally:
        for store in stores:
            store.server.start()


@contextlib.contextmanager
def hung(stores: list[Behind]) -> Iterator[None]:
    """They take connections, and answer nothing."""
    for store in stores:
        store.server.pause()
    try:
        yield
    finally:
        for store in stores:
            store.server.resume()


@contextlib.contextmanager
def cut_off(stores: list[Behind]) -> Iterator[None]:
    """Their answers are held back, and then lost with the connections."""
    for store in stores:
        store.proxy.stall("down")
    try:
        yield
    finally:
        for store in stores:
            store.proxy.drop()
            store.proxy.go_on()


Away = Callable[[list[Behind]], contextlib.AbstractContextManager[None]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """In full in every way: each takes the ten seconds until a mail is tried again."""
    short = metafunc.config.getoption("--faults") == "short"
    metafunc.parametrize("away", [stopped] if short else [stopped, hung, cut_off])


@pytest.fixture
def stores(
    tmp_path_factory: pytest.TempPathFactory, mortal_mariadb: MariaDB
) -> Iterator[list[Behind]]:
    """Three, one behind the other in the chain. Behind Redis a table would hold no mails."""
    with (
        table_behind("MariaDB", mortal_mariadb) as first,
        php_behind(tmp_path_factory.mktemp("php")) as second,
        redis_behind(tmp_path_factory.mktemp("redis")) as third,
    ):
        yield [first, second, third]


def test_all_is_stored_once_when_they_are_back(
    away: Away,
    stores: list[Behind],
    tmp_path: Path,
    full: bool,
    tally: Callable[[str, str], Tally],
) -> None:
    """Whatever had failed, and however often: the `queued_id` stays the same."""
    mails = mixed_mails(2_000 if full else 300)
    half = len(mails) // 2

    with (
        RunningDaemon(tmp_path, config=_config(stores, tmp_path / "spool")) as daemon,
        contextlib.ExitStack() as absence,
    ):

        def disturb(ledger: Ledger) -> None:
            """They go while their workers have mails in hand."""
            until(lambda: ledger.delivered >= half // 5)
            absence.enter_context(away(stores))

        before = deliver(daemon.port, mails[:half], connections=CONNECTIONS, disturb=disturb)
        sent = deliver(daemon.port, mails[half:], connections=CONNECTIONS)
        assert _stats(daemon)["spool_depth"] >= half
        # A store that stands still is noticed only at the time limits of who waits for it.
        until(lambda: _stats(daemon)["spool_retries"] > 0, DRAINED)
        absence.close()
        until(lambda: _stats(daemon)["spool_depth"] == 0, DRAINED)
        stats = _stats(daemon)
    assert before.attempts == sent.attempts == half
    assert stats["spool_retries"] > 0
    assert stats["spool_done"] == len(mails)
    name = away.__name__.replace("_", " ")
    for store in stores:
        assert audit(before, store.stored_of(before), most_copies=0, strict=True) == 0
        note = f"behind the spool, {stats['spool_retries']:,} retries"
        row = tally(f"store {name}, spool", store.name).audit(
            sent, store.stored_of(sent), note=note
        )
        assert row.doubled == 0


def _config(stores: list[Behind], spool: Path) -> str:
    *others, last = stores
    chain = "|".join(["250", "HeadersParser", "Hasher", "Header", *(one.stage for one in others)])
    keys = {key: value for one in others for key, value in one.keys.items()}
    return f"{last.config(chain, **keys)}\n[spool]\npath = {json.dumps(os.fspath(spool))}\n"


def _stats(daemon: RunningDaemon) -> dict[str, int]:
    found: dict[str, int] = ask(f"{daemon.config_file}.sock", "stats")["result"]
    return found
