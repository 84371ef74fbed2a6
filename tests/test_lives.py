"""A process of a child, and its place: how it ends, and what follows."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.errors import StartError
from guerrilla.processes import channel, children, vigil
from guerrilla.processes.channel import VERSION, Asked, Asking, RefusedError, pack
from guerrilla.processes.children import DELAYS, Child, State
from guerrilla.processes.lives import _BOOT, Life, ending
from guerrilla.processes.parent import Parent
from guerrilla.processes.vigil import Vigil
from tests.wire import descriptors, halt, opened_since, until

TIMEOUT = 30.0
PATIENCE = 20.0


@pytest.fixture
def life() -> Iterator[Life]:
    found = Life(0, lambda: PATIENCE)
    yield found
    found.discard()


def told(version: str = VERSION, **keys: Any) -> dict[str, Any]:
    """What a child is told of a config."""
    config = from_mapping(
        {"servers": [{"listen_interface": "127.0.0.1:0"}], "log_file": "off", **keys}
    )
    return {"version": version, "config": pack(config), "config_file": None, "resolved": {}}


def test_a_config_is_checked(life: Life) -> None:
    assert life.asking.ask("check", told(), timeout=TIMEOUT) is None
    wrong = told(backend_config={"save_process": "Nobody"})
    with pytest.raises(RefusedError, match=r"save_process: unknown processor 'Nobody'") as caught:
        life.asking.ask("check", wrong, timeout=TIMEOUT)
    assert caught.value.kind == "StartError"
    with pytest.raises(RefusedError, match="it has not started"):
        life.asking.ask("status", timeout=TIMEOUT)


@pytest.mark.parametrize("command", ["check", "start"])
def test_a_child_of_another_version_does_not_start(life: Life, command: str) -> None:
    with pytest.raises(RefusedError, match="guerrillad upgrade lets the new one take over"):
        life.asking.ask(command, told("0.0.1 (old)"), timeout=TIMEOUT)
    if command == "start":
        assert life.wait() == 1


def test_it_ends_when_its_parent_says_no_more(life: Life) -> None:
    life.asking.ask("check", told(), timeout=TIMEOUT)
    life.asking.end()
    assert life.wait() == 0


def test_it_is_killed_when_it_does_not() -> None:
    life = Life(0, lambda: 0.1)
    halt(life.pid)
    life.asking.end()
    assert life.wait() == -signal.SIGKILL


HANGING = """\
import threading, pathlib, guerrilla

@guerrilla.processor("Hanging")
class Hanging(guerrilla.Processor):
    def open(self):
        pathlib.Path(__file__).with_name("hanging").touch()
        threading.Event().wait()
    def save(self, envelope):
        return None
"""


def test_a_start_that_hangs_ends_with_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the sockets, which another parent waits for."""
    quick = "from guerrilla.processes import child; child.ORPHAN_LIMIT = 0.2; "
    monkeypatch.setattr("guerrilla.processes.lives._BOOT", _BOOT.replace("from", quick + "from", 1))
    (tmp_path / "hanging_stage.py").write_text(HANGING)
    backend = {"import": ["hanging_stage"], "save_process": "Hanging"}
    arguments = {
        **told(backend_config=backend),
        "config_file": os.fspath(tmp_path / "guerrilla.toml"),
        **ALONE,
    }
    life = Life(0, lambda: PATIENCE)
    life.asking.begin("start", arguments)
    until((tmp_path / "hanging").exists)
    life.asking.end()
    assert life.wait() == 1


def test_what_cannot_be_begun_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("guerrilla.processes.lives.Asking", fail)
    spawned: list[int] = []

    def opened(pid: int) -> int:
        spawned.append(pid)
        return os.pidfd_open(pid)

    monkeypatch.setattr("guerrilla.processes.lives._pidfd", opened)
    before = descriptors()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Life(0, lambda: PATIENCE)
    assert opened_since(before) == {}
    with pytest.raises(ProcessLookupError):
        os.kill(spawned[0], 0)


def test_it_does_not_import_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pydantic.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    life = Life(0, lambda: 5.0)
    try:
        assert life.asking.ask("check", told(), timeout=TIMEOUT) is None
    finally:
        life.discard()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
    ],
)
def test_how_it_has_ended(status: int, text: str) -> None:
    assert ending(status) == text


ALONE = {"number": 0, "processes": 1, "addresses": [], "has_memory": False}
"""What one process is told of its place."""


