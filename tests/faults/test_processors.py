"""Processors that hang, leak, exit, hold the GIL, or raise for one mail of a batch, under load."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerrilla.control.client import ControlError, ask
from tests.corpora import on_the_wire
from tests.faults.lives import Lives
from tests.faults.outages import until
from tests.faults.rogues import Rogue, tokens
from tests.faults.tally import Tally
from tests.ledger import Ledger, deliver, mixed_mails
from tests.running import RunningDaemon
from tests.wire import HELLO, Wire

CONNECTIONS = 50


def test_a_processor_that_hangs(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """Its worker is left to itself and has a successor; the mails in its hands come again."""
    mails = mixed_mails(1_000 if full else 200)
    # Six of two workers would close the intake.
    hang = tokens(5 if full else 2, len(mails))
    chain = "HeadersParser|Rogue|Hasher|Header|SQL"
    keys: dict[str, Any] = {"rogue_does": "hang", "rogue_tokens": hang, "gw_save_timeout": "1s"}
    store = Rogue(tmp_path, chain, **keys)
    with store.runs() as daemon:
        sent = deliver(daemon.port, mails, connections=CONNECTIONS)
        until(lambda: daemon.log_text().count("abandoned") >= len(hang))
    assert store.marked() == hang
    assert set(sent.deferred) >= set(hang)
    row = tally("processor hangs", "SQLite").audit(sent, store.stored(), rounds=len(hang))
    assert row.doubled == 0


def test_a_processor_that_leaks(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """It is named once, when half of `max_memory` is held, and mail goes on.

    What it holds nobody can bound: the octets are its own.
    """
    mails = mixed_mails(2_000 if full else 300)
    store = Rogue(tmp_path, "HeadersParser|Leak|Hasher|Header|SQL")
    with store.runs(top='max_memory = "4 MiB"') as daemon:
        sent = deliver(daemon.port, mails, connections=CONNECTIONS)
        held = _stats(daemon)["memory_retained"]
    log = daemon.log_text()
    assert held > 2 << 20
    assert log.count("does a processor keep envelopes") == 1
    note = f"{held >> 20} MiB held, warned of once"
    tally("processor leaks", "SQLite").audit(sent, store.stored(), note=note)


def test_a_processor_that_exits(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """`sys.exit` ends its worker, which has a successor, and not the daemon."""
    mails = mixed_mails(1_500 if full else 200)
    exits = tokens(20 if full else 4, len(mails))
    chain = "HeadersParser|Rogue|Hasher|Header|SQL"
    store = Rogue(tmp_path, chain, rogue_does="exit", rogue_tokens=exits)
    with store.runs() as daemon:
        sent = deliver(daemon.port, mails, connections=CONNECTIONS)
        until(lambda: daemon.log_text().count("died of SystemExit") >= len(exits))
        assert daemon.log_text().count("died of SystemExit") == len(exits)
    assert set(sent.deferred) >= set(exits)
    assert sent.dropped == sent.lost_answers == 0
    row = tally("processor exits", "SQLite").audit(sent, store.stored(), rounds=len(exits))
    assert row.doubled == 0


def test_a_processor_that_ends_the_process(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """`os._exit` is the death of the process: the daemon cannot prevent it, and loses nothing."""
    mails = mixed_mails(1_500 if full else 200)
    ends = tokens(8 if full else 2, len(mails))
    chain = "HeadersParser|Rogue|Hasher|Header|SQL"
    store = Rogue(tmp_path, chain, rogue_does="end", rogue_tokens=ends)

    def disturb(ledger: Ledger) -> None:
        for number in range(1, len(ends) + 1):
            until(lambda: len(store.marked()) >= number or ledger.settled == len(mails))  # noqa: B023
            assert lives.daemon.process.wait(20) == 3
            lives.kill()
            lives.start()

    with Lives(store.run, store) as lives:
        sent = deliver(lives.where, mails, connections=CONNECTIONS, disturb=disturb)
        lives.stop()
    assert store.marked() == ends
    note = "the process ends, as by a kill"
    tally("processor calls os._exit", "SQLite").audit(
        sent, store.stored(), rounds=len(ends), note=note
    )


def test_a_processor_that_holds_the_gil(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """No Python runs for a while; connections are taken and time limits are kept all the same.

    What a commit had taken in the moment before is saved, but nobody can say so in time.
    """
    seconds = 10
    mails = mixed_mails(600 if full else 200)
    (token,) = held = tokens(1, len(mails))
    chain = "HeadersParser|Rogue|Hasher|Header|SQL"
    keys: dict[str, Any] = {"rogue_does": "gil", "rogue_tokens": held, "rogue_seconds": seconds}
    store = Rogue(tmp_path, chain, **keys, gw_save_timeout="1s")
    told: dict[str, float] = {}

    def disturb(ledger: Ledger) -> None:
        until((store.marks / token).exists)
        began = time.monotonic()
        with Wire(daemon.port) as silent, Wire(daemon.port) as sender:
            told["greeted"] = time.monotonic() - began
            with pytest.raises(ControlError, match="no answer within"):
                _stats(daemon, timeout=0.2)  # Python answers there: it really does not run.
            assert sender.ask(HELLO).startswith("250 ")
            sender.begin_again()
            sender.send(on_the_wire(mails[0].message))
            assert sender.reply().startswith("451 4.3.0 ")
            told["451"] = time.monotonic() - began
            assert [line[:9] for line in silent.rest()] == ["421 4.4.2"]
            told["421"] = time.monotonic() - began
        assert ledger.deferred[token]
        assert not (store.marks / f"{token}.over").exists(), told

    with store.runs(server='timeout = "2s"') as daemon:
        sent = deliver(daemon.port, mails, connections=CONNECTIONS, disturb=disturb)
        saved_late = _stats(daemon)["saved_late"]
    row = tally(f"processor holds the GIL for {seconds} s", "SQLite").audit(
        sent,
        store.stored(),
        deferred_may_be_stored=True,
        note=", ".join(f"{what} after {at:.1f} s" for what, at in told.items()),
    )
    assert row.doubled <= saved_late
    assert told["greeted"] < told["451"] < seconds
    assert told["421"] < seconds


@pytest.mark.parametrize(
    ("stage", "does"),
    [
        pytest.param("PoisonedAtomic", "raise", id="atomic"),
        pytest.param("PoisonedAtomic", "refuse", id="atomic, for good"),
        pytest.param("PoisonedHalf", "raise", id="not atomic"),
    ],
)
def test_a_processor_that_raises_for_one_of_64(
    stage: str, does: str, tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """Atomic: the others are saved; else they come again, and those before it are there twice."""
    mails = mixed_mails(1_500 if full else 250)
    most = 8 if full else 1
    store = Rogue(
        tmp_path,
        f"HeadersParser|Hasher|Header|{stage}",
        workers=1,
        rogue_does=does,
        rogue_most=most,
    )

    def disturb(ledger: Ledger) -> None:
        until((store.marks / "entered").exists)
        until(lambda: _stats(daemon)["messages_received"] >= 2 * 64)
        assert ledger.settled == 0
        (store.marks / "open").touch()

    with store.runs() as daemon:
        sent = deliver(daemon.port, mails, connections=150, disturb=disturb, may_reject=True)
    poison = set(store.marked(".poison"))
    assert 1 <= len(poison) <= most
    kind = "atomic" if stage == "PoisonedAtomic" else "not atomic"
    row = tally(f"processor {does}s one of 64, {kind}", "SQLite").audit(
        sent,
        store.stored(),
        rounds=len(poison),
        deferred_may_be_stored=kind == "not atomic",
    )
    assert set(sent.rejected) == (poison if does == "refuse" else set())
    if kind == "atomic":
        assert set(sent.deferred) == (poison if does == "raise" else set())
        assert row.doubled == 0
    else:
        assert sent.deferred.total() == 64 * len(poison)
        assert row.doubled == 32 * len(poison)


def _stats(daemon: RunningDaemon, timeout: float | None = None) -> dict[str, int]:
    found: dict[str, int] = ask(f"{daemon.config_file}.sock", "stats", timeout)["result"]
    return found
