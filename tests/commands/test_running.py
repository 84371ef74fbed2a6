"""`guerrillad reload | reopen-logs | stop | status | stats` of a daemon that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from guerrilla.cli import main
from tests.running import RunningDaemon
from tests.wire import Wire


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with RunningDaemon(tmp_path) as running:
        yield running


def ask(daemon: RunningDaemon, *words: str) -> int:
    return main([words[0], "-c", str(daemon.config_file), *words[1:]])


def test_reload_tells_what_changed_and_every_failure(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    text = daemon.config_file.read_text()
    with Wire(daemon.port) as wire:
        daemon.config_file.write_text(text.replace("mx.example.com", "new.example.com"))
        assert ask(daemon, "reload") == 0
        assert "host_name mx.example.com -> new.example.com" in capsys.readouterr().out
        assert wire.deliver(b"Subject: over it").startswith("250 ")
    daemon.config_file.write_text(f'user = "nobody"\nlog_file = "/no/where"\n{text}')
    assert ask(daemon, "reload") == 1
    assert capsys.readouterr().err.splitlines() == [
        "guerrillad: user: takes effect at the next start",
        "guerrillad: log_file: /no/where: No such file or directory",
    ]
    daemon.config_file.write_text(text.replace("host_name", "host_nam"))
    assert ask(daemon, "reload") == 1
    assert "host_nam" in capsys.readouterr().err


def test_status_and_stats(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    with Wire(daemon.port) as wire:
        assert wire.deliver(b"Subject: counted").startswith("250 ")
        assert ask(daemon, "status", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["pid"] == daemon.pid
        (server,) = found["servers"]
        assert (server["addresses"], server["clients"]) == (daemon.addresses, 1)
        assert ask(daemon, "status") == 0
        assert f"{daemon.addresses[0]}: 1 of 100 clients" in capsys.readouterr().out
        assert ask(daemon, "stats", "--json") == 0
        figures = json.loads(capsys.readouterr().out)
        assert (figures["messages_accepted"], figures["reloads"]) == (1, 0)


def test_stop_returns_when_it_has_stopped(daemon: RunningDaemon) -> None:
    assert ask(daemon, "stop") == 0
    assert daemon.process.wait(10) == 0
    assert not daemon.config_file.with_name(f"{daemon.config_file.name}.sock").exists()


def test_the_socket_follows_the_pid_file(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a command finds it where it was before the file named one."""
    text = daemon.config_file.read_text()
    beside = daemon.config_file.with_name(f"{daemon.config_file.name}.sock")
    one, two = (daemon.folder / name for name in ("one.pid", "two.pid"))
    daemon.config_file.write_text(f'pid_file = "{one}"\n{text}')
    assert ask(daemon, "reload") == 0
    assert ask(daemon, "status") == 0
    assert Path(f"{one}.sock").is_socket()
    assert not beside.exists()
    # Now nothing that is read says where it is: it is asked for.
    daemon.config_file.write_text(f'pid_file = "{two}"\n{text}')
    capsys.readouterr()
    assert ask(daemon, "reload") == 1
    assert capsys.readouterr().err == (
        f"guerrillad: no daemon answers at {two}.sock nor at {beside}: is it running? "
        "(one that was started with another pid_file is found by --socket PIDFILE.sock)\n"
    )
    assert ask(daemon, "reload", "--socket", f"{one}.sock") == 0
    assert not Path(f"{one}.sock").exists()
    assert ask(daemon, "stop") == 0
    assert daemon.process.wait(10) == 0
    assert not Path(f"{two}.sock").exists()


def test_a_socket_that_cannot_follow_stays(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    text = daemon.config_file.read_text()
    pid = daemon.folder / "run.pid"
    Path(f"{pid}.sock").write_text("something of somebody's")
    daemon.config_file.write_text(f'pid_file = "{pid}"\n{text}')
    assert ask(daemon, "reload") == 0
    assert "the control socket stays at " in daemon.log_text()
    assert Path(f"{pid}.sock").read_text() == "something of somebody's"
    capsys.readouterr()
    assert ask(daemon, "stop", "--socket", f"{daemon.config_file}.sock") == 0
    assert daemon.process.wait(10) == 0
