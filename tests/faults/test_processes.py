"""Several processes, which die, stand still, obey other configs and are replaced under load."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

import apsw
import pytest

from tests.faults.cuts import Cuts
from tests.faults.families import PROCESSES, Family, Orphans, SpooledByAll, Weather
from tests.faults.load import add, sustain
from tests.faults.rogues import Rogue, tokens
from tests.faults.stores import SQLiteFile, Store, count
from tests.faults.tally import Tally
from tests.ledger import Ledger, Mail, deliver, mixed_mails
from tests.wire import Wire, halt, until

SECONDS: Final = {False: 8.0, True: 60.0}
CONNECTIONS: Final = 50
STILL: Final = 4.0
"""Seconds that one stands still: more than twice `gw_save_timeout`."""
WHY: Final = re.compile(r"process \d|an upgrade is under way: |all processes stop$")
"""Why a reload is not obeyed: a process that dies is asked for it, another program starts, or the
one that was asked stops behind that."""
AT_ONCE: Final = 5_000
"""More mails than the senders send, resting as they do, in a turn: who is served by the other one
never waits for those who are not, with nothing left to send."""
REST: Final = 0.05
"""Seconds that a sender rests behind a mail: so each has a connection open most of the time, and
the store is not what everybody waits for."""


@pytest.mark.parametrize("kind", [SQLiteFile, SpooledByAll], ids=lambda kind: kind.name)
def test_children_are_killed_while_configs_and_programs_change(
    tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with Family(tmp_path / "run", kind(disk)) as family:
        cuts = family.cuts
        weather = Weather(family, SECONDS[full], upgrades=True)
        sent = sustain(cuts.where, weather, connections=CONNECTIONS, pause=REST)
        # What was in the hands of a child that died is given back.
        until(family.is_idle)
        until(lambda: len(family.serving()) == PROCESSES)
        assert family.reload(), family.refused
        assert greetings(family) == {f"mx{family.reloads}.example.com"}
        family.stop()
    only_cut_by_kills(family)
    assert cuts.kills > SECONDS[full] / 4, "the machine is too slow for this"
    assert [line for line in family.refused if WHY.match(line) is None] == []
    family.store.check()
    reloads = f"{family.reloads} reloads, {family.unheeded} of them refused as one died"
    note = f"an upgrade; {reloads}; {connections(cuts)}"
    tally("process: kill -9", kind.name).audit(
        sent, family.store.stored(), rounds=cuts.kills, note=note
    )


def greetings(family: Family) -> set[str]:
    """By which names those who come now are greeted, over all processes."""
    with ExitStack() as opened:
        wires = [opened.enter_context(Wire(family.daemon.port)) for _ in range(24)]
        return {wire.greeting.split()[1] for wire in wires}


def only_cut_by_kills(family: Family) -> None:
    """Asserts that nobody was refused, and nobody cut off but by the death of who served him."""
    cuts = family.cuts
    assert (cuts.refused, cuts.unexplained()) == (0, [])
    assert len(cuts.found) <= len(cuts.held)


def connections(cuts: Cuts) -> str:
    """What became of them, for a row."""
    return f"{cuts.opened:,} connections: 0 refused, {len(cuts.found)} cut with who served them"


def test_a_processor_crashes_its_process(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """By SIGSEGV: the other goes on, and what was in hand comes again."""
    mails = mixed_mails(1_500 if full else 300)
    crashes = tokens(12 if full else 2, len(mails))
    chain = "HeadersParser|Rogue|Hasher|Header|SQL"
    store = Rogue(tmp_path, chain, rogue_does="crash", rogue_tokens=crashes)
    with Family(store.run, store) as family:
        sent = deliver(family.cuts.where, mails, connections=CONNECTIONS)
        until(family.is_idle)
        counted = family.told("stats")["messages_accepted"]
        family.stop()
    log = family.daemon.log_text()
    assert store.marked() == crashes
    died = log.count("was killed by SIGSEGV after")
    assert 0 < died <= len(crashes)
    assert family.cuts.refused == 0
    # Faulthandler says where Python was.
    assert log.count("Fatal Python error: Segmentation fault") == died
    note = connections(family.cuts)
    row = tally("process: SIGSEGV", "SQLite").audit(sent, store.stored(), rounds=died, note=note)
    # What the dead have counted is not lost; it is counted before it is said.
    assert row.answered <= counted <= row.stored


def test_a_process_stands_still(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """For longer than a save may take: the other one serves whom it has, and all is well after."""
    rounds = 5 if full else 1
    disk = tmp_path / "disk"
    disk.mkdir()
    store = SQLiteFile(disk)
    with Family(tmp_path / "run", store, backend='gw_save_timeout = "1s"') as family:

        def stop_one(turn: int) -> None:
            pid = family.serving()[turn % PROCESSES]
            halt_without_lock(pid, store)
            try:
                before = sum_of_mails(store)
                time.sleep(STILL)
                assert sum_of_mails(store) > before + 50, "the other one has not gone on"
            finally:
                os.kill(pid, signal.SIGCONT)
            time.sleep(1.0)

        pids = family.serving()
        sent = Ledger([])
        for turn in range(rounds):
            make = partial(mails_of, turn)
            stop = partial(stop_one, turn)
            more = sustain(
                family.cuts.where,
                stop,
                make=make,
                connections=CONNECTIONS,
                batch=AT_ONCE,
                pause=REST,
            )
            add(sent, more)
        assert family.serving() == pids
        until(family.is_idle)
        family.stop()
    only_cut_by_kills(family)
    note = f"{STILL:g} s each; {connections(family.cuts)}"
    tally("process: stands still", "SQLite").audit(sent, store.stored(), rounds=rounds, note=note)


def mails_of(turn: int, count: int, first: int) -> list[Mail]:
    """Those of a turn, of which no other turn has one."""
    return mixed_mails(count, first=turn * 1_000_000 + first)


def halt_without_lock(pid: int, store: SQLiteFile) -> None:
    """Stops a process where it has no lock of the database: the other one would wait for that."""
    while True:
        halt(pid)
        if is_writable(store):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)


def is_writable(store: SQLiteFile) -> bool:
    """Whether nobody has its lock for longer than a commit takes."""
    with closing(apsw.Connection(os.fspath(store.file))) as connection:
        connection.set_busy_timeout(500)
        try:
            connection.execute("BEGIN IMMEDIATE; ROLLBACK")
        except apsw.BusyError:
            return False
        return True


def sum_of_mails(store: SQLiteFile) -> int:
    return count(store.file, "new_mail")


def test_the_parent_is_killed(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """Its children end as if told to, and another daemon starts on the same address at once."""
    rounds = 10 if full else 2
    mails = mixed_mails(300 * (rounds + 1))
    disk = tmp_path / "disk"
    disk.mkdir()
    with Orphans(tmp_path / "run", SQLiteFile(disk)) as lives:
        sent = deliver(
            lives.where, mails, connections=CONNECTIONS, disturb=lives.killer(len(mails), rounds)
        )
        lives.stop()
    ended = lives.check_ends()
    lives.store.check()
    note = f"{ended} children ended by themselves, and well"
    tally("parent: kill -9", "SQLite").audit(sent, lives.store.stored(), rounds=rounds, note=note)
    # Who had sent a whole message was answered before its connection ended.
    assert sent.lost_answers == 0
