"""Servers that mails are stored into: stopped, restarted, hung, slow, cut off, under load."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.behind import WORKERS, Behind, php_behind, redis_behind, table_behind
from tests.faults.daemons import descriptors
from tests.faults.outages import Outage, cut_off, hung, outages, restarted, slowed, stopped
from tests.faults.tally import Tally
from tests.ledger import deliver
from tests.running import RunningDaemon
from tests.services.mariadb import MariaDB
from tests.wire import until

SENDERS = 50
HITS = {stopped: 1, restarted: 1, cut_off: 6}
"""How often a round takes from the store what senders have in hand, which is one mail each. The
other 451s are of a store that was not there, and leave no copy. Who hangs is sent more."""
UNKNOWN = "doubled: 451, as the store's answer was lost"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """PostgreSQL in full only: most of its code is that of MariaDB."""
    if "behind" in metafunc.fixturenames:
        full = metafunc.config.getoption("--faults") == "full"
        stores = ["Redis", "MariaDB", "PHP-FPM", *(["PostgreSQL"] if full else [])]
        metafunc.parametrize("behind", stores, indirect=True, scope="module")


@pytest.fixture(scope="module")
def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    """Each store in turn, behind a proxy."""
    name: str = request.param
    folder = tmp_path_factory.mktemp("behind")
    with contextlib.ExitStack() as stack:
        if name == "Redis":
            yield stack.enter_context(redis_behind(folder))
        elif name == "PHP-FPM":
            yield stack.enter_context(php_behind(folder))
        else:
            server = request.getfixturevalue(f"mortal_{name.lower()}")
            yield stack.enter_context(table_behind(name, server))


@pytest.fixture(scope="module")
def daemon(behind: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Stores into it; one for all that happens to it."""
    with RunningDaemon(tmp_path_factory.mktemp("daemon"), config=behind.config()) as running:
        idle = descriptors(running.pid)
        yield running
        # Each worker had its connection from the start; one more may be ending.
        until(lambda: descriptors(running.pid) <= idle + WORKERS)


@pytest.mark.parametrize("outage", [stopped, restarted, hung, slowed, cut_off])
def test_what_was_answered_250_is_stored(
    behind: Behind,
    outage: Outage,
    daemon: RunningDaemon,
    full: bool,
    tally: Callable[[str, str], Tally],
) -> None:
    mails, rounds = behind.mails(2_000 if full else 250), 4 if full else 1
    disturb = outages(behind, [outage] * rounds)
    # A stop takes its time, in which a fast store would have all of them.
    pause = 0.1 if outage in {stopped, restarted} else 0.0
    sent = deliver(daemon.port, mails, connections=SENDERS, disturb=disturb, pause=pause)
    assert sent.dropped == sent.lost_answers == 0  # The senders' own connections live on.
    name = outage.__name__.replace("_", " ")
    row = tally(f"store {name}", behind.name).audit(
        sent,
        behind.stored_of(sent),
        rounds=rounds,
        deferred_may_be_stored=outage is not slowed,
        most_copies=SENDERS * rounds * HITS[outage] if outage in HITS else None,
        note=UNKNOWN if outage is not slowed else "200 ms each way",
    )
    if outage in {stopped, hung}:
        assert row.refused >= 10 * rounds


def test_a_server_that_hangs_beyond_gw_save_timeout(
    mortal_mariadb: MariaDB, tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """The daemon's own limit comes first: workers are abandoned, and may save late."""
    rounds = 3 if full else 1
    with table_behind("MariaDB", mortal_mariadb, answers="20s") as behind:
        with RunningDaemon(tmp_path, config=behind.config(gw_save_timeout="500ms")) as daemon:
            mails = behind.mails(1_000 if full else 250)
            disturb = outages(behind, [hung] * rounds)
            sent = deliver(daemon.port, mails, connections=SENDERS, disturb=disturb)
            log = daemon.log_text()
        assert "not saved in time, answered 451" in log
        row = tally("store hung beyond gw_save_timeout", behind.name).audit(
            sent, behind.stored_of(sent), rounds=rounds, deferred_may_be_stored=True, note=UNKNOWN
        )
    assert row.refused >= 10 * rounds