class FakeHub:
    """A parent that has its children start with a config, or with none that works."""

    def __init__(self, **keys: Any) -> None:
        self.arguments = {**told(**keys), **ALONE}
        self.generation = 1
        self.changing = threading.RLock()
        self.ended = 0
        self.gave_up = threading.Event()
        self.cause = ""

    def begin_start(self, number: int, asking: Asking) -> tuple[Asked, int]:
        assert number == 0
        return asking.begin("start", self.arguments), self.generation

    def is_current(self, generation: int) -> bool:
        return generation == self.generation

    def has_ended(self, number: int) -> None:
        self.ended += 1

    def give_up(self, cause: str) -> None:
        self.cause = cause
        self.gave_up.set()

    def patience(self) -> float:
        return 5.0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Child]]:
    """Children that are ended with the test."""
    monkeypatch.setattr(children, "DELAYS", (0.0,) * len(DELAYS))
    found: list[Child] = []
    yield found
    for child in found:
        child.stop(1.0)
        child.kill()
        assert child.join(TIMEOUT)


def test_a_place_has_one_process_after_the_other(made: list[Child]) -> None:
    hub = FakeHub()
    made.append(child := Child(0, hub))
    child.begin()
    assert child.first.result(TIMEOUT) == {"warnings": child.first.result()["warnings"]}
    life = child.life
    assert life is not None
    assert child.asking is life.asking
    assert life.asking.ask("ping", {"within": 60.0}) is True
    life.kill()
    until(lambda: child.starts == 2 and child.state is State.SERVING)
    assert hub.ended == 1
    # A reload came while it started: it is not to stay with the config before that.
    hub.generation += 1
    child.replace()
    until(lambda: child.starts == 3 and child.state is State.SERVING)
    child.stop(5.0)
    assert child.join(TIMEOUT)
    assert (child.state, child.graceful, hub.ended) == (State.ENDED, True, 3)
    assert child.life is None


@pytest.mark.parametrize("says_so", [False, True])
def test_one_that_is_to_end_and_does_not_is_killed(
    made: list[Child], caplog: pytest.LogCaptureFixture, says_so: bool
) -> None:
    """Whether its parent has asked it to stop, or it says that somebody else has."""
    hub = FakeHub()
    made.append(child := Child(0, hub))
    child.begin()
    child.first.result(TIMEOUT)
    life = child.life
    assert life is not None
    assert child.away == 0
    halt(life.pid)
    child.leaves(life) if says_so else child.replace()
    assert (child.state, child.asking) == (State.STOPPING, None)
    child.end_if_late()
    assert "it is killed" not in caplog.text
    assert child._limit is not None
    child._limit -= hub.patience()
    child.end_if_late()
    assert (
        f"process 0 (pid {life.pid}) was to end, and has not in time: it is killed" in caplog.text
    )
    until(lambda: child.starts == 2 and child.state is State.SERVING)
    child.leaves(life)  # It is of the one before.
    assert (child.state, child.away) == (State.SERVING, 0)


def test_a_process_that_the_system_does_not_give_is_tried_for_again(
    made: list[Child], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = FakeHub()
    made.append(child := Child(0, hub))
    child.begin()
    child.first.result(TIMEOUT)
    errors: list[Exception] = [OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))] * 6
    errors += [RuntimeError("can't start new thread")]
    real = Life

    def scarce(*arguments: Any) -> Life:
        if errors:
            raise errors.pop(0)
        return real(*arguments)

    monkeypatch.setattr(children, "Life", scarce)
    child.kill()
    until(lambda: child.state is State.SERVING and child.starts == 2)
    assert not hub.gave_up.is_set()
    what = "process 0 cannot be started: Resource temporarily unavailable; it is tried again"
    assert caplog.text.count(what) == 6
    assert "process 0 cannot be started: can't start new thread; it is tried again" in caplog.text


def test_who_started_with_an_older_config_is_replaced(made: list[Child]) -> None:
    hub = FakeHub()
    made.append(child := Child(0, hub))
    hub.is_current = lambda generation: child.starts > 1  # type: ignore[method-assign]
    child.begin()
    child.first.result(TIMEOUT)
    until(lambda: child.starts == 2 and child.state is State.SERVING)


def test_a_first_start_that_is_refused_is_not_tried_again(made: list[Child]) -> None:
    made.append(child := Child(0, FakeHub(backend_config={"save_process": "Nobody"})))
    child.begin()
    with pytest.raises(StartError, match="unknown processor 'Nobody'"):
        child.first.result(TIMEOUT)
    assert child.join(TIMEOUT)
    assert (child.starts, child.state) == (1, State.ENDED)


