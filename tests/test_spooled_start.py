"""A start whose store right of 250 is away: it takes mail, which is stored once that is there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.control.client import ask
from guerrilla.errors import ConfigError, StartError, Unavailable
from tests.running import DaemonError, RunningDaemon
from tests.services.mariadb import MariaDB
from tests.services.redis import RedisServer
from tests.shelves import Shelf, Spooling, config, deliver, depth, send
from tests.wire import HELLO, Wire, until

WORKERS = 3
WAITS = "spool: mail of the backend default waits until its chain opens: "


def asked(daemon: RunningDaemon, command: str) -> Any:
    """What it answers on its control socket."""
    return ask(f"{daemon.config_file}.sock", command)["result"]


def spooled(daemon: RunningDaemon, *subjects: str) -> set[str]:
    """What is answered to the data of these mails."""
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)
        return {deliver(wire, subject)[:9] for subject in subjects}


def starting(folder: Path, chain: str, **keys: Any) -> RunningDaemon:
    """A daemon with a spool and this chain."""
    folder.mkdir()
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return RunningDaemon(
        folder,
        config=f"""\
allowed_hosts = ["."]

[[servers]]
listen_interface = "127.0.0.1:0"
host_name = "mx.example.com"

[spool]
path = {json.dumps(os.fspath(folder / "spool"))}
min_free = 0

[backend_config]
save_process = {json.dumps(chain)}
save_workers_size = {WORKERS}
{chr(10).join(lines)}
""",
    )


def comes_up_before_its_store(
    daemon: RunningDaemon,
    key: str,
    start: Callable[[], object],
    stored: Callable[[], int],
) -> None:
    """Mail is answered by the spool, the owner sees why it waits, and then it is stored."""
    assert spooled(daemon, "one", "two", "three") == {"250 2.0.0"}
    stats = asked(daemon, "stats")
    assert (stats["spool_depth"], stats["spool_leased"], stats["spooled_workers"]) == (3, 0, 0)
    assert stats["save_workers"] == WORKERS
    (line,) = [line for line in asked(daemon, "status")["warnings"] if line.startswith(WAITS)]
    assert key in line
    assert line in "\n".join(daemon.printed)
    assert f"could not open its chain, tried again in 1 s: {key}" in daemon.log_text()
    start()
    until(lambda: asked(daemon, "stats")["spool_depth"] == 0)
    assert stored() == 3
    until(lambda: asked(daemon, "stats")["spooled_workers"] == WORKERS)
    assert not [line for line in asked(daemon, "status")["warnings"] if line.startswith(WAITS)]
    stats = asked(daemon, "stats")
    assert (stats["spool_retries"], stats["spooled_workers_replaced"]) == (0, 0)
    assert "opened its chain" in daemon.log_text()


def test_a_start_before_its_redis(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    chain = "HeadersParser|250|Hasher|Header|Redis"
    with starting(tmp_path / "daemon", chain, redis_interface=server.address) as daemon:
        try:
            comes_up_before_its_store(
                daemon,
                "backend_config.redis_interface: ",
                server.start,
                lambda: len(server.values()),
            )
        finally:
            server.stop()


def test_a_start_before_its_database(tmp_path: Path, mortal_mariadb: MariaDB) -> None:
    server, place = mortal_mariadb, mortal_mariadb.fresh()
    keys = {"sql_driver": "mysql", "sql_dsn": place.dsn()}
    chain = "250|HeadersParser|Hasher|Header|SQL"
    server.stop()
    try:
        with starting(tmp_path / "daemon", chain, **keys) as daemon:
            comes_up_before_its_store(daemon, "backend_config.sql_dsn: ", server.start, place.count)
    finally:
        if server.process is None:
            server.start()


AWAY = """\
import os
import guerrilla

@guerrilla.processor("Away")
class Away(guerrilla.Processor):
    # A store that is away while there is a file.
    stores = True

    def open(self):
        if os.path.exists("away"):
            raise ConnectionRefusedError("nobody there")

    def save(self, envelope):
        return None
