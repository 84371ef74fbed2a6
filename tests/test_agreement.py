"""Reloads of several processes: all obey another config, or none does."""

from __future__ import annotations

import os
import resource
import signal
import smtplib
import socket
import sys
import threading
from typing import Any, NoReturn

import pytest

from guerrilla.config import from_mapping
from guerrilla.control.client import ask
from guerrilla.processes.agreement import said_by
from guerrilla.processes.channel import StopsError
from guerrilla.processes.childdaemon import ChildDaemon
from guerrilla.processes.place import Place
from guerrilla.running.reloading import Reload
from tests.families import (
    TIMEOUT,
    Make,
    asked,
    in_data,
    make,
    pids,
    processes,
    replaced,
    send,
)
from tests.running import DaemonError, RunningDaemon
from tests.services.base import free_port
from tests.test_moving import Clients
from tests.wire import Wire, until

__all__ = ["make"]

ONLY_ONE = """
import os
from guerrilla import Processor
from guerrilla.errors import StartError
import guerrilla

@guerrilla.processor("OnlyOne")
class OnlyOne(Processor):
    '''Of all processes that open it, only the one that finds no file of another one can.'''

    def open(self) -> None:
        try:
            os.symlink(str(os.getpid()), "only-one")
        except FileExistsError:
            pass
        if os.readlink("only-one") != str(os.getpid()):
            raise StartError(f"OnlyOne: taken by {os.readlink('only-one')}")

    def save(self, envelope):
        return None
"""

OPENS_SLOWLY = """
import time
from pathlib import Path
import guerrilla

@guerrilla.processor("Slowly")
class Slowly(guerrilla.Processor):
    '''Takes its time to open, once there is a file.'''

    def open(self) -> None:
        if Path("slow").exists():
            time.sleep(0.5)

    def save(self, envelope):
        return None
"""


def reload(daemon: RunningDaemon, *changes: tuple[str, str]) -> dict[str, Any]:
    """Changes the text of the config file, and has it read; the answer."""
    text = daemon.config_file.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    daemon.config_file.write_text(text)
    return dict(ask(f"{daemon.config_file}.sock", "reload"))


def greetings(daemon: RunningDaemon, port: int, count: int = 24) -> set[str]:
    """The host names of which new clients are told, by whichever process has them."""
    del daemon
    found = set()
    for _ in range(count):
        with smtplib.SMTP(timeout=30) as client:
            _, text = client.connect("127.0.0.1", port)
            found.add(text.decode().split()[0])
    return found


@pytest.mark.parametrize("count", [2, 4])
def test_all_processes_obey(make: Make, count: int) -> None:
    daemon = make(count)
    before = pids(daemon)
    answer = reload(daemon, ("mx.example.com", "new.example.com"))
    assert answer["ok"], answer
    assert any("server_change" in line for line in answer["result"]["changes"])
    assert greetings(daemon, daemon.port) == {"new.example.com"}
    assert pids(daemon) == before
    assert asked(daemon)["reloads"] == 1
    # And who comes later.
    os.kill(before[0], signal.SIGKILL)
    replaced(daemon, 0, before[0])
    assert greetings(daemon, daemon.port) == {"new.example.com"}


def test_one_that_cannot_leaves_all_as_they_were(make: Make) -> None:
    daemon = make(2, module=ONLY_ONE)
    before = pids(daemon)
    answer = reload(
        daemon,
        ("mx.example.com", "new.example.com"),
        ("HeadersParser|", "HeadersParser|OnlyOne|"),
    )
    assert not answer["ok"]
    (problem,) = answer["errors"]
    assert problem.startswith("process ")
    assert "OnlyOne: taken by" in problem
    assert greetings(daemon, daemon.port) == {"mx.example.com"}
    assert send(daemon)[0] == 250
    assert pids(daemon) == before
    # Nothing that was prepared is left in the way of the next.
    (daemon.folder / "only-one").unlink()
    answer = reload(daemon, ("HeadersParser|OnlyOne|", "HeadersParser|"))
    assert answer["ok"], answer
    assert greetings(daemon, daemon.port) == {"new.example.com"}


def test_what_is_wrong_with_all_is_said_once(make: Make) -> None:
    daemon = make(2)
    answer = reload(daemon, ("HeadersParser|", "HeaderParser|"))
    assert not answer["ok"]
    assert sum("HeaderParser" in line for line in answer["errors"]) == 1
    assert not any(line.startswith("process ") for line in answer["errors"])
    assert send(daemon)[0] == 250