def test_it_gives_up_on_what_dies_before_it_is_ready(
    made: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub()
    made.append(child := Child(0, hub))
    child.begin()
    child.first.result(TIMEOUT)
    monkeypatch.setattr("guerrilla.processes.lives._BOOT", "raise SystemExit(9)")
    child.kill()
    assert hub.gave_up.wait(TIMEOUT)
    assert hub.cause == "process 0 ended with status 9 before it was ready, 5 times in a row"
    assert child.join(TIMEOUT)


def test_a_config_that_is_too_large_is_an_error_at_once(
    made: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "MAX_REQUEST", 1_000)
    made.append(child := Child(0, FakeHub()))
    child.begin()
    problem = "the config is too large for several processes: .* more than 1000 bytes"
    with pytest.raises(StartError, match=problem):
        child.first.result(TIMEOUT)
    assert child.join(TIMEOUT)
    assert child.starts == 1


def test_why_a_start_came_to_nothing_is_told(
    made: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "READY_LIMIT", 0.0)
    monkeypatch.setattr("guerrilla.processes.lives._BOOT", "import time; time.sleep(600)")
    made.append(child := Child(0, FakeHub()))
    child.begin()
    cause = (
        r"process 0 was killed by SIGKILL \(process 0 has not answered start within 0 s\) before "
        "it was ready, 5 times in a row"
    )
    with pytest.raises(StartError, match=cause):
        child.first.result(TIMEOUT)


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_how_one_ended_that_is_replaced_is_told(
    made: list[Child], caplog: pytest.LogCaptureFixture, number: signal.Signals | None
) -> None:
    caplog.set_level(logging.INFO, "guerrilla.processes")
    made.append(child := Child(0, FakeHub()))
    child.begin()
    child.first.result(TIMEOUT)
    life = child.life
    assert life is not None
    if number is not None:
        halt(life.pid)  # It would end well.
    child.replace()
    if number is not None:
        os.kill(life.pid, number)
    until(lambda: child.starts == 2 and child.state is State.SERVING)
    how = "ended with status 0" if number is None else "was killed by SIGKILL"
    what = f"process 0 (pid {life.pid}), which is replaced, {how}; another takes its place at once"
    (record,) = [found for found in caplog.records if found.getMessage() == what]
    assert record.levelno == (logging.INFO if number is None else logging.CRITICAL)


def test_what_cannot_even_be_started(made: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    made.append(child := Child(0, FakeHub()))
    child.begin()
    with pytest.raises(StartError, match=r"process 0 cannot be started: No such file .* 5 times"):
        child.first.result(TIMEOUT)


def test_a_stop_while_it_waits_for_another_try(
    made: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "DELAYS", (3600.0,) * len(DELAYS))
    hub = FakeHub()
    made.append(child := Child(0, hub))
    child.begin()
    child.first.result(TIMEOUT)
    child.kill()
    until(lambda: child.state is State.WAITING and child._quick == 1)
    child.stop(5.0)
    assert child.join(TIMEOUT)
    assert (child.starts, child.graceful) == (1, True)


def test_one_that_is_not_well_is_killed_alone(
    made: list[Child], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers, and nobody looks after its workers."""
    monkeypatch.setattr(vigil, "MOST", 2)
    made.append(child := Child(0, FakeHub()))
    child.begin()
    child.first.result(TIMEOUT)
    life = child.life
    assert life is not None
    begin = life.asking.begin
    monkeypatch.setattr(
        life.asking, "begin", lambda command, *_, **__: begin(command, {"within": -1.0})
    )
    watch = Vigil([child], lambda: None)
    watch._look()
    assert "it is killed" not in caplog.text
    watch._look()
    what = f"process 0 (pid {life.pid}) has given no sign of life for a while: it is killed"
    assert what in caplog.text
    until(lambda: child.starts == 2 and child.state is State.SERVING)


def test_a_watch_that_is_not_kept_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vigil, "EVERY", 0.01)
    looks = threading.Semaphore(0)
    watch = Vigil([], looks.release)
    with watch.keeping():
        assert looks.acquire(timeout=TIMEOUT)
        assert watch.is_kept(TIMEOUT)
        monkeypatch.setattr(watch, "_children", None)
        until(lambda: "the processes cannot be watched over" in caplog.text)
        until(lambda: not watch.is_kept(0.0))


def test_who_dies_soon_waits_longer_each_time() -> None:
    child = Child(0, FakeHub())
    assert [child._delay(1.0) for _ in range(9)] == [
        0.0,
        1.0,
        2.0,
        4.0,
        8.0,
        16.0,
        30.0,
        30.0,
        30.0,
    ]
    assert [child._delay(61.0), child._delay(1.0), child._delay(1.0)] == [0.0, 1.0, 2.0]


class Sockets:
    """Sockets that say when they are closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_no_socket_is_closed_beside_a_start_that_passes_it_on() -> None:
    """Its number may be somebody else's file by then, which the child would be given."""
    parent, sockets = Parent(from_mapping({}), None, 2), Sockets()
    parent.sockets = sockets  # type: ignore[assignment]
    thread = threading.Thread(target=parent._close_sockets)
    with parent.changing:
        thread.start()
        assert not sockets.closed.wait(0.2)
    thread.join(TIMEOUT)
    assert sockets.closed.is_set()