"""


def test_what_each_of_several_processes_waits_for_is_told_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "away_stage.py").write_text(AWAY)
    (tmp_path / "away").touch()
    why = f"{WAITS}Away: ConnectionRefusedError: nobody there"
    with RunningDaemon(
        tmp_path,
        chain="HeadersParser|250|Away",
        top=f"processes = 2\nspool = {{ path = '{tmp_path / 'spool'}', min_free = 0 }}",
        backend='import = ["away_stage"]',
    ) as daemon:

        def waits() -> list[str]:
            warnings = asked(daemon, "status")["warnings"]
            return [line for line in warnings if WAITS in line]

        assert waits() == [why]
        (tmp_path / "away").unlink()
        until(lambda: not waits())
        (tmp_path / "away").touch()
        os.kill(asked(daemon, "status")["processes"][1]["pid"], signal.SIGKILL)
        until(lambda: waits() == [f"process 1: {why}"])


def test_what_is_needed_left_of_it_still_stops_a_start(tmp_path: Path) -> None:
    keys = {"redis_interface": f"unix:{tmp_path}/none.sock"}
    chain = "HeadersParser|Hasher|Header|Redis|250|Redis"
    with pytest.raises(DaemonError, match=r"backend_config\.redis_interface: "):
        starting(tmp_path / "daemon", chain, **keys)


def test_a_wrong_config_still_stops_a_start(tmp_path: Path) -> None:
    keys = {"sql_dsn": f"{tmp_path}/none/mail.db"}
    with pytest.raises(DaemonError, match=r"backend_config\.sql_dsn: .* there is no folder"):
        starting(tmp_path / "daemon", "HeadersParser|250|Hasher|Header|SQL", **keys)


class Door:
    """What opening a stage right of 250 comes to."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.tries = 0

    def open(self, stage: Shelf) -> None:
        """In place of the stage's own."""
        del stage
        self.tries += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def door(shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch) -> Door:
    """Closed, as of a store that is away."""
    door = Door(ConnectionRefusedError("nobody there"))

    def opening(stage: Shelf) -> None:
        door.open(stage)

    monkeypatch.setattr(shelf, "open", opening)
    return door


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError("nobody there"), "Shelf: ConnectionRefusedError: nobody there"),
        (TimeoutError("no answer"), "Shelf: TimeoutError: no answer"),
        (Unavailable("it is away"), "Shelf: it is away"),
        (StartError("backend_config.shelf: it is away"), "backend_config.shelf: it is away"),
    ],
)
def test_what_is_away_is_opened_later(
    spooling: Spooling, shelf: type[Shelf], door: Door, error: Exception, told: str
) -> None:
    door.error = error
    daemon = spooling()
    assert WAITS + told in daemon.warnings()
    assert send(daemon, "one")[0].startswith("250 ")
    assert (shelf.tried, depth(daemon)) == ([], 1)
    door.error = None
    until(lambda: shelf.kept == ["one"])
    until(lambda: not [line for line in daemon.warnings() if line.startswith(WAITS)])
    assert daemon.stats()["spooled_workers"] == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("backend_config.shelf: expected more"), "backend_config.shelf: expected more"),
        (ValueError("broken"), "Shelf: ValueError: broken"),
    ],
)
def test_what_waiting_does_not_mend_stops_the_start(
    spooling: Spooling, door: Door, error: Exception, told: str
) -> None:
    door.error = error
    with pytest.raises(StartError) as caught:
        spooling()
    assert caught.value.problems == (told,)
    assert door.tries == 1


def test_a_reload_does_not_take_a_chain_that_does_not_open(
    spooling: Spooling, shelf: type[Shelf], door: Door, tmp_path: Path
) -> None:
    daemon = spooling()
    other = from_mapping(config(tmp_path, "HeadersParser|250|Scorer|Shelf"))
    assert daemon.reload_config(other).failures == ("Shelf: ConnectionRefusedError: nobody there",)
    assert send(daemon, "one")[0].startswith("250 ")
    door.error = None
    until(lambda: shelf.kept == ["one"])
    assert "score" not in shelf.seen[0].values
    assert daemon.reload_config(other).ok


def test_a_stop_does_not_wait_for_what_is_away(
    spooling: Spooling, shelf: type[Shelf], door: Door
) -> None:
    daemon = spooling()
    send(daemon, "one")
    assert daemon.shutdown(10)
    assert not [line for line in daemon.warnings() if line.startswith(WAITS)]
    door.error = None
    spooling()
    until(lambda: shelf.kept == ["one"])
