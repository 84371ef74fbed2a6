"""The disk of a store is full, read-only, broken or slow for a time, under load.

What cannot be saved is answered 4xx, and once the disk is well again so is the daemon, by itself.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.daemons import descriptors
from tests.faults.disk.disk import FULL, READ_ONLY, Disk, Fault
from tests.faults.lives import Lives
from tests.faults.stores import STORES, MailDirs, Spooled, Store
from tests.faults.tally import Tally
from tests.ledger import Ledger, deliver, mixed_mails, reach, token_of, wait_for
from tests.wire import until

SENDERS = 50
FEW = 4
"""Descriptors more than at the start: that of the second worker's connection comes with its first
mail, and SQLite keeps one for whoever opens the file next. One that leaks does so with each batch
that fails."""


class Trouble(NamedTuple):
    """One way in which a disk fails."""

    name: str
    what: Fault
    error: int
    codes: frozenset[str]
    """What senders may hear."""


FULL_DISK = frozenset({"452 4.3.1", "452 4.3.0", "451 4.3.0"})
BROKEN = frozenset({"451 4.3.0"})

TROUBLES = (
    Trouble("disk full", FULL, errno.ENOSPC, FULL_DISK),
    Trouble("disk read-only", READ_ONLY, errno.EROFS, BROKEN),
    Trouble("disk not permitted", READ_ONLY, errno.EACCES, BROKEN),
    Trouble("disk EIO, writing", Fault.WRITING, errno.EIO, BROKEN),
    Trouble("disk EIO, syncing", Fault.SYNCING, errno.EIO, BROKEN),
)


def troubled(
    disk: Disk,
    trouble: Trouble,
    mails: int,
    times: int,
    *,
    match: str,
    then: Callable[[], object] = lambda: None,
) -> Callable[[Ledger], None]:
    """For `deliver(disturb=…)`: each time until senders have heard of it; what comes `then`."""
    chance = random.Random(1)
    part = mails * 9 // 10 // times

    def disturb(ledger: Ledger) -> None:
        for turn in range(times):
            moment = turn * part + chance.randrange(part)
            reach(ledger, moment)
            before = ledger.refusals
            # From some call of a batch on, not always its first.
            disk.fail(trouble.what, trouble.error, after=chance.randrange(8), match=match)
            ledger.most = None
            try:
                wait_for(lambda before=before: ledger.refusals >= before + 20)  # type: ignore[misc]
                assert disk.failed > 0
            finally:
                disk.heal()
            goes_on(ledger)
            then()

    return disturb


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_trouble_that_passes(
    disk: Disk, tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """One trouble after the other, before one daemon: what one has broken shows with the next."""
    times = 5 if full else 1
    store = kind(disk.folder)
    ledgers = []
    with Lives(tmp_path / "run", store, environment=disk.environment) as lives:
        idle = descriptors(lives.daemon.pid)
        for number, trouble in enumerate(TROUBLES):
            mails = mixed_mails(times * 150, first=number * 10_000)
            disturb = troubled(disk, trouble, len(mails), times, match=kind.answers)
            ledgers.append(deliver(lives.where, mails, connections=SENDERS, disturb=disturb))
        wait_for(store.is_drained)
        until(lambda: descriptors(lives.daemon.pid) <= idle + FEW)
        lives.stop()
        # A file of a mail that is done, and could not be removed then, goes with the next start.
        lives.start()
        lives.stop()
    store.check()
    for trouble, sent in zip(TROUBLES, ledgers, strict=True):
        assert sent.heard.keys() <= trouble.codes, sent.heard
        if trouble.error == errno.ENOSPC and kind is not Spooled:  # whose commit is answered 451
            assert "452 4.3.1" in sent.heard, sent.heard
        assert sent.dropped == sent.lost_answers == 0
        mine = (mail for mail in store.stored() if token_of(mail) in sent.messages)
        note = ", ".join(sorted(sent.heard))
        tally(trouble.name, kind.name).audit(sent, mine, rounds=times, note=note)


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_a_slow_disk(
    disk: Disk, tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """Each sync takes a second: that is the time of the sender, and nobody is refused."""
    mails = mixed_mails(500 if full else 40)
    store = kind(disk.folder)
    with Lives(tmp_path / "run", store, environment=disk.environment) as lives:
        disk.slow(1)
        sent = deliver(lives.where, mails, connections=50)
        disk.heal()
        lives.stop()
    store.check()
    assert sent.attempts == len(mails)
    tally("disk slow: 1 s a sync", kind.name).audit(sent, store.stored())


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_power_fails_after_a_failed_sync(
    disk: Disk, tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """What a failed sync had to write is on no disk, although whoever reads the file finds it.

    A store that believes what it reads, and goes on behind it, loses what it writes there.
    """
    times = 5 if full else 1
    mails = mixed_mails(times * 150)
    store = kind(disk.folder)
    trouble = TROUBLES[-1]
    disk.begin()
    with Lives(tmp_path / "run", store, environment=disk.environment) as lives:

        def cut() -> None:
            lives.kill()
            disk.cut(None)
            lives.start()

        disturb = troubled(disk, trouble, len(mails), times, match=kind.answers, then=cut)
        sent = deliver(lives.where, mails, connections=SENDERS, disturb=disturb)
        lives.stop()
    store.check()
    tally("disk EIO, syncing, then power failure", kind.name).audit(
        sent, store.stored(), rounds=times
    )


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_power_fails_after_a_failed_sync_and_a_restart(
    disk: Disk, tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """As above, but who goes on there is another process, which knows of no failed sync."""
    times = 5 if full else 1
    mails = mixed_mails(times * 150)
    store = kind(disk.folder)
    part = len(mails) * 9 // 10 // times
    disk.begin()
    with Lives(tmp_path / "run", store, environment=disk.environment) as lives:

        def disturb(ledger: Ledger) -> None:
            for turn in range(times):
                reach(ledger, turn * part + part // 2)
                disk.fail(Fault.SYNCING, errno.EIO, match=kind.answers)
                ledger.most = None
                before = ledger.refusals
                wait_for(lambda before=before: ledger.refusals >= before + 20)  # type: ignore[misc]
                ledger.most = 0
                disk.wait_until_quiet()
                lives.kill()
                ledger.most = None
                disk.heal()
                lives.start()
                goes_on(ledger)
                lives.kill()
                disk.cut(None)
                lives.start()

        sent = deliver(lives.where, mails, connections=SENDERS, disturb=disturb)
        lives.stop()
    store.check()
    # Nobody is left who could take back what was refused.
    tally("disk EIO, syncing, restart, then power failure", kind.name).audit(
        sent, store.stored(), rounds=times, deferred_may_be_stored=True
    )


def test_power_fails_while_no_folder_can_be_synced(
    disk: Disk, tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """Files are synced, their names are not: who is answered 250 then has lost his mail."""
    times = 5 if full else 1
    mails = mixed_mails(times * 150)
    part = len(mails) * 9 // 10 // times
    store = MailDirs(disk.folder)
    disk.begin()
    with Lives(tmp_path / "run", store, environment=disk.environment) as lives:

        def disturb(ledger: Ledger) -> None:
            for turn in range(times):
                reach(ledger, turn * part + part // 2)
                disk.fail(Fault.SYNCING, errno.EIO, match="/to/new")
                ledger.most = None
                # 4xx, but for what was in hand.
                enough = answers(ledger) + SENDERS + 20
                wait_for(lambda enough=enough: answers(ledger) >= enough)  # type: ignore[misc]
                lives.kill()
                disk.cut(None)
                disk.heal()
                lives.start()

        sent = deliver(lives.where, mails, connections=SENDERS, disturb=disturb)
        lives.stop()
    store.check()
    # A mail may have been shown when another worker's last good sync began.
    tally("disk EIO, syncing folders, then power failure", store.name).audit(
        sent, store.stored(), rounds=times, deferred_may_be_stored=True, most_copies=SENDERS * times
    )


def answers(ledger: Ledger) -> int:
    """How many there were, of either kind."""
    return ledger.settled + ledger.refusals


def goes_on(ledger: Ledger) -> None:
    """Waits until some more mails need no more tries, or all."""
    enough = min(ledger.settled + 20, len(ledger.messages))
    wait_for(lambda: ledger.settled >= enough)
