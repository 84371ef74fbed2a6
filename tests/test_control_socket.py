"""The file of the control socket: where it is, whose it is, and what may be in its place."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from guerrilla.config import AppConfig, from_mapping
from guerrilla.control import sockets
from guerrilla.control.client import ask
from guerrilla.control.server import Control, control_path, open_control
from guerrilla.errors import StartError
from tests.control import FakeDaemon, started

Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def control(daemon: FakeDaemon, tmp_path: Path) -> Iterator[Control]:
    with started(daemon, tmp_path / "c.sock") as control:
        yield control


@pytest.mark.parametrize(
    ("raw", "config_file", "path"),
    [
        ({}, None, None),
        ({}, "a/guerrilla.toml", "a/guerrilla.toml.sock"),
        ({"pid_file": "/run/g.pid"}, "a/guerrilla.toml", "/run/g.pid.sock"),
        ({"pid_file": "/run/g.pid"}, None, "/run/g.pid.sock"),
        ({"control_socket": "c", "pid_file": "/run/g.pid"}, "a", "c"),
        ({"control_socket": "off", "pid_file": "/run/g.pid"}, "a", None),
        ({"control_socket": ""}, Path("a"), "a.sock"),
    ],
)
def test_where_it_is(raw: dict[str, object], config_file: str | None, path: str | None) -> None:
    assert control_path(from_mapping(raw), config_file) == path


def test_its_file_is_its_owners_from_the_first_moment(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at between `bind` and `listen`, with a umask that forbids nothing."""
    modes = []
    listen = socket.socket.listen

    def look(self: socket.socket, backlog: int) -> None:
        modes.append(os.lstat(self.getsockname()).st_mode)
        listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    before = os.umask(0)
    try:
        control = Control(daemon, tmp_path / "c.sock")
        control.start()
        modes.append(os.lstat(control.path).st_mode)
    finally:
        os.umask(before)
    control.stop()
    assert [(stat.S_ISSOCK(mode), stat.S_IMODE(mode)) for mode in modes] == [(True, 0o600)] * 2
    assert not os.path.lexists(control.path)


def test_one_that_nobody_has_is_replaced(daemon: FakeDaemon, tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    control = Control(daemon, path)
    control.start()
    assert ask(path, "stats")["ok"]
    control.stop()


def test_one_that_answers_is_left_alone(control: Control) -> None:
    other = Control(FakeDaemon(), control.path)
    with pytest.raises(OSError, match="in use: a daemon answers there"):
        other.start()
    other.stop()  # It has nothing to remove.
    assert ask(control.path, "stats")["ok"]


def test_what_is_no_socket_is_left_alone(daemon: FakeDaemon, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("precious", encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(target)
    for path in (target, link):
        with pytest.raises(OSError, match="no socket is there"):
            Control(daemon, path).start()
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "precious"


def test_many_starts_at_once_have_one_winner(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    controls = [Control(FakeDaemon(), path) for _ in range(8)]
    won: list[Control] = []
    gate = threading.Barrier(len(controls))

    def start(control: Control) -> None:
        gate.wait()
        try:
            control.start()
        except OSError:
            return
        won.append(control)

    threads = [threading.Thread(target=start, args=(control,)) for control in controls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert ask(path, "stats")["ok"]
    won[0].stop()


def test_of_two_starts_one_waits_until_the_other_has_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both find a stale socket, and the second removes that of the first."""
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    both = threading.Barrier(2)
    is_answered = sockets._is_answered

    def meet(near: str) -> bool:
        answered = is_answered(near)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
            met.append(near)
        return answered

    met: list[str] = []
    monkeypatch.setattr(sockets, "_is_answered", meet)
    controls = [Control(FakeDaemon(), path) for _ in range(2)]

    def start(control: Control) -> None:
        with suppress(OSError):
            control.start()

    threads = [threading.Thread(target=start, args=(control,)) for control in controls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []
    for control in controls:
        control.stop()


def test_a_path_longer_than_a_socket_takes(daemon: FakeDaemon, tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    path = folder / "guerrilla.toml.sock"
    control = Control(daemon, path)
    control.start()
    assert ask(path, "stats") == {"ok": True, "result": {"connections": 3}}
    with pytest.raises(OSError, match="in use"):
        Control(daemon, path).start()
    control.stop()
    assert not path.exists()
    with pytest.raises(OSError, match="too long"):
        Control(daemon, folder / ("b" * 100)).start()


def test_the_file_of_a_successor_is_not_removed(control: Control) -> None:
    os.unlink(control.path)
    other = Control(FakeDaemon(), control.path)
    other.start()
    control.stop()
    assert ask(control.path, "stats")["ok"]
    other.stop()


def test_opening_it_for_a_daemon(
    daemon: FakeDaemon, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config_file = tmp_path / "g.toml"
    with ExitStack() as opened:
        control = open_control(daemon, config_file, opened)
        assert control is not None
        assert ask(f"{config_file}.sock", "stats")["ok"]
        # A second daemon of the same file serves without one, unless it was asked for.
        assert open_control(FakeDaemon(), config_file, ExitStack()) is None
        (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "in use" in record.getMessage()
        asked = FakeDaemon(config=from_mapping({"control_socket": control.path}))
        with pytest.raises(StartError) as caught:
            open_control(asked, config_file, ExitStack())
        (problem,) = caught.value.problems
        assert problem == f"control_socket: {control.path}: in use: a daemon answers there"
    assert not os.path.exists(control.path)
    assert open_control(FakeDaemon(config=AppConfig.default()), None, ExitStack()) is None
    gone = FakeDaemon(config=from_mapping({"control_socket": str(tmp_path / "no" / "c")}))
    with pytest.raises(StartError, match="No such file or directory"):
        open_control(gone, None, ExitStack())
