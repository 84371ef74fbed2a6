"""`guerrillad serve` with several processes, as it looks from outside."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from guerrilla.control.client import ask
from tests.families import (
    TIMEOUT,
    Make,
    answers,
    asked,
    make,
    pids,
    processes,
    replaced,
    send,
)
from tests.running import DaemonError
from tests.wire import Wire, halt, until

__all__ = ["make"]


@pytest.mark.parametrize("count", [2, 4])
def test_every_mail_is_stored_and_counted(make: Make, count: int) -> None:
    daemon = make(count)
    assert len(daemon.addresses) == 1
    assert f"  processes  {count}" in daemon.printed
    for number in range(48):
        assert send(daemon, f"mail {number}")[0] == 250
    assert sorted(row["subject"] for row in daemon.rows()) == sorted(
        f"mail {number}" for number in range(48)
    )
    status, stats = asked(daemon), asked(daemon, "stats")
    until(lambda: asked(daemon, "stats")["messages_accepted"] == 48)
    assert stats["messages_received"] == status["stats"]["messages_received"] == 48
    (saved,) = [one for one in stats["stages"] if one["stage"] == "SQL"]
    assert (saved["count"], saved["errors"], saved["buckets"]["+Inf"]) == (48, 0, saved["calls"])
    each = status["processes"]
    assert [one["number"] for one in each] == [*range(count)]
    assert len({one["pid"] for one in each} | {daemon.pid}) == count + 1
    assert sum(one["messages"] for one in each) == 48
    # That one of them gets none of 48 is less likely than once in a million.
    assert all(one["messages"] and one["memory"] > 2**20 for one in each)
    assert all((one["state"], one["starts"]) == ("serving", 1) for one in each)
    assert (status["pid"], status["chain"]) == (daemon.pid, "HeadersParser|Hasher|Header|SQL")
    assert [server["addresses"] for server in status["servers"]] == [daemon.addresses]
    daemon.stop()


def test_who_waits_for_a_child_that_dies_is_served_by_its_successor(make: Make) -> None:
    """By a signal that leaves it no moment: else it would take some of those who wait with it."""
    daemon = make()
    first, second = pids(daemon)
    with ExitStack() as stack:
        served = [stack.enter_context(Wire(daemon.port)) for _ in range(24)]
        on_first, on_second = (one["clients"] for one in processes(daemon))
        assert on_first + on_second == 24
        halt(first)
        # About half of them are in the queue of the one that does not run.
        waiting = [stack.enter_context(Wire(daemon.port, greeted=False)) for _ in range(24)]
        os.kill(first, signal.SIGKILL)
        for client in waiting:
            assert client.reply().startswith("220 ")
        alive = [client for client in served if answers(client)]
        assert len(alive) == on_second
        replaced(daemon, 0, first)
        assert pids(daemon)[1] == second
        assert [one["starts"] for one in processes(daemon)] == [2, 1]
        clients = [one["clients"] for one in processes(daemon)]
        assert (sum(clients), clients[1] >= on_second) == (24 + on_second, True)
    log = daemon.log_text()
    assert f"process 0 (pid {first}) was killed by SIGKILL after " in log
    assert "another takes its place at once" in log
    assert send(daemon)[0] == 250
    daemon.stop()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_of_the_parent_are_nothing_to_a_child(make: Make, number: signal.Signals) -> None:
    daemon = make()
    before = pids(daemon)
    for pid in before:
        os.kill(pid, number)
    for _ in range(8):
        assert send(daemon)[0] == 250
    assert pids(daemon) == before
    daemon.stop()


CRASHING = """\
import ctypes, os, pathlib, guerrilla

@guerrilla.processor("Crashing")
def crashing(envelope):
    if envelope.subject == "crash":
        flag = pathlib.Path("crashed")
        if not flag.exists():
            flag.touch()
            ctypes.string_at(0)
    return None
