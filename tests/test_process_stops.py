"""Several processes stop: all of them, one alone, or without their parent."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.families import (
    TIMEOUT,
    Make,
    in_data,
    is_there,
    make,
    pids,
    processes,
    refused,
    replaced,
    send,
)
from tests.running import DaemonError, RunningDaemon
from tests.wire import HELLO, TRANSACTION, Wire, until

__all__ = ["make"]


def test_a_child_that_is_told_to_stop_does_so_gracefully(make: Make) -> None:
    daemon = make(top="shutdown_timeout = 20")
    first, _ = pids(daemon)
    with ExitStack() as stack:
        clients = [stack.enter_context(Wire(daemon.port)) for _ in range(16)]
        for client in clients:
            client.send(HELLO)
            client.reply()
            client.send(TRANSACTION)
            assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        os.kill(first, signal.SIGTERM)
        until(lambda: "guerrilla.daemon[0] stopping" in daemon.log_text())
        # Some of them come to the one that stops, and wait for the next.
        waiting = [stack.enter_context(Wire(daemon.port, greeted=False)) for _ in range(16)]
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
        assert [client.reply()[:4] for client in waiting] == ["220 "] * 16
    replaced(daemon, 0, first)
    assert f"process 0 (pid {first}) ended with status 0 after" in daemon.log_text()
    assert len(daemon.rows()) == 16
    daemon.stop()


def test_a_stop_under_load_loses_nothing(make: Make) -> None:
    daemon = make()
    saved: list[int] = []
    stopping = threading.Event()

    def sender(name: int) -> None:
        for number in range(10_000):
            with suppress(OSError, smtplib.SMTPException):
                if send(daemon, f"{name} {number}")[0] == 250:
                    saved.append(1)
                    continue
            if stopping.is_set():
                return

    threads = [threading.Thread(target=sender, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(saved) > 50)
    stopping.set()
    daemon.stop()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(daemon.rows()) >= len(saved)


def some_of_all(daemon: RunningDaemon, stack: ExitStack) -> list[Wire]:
    """Clients, of which each process serves at least one."""
    clients: list[Wire] = []
    while len(clients) < 8 or not all(one["clients"] for one in processes(daemon)):
        clients.append(stack.enter_context(Wire(daemon.port)))
    return clients


def test_a_second_signal_ends_all_at_once(make: Make) -> None:
    daemon = make()
    children = pids(daemon)
    with ExitStack() as stack:
        for client in some_of_all(daemon, stack):
            in_data(client)
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: daemon.log_text().count("guerrilla.daemon[") > 2 and refused(daemon))
        assert all(map(is_there, children))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(TIMEOUT) == 1
        until(lambda: not any(map(is_there, children)))
    assert "guerrillad: stopped at once" in daemon.log_text()


def test_one_that_is_killed_as_all_stop_is_told(make: Make) -> None:
    daemon = make()
    first, _ = pids(daemon)
    with ExitStack() as stack:
        for client in some_of_all(daemon, stack):
            in_data(client)
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: "guerrilla.daemon[0] stopping" in daemon.log_text() and refused(daemon))
        os.kill(first, signal.SIGKILL)
    assert daemon.process.wait(TIMEOUT) == 1
    assert f"process 0 (pid {first}) was killed by SIGKILL as all stop" in daemon.log_text()


def test_what_takes_too_long_is_cut_off_by_its_own_process(make: Make) -> None:
    daemon = make(top="shutdown_timeout = 1")
    with Wire(daemon.port) as client:
        in_data(client)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(TIMEOUT) == 1
    log = daemon.log_text()
    assert "sessions were cut off after 1 s" in log
    assert "it is killed" not in log
    assert log.count("guerrilla.daemon[0] stopped") == log.count("guerrilla.daemon[1] stopped") == 1


def test_children_without_their_parent_end_gracefully(make: Make) -> None:
    daemon = make()
    children = pids(daemon)
    with ExitStack() as stack:
        clients = [stack.enter_context(Wire(daemon.port)) for _ in range(8)]
        for client in clients:
            in_data(client)
        daemon.process.kill()
        daemon.process.wait(TIMEOUT)
        until(lambda: refused(daemon))
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
    until(lambda: not any(map(is_there, children)))
    assert len(daemon.rows()) == 8
    assert daemon.log_text().count("the parent process is gone: stopping") == 2


def test_a_stop_over_the_control_socket(make: Make) -> None:
    daemon = make()
    children = pids(daemon)
    done = subprocess.run(
        [sys.executable, "-m", "guerrilla", "stop", "-c", os.fspath(daemon.config_file)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout == "stopped\n"
    assert daemon.process.wait(TIMEOUT) == 0
    assert not any(map(is_there, children))


HANGING = """\
import threading, guerrilla

@guerrilla.processor("Hanging")
class Hanging(guerrilla.Processor):
    def open(self):
        open("hanging", "w").close()
        threading.Event().wait()
    def save(self, envelope):
        return None
"""


def test_a_signal_ends_a_start_that_hangs(make: Make, tmp_path: Path) -> None:
    said: list[str] = []

    def start() -> None:
        with pytest.raises(DaemonError) as caught:
            make(module=HANGING, chain="Hanging|SQL")
        said.append(str(caught.value))

    thread = threading.Thread(target=start)
    thread.start()
    until(lambda: list(tmp_path.rglob("hanging")))
    (parent,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if is_mine(path, tmp_path)
    )
    os.kill(parent, signal.SIGTERM)
    thread.join(TIMEOUT)
    assert said == ["guerrillad: SIGTERM: stopped before it had started\n"]


def is_mine(cmdline: Path, folder: Path) -> bool:
    """Whether it is a parent that serves a config in this folder."""
    with suppress(OSError):
        words = cmdline.read_bytes().decode(errors="replace").split("\0")
        return "serve" in words and any(word.startswith(f"{folder}/") for word in words)
    return False