def test_a_new_address_is_served_by_all_and_an_old_one_by_none(make: Make) -> None:
    daemon = make(2)
    old = daemon.port
    answer = reload(daemon, ('"127.0.0.1:0"', '"127.0.0.1:00"'))
    # The same text for the parser: nothing moves.
    assert answer["ok"], answer
    port = free_port()
    answer = reload(daemon, ('"127.0.0.1:00"', f'"127.0.0.1:{port}"'))
    assert answer["ok"], answer
    assert greetings(daemon, port) == {"mx.example.com"}
    until(lambda: not answers(old))
    clients = [smtplib.SMTP("127.0.0.1", port, timeout=30) for _ in range(24)]
    until(lambda: sum(one["clients"] for one in processes(daemon)) >= 24)
    assert all(one["clients"] for one in processes(daemon))
    for client in clients:
        client.close()


SLOW_COMMITS = """\
import sys, time
from guerrilla.processes.channel import Asking

begin = Asking.begin

def slowly(asking, command, *arguments, **keys):
    if command == "commit":
        time.sleep(0.3)
    return begin(asking, command, *arguments, **keys)

Asking.begin = slowly
from guerrilla.cli import main
sys.exit(main())
"""
"""A parent that asks one child after the other, with a pause between, to obey another config."""


def test_who_comes_while_one_process_obeys_and_the_other_does_not_yet(make: Make) -> None:
    """To the kernel their sockets are one as long as one of them takes clients."""
    port = free_port()
    places = [f'"127.0.0.1:{port}"', f'"0.0.0.0:{port}"']
    daemon = make(2, command=(sys.executable, "-c", SLOW_COMMITS))
    assert reload(daemon, ('"127.0.0.1:0"', places[0]))["ok"]
    with Clients(port) as clients:
        for before, after in (places, places[::-1]):
            clients.more(20)
            answer = reload(daemon, (before, after))
            assert answer["ok"], answer
        clients.more(20)
    assert clients.heard.keys() <= {"220 ", "421 "}
    assert clients.tries.keys() == {0}


def test_an_address_that_somebody_has_changes_nothing(make: Make) -> None:
    daemon, other = make(2), make(2)
    answer = reload(
        daemon,
        ('"127.0.0.1:0"', f'"127.0.0.1:{other.port}"'),
        ("mx.example.com", "new.example.com"),
    )
    assert not answer["ok"]
    assert "servers[0].listen_interface" in answer["errors"][0]
    assert "Address already in use" in answer["errors"][0]
    assert greetings(daemon, daemon.port) == {"mx.example.com"}