"""


def test_a_crash_of_a_stage_costs_the_mails_of_its_process_alone(make: Make) -> None:
    daemon = make(module=CRASHING, chain="HeadersParser|Crashing|SQL")
    before = pids(daemon)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        send(daemon, "crash")
    # Its sender keeps it, and tries again.
    assert send(daemon, "crash")[0] == 250

    def is_replaced() -> bool:
        now = {one["pid"] for one in processes(daemon) if one["state"] == "serving"}
        return len(now) == 2 and len({*before} & now) == 1

    until(is_replaced)
    assert [row["subject"] for row in daemon.rows()] == ["crash"]
    assert "was killed by SIGSEGV" in daemon.log_text()
    daemon.stop()


@pytest.mark.parametrize("form", ["text", "json"])
def test_all_have_one_log(make: Make, form: str) -> None:
    daemon = make(top=f'log_file = "all.log"\nlog_format = "{form}"')
    for _ in range(24):
        assert send(daemon)[0] == 250
    old = daemon.folder / "old.log"
    # Lines come a little later than the answers.
    until(lambda: (daemon.folder / "all.log").read_text().count("guerrilla.mail") == 24)
    (daemon.folder / "all.log").rename(old)
    daemon.process.send_signal(signal.SIGUSR1)
    until((daemon.folder / "all.log").exists)
    asked(daemon, "reopen-logs")
    for _ in range(24):
        assert send(daemon)[0] == 250
    daemon.stop()
    lines = old.read_text().splitlines() + (daemon.folder / "all.log").read_text().splitlines()
    mails = [line for line in lines if "guerrilla.mail" in line]
    assert len(mails) == 48
    if form == "json":
        found = [json.loads(line) for line in lines]
        assert {one.get("process") for one in found} == {0, 1, None}
        assert {one["process"] for one in found if one["logger"] == "guerrilla.mail"} == {0, 1}
    else:
        assert {line.split()[2] for line in mails} == {"guerrilla.mail[0]", "guerrilla.mail[1]"}
        assert any(" guerrilla.processes started 2 processes" in line for line in lines)
    assert old.read_text().count("guerrilla.mail") == 24


def test_there_is_one_pid_file_and_one_control_socket(make: Make, tmp_path: Path) -> None:
    pid_file = tmp_path / "all.pid"
    daemon = make(top=f'pid_file = "{pid_file}"')
    assert pid_file.read_text() == f"{daemon.pid}\n"
    assert sorted(tmp_path.glob("*.sock")) == [tmp_path / "all.pid.sock"]
    with pytest.raises(DaemonError, match=f"belongs to a running daemon, pid {daemon.pid}"):
        make(top=f'pid_file = "{pid_file}"')
    assert ask(f"{pid_file}.sock", "status")["ok"]
    daemon.stop()
    assert not pid_file.exists()
    assert not list(tmp_path.glob("*.sock"))


def test_a_status_for_a_person(make: Make) -> None:
    daemon = make()
    first, second = pids(daemon)
    told = subprocess.run(
        [sys.executable, "-m", "guerrilla", "status", "-c", os.fspath(daemon.config_file)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    ).stdout.splitlines()
    lines = [line for line in told if line.startswith("  process ")]
    assert lines[0].startswith(f"  process    0: serving, pid {first}, up ")
    assert lines[1].startswith(f"  process    1: serving, pid {second}, up ")
    assert lines[0].endswith(" MiB")
    daemon.stop()


def test_a_service_manager_hears_of_all_of_them(make: Make, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(TIMEOUT)
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"}
        daemon = make(environment=environment)
        said = manager.recv(4096).decode().splitlines()
        assert said[0] == "READY=1"
        assert all(one["state"] == "serving" for one in processes(daemon))
        assert manager.recv(4096) == b"WATCHDOG=1"
        # One that stands still is looked after, and no reason to end all others.
        first = pids(daemon)[0]
        halt(first)
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        os.kill(first, signal.SIGCONT)
        # All that was said came from the parent alone.
        for pid in pids(daemon):
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        daemon.stop()
        until(lambda: manager.recv(4096).startswith(b"STOPPING=1"))
