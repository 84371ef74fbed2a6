"""Every command that asks a running daemon, over a real socket."""

from __future__ import annotations

import json
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.commands.control import describe
from guerrilla.config import from_mapping
from guerrilla.control.server import Control
from guerrilla.errors import ConfigError
from tests.control import FakeDaemon, FakeReport, started

COMMANDS = ["reload", "upgrade", "reopen-logs", "stop", "status", "stats", "config --running"]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    monkeypatch.setattr("guerrilla.control.client._LAST_BREATH", 0.01)
    return FakeDaemon()


@pytest.fixture
def control(daemon: FakeDaemon, in_an_empty_folder: None) -> Iterator[Control]:
    """At the default place of `guerrilla.toml`."""
    del in_an_empty_folder
    Path("guerrilla.toml").touch()
    with started(daemon, Path("guerrilla.toml.sock")) as control:
        yield control


def said(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    found = capsys.readouterr()
    return found.out.splitlines(), found.err.splitlines()


def test_reload(control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.report = FakeReport(
        changes=("config_change:log_level: debug -> info", "\x1b[2J"), warnings=("a", "b\x1b")
    )
    assert main(["reload"]) == 0
    lines = ["config_change:log_level: debug -> info", r"\x1b[2J", "reloaded"]
    assert said(capsys) == (lines, ["guerrillad: warning: a", r"guerrillad: warning: b\x1b"])
    assert daemon.did == ["reload"]


def test_reload_that_fails_in_part(
    control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.report = FakeReport(("a",), ("pid_file: no", "log_file: no"))
    assert main(["-c", "guerrilla.toml", "reload"]) == 1
    assert said(capsys) == (["a"], ["guerrillad: pid_file: no", "guerrillad: log_file: no"])


def test_reload_of_a_config_that_is_wrong(
    control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon says what it thinks of it; the file does not load here either."""
    Path("guerrilla.toml").write_text("log_level = 3", encoding="utf-8")
    daemon.error = ConfigError(["guerrilla.toml: log_level: no", "guerrilla.toml: b: no"])
    assert main(["reload", "-c", "guerrilla.toml"]) == 1
    errors = ["guerrillad: guerrilla.toml: log_level: no", "guerrillad: guerrilla.toml: b: no"]
    assert said(capsys) == ([], errors)


def test_reopen_logs(
    control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reopen-logs"]) == 0
    daemon.error = PermissionError(13, "Permission denied", "a.log")
    assert main(["reopen-logs"]) == 1
    out, (error,) = said(capsys)
    assert out == ["logs are open anew"]
    assert error.startswith("guerrillad: [Errno 13] Permission denied: 'a.log'")


def test_stop(control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop"]) == 0
    assert said(capsys) == (["stopped"], [])
    assert daemon.did == ["shutdown"]
    assert main(["stop"]) == 1
    _, (error,) = said(capsys)
    assert error.startswith(f"guerrillad: no daemon answers at {control.path}: is it running? ")


def test_status(control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    assert said(capsys) == (["guerrilla 0.1, process 1"], [])
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps(daemon.status(), default=str)
    )


def test_stats(control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats"]) == 0
    assert main(["stats", "--json"]) == 0
    assert said(capsys)[0] == ["connections  3", '{"connections": 3}']


def test_the_config_in_use(
    control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.config = from_mapping({"backend_config": {"my_token": "hidden"}, "log_level": "info"})
    assert main(["config", "--running"]) == 0
    found = tomllib.loads(capsys.readouterr().out)
    assert found["log_level"] == "info"
    assert found["backend_config"]["my_token"] == "***"


def test_an_error_of_the_daemon(
    control: Control, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.error = LookupError("oh\nforged")
    for command in ("status", "stats"):
        assert main([command]) == 1
        out, (error,) = said(capsys)
        assert out == []
        assert error == r"guerrillad: LookupError: oh\nforged: the log has more"


FULL: dict[str, Any] = {
    "version": "0.1", "pid": 7, "uptime": 93_784.5, "chain": "A|B", "reloads": 2,
    "servers": [
        {"name": ":25", "addresses": ["0.0.0.0:25", "[::]:25"], "is_enabled": True, "clients": 3},
        {"name": ":26", "addresses": [], "is_enabled": False, "clients": 0},
        {"name": ":27", "addresses": [":27"], "is_enabled": True, "clients": 1, "max_clients": 9},
    ],
    "warnings": ["w"],
    "stats": {"sessions_idle": 3, "sessions_data": 0, "sessions_waiting": 1, "spilled": 2},
}  # fmt: skip


def test_status_for_a_person() -> None:
    assert describe(FULL) == [
        "guerrilla 0.1, process 7, up 1d 2h",
        "  server     0.0.0.0:25, [::]:25: 3 clients",
        "  server     :26: disabled",
        "  server     :27: 1 of 9 clients",
        "  chain      A|B",
        "  reloads    2",
        "  sessions   3 idle, 1 waiting",
        "  warning    w",
    ]
    for seconds, text in ((0.9, "0s"), (61, "1m 1s"), (3600, "1h 0m"), (90_000, "1d 1h")):
        assert describe({"uptime": seconds})[0].endswith(f", up {text}")


def test_status_of_a_spool() -> None:
    figures = {"spool_depth": 0, "spool_age_ms": 0, "spool_failed_files": 0, "spool_broken": 0}
    assert describe({"stats": figures})[1:] == ["  spool      0 waiting"]
    figures = {"spool_depth": 9, "spool_age_ms": 61_900, "spool_failed_files": 2, "spool_broken": 1}
    assert describe({"stats": figures})[1:] == [
        "  spool      9 waiting, the oldest 1m 1s, 2 failed, its disk cannot be written"
    ]


# Which daemon


@pytest.mark.parametrize("command", COMMANDS)
def test_a_daemon_that_does_not_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("guerrilla.toml").write_text('pid_file = "run.pid"', encoding="utf-8")
    assert main(command.split()) == 1
    path = Path("run.pid.sock").absolute()
    beside = Path("guerrilla.toml.sock").absolute()
    error = f"guerrillad: no daemon answers at {path} nor at {beside}: is it running? "
    error += "(one that was started with another pid_file is found by --socket PIDFILE.sock)"
    assert said(capsys) == ([], [error])
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert main(command.split()) == 1
    assert said(capsys) == ([], [error])


@pytest.mark.parametrize("command", COMMANDS)
def test_no_config_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 1
    _, (error,) = said(capsys)
    assert error.endswith(": name one with -c, or the daemon's control socket with --socket")
    assert main([*command.split(), "-c", "gone.toml"]) == 1
    assert said(capsys)[1][0].startswith("guerrillad: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('control_socket = "here"\nlog_level = 3', "here"),
        ('{"Control_Socket": "here", "nonsense": 1}', "here"),
        ('pid_file = "run.pid"\nnonsense = 1', "run.pid.sock"),
        ("pid_file = 3", "own.toml.sock"),
        ('pid_file = "run.pid"\ncontrol_socket = "\\u0000"', "run.pid.sock"),
        ("this is no TOML", "own.toml.sock"),
    ],
)
def test_a_file_that_does_not_load_tells_where_it_is(
    daemon: FakeDaemon, text: str, place: str
) -> None:
    Path("own.toml").write_text(text, encoding="utf-8")
    with started(daemon, Path(place)):
        assert main(["-c", "own.toml", "status"]) == 0
        assert main(["stop", "-c", "own.toml"]) == 0


def test_a_socket_that_is_named(daemon: FakeDaemon) -> None:
    with started(daemon, Path("elsewhere")):
        assert main(["status", "--socket", "elsewhere"]) == 0
        assert main(["config", "--running", "--socket", "elsewhere"]) == 0


def test_a_daemon_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    Path("guerrilla.toml").write_text('control_socket = "off"', encoding="utf-8")
    assert main(["status"]) == 1
    _, (error,) = said(capsys)
    assert (
        error == "guerrillad: guerrilla.toml: control_socket is off: only signals reach its daemon"
    )
