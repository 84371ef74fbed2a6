"""A process of a child, and its place: how it ends, and what follows."""

from __future__ import annotations

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
from guerrilla.processes import channel, children
from guerrilla.processes.channel import VERSION, Asked, Asking, RefusedError, pack
from guerrilla.processes.children import DELAYS, Child, State
from guerrilla.processes.lives import Life, ending
from guerrilla.processes.parent import Parent
from tests.wire import until

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
    os.kill(life.pid, signal.SIGSTOP)
    life.asking.end()
    assert life.wait() == -signal.SIGKILL


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


class FakeHub:
    """A parent that has its children start with a config, or with none that works."""

    def __init__(self, **keys: Any) -> None:
        self.arguments = {**told(**keys), "number": 0, "processes": 1, "addresses": []}
        self.arguments["has_memory"] = False
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
        os.kill(life.pid, signal.SIGSTOP)  # It would end well.
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
    until(lambda: child.state is State.WAITING)
    child.stop(5.0)
    assert child.join(TIMEOUT)
    assert (child.starts, child.graceful) == (1, True)


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
