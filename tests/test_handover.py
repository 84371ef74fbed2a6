"""What passes between the program that runs and the one after it, and what may be wrong with it."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import AppConfig
from guerrilla.control import server, sockets
from guerrilla.control.client import ask
from guerrilla.control.server import Control
from guerrilla.daemon import Daemon
from guerrilla.errors import ConfigError, StartError, UpgradeError
from guerrilla.processes import handover
from guerrilla.processes.binding import passed_socket
from guerrilla.processes.estate import Estate
from guerrilla.processes.handover import PROTOCOL, VARIABLE, Offer, Predecessor
from guerrilla.processes.upgrade import Launch, Upgrade
from guerrilla.processes.wire import Wire
from guerrilla.running.parts import HeldPid
from guerrilla.running.pidfile import PidFile
from tests.control import FakeDaemon
from tests.daemons import Make, config


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    """What the old one has, and the end of the new one."""
    old, new = socket.socketpair()
    wire = Wire(old, takes_descriptors=True)
    yield wire, new
    wire.close()
    new.close()


class Nobody:
    """Listeners without a file."""

    def leave_files(self) -> list[str]:
        return []

    def own_files(self, addresses: Sequence[str]) -> None:
        assert not addresses


def heard(wire: Wire) -> dict[str, Any]:
    received = wire.receive(10)
    assert received is not None
    return received.value


@pytest.mark.parametrize("text", ["", "x", "-1", "999999", "1e3", str(2**70), "0"])
def test_a_variable_that_names_no_socket(text: str) -> None:
    with open(os.devnull) as null:
        environment = {VARIABLE: str(null.fileno()) if text == "0" else text}
        with pytest.raises(StartError, match=f"{VARIABLE}: expected the descriptor of a socket"):
            Predecessor.find(environment)
    assert environment == {}


def test_without_the_variable_nobody_was_before() -> None:
    assert Predecessor.find({}) is None


def test_another_protocol(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, new = pair
    monkeypatch.setattr(handover, "PROTOCOL", 1)
    Offer([]).send(wire)
    monkeypatch.undo()
    with pytest.raises(StartError, match=r"by protocol 1, and the new one .* knows 2 alone"):
        Predecessor(new)
    said = heard(wire)
    assert said["event"] == "failed"
    assert "stop the one and start the other" in said["problems"][0]


def test_an_offer_that_lacks_descriptors(pair: tuple[Wire, socket.socket]) -> None:
    wire, new = pair
    offer = {"event": "offer", "protocol": PROTOCOL, "addresses": ["127.0.0.1:25"], "passed": ["x"]}
    wire.send(offer)
    with pytest.raises(StartError, match="0 sockets were handed over, and 2 addresses were told"):
        Predecessor(new)


@pytest.mark.parametrize("data", [b"nonsense\n", b"[]\n", b'{"protocol": 1, "descriptors": 3}\n'])
def test_an_offer_that_is_none(data: bytes) -> None:
    old, new = socket.socketpair()
    with old:
        old.sendall(data)
        with pytest.raises(StartError, match="what was handed over cannot be read: "):
            Predecessor(new)


def test_one_before_that_has_ended(pair: tuple[Wire, socket.socket]) -> None:
    wire, new = pair
    wire.end()
    with pytest.raises(StartError, match="has ended, and handed nothing over"):
        Predecessor(new)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "has ended, and handed nothing over"),
        ({"event": "wait"}, "says something else than go"),
        (1, "does not let it begin: the other side took too long"),
    ],
)
def test_one_that_is_not_let_go(
    pair: tuple[Wire, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, str] | int | None,
    said: str,
) -> None:
    wire, new = pair
    monkeypatch.setattr(handover, "GO_LIMIT", 0.05 if answer == 1 else 10)
    Offer([]).send(wire)
    before = Predecessor(new)
    if isinstance(answer, dict):
        wire.send(answer)
    elif answer is None:
        wire._end.shutdown(socket.SHUT_WR)
    with pytest.raises(StartError, match=said), before.told():
        before.ready()
    assert heard(wire) == {"event": "ready"}
    assert said in heard(wire)["problems"][0]


def test_what_was_handed_over_and_not_taken_is_closed(pair: tuple[Wire, socket.socket]) -> None:
    wire, new = pair
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Offer([("127.0.0.1:0", listener.fileno())], listener.fileno(), "x.sock").send(wire)
        before = Predecessor(new)
        (address, descriptor), pid_file = before.offer.sockets[0], before.offer.pid_file
        assert (address, before.offer.control) == ("127.0.0.1:0", "x.sock")
        assert pid_file is not None
        assert not os.get_inheritable(descriptor)
        before.close()
        for one in (descriptor, pid_file):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(one)


def test_what_systemd_has_passed_goes_on_as_that(pair: tuple[Wire, socket.socket]) -> None:
    wire, new = pair
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
    ):
        theirs = passed_socket(other.fileno(), "smtp")
        again = [("127.0.0.1:0", os.dup(own.fileno())), ("[::1]:25", os.dup(other.fileno()))]
        estate = Estate(again, Nobody(), HeldPid(None), None, [theirs])
        offer = estate.offer()
        assert [address for address, _ in offer.sockets] == ["127.0.0.1:0"]
        offer.send(wire)
        offer.close()
        before = Predecessor(new)
        before.close()
        (passed,) = before.offer.passed
        assert passed == replace(theirs, fd=passed.fd)
        # It stays, as that of the one before.
        assert os.fstat(passed.fd).st_ino == os.fstat(other.fileno()).st_ino
        assert not os.get_inheritable(passed.fd)
        os.close(passed.fd)


def test_what_systemd_would_not_have_passed(pair: tuple[Wire, socket.socket]) -> None:
    wire, new = pair
    with socket.socket() as deaf:
        offer = {"event": "offer", "protocol": PROTOCOL, "addresses": [], "passed": ["smtp"]}
        wire.send(offer, [deaf.fileno()])
    with pytest.raises(StartError, match="as systemd's cannot be used: it does not listen"):
        Predecessor(new)
    assert heard(wire)["event"] == "failed"


def test_a_pid_file_goes_from_hand_to_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    first = PidFile(path)
    path.write_text("1234567890\n")  # of a longer number
    held = os.dup(first.fileno())
    second = PidFile(path, held)
    os.close(held)
    assert second.was_handed_over
    assert path.read_text() == "1234567890\n"
    second.write()
    assert path.read_text() == f"{os.getpid()}\n"
    first.leave()
    first.remove()
    # The lock has gone on.
    with pytest.raises(FileExistsError, match="belongs to a running daemon"):
        PidFile(path)
    second.remove()
    assert not path.exists()


def test_a_pid_file_that_was_not_written_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    first = PidFile(path)
    second = PidFile(path, first.fileno())
    second.remove()
    assert path.exists()
    with pytest.raises(FileExistsError):
        PidFile(path)
    first.remove()


def test_a_pid_file_is_taken_back_whatever_became_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    first = PidFile(path)
    second = PidFile(path, first.fileno())
    second.write()
    second.remove()
    assert not path.exists()
    first.take_back()
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(FileExistsError):
        PidFile(path)
    first.remove()


def test_another_pid_file_is_a_new_one(tmp_path: Path) -> None:
    first = PidFile(tmp_path / "a.pid")
    second = PidFile(tmp_path / "b.pid", first.fileno())
    assert not second.was_handed_over
    second.remove()
    assert (tmp_path / "a.pid").exists()
    first.remove()


def test_somebody_answers_at_the_path_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    ended, answers = threading.Event(), []

    def asking() -> None:
        while not ended.is_set():
            answers.append(ask(path, "status"))

    thread = threading.Thread(target=asking)
    with ExitStack() as opened:
        first = Control(FakeDaemon(), path)
        first.start()
        opened.callback(first.stop)
        thread.start()
        for _ in range(10):
            second = Control(FakeDaemon(), path)
            second.start_beside()
            assert sockets.identity(os.fspath(path)) == first._identity
            second.take()
            count = len(answers)
            while len(answers) < count + 5:
                assert thread.is_alive()
            first.stop()
            opened.callback(second.stop)
            first = second
        ended.set()
        thread.join()
    assert list(tmp_path.iterdir()) == []
    # Although one asks faster than connections end.
    assert [one for one in answers if not one["ok"]] == []


def test_a_control_socket_that_was_not_taken_leaves_the_other(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    first, second = Control(FakeDaemon(), path), Control(FakeDaemon(), path)
    first.start()
    second.start_beside()
    second.stop()
    assert ask(path, "status")["ok"]
    assert [one.name for one in tmp_path.iterdir()] == ["x.sock"]
    first.stop()


@pytest.mark.parametrize("ends", [True, False])
def test_a_control_socket_is_taken_back(tmp_path: Path, *, ends: bool) -> None:
    path = tmp_path / "x.sock"
    first, second = Control(FakeDaemon(), path), Control(FakeDaemon(), path)
    first.start()
    second.start_beside()
    second.take()
    if ends:
        second.stop()
        assert not path.exists()
    first.take_back()
    assert sockets.identity(os.fspath(path)) == first._identity
    if not ends:
        second.stop()
    assert ask(path, "status")["ok"]
    first.stop()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        Control(FakeDaemon(), path).start_beside()
    assert path.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_only_root_and_its_own_user_may_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, daemon = tmp_path / "x.sock", FakeDaemon()
    control = Control(daemon, path)
    control.start()
    monkeypatch.setattr(server, "_peer", lambda client: (1, 1234))
    monkeypatch.setattr(os, "geteuid", lambda: 1235)
    answer = ask(path, "upgrade")
    assert answer["errors"] == ["only root may have a program of root's started anew"]
    assert ask(path, "status")["ok"]
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert ask(path, "upgrade")["result"] == {"pid": 1234, "version": "1.0"}
    monkeypatch.setattr(server, "_peer", lambda client: (1, 0))
    assert ask(path, "upgrade")["ok"]
    assert daemon.did.count("upgrade") == 2
    daemon.error = UpgradeError("a\nb")
    assert ask(path, "upgrade") == {"ok": False, "errors": ["a", "b"]}
    control.stop()


class Served:
    """What could be upgraded."""

    def __init__(self) -> None:
        self.config = AppConfig.default()

    def hand_over(self) -> Estate:
        raise RuntimeError("it does not run")

    def shutdown(self) -> None:
        pytest.fail("it goes on")


def test_one_that_does_not_run_is_not_replaced() -> None:
    with pytest.raises(UpgradeError, match="it does not run"):
        Upgrade(Served(), Launch.of_now()).run()


def test_process_1_of_a_container_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(UpgradeError, match="this is process 1 of its container"):
        Upgrade(Served(), Launch(("x",), "/", {})).run()


def test_while_a_reload_is_under_way_nothing_is_replaced() -> None:
    found = Upgrade(Served(), Launch.of_now())
    refused = pytest.raises(UpgradeError, match="a reload is under way")
    with found.reloading(), found.reloading(), refused:
        found.run()
    with pytest.raises(UpgradeError, match="it does not run"):
        found.run()
    with pytest.raises(ConfigError, match="x"), found.reloading():
        raise ConfigError("x")
    with pytest.raises(UpgradeError, match="it does not run"):
        found.run()


def saying(line: str) -> Launch:
    """A program that says this, and stays."""
    code = (
        "import os, time\n"
        f"os.write(int(os.environ['GUERRILLA_UPGRADE']), b'{line}' + bytes([10]))\n"
        f"time.sleep({0 if 'failed' in line else 60})\n"
    )
    return Launch((sys.executable, "-S", "-c", code), "/", {})


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        (Launch(("/nowhere/guerrillad",), "/", {}), "cannot be started: .*/nowhere/guerrillad"),
        (Launch(("/bin/true",), "/nowhere", {}), "cannot be started: .*/nowhere"),
        (Launch(("/bin/true",), "/", {}), r"ended with status 0 before it was ready"),
        (Launch(("/bin/sh", "-c", "kill -9 $$"), "/", {}), "was killed by SIGKILL before"),
        (saying("nonsense"), "a line is no object of JSON"),
        (saying("{}"), "says something else than ready"),
        (saying('{"event": "taken"}'), "says something else than ready"),
        (saying('{"event": "failed"}'), "cannot start: it does not say why"),
        (saying('{"event": "failed", "problems": ["a\\\\nb"]}'), r"cannot start: a\\nb"),
    ],
)
def test_a_program_that_is_another_one(make: Make, launch: Launch, said: str) -> None:
    daemon = make(config())
    daemon.start()
    found = Upgrade(daemon, launch)
    for _ in range(2):
        with pytest.raises(UpgradeError, match=said):
            found.run()
    assert not found.is_done
    assert not daemon.wait(0)


def test_nothing_of_this_process_is_in_the_environment_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (VARIABLE, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    found = Launch.of_now()
    assert found.folder == os.getcwd()
    assert {VARIABLE, "LISTEN_PID", "LISTEN_FDS", "WATCHDOG_PID"}.isdisjoint(found.environment)
    assert found.environment["WATCHDOG_USEC"] == "1"
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Launch.of_now().environment["WATCHDOG_PID"] == "1"  # Meant for neither of them.


def test_a_daemon_within_a_program_is_not_replaced(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with make({**config(), "control_socket": str(path)}):
        answer = ask(path, "upgrade")
    assert answer["errors"] == [
        "a Daemon within a program ends with that: only guerrillad serve can be upgraded"
    ]
    with pytest.raises(RuntimeError, match="it does not run"):
        Daemon().hand_over()
