"""A process that stands still is ended, and the others are left alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from guerrilla.control.client import ask
from tests.running import RunningDaemon
from tests.wire import Wire, halt, until

IMPATIENT = (
    "import sys\n"
    "from guerrilla.processes import vigil\n"
    "vigil.EVERY, vigil.MOST = 0.3, 8\n"
    "from guerrilla.processes.parent import Parent\n"
    "Parent.reopen_logs = lambda parent: parent.children[0].replace()\n"
    "from guerrilla.cli import main\n"
    "sys.exit(main())\n"
)
"""Its `reopen-logs` replaces the first process, as a reload does with one that does not obey."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    command = [sys.executable, "-c", IMPATIENT]
    with RunningDaemon(tmp_path, top="processes = 2", command=command) as running:
        yield running


def processes(daemon: RunningDaemon) -> list[dict[str, Any]]:
    answer = ask(f"{daemon.config_file}.sock", "status")
    assert answer["ok"], answer
    return list(answer["result"]["processes"])


def test_one_that_stands_still_has_a_successor(daemon: RunningDaemon) -> None:
    first, second = (one["pid"] for one in processes(daemon))
    with ExitStack() as opened:
        halt(first)
        # About half of them wait for the one that does not run.
        waiting = [opened.enter_context(Wire(daemon.port, greeted=False)) for _ in range(24)]
        for client in waiting:
            assert client.reply().startswith("220 ")
    said = f"process 0 (pid {first}) has given no sign of life for a while: it is killed"
    until(lambda: processes(daemon)[0]["state"] == "serving")
    log = daemon.log_text()
    assert (log.count(said), log.count("no sign of life")) == (1, 1)
    assert f"process 0 (pid {first}) was killed by SIGKILL after " in log
    assert [one["starts"] for one in processes(daemon)] == [2, 1]
    assert processes(daemon)[1]["pid"] == second


def test_a_reload_waits_for_it_no_longer(daemon: RunningDaemon) -> None:
    first = processes(daemon)[0]["pid"]
    halt(first)
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace("mx.example.com", "other.example.com"))
    assert ask(f"{daemon.config_file}.sock", "reload", 30.0)["ok"]
    assert "process 0 cannot be asked: it is gone: the reload begins again" in daemon.log_text()
    until(lambda: [one["state"] for one in processes(daemon)] == ["serving"] * 2)
    with ExitStack() as opened:
        wires = [opened.enter_context(Wire(daemon.port)) for _ in range(24)]
        assert {wire.greeting.split()[1] for wire in wires} == {"other.example.com"}


def test_one_that_is_to_be_replaced_and_does_not_end(daemon: RunningDaemon) -> None:
    first, second = (one["pid"] for one in processes(daemon))
    halt(first)
    assert ask(f"{daemon.config_file}.sock", "reopen-logs")["ok"]
    assert processes(daemon)[0]["state"] == "stopping"
    until(lambda: processes(daemon)[0]["state"] == "serving")
    assert [one["starts"] for one in processes(daemon)] == [2, 1]
    assert processes(daemon)[1]["pid"] == second


def test_one_that_goes_on_in_time_is_left_alone(daemon: RunningDaemon) -> None:
    first = processes(daemon)[0]["pid"]
    for _ in range(4):
        halt(first)
        threading.Event().wait(1.4)
        os.kill(first, signal.SIGCONT)
        # It answers the next one.
        with ExitStack() as opened:
            for _ in range(12):
                opened.enter_context(Wire(daemon.port))
        threading.Event().wait(0.7)
    assert processes(daemon)[0]["pid"] == first
    assert "no sign of life" not in daemon.log_text()


def test_one_that_stops_by_itself_is_not_cut_short(daemon: RunningDaemon) -> None:
    first = processes(daemon)[0]["pid"]
    with ExitStack() as opened:
        clients = [opened.enter_context(Wire(daemon.port)).begin() for _ in range(12)]
        os.kill(first, signal.SIGTERM)
        threading.Event().wait(6.0)  # more than it has to answer
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
    assert "no sign of life" not in daemon.log_text()
