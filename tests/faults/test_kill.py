"""The process dies by SIGKILL, at random moments under load: the system has what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.faults.lives import Lives
from tests.faults.stores import STORES, Store
from tests.faults.tally import Tally
from tests.ledger import deliver, mixed_mails

CONNECTIONS = 50


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_killed_at_random_moments(
    tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    times = 30 if full else 3
    mails = mixed_mails(times * 100)
    secret = len(mails) // 5
    disk = tmp_path / "disk"
    disk.mkdir()
    tls = f"[servers.tls]\nstart_tls_on = true\n{self_signed(tmp_path).toml()}"
    with Lives(tmp_path / "run", kind(disk), {"server": tls}) as lives:
        sent = deliver(
            lives.where,
            mails,
            connections=CONNECTIONS,
            tls=0.2,
            disturb=lives.killer(len(mails), times),
        )
        lives.stop()
        lives.store.check()
        tally("kill -9", kind.name).audit(sent, lives.store.stored(), rounds=times, tls=secret)
    assert sent.dropped + sent.lost_answers > times
