"""Bad networks between senders and the daemon: late, in single octets, stalled, reset."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.faults.outages import FELT, until
from tests.faults.proxy import Cut, Direction, Proxy
from tests.faults.tally import Tally
from tests.ledger import Ledger, Mail, deliver, make_mails, mixed_mails, reach
from tests.running import RunningDaemon

STORE = "SQLite"
CONNECTIONS = 50
LATE = 0.05
"""Seconds each way."""
WHERE: dict[Cut, str] = {
    "within": "within DATA",
    "dot": "after the dot",
    "reply": "before the reply",
}


@pytest.fixture
def timeout() -> str:
    """Of the daemon."""
    return "60s"


@pytest.fixture
def daemon(tmp_path: Path, timeout: str) -> Iterator[RunningDaemon]:
    """Offers STARTTLS."""
    section = self_signed(tmp_path).section()
    tls = [f"tls.{key} = {json.dumps(value)}" for key, value in section.items()]
    server = "\n".join([f'timeout = "{timeout}"', *tls])
    folder = tmp_path / "daemon"
    folder.mkdir()
    with RunningDaemon(folder, server=server, backend="save_workers_size = 2") as running:
        yield running


@pytest.fixture
def proxy(daemon: RunningDaemon) -> Iterator[Proxy]:
    """Where senders connect to."""
    with Proxy(daemon.port) as between:
        yield between


def test_octets_that_are_late(
    daemon: RunningDaemon, proxy: Proxy, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    proxy.delay = LATE
    sent = _deliver(proxy, mixed_mails(1_500 if full else 150))
    assert proxy.late > 2 * len(sent.messages)
    name = f"network: {LATE * 1000:.0f} ms each way"
    row = tally(name, STORE).audit(sent, _stored(daemon))
    assert row.refused == row.unanswered == row.doubled == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "STARTTLS"])
def test_single_octets(
    daemon: RunningDaemon,
    proxy: Proxy,
    tls: bool,
    full: bool,
    tally: Callable[[str, str], Tally],
) -> None:
    """Both ways, also what is encrypted."""
    proxy.single = True
    sent = _deliver(proxy, make_mails(600 if full else 60), tls=tls, connections=20)
    name = f"network: single octets{', STARTTLS' if tls else ''}"
    row = tally(name, STORE).audit(sent, _stored(daemon))
    assert row.refused == row.unanswered == row.doubled == 0


@pytest.mark.parametrize("timeout", ["1s"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_way_that_stalls(
    daemon: RunningDaemon,
    proxy: Proxy,
    direction: Direction,
    full: bool,
    tally: Callable[[str, str], Tally],
) -> None:
    """What senders say is held back until they are told 421; what they are told, until they go.

    The connections whose answers are held back end with a reset, so that these are lost.
    """
    rounds = (2 if direction == "up" else 6) * (4 if full else 1)
    mails = mixed_mails(2_000 if full else 240)

    def disturb(ledger: Ledger) -> None:
        for turn in range(rounds):
            # Only in front of mails: who is told 421 at the EHLO makes no attempt of it.
            moment = CONNECTIONS + (len(mails) - 2 * CONNECTIONS) * turn // rounds
            reach(ledger, moment)
            proxy.stall(direction)
            ledger.most = None
            if direction == "up":
                over = _over(ledger) + FELT
                until(lambda: _over(ledger) >= over)  # noqa: B023
            else:
                until(lambda: proxy.held >= CONNECTIONS * 9 // 10)
                proxy.drop()
            proxy.go_on()

    sent = _deliver(proxy, mails, disturb=disturb)
    way = "senders" if direction == "up" else "answers"
    name = f"network: {way} stall"
    row = tally(name, STORE).audit(sent, _stored(daemon), rounds=rounds)
    if direction == "up":
        # What was held back came to connections that had been told 421: it was not taken.
        assert row.doubled == 0
        assert "timeout" in daemon.log_text()
    else:
        assert row.unanswered > 0


@pytest.mark.parametrize("cut", ["within", "dot", "reply"])
def test_a_connection_that_is_reset(
    daemon: RunningDaemon,
    proxy: Proxy,
    cut: Cut,
    full: bool,
    tally: Callable[[str, str], Tally],
) -> None:
    """Half a message is never stored; a whole one whose answer was lost, once more at most."""
    chance = random.Random(1)
    proxy.cut = lambda: cut if chance.random() < 0.3 else None
    sent = _deliver(proxy, mixed_mails(1_500 if full else 200))
    assert proxy.cuts >= len(sent.messages) // 10
    # Who was cut off within may have been sending still.
    assert sent.lost_answers + sent.dropped == proxy.cuts
    assert cut == "within" or sent.dropped == 0
    row = tally(f"network: reset {WHERE[cut]}", STORE).audit(
        sent, _stored(daemon), rounds=proxy.cuts
    )
    if cut == "within":
        assert row.doubled == 0
    if cut == "reply":  # Each of them had been saved.
        assert row.doubled == proxy.cuts


def _deliver(
    proxy: Proxy,
    mails: list[Mail],
    *,
    tls: bool = False,
    connections: int = CONNECTIONS,
    disturb: Callable[[Ledger], None] | None = None,
) -> Ledger:
    share = 1.0 if tls else 0.0
    return deliver(proxy.port, mails, connections=connections, tls=share, disturb=disturb)


def _stored(daemon: RunningDaemon) -> Iterator[bytes]:
    return (row["mail"] for row in daemon.rows())


def _over(ledger: Ledger) -> int:
    """Attempts that came to nothing."""
    return ledger.refusals + ledger.dropped + ledger.lost_answers
