"""The power fails under load, at random moments: what was not synced is gone, all or any part.

The process is killed, and its folder becomes what `disk/journal.py` says that a disk which keeps
its promises may hold then. The next life begins with that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import careless
from tests.faults.disk.disk import Disk
from tests.faults.lives import Lives
from tests.faults.stores import STORES, MailDirs, Spooled, SQLiteFile, Store
from tests.faults.tally import Tally
from tests.ledger import Ledger, deliver, mixed_mails

SYNC = 0.002
"""Seconds that a sync takes, as on a common disk: time in which the power can fail."""


def cut_under_load(
    disk: Disk, folder: Path, store: Store, times: int, *, backend: str = "", lies: bool = False
) -> Ledger:
    """Loses the power so often; the first time and every other time nothing unsynced is left.

    Args:
        disk: of the store.
        folder: where the daemon runs.
        store: where it stores.
        times: how often.
        backend: more lines of its config.
        lies: whether the disk syncs nothing until the power fails.
    """
    mails = mixed_mails(times * 80)
    turns = iter(range(times))

    def cut(chance: random.Random) -> None:
        disk.cut(chance if next(turns) % 2 else None)
        disk.heal()
        disk.slow(SYNC)

    disk.begin()
    disk.slow(SYNC)
    if lies:
        disk.lie()
    with Lives(folder, store, {"backend": backend}, disk.environment) as lives:
        disturb = lives.killer(len(mails), times, between=cut)
        sent = deliver(lives.where, mails, connections=50, disturb=disturb)
        lives.stop()
    return sent


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_power_fails(
    disk: Disk, tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    times = 10 if full else 2
    store = kind(disk.folder)
    sent = cut_under_load(disk, tmp_path / "run", store, times)
    store.check()
    tally("power failure", kind.name).audit(sent, store.stored(), rounds=times)
    assert sent.dropped + sent.lost_answers > times


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        pytest.param(SQLiteFile, "unsynced_database", id="SQLite"),
        pytest.param(MailDirs, "unsynced_files", id="MailDir, files"),
        pytest.param(MailDirs, "unsynced_folders", id="MailDir, folders"),
    ],
)
def test_a_store_that_does_not_sync_is_found_out(
    disk: Disk,
    tmp_path: Path,
    kind: type[Store],
    how: str,
    tally: Callable[[str, str], Tally],
) -> None:
    """Else the tests above would say nothing."""
    run = tmp_path / "run"
    run.mkdir()
    careless.write(run, how)
    store = kind(disk.folder)
    sent = cut_under_load(disk, run, store, 1, backend=careless.IMPORT)
    with pytest.raises(AssertionError, match=r"not stored|no mail of ours"):
        tally("none", kind.name).audit(sent, store.stored())


def test_a_disk_that_lies_loses_mail(
    disk: Disk, tmp_path: Path, tally: Callable[[str, str], Tally]
) -> None:
    """Nobody can do anything about that; and it shows that the spool depends on its syncs."""
    store = Spooled(disk.folder)
    sent = cut_under_load(disk, tmp_path / "run", store, 1, lies=True)
    with pytest.raises(AssertionError, match="not stored"):
        tally("none", store.name).audit(sent, store.stored())
