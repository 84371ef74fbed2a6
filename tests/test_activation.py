"""Sockets that systemd passes, by descriptors that are passed as it does."""

from __future__ import annotations

import configparser
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.config import AppConfig, from_mapping
from guerrilla.control.client import ask
from guerrilla.errors import StartError
from guerrilla.processes.activation import check_servers, passed_sockets, take_passed
from guerrilla.processes.place import Passed, passed_for
from guerrilla.running.startup import resolve_servers
from tests.running import DaemonError, RunningDaemon
from tests.wire import Wire

ROOT = Path(__file__).parent.parent

LAUNCHER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",") if fd]
os.closerange(3, 100)
for place, fd in enumerate(fds, 3):
    os.dup2(fd, place)
os.closerange(3 + len(fds), 200)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "guerrilla", *sys.argv[2:]])
"""
"""As systemd: the process that is told its own number is the service."""


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(opened: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = opened.enter_context(socket.socket(family))
    one.bind((host, 0))
    one.listen(128)
    return one


def address_of(one: socket.socket) -> str:
    host, port = one.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Service(RunningDaemon):
    """A daemon that systemd has passed sockets to."""

    def __init__(
        self,
        folder: Path,
        sockets: Sequence[socket.socket],
        *interfaces: str,
        names: str | None = None,
        backend: str = "",
        processes: int = 1,
        **variables: str,
    ) -> None:
        environment = {**os.environ, "LISTEN_FDS": str(len(sockets)), **variables}
        if names is not None:
            environment["LISTEN_FDNAMES"] = names
        fds = [one.fileno() for one in sockets]
        super().__init__(
            folder,
            config=text(folder, *interfaces, backend=backend, processes=processes),
            command=[sys.executable, "-c", LAUNCHER, ",".join(map(str, fds))],
            environment=environment,
            descriptors=fds,
        )


def text(folder: Path, *interfaces: str, backend: str = "", processes: int = 1) -> str:
    lines = ['allowed_hosts = ["."]', 'log_level = "info"', f"processes = {processes}"]
    for interface in interfaces:
        lines += ["[[servers]]", f"listen_interface = {json.dumps(interface)}"]
    lines += ["[backend_config]", backend or 'save_process = "HeadersParser|Hasher|Header|SQL"']
    return "\n".join([*lines, f"sql_dsn = {json.dumps(os.fspath(folder / 'mail.db'))}"])


MAIL = b"Subject: passed\r\n\r\nbody"


# --- A daemon -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["address", "name"])
def test_mail_comes_over_a_socket_that_was_passed(
    opened: ExitStack, tmp_path: Path, by: str
) -> None:
    one = listening(opened)
    address = address_of(one)
    early = opened.enter_context(socket.create_connection(one.getsockname()[:2], 20))
    interface = address if by == "address" else "systemd:smtp"
    with Service(tmp_path, [one], interface, names="smtp") as daemon:
        assert daemon.addresses == [address]
        assert early.recv(1000).startswith(b"220 ")
        with Wire(address) as client:
            assert client.deliver(MAIL).startswith("250 2.0.0 ")
        assert [row["subject"] for row in daemon.rows()] == ["passed"]


def test_a_unix_socket_that_was_passed_keeps_its_file(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    one = opened.enter_context(socket.socket(socket.AF_UNIX))
    one.bind(str(path))
    one.listen()
    with Service(tmp_path, [one], f"unix:{path}", "127.0.0.1:0") as daemon:
        assert daemon.addresses[0] == f"unix:{path}"
        assert daemon.addresses[1].startswith("127.0.0.1:")
        with Wire(f"unix:{path}") as client:
            assert client.deliver(MAIL).startswith("250 ")
    assert path.exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_restart_refuses_nobody(opened: ExitStack, tmp_path: Path, processes: int) -> None:
    """Clients connect all the time, and each is served: before, by the next one, or after."""
    one = listening(opened)
    place = one.getsockname()[:2]
    heard: list[str] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            try:
                with socket.create_connection(place, 30) as client:
                    client.settimeout(30)
                    heard.append(client.recv(1000)[:4].decode() or "closed")
                    client.sendall(b"QUIT\r\n")
                    while client.recv(1000):
                        pass
            except OSError as error:
                heard.append(repr(error))
            time.sleep(0.002)  # not to use up all ports

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    served: list[int] = []
    try:
        for _ in range(3):
            with Service(tmp_path, [one], address_of(one), processes=processes):
                before = len(heard)
                while len(heard) < before + 50:
                    time.sleep(0.005)
            served.append(len(heard))
    finally:
        ended.set()
        # Those who still wait are let go.
        with Service(tmp_path, [one], address_of(one)):
            for thread in threads:
                thread.join(30)
    assert set(heard) <= {"220 ", "421 "}
    assert heard.count("220 ") >= 150


def test_what_it_was_told_is_not_told_to_those_it_starts(opened: ExitStack, tmp_path: Path) -> None:
    one = listening(opened)
    seen = tmp_path / "seen"
    program = f"env > {seen}; cat > /dev/null"
    backend = f'save_process = "Pipe|SQL"\npipe_command = ["/bin/sh", "-c", {json.dumps(program)}]'
    with (
        Service(tmp_path, [one], address_of(one), names="smtp", backend=backend) as daemon,
        Wire(address_of(one)) as client,
    ):
        assert client.deliver(MAIL).startswith("250 ")
        about = Path(f"/proc/{daemon.pid}/fdinfo/3").read_text(encoding="ascii")
        (flags,) = [line for line in about.splitlines() if line.startswith("flags:")]
        assert int(flags.split()[1], 8) & os.O_CLOEXEC
    assert "PATH=" in seen.read_text()
    assert "LISTEN_" not in seen.read_text()


def test_several_processes_are_passed_them_too(opened: ExitStack, tmp_path: Path) -> None:
    one, two = listening(opened), listening(opened, "::1")
    with Service(tmp_path, [one, two], "systemd:smtp", names="smtp:smtp", processes=2) as daemon:
        assert daemon.addresses == [address_of(one), address_of(two)]
        for address in daemon.addresses * 4:
            with Wire(address) as client:
                assert client.deliver(MAIL).startswith("250 ")


def test_sockets_for_another_process_are_not_taken(opened: ExitStack, tmp_path: Path) -> None:
    one = listening(opened)
    with Service(tmp_path, [one], "127.0.0.1:0", LISTEN_PID="1") as daemon:
        assert daemon.addresses != [address_of(one)]


def test_several_servers_and_what_they_were_passed(opened: ExitStack, tmp_path: Path) -> None:
    one, two, three = listening(opened), listening(opened), listening(opened, "::1")
    interfaces = ["systemd:mx", address_of(one)]
    with Service(tmp_path, [one, two, three], *interfaces, names="x:mx:mx") as daemon:
        assert daemon.addresses == [address_of(two), address_of(three), address_of(one)]
        for address in daemon.addresses:
            with Wire(address) as client:
                assert client.deliver(MAIL).startswith("250 ")


def reloaded(daemon: Service, *interfaces: str, processes: int = 1) -> int:
    daemon.config_file.write_text(text(daemon.folder, *interfaces, processes=processes))
    return main(["reload", "-c", str(daemon.config_file)])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_cannot_move_stays_on_its_socket(
    opened: ExitStack, tmp_path: Path, processes: int
) -> None:
    one = listening(opened)
    address = address_of(one)
    with Service(tmp_path, [one], "systemd:smtp", names="smtp", processes=processes) as daemon:
        for nowhere in ("192.0.2.1:25", f"0.0.0.0:{one.getsockname()[1]}"):
            assert reloaded(daemon, nowhere, processes=processes) == 1
            assert not one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            with Wire(address) as client:
                assert client.deliver(MAIL).startswith("250 ")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_is_taken_out_leaves_its_socket_to_who_keeps_it(
    opened: ExitStack, tmp_path: Path, processes: int
) -> None:
    one = listening(opened)
    address = address_of(one)
    both = (address, "127.0.0.1:0")
    with Service(tmp_path, [one], *both, processes=processes) as daemon:
        daemon.config_file.write_text(text(tmp_path, both[1], processes=processes))
        assert main(["reload", "-c", str(daemon.config_file)]) == 0
        waits = opened.enter_context(socket.create_connection(one.getsockname()[:2], 20))
    (tmp_path / "next").mkdir()
    with Service(tmp_path / "next", [one], address):
        assert waits.recv(1000).startswith(b"220 ")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_was_taken_out_can_come_back(
    opened: ExitStack, tmp_path: Path, processes: int
) -> None:
    """With all that was passed by its name, however often, and by another address as well."""
    one, two = listening(opened), listening(opened)
    sockets = [one, two, listening(opened, "::1")]
    name, places = "systemd:smtp", [each.getsockname()[:2] for each in sockets]
    addresses = [address_of(each) for each in sockets]
    names = ":".join(["smtp"] * 3)
    with Service(tmp_path, sockets, name, names=names, processes=processes) as daemon:

        def served(*wanted: str) -> list[str]:
            assert reloaded(daemon, *wanted, processes=processes) == 0
            answer = ask(f"{daemon.config_file}.sock", "status")
            servers = answer["result"]["servers"]
            return [address for server in servers for address in server["addresses"]]

        for _ in range(2):
            assert served("127.0.0.2:0")[0].startswith("127.0.0.2:")
            waiting = [
                opened.enter_context(socket.create_connection(place, 20)) for place in places * 3
            ]
            assert served(name) == addresses
            assert {client.recv(1000)[:4] for client in waiting} == {b"220 "}
        assert served(address_of(two)) == [address_of(two)]
        with Wire(address_of(two)) as client:
            assert client.deliver(MAIL).startswith("250 ")
        early = opened.enter_context(socket.create_connection(places[0], 20))
        assert served(name, "127.0.0.1:0")[:3] == addresses
        assert early.recv(1000).startswith(b"220 ")


def test_a_server_gets_back_what_another_one_had_meanwhile(
    opened: ExitStack, tmp_path: Path
) -> None:
    one, two = listening(opened), listening(opened)
    name, nowhere = "systemd:smtp", "192.0.2.1:25"
    with Service(tmp_path, [one, two], name, names="smtp:smtp") as daemon:
        for _ in range(2):
            # It stays in the place of the one that cannot be, without the socket of the other.
            assert reloaded(daemon, nowhere, address_of(one)) == 1
            assert reloaded(daemon, name) == 0
            answer = ask(f"{daemon.config_file}.sock", "status")
            (server,) = answer["result"]["servers"]
            assert sorted(server["addresses"]) == sorted(map(address_of, (one, two)))
            for address in server["addresses"]:
                with Wire(address) as client:
                    assert client.deliver(MAIL).startswith("250 ")


def test_status_says_which_server_has_which_addresses(opened: ExitStack, tmp_path: Path) -> None:
    one, two = listening(opened), listening(opened, "::1")
    with Service(tmp_path, [one, two], "systemd:smtp", "127.0.0.1:0", names="smtp:smtp") as daemon:
        told = ask(f"{daemon.config_file}.sock", "status")
        first, second = told["result"]["servers"]
    assert first["addresses"] == [address_of(one), address_of(two)]
    assert second["addresses"] == daemon.addresses[2:]
    assert len(second["addresses"]) == 1


# --- What goes wrong ------------------------------------------------------------------------------


def failing(*arguments: Any, **keys: Any) -> str:
    """What a start says that fails."""
    with pytest.raises(DaemonError) as told:
        Service(*arguments, **keys)
    return str(told.value)


def test_a_socket_that_no_server_has_is_an_error_that_names_both(
    opened: ExitStack, tmp_path: Path
) -> None:
    one = listening(opened)
    said = failing(tmp_path, [one], "127.0.0.1:0", "[::1]:0", names="smtp")
    assert (
        f"systemd has passed the socket 'smtp' of {address_of(one)}, and no server listens there, "
        "but on 127.0.0.1:0, [::1]:0: give one that listen_interface, or 'systemd:smtp'" in said
    )
    assert "Traceback" not in said


def test_a_name_without_a_socket_is_an_error_that_names_both(
    opened: ExitStack, tmp_path: Path
) -> None:
    one = listening(opened)
    said = failing(tmp_path, [one], address_of(one), "systemd:smpt", names="smtp")
    assert (
        "servers[1].listen_interface: systemd:smpt: systemd has passed no socket of that name, "
        f"but 'smtp' of {address_of(one)}" in said
    )
    assert str(tmp_path / "guerrilla.toml") in said
    with pytest.raises(DaemonError, match="no socket of that name, but none at all"):
        RunningDaemon(tmp_path, config=text(tmp_path, "systemd:smtp"))


def test_what_no_mail_can_come_over_is_an_error(opened: ExitStack, tmp_path: Path) -> None:
    datagrams = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    datagrams.bind(("127.0.0.1", 0))
    peer, connected = socket.socketpair()
    opened.enter_context(peer)
    opened.enter_context(connected)
    said = failing(tmp_path, [datagrams, connected], "127.0.0.1:0", names="udp:accept")
    assert "systemd has passed 'udp', which cannot be used: it is a datagram socket" in said
    assert "systemd has passed 'accept', which cannot be used: it does not listen" in said


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"LISTEN_FDS": "3"}, "cannot be used: "),
        ({"LISTEN_FDS": "many"}, "LISTEN_FDS: expected a number, as systemd sets it, got 'many'"),
        ({"LISTEN_FDS": ""}, "LISTEN_FDS: expected a number, as systemd sets it, got ''"),
        ({"LISTEN_FDS": "999999999"}, "LISTEN_FDS: at most 1000 sockets are taken"),
        ({"LISTEN_PID": "me"}, "LISTEN_PID: expected a number"),
        ({"LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES: has 2 names, and LISTEN_FDS says that 1"),
    ],
)
def test_what_systemd_would_not_say_is_an_error(
    opened: ExitStack, tmp_path: Path, variables: dict[str, str], why: str
) -> None:
    one = listening(opened)
    said = failing(tmp_path, [one], address_of(one), **variables)
    assert why in said
    assert "Traceback" not in said


# --- The parts ------------------------------------------------------------------------------------


def test_its_variables_are_removed_for_whomever_they_are() -> None:
    variables = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "stays"}
    assert take_passed(variables) == []
    assert variables == {"OTHER": "stays"}
    assert take_passed({"LISTEN_FDS": "1"}) == []


def config(*interfaces: str) -> AppConfig:
    return from_mapping({"servers": [{"listen_interface": one} for one in interfaces]})


def for_servers(config: AppConfig, passed: list[Passed]) -> list[tuple[str, int]]:
    """What is passed for which of their addresses, where nothing is wrong with it."""
    check_servers(config, passed)
    return passed_for(passed, [address for _, address in resolve_servers(config)[0]])


def test_one_of_both_families_is_for_a_port_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerrilla.running.addresses._has_ipv6", lambda: True)
    both = Passed(3, "smtp.socket", "[::]:25", takes_both=True)
    assert for_servers(config(":25"), [both]) == [("[::]:25", 3), ("0.0.0.0:25", 3)]
    one = Passed(3, "smtp.socket", "[::]:25")
    assert for_servers(config(":25"), [one]) == [("[::]:25", 3)]
    assert for_servers(config("[::]:25"), [both]) == [("[::]:25", 3)]
    with pytest.raises(StartError, match=r"of \[::\]:25, and no server listens there"):
        for_servers(config("0.0.0.0:25"), [both])


def test_a_name_goes_before_an_address() -> None:
    one = Passed(3, "smtp", "127.0.0.1:25")
    assert for_servers(config("127.0.0.1:25", "systemd:smtp"), [one]) == [("systemd:smtp", 3)]


def test_names_are_looked_up_only_where_something_is_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "guerrilla.processes.activation.resolve_servers", lambda _: pytest.fail("looked up")
    )
    assert passed_sockets(config("mx.example.com:25"), environment={}) == []


# --- The unit -------------------------------------------------------------------------------------


def test_the_unit_and_the_servers_of_its_page_belong_together() -> None:
    """Each `ListenStream` is an address of the config that the unit shows."""
    unit = (ROOT / "examples" / "systemd/guerrilla.socket").read_text(encoding="utf-8")
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.replace("ListenStream=[", "ListenStream6=["))
    assert parser.sections() == ["Unit", "Socket", "Install"]
    keys = dict(parser.items("Socket"))
    name = keys["FileDescriptorName"]
    # What the unit binds, as systemd passes it.
    passed = [
        Passed(3, name, keys["ListenStream"]),
        Passed(4, name, keys["ListenStream6"]),
    ]
    assert keys["BindIPv6Only"] == "ipv6-only"
    assert int(keys["Backlog"]) == 4096
    by_name = for_servers(config(f"systemd:{name}"), passed)
    assert by_name == [(f"systemd:{name}", 3), (f"systemd:{name}", 4)]
    by_address = for_servers(config(keys["ListenStream"], keys["ListenStream6"]), passed)
    assert by_address == [(keys["ListenStream"], 3), (keys["ListenStream6"], 4)]
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert f'listen_interface = "systemd:{name}"' in page
    assert keys.get("Accept", "no") == "no"
