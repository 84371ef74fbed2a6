"""Several processes, which die, stand still, obey other configs and are replaced under load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.families import CAN_UPGRADE, Family, SpooledByAll, Weather
from tests.faults.load import sustain
from tests.faults.stores import SQLiteFile, Store
from tests.faults.tally import Tally
from tests.wire import until

SECONDS: Final = {False: 8.0, True: 60.0}
CONNECTIONS: Final = 50
REST: Final = 0.05
"""Seconds that a sender rests behind a mail: so each has a connection open most of the time, and
the store is not what everybody waits for."""


@pytest.mark.parametrize("kind", [SQLiteFile, SpooledByAll], ids=lambda kind: kind.name)
def test_children_are_killed_while_configs_and_programs_change(
    tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    upgrades = CAN_UPGRADE and kind is SQLiteFile
    with Family(tmp_path / "run", kind(disk)) as family:
        cuts = family.cuts
        weather = Weather(family, SECONDS[full], upgrades=upgrades)
        sent = sustain(cuts.where, weather, connections=CONNECTIONS, pause=REST)
        # What was given up in the hands of a child that died is given back.
        until(family.is_idle)
        assert family.reload(), family.refused[-1:]
        counted = family.told("stats")["messages_accepted"]
        family.stop()
    log = family.daemon.log_text()
    assert (cuts.refused, cuts.unexplained()) == (0, [])
    assert len(cuts.found) <= len(cuts.held)
    assert cuts.kills > SECONDS[full] / 4, "the machine is too slow for this"
    family.store.check()
    fault = "child: kill -9, SIGHUP, upgrade" if upgrades else "child: kill -9, SIGHUP"
    note = (
        f"{family.reloads} reloads; of {cuts.opened:,} connections 0 refused, "
        f"{len(cuts.held)} open on the killed, {len(cuts.found)} of them cut, no other"
    )
    row = tally(fault, kind.name).audit(sent, family.store.stored(), rounds=cuts.kills, note=note)
    assert log.count("was killed by SIGKILL after") <= cuts.kills
    if not upgrades:
        assert row.answered <= counted <= row.stored
    assert [line for line in family.refused if not line.startswith("process ")] == []