def test_one_that_has_no_descriptors_left_refuses_a_reload_and_goes_on(make: Make) -> None:
    daemon = make(2)
    before = pids(daemon)
    limits = resource.prlimit(before[1], resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{before[1]}/fd")}
    free = min(set(range(len(taken) + 1)) - taken)
    resource.prlimit(before[1], resource.RLIMIT_NOFILE, (free, limits[1]))
    servers = "".join(
        f'[[servers]]\nlisten_interface = "127.0.0.{host}:0"\nhost_name = "mx.example.com"\n'
        for host in (2, 3, 4)
    )
    answer = reload(daemon, ("[backend_config]", f"{servers}[backend_config]"))
    assert not answer["ok"]
    (problem,) = answer["errors"]
    assert problem.startswith("process 1: descriptors that were sent cannot be taken: ")
    assert "ulimit -n, LimitNOFILE=" in problem
    assert "is gone" not in daemon.log_text()
    resource.prlimit(before[1], resource.RLIMIT_NOFILE, limits)
    assert pids(daemon) == before
    assert greetings(daemon, daemon.port) == {"mx.example.com"}
    answer = reload(daemon)
    assert answer["ok"], answer
    assert pids(daemon) == before
    assert len([one for one in asked(daemon)["servers"] if one["addresses"]]) == 4


LIMITED = """\
import os, resource, sys
from guerrilla.processes.parent import Parent

begin_start = Parent.begin_start

def limited(parent, number, asking):
    pid = parent.children[number].life.pid
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = min(set(range(len(taken) + 1)) - taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, free))
    return begin_start(parent, number, asking)

Parent.begin_start = limited
from guerrilla.cli import main
sys.exit(main())
"""
"""A parent whose first child, which has checked the config, has no descriptors for a start."""


def test_a_start_without_descriptors_says_so(make: Make) -> None:
    with pytest.raises(
        DaemonError, match=r"descriptors that were sent cannot be taken: .*ulimit -n"
    ):
        make(2, command=(sys.executable, "-c", LIMITED))


def test_keys_for_the_next_start_are_told_and_the_rest_is_obeyed(make: Make) -> None:
    daemon = make(2)
    answer = reload(
        daemon, ("processes = 2", "processes = 3"), ("mx.example.com", "new.example.com")
    )
    assert answer["errors"] == ["processes: takes effect at the next start"]
    assert greetings(daemon, daemon.port) == {"new.example.com"}
    assert len(processes(daemon)) == 2


def test_senders_hear_nothing_of_reloads(make: Make) -> None:
    daemon = make(2)
    ended = threading.Event()
    answers_: list[int] = []

    def sender() -> None:
        while not ended.is_set():
            answers_.append(send(daemon)[0])

    threads = [threading.Thread(target=sender) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(6):
            before, after = (f"mx{turn or ''}.example.com", f"mx{turn + 1}.example.com")
            answer = reload(daemon, (before, after))
            assert answer["ok"], answer
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert set(answers_) == {250}
    assert len(daemon.rows()) == len(answers_)


def test_reloads_that_come_faster_than_one_starts_do_not_keep_it_from_serving(make: Make) -> None:
    daemon = make(2, module=OPENS_SLOWLY, chain="HeadersParser|Slowly|SQL")
    (daemon.folder / "slow").touch()
    os.kill(pids(daemon)[0], signal.SIGKILL)
    until(lambda: processes(daemon)[0]["starts"] == 2)
    for number in range(20):
        answer = reload(daemon, (f"mx{number or ''}.example.com", f"mx{number + 1}.example.com"))
        assert answer["ok"], answer
    found = processes(daemon)
    assert [(one["state"], one["starts"]) for one in found] == [("serving", 2), ("serving", 1)]
    assert greetings(daemon, daemon.port) == {"mx20.example.com"}


def test_a_change_of_the_file_is_seen_by_the_parent_alone(make: Make) -> None:
    """A child that obeyed it by itself would be alone with it."""
    daemon = make(2, top="watch_config = true")
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace("mx.example.com", "new.example.com"))
    until(lambda: asked(daemon)["reloads"] == 1)
    assert greetings(daemon, daemon.port) == {"new.example.com"}
    assert daemon.log_text().count("has changed") == 1


SLOW = """\
import os, pathlib, time, guerrilla

@guerrilla.processor("Slow")
class Slow(guerrilla.Processor):
    def open(self):
        pathlib.Path(f"opens-{os.getpid()}").touch()
        while pathlib.Path("wait").exists():
            time.sleep(0.01)
    def save(self, envelope):
        return None
"""
TO_SLOW = (("HeadersParser|", "HeadersParser|Slow|"), ("mx.example.com", "new.example.com"))


def opens(daemon: RunningDaemon) -> list[int]:
    """Which processes have begun to open it."""
    return [int(path.name[6:]) for path in daemon.folder.glob("opens-*")]


class Reloading:
    """A reload that waits, as each process opens a chain that waits."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.wait = daemon.folder / "wait"
        self.wait.touch()
        self.answer: dict[str, Any] = {}
        self.thread = threading.Thread(target=self._run, args=(daemon,))
        self.thread.start()
        until(lambda: len(opens(daemon)) >= 2)

    def _run(self, daemon: RunningDaemon) -> None:
        self.answer |= reload(daemon, *TO_SLOW)

    def end(self) -> dict[str, Any]:
        self.wait.unlink()
        self.thread.join(30)
        return self.answer


def test_one_that_dies_in_a_reload_does_not_refuse_it(make: Make) -> None:
    daemon = make(2, module=SLOW)
    first, second = pids(daemon)
    reloading = Reloading(daemon)
    os.kill(first, signal.SIGKILL)
    # Nobody waits for the reload until somebody serves in its place.
    replaced(daemon, 0, first)
    answer = reloading.end()
    assert answer["ok"], answer
    assert pids(daemon)[1] == second
    assert greetings(daemon, daemon.port) == {"new.example.com"}
    assert "it is gone: the reload begins again" in daemon.log_text()
    daemon.stop()


def test_one_that_stops_by_itself_does_not_hold_up_a_reload(make: Make) -> None:
    daemon = make(2, top="shutdown_timeout = 30")
    first, second = pids(daemon)
    clients = [Wire(daemon.port) for _ in range(24)]
    for client in clients:
        in_data(client)
    os.kill(first, signal.SIGTERM)
    until(lambda: "guerrilla.daemon[0] stopping" in daemon.log_text())
    answer = reload(daemon, ("mx.example.com", "new.example.com"))
    assert answer["ok"], answer
    assert [one["state"] for one in processes(daemon)] == ["stopping", "serving"]
    for client in clients:
        assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
        client.close()
    replaced(daemon, 0, first)
    assert pids(daemon)[1] == second
    assert greetings(daemon, daemon.port) == {"new.example.com"}
    daemon.stop()


def says(daemon: RunningDaemon, text: str) -> None:
    """Waits until it has logged that."""
    try:
        until(lambda: text in daemon.log_text())
    except AssertionError:
        raise AssertionError(daemon.log_text()) from None


def test_a_stop_waits_for_no_reload(make: Make) -> None:
    daemon = make(2, module=SLOW)
    (daemon.folder / "wait").touch()
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace("HeadersParser|", "HeadersParser|Slow|"))
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: len(opens(daemon)) == 2)
    daemon.process.send_signal(signal.SIGHUP)  # It is one of those that come meanwhile.
    daemon.process.send_signal(signal.SIGTERM)
    says(daemon, "SIGHUP: all processes stop")
    says(daemon, "guerrilla.processes stopping")
    (daemon.folder / "wait").unlink()
    assert daemon.process.wait(TIMEOUT) == 0


def test_a_change_that_is_refused_as_all_processes_end_is_read_again(make: Make) -> None:
    daemon = make(2, module=SLOW, top="watch_config = true")
    second = pids(daemon)[1]
    (daemon.folder / "wait").touch()
    text = daemon.config_file.read_text()
    for before, after in TO_SLOW:
        text = text.replace(before, after)
    daemon.config_file.write_text(text)
    until(lambda: len(opens(daemon)) == 2)
    for pid in pids(daemon):
        os.kill(pid, signal.SIGKILL)
    (daemon.folder / "wait").unlink()
    until(lambda: asked(daemon)["reloads"] == 1)
    until(lambda: [one["state"] for one in processes(daemon)] == ["serving"] * 2)
    assert second not in pids(daemon)
    assert greetings(daemon, daemon.port) == {"new.example.com"}


def test_what_comes_too_late_is_not_put_in_force() -> None:
    """As where a child has stood still, and the reload was refused without it."""
    config = from_mapping({"servers": [{"listen_interface": "127.0.0.1:0"}], "log_file": "off"})
    other = config.model_copy(update={"shutdown_timeout": 77.0})
    daemon = ChildDaemon(config, place=Place(is_child=True))
    with pytest.raises(StopsError):
        daemon.prepare(other, None, [], {}, turn=1)
    with daemon:
        daemon.abandon(1)
        with pytest.raises(LookupError, match="it comes too late"):
            daemon.prepare(other, None, [], {}, turn=1)
        daemon.prepare(other, None, [], {}, turn=2)
        with pytest.raises(LookupError, match="nothing was prepared"):
            daemon.commit(1)
        daemon.abandon(1)  # It is over.
        daemon.prepare(config, None, [], {}, turn=3)
        with pytest.raises(LookupError, match="it comes too late"):
            daemon.prepare(other, None, [], {}, turn=2)
        assert all("reopen" in change.event for change in daemon.commit(3).changes)
        with pytest.raises(LookupError, match="nothing was prepared"):
            daemon.commit(3)
    with pytest.raises(StopsError):
        daemon.commit(3)


def test_what_cannot_be_prepared_for_any_reason_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that listened on would have connections that nobody accepts."""

    def without_threads(*_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    config = from_mapping({"servers": [{"listen_interface": "127.0.0.1:0"}], "log_file": "off"})
    with ChildDaemon(config, place=Place(is_child=True)) as daemon:
        monkeypatch.setattr(Reload, "_open_pools", without_threads)
        with socket.create_server(("127.0.0.1", 0)) as new:
            port = new.getsockname()[1]
            address = f"127.0.0.1:{port}"
            other = from_mapping({"servers": [{"listen_interface": address}], "log_file": "off"})
            with pytest.raises(RuntimeError, match="thread"):
                daemon.prepare(other, None, [(address, new.fileno())], {}, turn=1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()


def test_a_config_that_does_not_parse_changes_nothing(make: Make) -> None:
    daemon = make(2)
    good = daemon.config_file.read_text()
    daemon.config_file.write_text(good + "\nno_such_key = 1\n")
    answer = ask(f"{daemon.config_file}.sock", "reload")
    assert not answer["ok"]
    assert "no_such_key" in answer["errors"][0]
    daemon.config_file.write_text(good)
    assert ask(f"{daemon.config_file}.sock", "reload")["ok"]


@pytest.mark.parametrize(
    ("problems", "lines"),
    [
        ({}, []),
        ({0: ["a"], 1: ["a"]}, ["a"]),
        ({0: ["a"]}, ["process 0: a"]),
        ({0: ["a", "b"], 1: ["b"]}, ["process 0: a", "b"]),
        ({1: ["process 1 has not answered"]}, ["process 1 has not answered"]),
    ],
)
def test_who_says_what(problems: dict[int, list[str]], lines: list[str]) -> None:
    assert said_by(problems, 2) == lines


def answers(port: int) -> bool:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=5):
            return True
    except OSError:
        return False
