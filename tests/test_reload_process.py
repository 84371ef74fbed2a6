"""Keys of the whole daemon that a reload changes: logs, pid file, memory, the stop."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from tests.daemons import Make, config, connect, send
from tests.reloads import at_top, changed, each, reload, shows
from tests.wire import Wire, until


@shows("at once", "pid_file", "log_file", "log_level")
def test_log_and_pid_file_move(running: Daemon, tmp_path: Path) -> None:
    log, pid = tmp_path / "main.log", tmp_path / "main.pid"
    names = {"log_file": str(log), "pid_file": str(pid), "log_level": "debug"}
    reload(running, at_top(**names))
    assert send(running)[0] == 250
    until(lambda: " connected" in log.read_text())
    assert pid.read_text().strip().isdigit()
    missing = str(tmp_path / "missing" / "file")
    wrong = {**names, "log_file": missing, "pid_file": missing}
    report = running.reload_config(at_top(**wrong))
    assert [line.partition(":")[0] for line in report.failures] == ["log_file", "pid_file"]
    assert (running.config.log_file, running.config.pid_file) == (str(log), str(pid))
    assert pid.exists()
    reload(running, from_mapping(config()))
    assert not pid.exists()


@shows("at once", "servers[].log_file", "log_format")
def test_the_log_of_a_server_and_the_form_change(running: Daemon, tmp_path: Path) -> None:
    main, own = tmp_path / "main.log", tmp_path / "own.log"
    names = {"log_file": str(main), "log_format": "json", "log_level": "info"}
    new = changed(lambda raw: (raw.update(names), raw["servers"][0].update(log_file=str(own))))
    reload(running, new)
    assert send(running)[0] == 250
    until(lambda: '"guerrilla.mail"' in own.read_text())
    assert "guerrilla.mail" not in main.read_text()
    missing = str(tmp_path / "missing" / "own.log")
    report = running.reload_config(
        changed(lambda raw: (raw.update(names), raw["servers"][0].update(log_file=missing)))
    )
    assert report.failures == (f"servers[0].log_file: {missing}: No such file or directory",)
    assert running.config == new


NEXT_START: dict[str, Any] = {
    "user": "root",
    "group": "root",
    "control_socket": "other.sock",
    "processes": 2,
    "shared_sockets": True,
}


@pytest.mark.parametrize("key", each("next start", NEXT_START, ""))
def test_what_a_running_process_cannot_obey_is_told(running: Daemon, key: str) -> None:
    before = (os.geteuid(), os.getegid(), running.config)
    was = getattr(running.config, key)
    report = running.reload_config(at_top(**{key: NEXT_START[key], "log_level": "info"}))
    assert report.failures == (f"{key}: takes effect at the next start",)
    assert getattr(running.config, key) == was
    assert running.config.log_level == "info"
    assert (os.geteuid(), os.getegid()) == before[:2]
    assert not Path("other.sock").exists()


@shows("at once", "max_memory", "spill_size")
def test_memory_for_bodies_is_live(running: Daemon) -> None:
    reload(running, at_top(max_memory=4 << 20, spill_size=0))
    assert running.stats()["memory_limit"] == 4 << 20
    reload(running, at_top(spill_size="64 KiB"))
    with connect(running) as wire:
        assert wire.deliver(b"x" * 990 + (b"\r\n" + b"x" * 990) * 100).startswith("250 ")
    assert running.stats()["spilled"] == 1


@shows("at once", "servers[].log_level")
def test_the_level_of_a_server_changes(make: Make, tmp_path: Path) -> None:
    """For who is connected, too, and for nobody else."""
    log = tmp_path / "main.log"
    raw = {**config(), "log_file": str(log), "log_level": "info"}
    raw["servers"].append({"listen_interface": "127.0.0.2:0"})
    with make(raw) as daemon, connect(daemon) as first, Wire(daemon.addresses[1]) as second:
        for number, level in enumerate(("error", "info", "error"), 1):
            raw["servers"][0]["log_level"] = level
            assert daemon.reload_config(from_mapping(raw)).ok
            for wire in (first, second):
                assert wire.deliver(b"Subject: hello").startswith("250 ")
            # Records keep their order: what there is of the first has come by then.
            until(partial(lines, log, "server=127.0.0.2:0", number))
            assert lines(log, "server=127.0.0.1:0", int(number > 1))


def lines(log: Path, field: str, count: int) -> bool:
    """Whether so many lines have the field."""
    return log.read_text().count(field) == count


@shows("at once", "shutdown_timeout")
def test_the_time_of_a_stop_changes(make: Make) -> None:
    with make() as daemon, connect(daemon) as busy:
        busy.begin()
        assert daemon.reload_config(from_mapping({**config(), "shutdown_timeout": "200ms"})).ok
        begun = time.monotonic()
        assert not daemon.shutdown()
        assert time.monotonic() - begun < 20  # the default is 60 s


@shows("at once", "ignore_unknown_keys")
def test_unknown_keys_are_ignored_by_the_file_that_says_so(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.json"
    raw = config()

    def write(**keys: Any) -> None:
        path.write_text(json.dumps({**raw, **keys}))

    write()
    daemon = make()
    daemon.load_config(path)
    with daemon:
        for keys, problem in (
            ({"colour": "red"}, "colour"),
            ({"colour": "red", "ignore_unknown_keys": True}, None),
            ({"colour": "red", "ignore_unknown_keys": False}, "colour"),
        ):
            write(**keys)
            if problem is None:
                assert daemon.reload_config_file().ok
                continue
            with pytest.raises(ValueError, match=problem):
                daemon.reload_config_file()
        assert send(daemon)[0] == 250
