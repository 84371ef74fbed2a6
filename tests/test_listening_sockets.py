"""The sockets that one process holds for several others."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import AppConfig, from_mapping
from guerrilla.errors import StartError
from guerrilla.processes import sockets as sockets_module
from guerrilla.processes.binding import BACKLOG, passed_socket
from guerrilla.processes.sockets import ListeningSockets
from guerrilla.running.privileges import Identity
from guerrilla.running.startup import resolve_servers
from tests.services.base import free_port
from tests.test_inherited import GONE


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def config(*interfaces: str, **keys: Any) -> AppConfig:
    return from_mapping(
        {"servers": [{"listen_interface": interface, **keys} for interface in interfaces]}
    )


def held(opened: ExitStack, processes: int, *interfaces: str, **how: Any) -> ListeningSockets:
    made = ListeningSockets(processes, **how)
    opened.callback(made.close)
    made.open(*both(*interfaces))
    return made


def both(*interfaces: str, **keys: Any) -> tuple[AppConfig, Any]:
    """As `open` takes them."""
    made = config(*interfaces, **keys)
    servers, problems = resolve_servers(made)
    assert problems == []
    return made, servers


def inodes(sockets: list[tuple[str, int]]) -> list[int]:
    return [os.fstat(fd).st_ino for _, fd in sockets]


def connection(opened: ExitStack, port: int) -> socket.socket:
    client = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
    client.settimeout(20)
    return client


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def waiting(made: ListeningSockets, processes: int) -> list[int]:
    """How many connections wait for each process; they are accepted and closed."""
    counts = []
    for number in range(processes):
        count = 0
        for _, fd in made.for_child(number):
            listener = socket.socket(fileno=os.dup(fd))
            listener.setblocking(False)
            with listener:
                while True:
                    try:
                        listener.accept()[0].close()
                    except BlockingIOError:
                        break
                    count += 1
        counts.append(count)
    return counts


# --- What each process gets -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_each_process_has_a_socket_of_its_own_of_an_address(opened: ExitStack, host: str) -> None:
    made = held(opened, 3, f"{host}:0")
    (address,) = made.addresses()
    children = [made.for_child(number) for number in range(3)]
    assert [[text for text, _ in child] for child in children] == [[f"{host}:0"]] * 3
    found = [inodes(child)[0] for child in children]
    assert len(set(found)) == 3
    assert sorted(inodes(made.all())) == sorted(found)
    for child in children:
        fd = child[0][1]
        assert not os.get_inheritable(fd)
        with socket.socket(fileno=os.dup(fd)) as one:
            assert one.getsockname()[1] == int(address.rpartition(":")[2])
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    # The same ones for a successor.
    assert [made.for_child(number) for number in range(3)] == children


def test_all_of_ipv4_and_all_of_ipv6_are_two(opened: ExitStack) -> None:
    port = free_port()
    made = held(opened, 2, f"0.0.0.0:{port}", f"[::]:{port}")
    assert made.addresses() == [f"0.0.0.0:{port}", f"[::]:{port}"]
    assert len(made.all()) == 4


def test_the_kernel_spreads_connections_over_them(opened: ExitStack) -> None:
    made = held(opened, 2, "127.0.0.1:0")
    port = int(made.addresses()[0].rpartition(":")[2])
    for _ in range(200):
        connection(opened, port)
    counts = waiting(made, 2)
    assert sum(counts) == 200
    assert min(counts) > 40  # 100 on average; less than 40 once in 10^17


def test_the_queue_is_as_long_as_the_cores(opened: ExitStack) -> None:
    made = held(opened, 1, "127.0.0.1:0")
    port = int(made.addresses()[0].rpartition(":")[2])
    wanted = min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii")))
    found = [
        line.split()
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
        if line.split()[1] == f"0100007F:{port:04X}"
    ]
    assert len(found) == 1
    text = (Path(__file__).parent.parent / "rust/src/net/bound.rs").read_text(encoding="utf-8")
    assert "const BACKLOG: i32 = 4_096;" in text
    assert BACKLOG == 4096 >= wanted


@pytest.mark.parametrize("processes", [1, 3])
def test_shared_there_is_one_an_address(opened: ExitStack, processes: int) -> None:
    made = held(opened, processes, "127.0.0.1:0", shared=True)
    children = [made.for_child(number) for number in range(processes)]
    assert children == [made.all()] * processes
    assert len(made.all()) == 1
    with socket.socket(fileno=os.dup(made.all()[0][1])) as one:
        assert not one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_servers_of_the_same_port_0_have_ports_of_their_own(opened: ExitStack) -> None:
    made = held(opened, 2, "127.0.0.1:0", "127.0.0.1:0")
    assert len(set(made.addresses())) == 2
    assert [text for text, _ in made.for_child(1)] == ["127.0.0.1:0"] * 2
    assert len(made.all()) == 4


# --- What cannot be bound -------------------------------------------------------------------------


def test_what_cannot_be_bound_is_told_of_all_and_leaves_nothing(
    opened: ExitStack, tmp_path: Path
) -> None:
    port = free_port()
    taken = opened.enter_context(socket.socket())
    # One that would share its port with anybody who asks for that.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    in_use = f"127.0.0.1:{taken.getsockname()[1]}"
    (tmp_path / "file").touch()
    names = [f"unix:{tmp_path}/sock", f"127.0.0.1:{port}", in_use, f"unix:{tmp_path}/file"]
    names += [f"unix:{tmp_path}/no/folder", "systemd:smtp"]
    with pytest.raises(StartError) as told:
        held(opened, 2, *names)
    at = "listen_interface"
    *others, last = told.value.problems
    assert others == [
        f"servers[2].{at}: {in_use}: cannot listen: Address already in use",
        f"servers[3].{at}: {names[3]}: cannot listen: the file exists and is no socket",
        f"servers[4].{at}: {names[4]}: cannot listen: No such file or directory",
    ]
    assert last.startswith(f"servers[5].{at}: systemd:smtp: cannot listen: no socket of that name")
    assert not is_open(port)
    assert not (tmp_path / "sock").exists()
    assert (tmp_path / "file").exists()


# --- Unix sockets ---------------------------------------------------------------------------------


def test_a_unix_socket_is_one_for_all_with_its_mode(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    made = ListeningSockets(3)
    opened.callback(made.close)
    made.open(*both(f"unix:{path}", unix_mode="0660"))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    assert [made.for_child(number) for number in range(3)] == [made.all()] * 3
    assert made.addresses() == [f"unix:{path}"]
    with pytest.raises(StartError, match="in use"):
        held(opened, 1, f"unix:{path}")
    made.close()
    assert not path.exists()


def test_the_file_of_one_that_is_gone_is_replaced(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    held(opened, 2, f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_its_file_is_given_to_the_user(
    opened: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, str]] = []
    monkeypatch.setattr(
        sockets_module, "give_socket", lambda who, path: given.append((who.name, path))
    )
    somebody = Identity("user", "somebody", 500, 501, (501,))
    held(opened, 2, f"unix:{tmp_path}/sock", "127.0.0.1:0", identity=somebody)
    assert given == [("somebody", f"{tmp_path}/sock")]


def test_the_file_of_a_socket_goes_with_who_serves_it(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    old = held(opened, 2, f"unix:{path}", "127.0.0.1:0")
    new = ListeningSockets(2)
    opened.callback(new.close)
    new.open(*both(f"unix:{path}", "127.0.0.1:0"), old.all())
    assert new.leave_files() == []
    assert old.leave_files() == [f"unix:{path}"]
    new.own_files([f"unix:{path}", "127.0.0.1:0"])
    old.close()
    assert path.exists()
    new.close()
    assert not path.exists()


# --- Another config -------------------------------------------------------------------------------


def test_a_change_binds_what_is_new_first_and_closes_at_its_commit(opened: ExitStack) -> None:
    stays, goes, comes = (free_port() for _ in range(3))
    made = held(opened, 2, f"127.0.0.1:{stays}", f"127.0.0.1:{goes}")
    before = made.for_child(1)
    change = made.change(*both(f"127.0.0.1:{comes}", f"127.0.0.1:{stays}"))
    (new,) = change.for_child(1)
    assert new[0] == f"127.0.0.1:{comes}"
    assert change.for_child(0) != [new]
    assert made.for_child(1) == before
    assert is_open(goes)
    assert is_open(comes)
    change.commit()
    assert not is_open(goes)
    assert made.for_child(1) == [new, before[0]]
    assert made.addresses() == [f"127.0.0.1:{comes}", f"127.0.0.1:{stays}"]


def test_what_is_to_close_takes_nobody_any_more_and_keeps_who_waits(
    opened: ExitStack, tmp_path: Path
) -> None:
    """Before any process has let go of it: to what is new they come."""
    port, path = free_port(), tmp_path / "sock"
    made = held(opened, 2, f"127.0.0.1:{port}", f"unix:{path}")
    for _ in range(20):
        connection(opened, port)
    change = made.change(*both(f"0.0.0.0:{port}"))
    change.turn_away()
    for _ in range(20):
        connection(opened, port)
    assert not path.exists()
    assert sum(waiting(made, 2)) == 20
    change.commit()
    assert sum(waiting(made, 2)) == 20


def test_what_somebody_else_goes_on_with_is_not_turned_away_from(opened: ExitStack) -> None:
    made, (address,) = passed(opened, "systemd:smtp", names="smtp")
    port = int(address.rpartition(":")[2])
    client = connection(opened, port)
    change = made.change(*both("127.0.0.1:0"))
    change.turn_away()
    change.commit()
    assert is_open(port)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)  # It waits on, for systemd's next.


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_waits_at_what_closes_hears_why(opened: ExitStack, tmp_path: Path, kind: str) -> None:
    """As where its process is just not there; who has said something already is not reset."""
    path = tmp_path / "sock"
    made = held(opened, 2, "127.0.0.1:0" if kind == "tcp" else f"unix:{path}")
    port = int(made.addresses()[0].rpartition(":")[2]) if kind == "tcp" else 0
    clients = [
        connection(opened, port) if kind == "tcp" else to_unix(opened, path) for _ in range(20)
    ]
    for client in clients[::2] if kind == "tcp" else ():
        client.sendall(b"QUIT\r\n")
    change = made.change(*both("127.0.0.2:0"))
    change.turn_away()
    change.commit()
    assert [rest(client) for client in clients] == [GONE] * 20


def test_who_waits_for_a_handshake_of_tls_is_told_nothing_in_clear(opened: ExitStack) -> None:
    """By what is in force when it closes, and not by what was when it was bound."""
    port = free_port()
    made = held(opened, 1, f"127.0.0.1:{port}")
    pair = {"private_key_file": "key.pem", "public_key_file": "cert.pem"}
    made.change(*both(f"127.0.0.1:{port}", tls={"tls_always_on": True, **pair})).commit()
    client = connection(opened, port)
    made.change(*both("127.0.0.1:0")).commit()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def to_unix(opened: ExitStack, path: Path) -> socket.socket:
    client = opened.enter_context(socket.socket(socket.AF_UNIX))
    client.settimeout(20)
    client.connect(str(path))
    return client


def rest(client: socket.socket) -> bytes:
    """What it hears until the end."""
    with client.makefile("rb") as file:
        return file.read()


def test_a_change_that_is_abandoned_or_fails_changes_nothing(
    opened: ExitStack, tmp_path: Path
) -> None:
    goes, comes = (free_port() for _ in range(2))
    path = tmp_path / "sock"
    made = held(opened, 2, f"127.0.0.1:{goes}")
    before = made.all()
    made.change(*both(f"127.0.0.1:{comes}", f"unix:{path}")).abandon()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError) as told:
            made.change(*both(f"unix:{path}", f"127.0.0.1:{comes}", in_use))
    (problem,) = told.value.problems
    assert (
        problem == f"servers[2].listen_interface: {in_use}: cannot listen: Address already in use"
    )
    assert made.all() == before
    assert is_open(goes)
    assert not is_open(comes)
    assert not path.exists()


@pytest.mark.parametrize("shared", [True, False])
def test_a_server_of_another_name_keeps_its_sockets(
    opened: ExitStack, tmp_path: Path, shared: bool
) -> None:
    port = free_port()
    path = tmp_path / "sock"
    made = held(opened, 2, f"127.0.0.1:{port}", f"unix:{path}", shared=shared)
    before = made.all()
    change = made.change(*both(f"UNIX:{path}", f"127.000.0.1:{port}".replace("000", "0")))
    change.abandon()
    change = made.change(*both(f"UNIX:{path}", f"localhost:{port}"))
    assert all(text == f"[::1]:{port}" for text, _ in change.for_child(0))
    change.commit()
    assert [fd for _, fd in made.all() if fd in [fd for _, fd in before]] == [
        *[fd for text, fd in before if text.startswith("unix:")],
        *[fd for text, fd in before if not text.startswith("unix:")],
    ]
    assert path.exists()
    made.close()
    assert not path.exists()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("hosts", [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_one_of_all_addresses_is_replaced_by_one_of_a_single_one_and_back(
    opened: ExitStack, hosts: tuple[str, str], shared: bool
) -> None:
    port = free_port()
    made = held(opened, 2, f"{hosts[0]}:{port}", shared=shared)
    for host in (hosts[1], hosts[0]) * 2:
        change = made.change(*both(f"{host}:{port}"))
        assert is_open(port)
        change.commit()
        assert is_open(port)
        assert made.addresses() == [f"{host}:{port}"]


# --- What was handed over -------------------------------------------------------------------------


def listening(opened: ExitStack, count: int, **options: int) -> list[tuple[str, socket.socket]]:
    """Sockets of one address that somebody else has bound."""
    found: list[socket.socket] = []
    for _ in range(count):
        one = opened.enter_context(socket.socket())
        for name, value in options.items():
            one.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        one.bind(found[0].getsockname() if found else ("127.0.0.1", 0))
        one.listen()
        found.append(one)
    address = f"127.0.0.1:{found[0].getsockname()[1]}"
    return [(address, one) for one in found]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("given", [1, 2, 3, 5])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("may_share", [0, 1])
def test_all_that_is_handed_over_is_served_whatever_their_number(
    opened: ExitStack, processes: int, given: int, shared: bool, may_share: int
) -> None:
    found = listening(opened, given, SO_REUSEPORT=1)
    address = found[0][0]
    for _, one in found:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, may_share)
    made = ListeningSockets(processes, shared=shared)
    opened.callback(made.close)
    made.open(*both(address), [(text, one.fileno()) for text, one in found])
    theirs = {os.fstat(one.fileno()).st_ino for _, one in found}
    served = [set(inodes(made.for_child(number))) for number in range(processes)]
    assert theirs <= set.union(*served)
    assert all(served)
    assert set(inodes(made.all())) == set.union(*served)
    assert len(made.all()) == given
    if not shared and given >= processes:
        assert sum(map(len, served)) == given  # no two have the same
    # Who waited already, waits on.
    for _, one in found:
        one.close()
    assert is_open(int(address.rpartition(":")[2]))


def passed(opened: ExitStack, *interfaces: str, names: str) -> tuple[ListeningSockets, list[str]]:
    """What serves sockets of systemd, of so many names; and their addresses."""
    found = [(listening(opened, 1)[0], name) for name in names.split(":")]
    theirs = [passed_socket(one.fileno(), name) for (_, one), name in found]
    made = ListeningSockets(2, passed=theirs)
    opened.callback(made.close)
    made.open(*both(*interfaces))
    return made, [address for (address, _), _ in found]


def test_sockets_of_a_name_are_spread_by_their_addresses(opened: ExitStack) -> None:
    """Each process serves each address."""
    made, addresses = passed(opened, "systemd:smtp", names="smtp:smtp")
    assert len(made.for_child(0)) == len(made.for_child(1)) == 2
    assert {text for text, _ in made.for_child(1)} == {"systemd:smtp"}
    assert made.addresses() == addresses
    assert made.ours() == []


def test_what_systemd_has_passed_is_there_as_often_as_it_is_asked_for(opened: ExitStack) -> None:
    made, addresses = passed(opened, "systemd:smtp", "127.0.0.2:0", names="smtp:smtp")
    first, second = addresses
    assert made.ours() == ["127.0.0.2:0"]
    for _ in range(2):
        made.change(*both("127.0.0.2:0")).commit()
        assert is_open(int(first.rpartition(":")[2]))
        made.change(*both("127.0.0.2:0", second)).commit()
        assert made.addresses()[1:] == [second]
        assert made.ours() == ["127.0.0.2:0"]
        made.change(*both("systemd:smtp")).commit()
        assert made.addresses() == addresses
    made.change(*both("systemd:smtp")).abandon()
    assert made.addresses() == addresses
    # It is not moved beside: systemd would go on listening there.
    with pytest.raises(StartError, match="Address already in use"):
        made.change(*both(f"0.0.0.0:{first.rpartition(':')[2]}", second))


def test_what_systemd_has_passed_and_no_server_wants_is_told(
    opened: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    _, addresses = passed(opened, "systemd:smtp", names="smtp:other")
    assert f"'other' of {addresses[1]}: no server listens at what systemd has passed" in caplog.text


def test_what_the_one_before_has_bound_is_ours(opened: ExitStack) -> None:
    ((address, one),) = listening(opened, 1)
    made = ListeningSockets(2)
    opened.callback(made.close)
    made.open(*both(address), [(address, one.fileno())])
    assert made.ours() == [address]
    one.close()
    port = int(address.rpartition(":")[2])
    change = made.change(*both(f"0.0.0.0:{port}"))
    assert change.ours() == [f"0.0.0.0:{port}"]
    change.commit()
    made.change(*both("127.0.0.1:0")).commit()
    assert not is_open(port)


def test_what_is_handed_over_for_port_0_is_a_port_each(opened: ExitStack) -> None:
    old = held(opened, 2, "127.0.0.1:0", "127.0.0.1:0")
    new = ListeningSockets(2)
    opened.callback(new.close)
    new.open(*both("127.0.0.1:0", "127.0.0.1:0"), old.all())
    assert new.addresses() == old.addresses()
    assert inodes(new.all()) == inodes(old.all())


def test_what_does_not_fit_is_an_error_of_its_server(opened: ExitStack) -> None:
    ((address, one),) = listening(opened, 1)
    made = ListeningSockets(2)
    with pytest.raises(StartError) as told:
        made.open(*both("127.0.0.1:1025"), [("127.0.0.1:1025", one.fileno())])
    (problem,) = told.value.problems
    assert problem == (
        "servers[0].listen_interface: 127.0.0.1:1025: cannot listen: "
        f"the socket that was handed over is of {address}"
    )
    assert made.all() == []


def test_what_no_server_wants_is_told(opened: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    ((address, one),) = listening(opened, 1)
    made = ListeningSockets(2)
    opened.callback(made.close)
    made.open(*both("127.0.0.1:0"), [(address, one.fileno())])
    assert f"{address}: no server listens there" in caplog.text
    assert address not in made.addresses()


def test_who_asks_while_they_are_closed_is_told_of_none(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a reload that a stop does not wait for."""
    made = held(opened, 2, "127.0.0.1:0", "127.0.0.2:0")
    assert len(made.addresses()) == 2
    seen: list[list[str]] = []
    close = sockets_module._Held.close

    def closing(one: Any) -> None:
        close(one)
        seen.append(made.addresses())

    monkeypatch.setattr(sockets_module._Held, "close", closing)
    made.close()
    assert seen == [[], []]
