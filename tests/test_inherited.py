"""Sockets that somebody else has bound, served by a core; and what a reload does with sockets."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Core
from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.errors import StartError
from guerrilla.processes.place import Place
from guerrilla.processes.wire import close_all
from tests.cores import BACKEND, MIB, SERVER, Client, until
from tests.cores import close_clients as _close_clients  # an automatic fixture  # noqa: F401
from tests.services.base import free_port

GONE = b"421 4.3.2 Not accepting mail here any more, please connect again\r\n"


def settings(*addresses: str, **named: str) -> Any:
    """Of servers at these addresses, which are their names too, or which have other ones."""
    servers = {address: address for address in addresses} | named
    return {
        "servers": [
            SERVER | {"name": name, "address": address} for name, address in servers.items()
        ],
        "allowed_hosts": ["."],
        "max_memory": 256 * MIB,
        "spill_size": 0,
        "backends": [BACKEND],
        "log_level": 20,
    }


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def made(
    opened: ExitStack, *addresses: str, given: Sequence[tuple[str, socket.socket]] = ()
) -> Core:
    """A running core that was given sockets."""
    core = Core(settings(*addresses))
    opened.callback(core.close)
    core.inherit([(address, one.fileno()) for address, one in given])
    core.bind()
    core.start()
    return core


def listening(
    opened: ExitStack, host: str = "127.0.0.1", port: int = 0, **options: int
) -> socket.socket:
    """A socket of somebody else."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = opened.enter_context(socket.socket(family))
    for name, value in options.items():
        level = socket.IPPROTO_IPV6 if name.startswith("IPV6") else socket.SOL_SOCKET
        one.setsockopt(level, getattr(socket, name), value)
    one.bind((host, port))
    one.listen()
    return one


def address_of(one: socket.socket) -> str:
    host, port = one.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connection(opened: ExitStack, address: str) -> socket.socket:
    """One that waits to be accepted, or is."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(address.removeprefix("unix:"))
    else:
        host, port = address.rsplit(":", 1)
        client = socket.create_connection((host.strip("[]"), int(port)))
    opened.enter_context(client)
    client.settimeout(20)
    return client


def hears(client: socket.socket) -> bytes:
    return client.recv(1000)


# --- What is served -------------------------------------------------------------------------------


def test_a_socket_that_is_handed_over_is_served_with_who_waits_in_its_queue(
    opened: ExitStack,
) -> None:
    one = listening(opened)
    address = address_of(one)
    early = connection(opened, address)
    core = made(opened, address, given=[(address, one)])
    one.close()
    assert hears(early).startswith(b"220 ")
    assert Client(address).ask("NOOP\r\n").startswith(b"250")
    assert core.addresses() == [address]
    assert core.drop_inherited() == []


def test_all_sockets_of_an_address_are_served(opened: ExitStack) -> None:
    first = listening(opened, SO_REUSEPORT=1)
    address = address_of(first)
    more = [listening(opened, port=first.getsockname()[1], SO_REUSEPORT=1) for _ in range(3)]
    early = [connection(opened, address) for _ in range(40)]
    core = made(opened, address, given=[(address, one) for one in (first, *more)])
    assert {hears(client)[:4] for client in early} == {b"220 "}
    assert core.addresses() == [address]
    fds = core.sockets()
    assert [text for text, _ in fds] == [address] * 4
    inodes = {os.fstat(one.fileno()).st_ino for one in (first, *more)}
    assert {os.fstat(fd).st_ino for _, fd in fds} == inodes
    assert not any(os.get_inheritable(fd) for _, fd in fds)
    for _, fd in fds:
        os.close(fd)


def test_several_servers_of_port_0_have_a_port_each(opened: ExitStack) -> None:
    one, two, three = (listening(opened) for _ in range(3))
    core = Core(settings(first="127.0.0.1:0", second="127.0.0.1:0"))
    opened.callback(core.close)
    core.inherit([("127.0.0.1:0", each.fileno()) for each in (one, two, three)])
    assert core.bind() == [address_of(one), address_of(two)]
    assert core.drop_inherited() == ["127.0.0.1:0"]


def test_sockets_of_a_name_are_served_wherever_they_listen(
    opened: ExitStack, tmp_path: Path
) -> None:
    one, two = listening(opened), listening(opened, "::1")
    path = tmp_path / "mail.sock"
    unix = opened.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(path))
    unix.listen()
    addresses = [address_of(one), address_of(two), f"unix:{path}"]
    core = made(opened, "systemd:smtp", given=[("systemd:smtp", each) for each in (one, two, unix)])
    assert core.addresses() == addresses
    for address in addresses:
        assert hears(connection(opened, address)).startswith(b"220 ")
    core.close()
    assert path.exists()


def test_a_name_that_nothing_was_handed_over_by_cannot_be_bound() -> None:
    core = Core(settings("systemd:smtp"))
    with pytest.raises(OSError, match="systemd:smtp: cannot listen: no socket of that name"):
        core.bind()


def test_one_of_all_addresses_serves_both_families(opened: ExitStack) -> None:
    both = listening(opened, "::", IPV6_V6ONLY=0)
    port = both.getsockname()[1]
    addresses = [f"0.0.0.0:{port}", f"[::]:{port}"]
    made(opened, *addresses, given=[(address, both) for address in addresses])
    assert hears(connection(opened, f"127.0.0.1:{port}")).startswith(b"220 ")
    assert hears(connection(opened, f"[::1]:{port}")).startswith(b"220 ")


# --- What is served for others --------------------------------------------------------------------


def test_sockets_of_another_process_are_served_until_they_are_given_back(
    opened: ExitStack,
) -> None:
    own = listening(opened, SO_REUSEPORT=1)
    address = address_of(own)
    other = listening(opened, port=own.getsockname()[1], SO_REUSEPORT=1)
    core = made(opened, address, given=[(address, own)])
    early = [connection(opened, address) for _ in range(40)]
    core.serve_also([(address, other.fileno())])
    assert {hears(client)[:4] for client in early} == {b"220 "}
    assert core.addresses() == [address]
    fds = [fd for _, fd in core.sockets()]
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(own.fileno()).st_ino]
    for fd in fds:
        os.close(fd)
    core.serve_also([])
    # Who comes to it now waits in its queue, for the process that it is of.
    late = [connection(opened, address) for _ in range(40)]
    other.settimeout(20)
    taken, _ = other.accept()
    opened.enter_context(taken)
    # It is as good as before.
    core.serve_also([(address, other.fileno())])
    assert sum(hears(client)[:4] == b"220 " for client in late if not is_of(client, taken)) == 39


def is_of(client: socket.socket, taken: socket.socket) -> bool:
    """Whether these are two ends of a connection."""
    return bool(client.getsockname() == taken.getpeername())


def test_a_reload_takes_what_is_served_for_others(opened: ExitStack) -> None:
    own, other = listening(opened), listening(opened)
    first, second = address_of(own), address_of(other)
    core = made(opened, first, given=[(first, own)])
    core.serve_also([(second, other.fileno())])
    # No server is there: it is closed.
    waiting = connection(opened, second)
    core.reload(settings(first))
    core.serve_also([(first, own.fileno())])
    core.reload(settings(first))
    assert hears(connection(opened, first)).startswith(b"220 ")
    other.settimeout(20)
    opened.enter_context(other.accept()[0])
    waiting.close()
    core.close()
    with pytest.raises(RuntimeError, match="it does not run"):
        core.serve_also([(first, own.fileno())])
    with pytest.raises(ValueError, match="the socket that was handed over is of"):
        core.serve_also([(second, own.fileno())])


# --- What does not fit ----------------------------------------------------------------------------


def test_what_was_handed_over_and_nobody_asks_for_is_told_and_closed(opened: ExitStack) -> None:
    one = listening(opened)
    address = address_of(one)
    core = made(opened, "127.0.0.1:0", given=[(address, one)])
    one.close()
    assert core.drop_inherited() == [address]
    assert core.drop_inherited() == []
    with pytest.raises(ConnectionRefusedError):
        connection(opened, address)


def test_what_is_no_socket_of_that_address_is_refused_whole(
    opened: ExitStack, tmp_path: Path
) -> None:
    good = listening(opened)
    port = good.getsockname()[1]
    datagrams = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    deaf = opened.enter_context(socket.socket())
    deaf.bind(("127.0.0.1", 0))
    path = tmp_path / "mail.sock"
    unix = opened.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(path))
    unix.listen()
    file = os.open(tmp_path, os.O_RDONLY)
    opened.callback(os.close, file)
    address = address_of(good)
    core = Core(settings(address))
    for wanted, fd, why in (
        ("127.0.0.1:25", good.fileno(), f"the socket that was handed over is of {address}"),
        (f"127.0.0.2:{port}", good.fileno(), f"the socket that was handed over is of {address}"),
        (f"0.0.0.0:{port}", good.fileno(), f"the socket that was handed over is of {address}"),
        ("unix:/run/x", good.fileno(), f"the socket that was handed over is of {address}"),
        ("unix:/run/x", unix.fileno(), f"the socket that was handed over is of unix:{path}"),
        (address, unix.fileno(), f"the socket that was handed over is of unix:{path}"),
        (address, datagrams.fileno(), "what was handed over does not listen for connections"),
        (address, deaf.fileno(), "what was handed over does not listen for connections"),
        (address, file, "Socket operation on non-socket"),
        (address, 9999, "Bad file descriptor"),
        ("systemd:x", datagrams.fileno(), "what was handed over does not listen for connections"),
        ("nonsense", good.fileno(), None),
    ):
        with pytest.raises(ValueError) as told:  # noqa: PT011  # its text is looked at
            core.inherit([(address, good.fileno()), (wanted, fd)])
        text = str(told.value)
        assert text.startswith("no address: nonsense" if why is None else f"{wanted}: {why}"), text
    assert core.drop_inherited() == []


# --- Files of unix sockets ------------------------------------------------------------------------


def test_the_file_of_a_socket_belongs_to_one_of_those_who_serve_it(
    opened: ExitStack, tmp_path: Path
) -> None:
    path = tmp_path / "mail.sock"
    address = f"unix:{path}"
    first = made(opened, address)

    def successor() -> Core:
        core = Core(settings(address))
        opened.callback(core.close)
        sockets = first.sockets()
        core.inherit(sockets)
        for _, fd in sockets:
            os.close(fd)
        core.bind()
        core.start()
        return core

    successor().close()  # as one that has failed
    assert path.exists()
    second = successor()
    assert second.leave_files() == []
    assert first.leave_files() == [address]
    assert first.leave_files() == []
    second.own_files([address, "unix:/run/other", "127.0.0.1:25"])
    with pytest.raises(ValueError, match="no address: x"):
        second.own_files(["x"])
    first.close()
    assert path.exists()
    assert hears(connection(opened, address)).startswith(b"220 ")
    second.close()
    assert not path.exists()


def test_a_file_of_somebody_else_stays(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    unix = opened.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(path))
    unix.listen()
    core = made(opened, f"unix:{path}", given=[(f"unix:{path}", unix)])
    assert core.reload(settings("127.0.0.1:0")) == []
    assert path.exists()
    core.close()
    assert path.exists()
    assert core.leave_files() == []


# --- Reloads --------------------------------------------------------------------------------------


def inodes(core: Core) -> set[int]:
    found = core.sockets()
    try:
        return {os.fstat(fd).st_ino for _, fd in found}
    finally:
        for _, fd in found:
            os.close(fd)


def test_a_reload_serves_what_was_handed_over_before_it(opened: ExitStack) -> None:
    core = made(opened, "127.0.0.1:0")
    (before,) = core.addresses()
    one = listening(opened)
    address = address_of(one)
    early = connection(opened, address)
    core.inherit([(address, one.fileno())])
    assert core.reload(settings("127.0.0.1:0", address)) == []
    assert core.addresses() == [before, address]
    assert hears(early).startswith(b"220 ")
    assert os.fstat(one.fileno()).st_ino in inodes(core)


def test_a_reload_that_was_given_up_leaves_nothing(opened: ExitStack) -> None:
    core = made(opened, "127.0.0.1:0")
    one = listening(opened)
    address = address_of(one)
    core.inherit([(address, one.fileno())])
    assert core.drop_inherited() == [address]
    one.close()
    with pytest.raises(ConnectionRefusedError):
        connection(opened, address)


@pytest.mark.parametrize("kind", ["tcp", "unix", "port 0"])
def test_a_server_of_another_name_goes_on_with_the_socket(
    opened: ExitStack, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "mail.sock"
    there = f"127.0.0.1:{free_port()}"
    address = {"tcp": there, "unix": f"unix:{path}", "port 0": "127.0.0.1:0"}[kind]
    core = made(opened, address)
    (real,) = core.addresses()
    before = inodes(core)
    idle = Client(real)
    assert core.reload(settings(other=address)) == []
    assert inodes(core) == before
    assert core.addresses() == [real]
    assert idle.read(1) == GONE
    assert Client(real).ask("NOOP\r\n").startswith(b"250")
    if kind == "port 0":
        # With the port that it has, for good.
        assert core.reload(settings(real)) == []
        assert inodes(core) == before
    core.close()
    assert not path.exists()


def said(core: Core) -> list[str]:
    """What it has logged of its listeners since it was last asked."""
    batches = core.receive_logs(1000, 0) or []
    lines = [record.message for batch in batches for record in batch.records]
    return [line for line in lines if "listening on " in line]


def test_nobody_who_waits_is_lost_by_a_change_of_the_name(opened: ExitStack) -> None:
    one = listening(opened)
    address = address_of(one)
    core = made(opened, address, given=[(address, one)])
    one.close()
    for number in range(50):
        clients = [connection(opened, address) for _ in range(5)]
        assert core.reload(settings(**{f"name {number}": address})) == []
        clients += [connection(opened, address) for _ in range(5)]
        # Who was accepted before may be sent away; nobody is reset.
        assert {hears(client)[:4] for client in clients} <= {b"220 ", b"421 "}
        for client in clients:
            client.close()


@pytest.mark.parametrize("there_and_back", [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_a_server_that_moves_to_more_or_fewer_addresses_listens_all_the_time(
    opened: ExitStack, there_and_back: tuple[str, str]
) -> None:
    port = free_port()
    first, second = (f"{host}:{port}" for host in there_and_back)
    core = made(opened, first)
    for wanted, other in ((second, first), (first, second)) * 10:
        before = inodes(core)
        clients = [connection(opened, f"127.0.0.1:{port}") for _ in range(5)]
        said(core)
        assert core.reload(settings(wanted)) == []
        assert said(core) == [f"listening on {wanted}", f"no longer listening on {other}"]
        assert core.addresses() == [wanted]
        assert not inodes(core) & before
        clients.append(connection(opened, f"127.0.0.1:{port}"))
        assert {hears(client)[:4] for client in clients} <= {b"220 ", b"421 "}
        for client in clients:
            client.close()


def test_a_socket_that_somebody_else_keeps_still_takes_clients(opened: ExitStack) -> None:
    one = listening(opened)
    address = address_of(one)
    core = made(opened, "127.0.0.1:0", address, given=[(address, one)])
    assert core.reload(settings("127.0.0.1:0")) == []
    # They wait for the next one that has it.
    late = connection(opened, address)
    assert opened.enter_context(one.accept()[0]).getpeername() == late.getsockname()
    again = made(opened, address, given=[(address, one)])
    assert hears(connection(opened, address)).startswith(b"220 ")
    assert again.addresses() == [address]


def test_a_socket_of_two_addresses_goes_on_at_one_of_them(opened: ExitStack) -> None:
    one = listening(opened, "::", IPV6_V6ONLY=0)
    port = one.getsockname()[1]
    both = [f"[::]:{port}", f"0.0.0.0:{port}"]
    core = made(opened, *both, given=[(address, one) for address in both])
    assert core.reload(settings(moved=both[0])) == []
    assert hears(connection(opened, f"[::1]:{port}")).startswith(b"220 ")


def test_a_socket_that_nobody_else_keeps_takes_no_more_clients(opened: ExitStack) -> None:
    """As one of the process above, which has bound it for its children."""
    one = listening(opened)
    address = address_of(one)
    core = Core(settings("127.0.0.1:0", address))
    opened.callback(core.close)
    core.inherit([(address, one.fileno())], kept=False)
    core.bind()
    core.start()
    assert core.reload(settings("127.0.0.1:0")) == []
    with pytest.raises(ConnectionRefusedError):
        connection(opened, address)


def test_a_server_that_cannot_move_is_put_back_on_its_socket(opened: ExitStack) -> None:
    """Though nobody but who has bound it could do so again."""
    one = listening(opened)
    address = address_of(one)
    core = made(opened, "systemd:smtp", given=[("systemd:smtp", one)])
    for nowhere in ("192.0.2.1:25", f"0.0.0.0:{one.getsockname()[1]}"):
        (problem,) = core.reload(settings(nowhere))
        assert problem.startswith(f"{nowhere}: ")
        assert "cannot listen" in problem
        early = connection(opened, address)
        assert core.reload(settings("systemd:smtp")) == []
        assert hears(early).startswith(b"220 ")
    assert core.drop_inherited() == []


def test_a_server_that_cannot_move_keeps_a_socket_of_its_own_too(opened: ExitStack) -> None:
    core = made(opened, "127.0.0.1:0")
    (address,) = core.addresses()
    before = inodes(core)
    (problem,) = core.reload(settings("192.0.2.1:25"))
    assert "cannot listen" in problem
    early = connection(opened, address)
    assert core.reload(settings("127.0.0.1:0")) == []
    assert inodes(core) == before
    assert hears(early).startswith(b"220 ")


def test_the_mode_of_a_file_of_somebody_else_stays(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    unix = opened.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(path))
    unix.listen()
    path.chmod(0o600)
    address = f"unix:{path}"
    core = made(opened, address, given=[(address, unix)])
    wanted = settings(address)
    wanted["servers"][0]["unix_mode"] = 0o666
    assert core.reload(wanted) == []
    assert path.stat().st_mode & 0o777 == 0o600
    core.own_files([address])
    assert core.reload(wanted) == []
    assert path.stat().st_mode & 0o777 == 0o666


@contextmanager
def without_descriptors(*, but: int = 0) -> Iterator[None]:
    """Nobody can open anything, but for so many: an accept loop waits, for longer and longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(but + 1)]
    close_all(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_waits_at_a_server_that_goes_hears_why(
    opened: ExitStack, tmp_path: Path, kind: str
) -> None:
    """Those too that nobody has accepted yet; who has said something already is not reset."""
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    path = tmp_path / "mail.sock"
    wanted = "127.0.0.1:0" if kind == "tcp" else f"unix:{path}"
    core = made(opened, "127.0.0.2:0", wanted)
    address = core.addresses()[1]
    where = ("127.0.0.1", int(address.rpartition(":")[2])) if kind == "tcp" else str(path)
    clients = [opened.enter_context(socket.socket(family)) for _ in range(100)]
    with without_descriptors():
        for client in clients:
            client.settimeout(20)
            client.connect(where)
            if kind == "tcp":
                client.sendall(b"QUIT\r\n")
        until(lambda: core.stats()["accept_errors"] >= 8)  # it looks again in a second
        # One after the other is told, by the descriptor that the listener has left.
        assert core.reload(settings("127.0.0.2:0")) == []
    assert not path.exists()
    for client in clients:
        heard = b""
        while not heard.endswith(GONE):
            octets = hears(client)
            assert octets, heard
            heard += octets
        assert hears(client) == b""


def test_a_port_of_somebody_else_stays_an_error(opened: ExitStack) -> None:
    core = made(opened, "127.0.0.1:0")
    taken = listening(opened, SO_REUSEPORT=1)
    (problem,) = core.reload(settings("127.0.0.1:0", address_of(taken)))
    assert "in use" in problem


# --- A daemon -------------------------------------------------------------------------------------


def daemon(given: Sequence[tuple[str, socket.socket]], *interfaces: str) -> Daemon:
    servers = [{"listen_interface": interface} for interface in interfaces]
    config = {"servers": servers, "log_file": "off", "control_socket": "off"}
    sockets = [(address, one.fileno()) for address, one in given]
    return Daemon(from_mapping(config), place=Place(sockets=sockets))


def test_a_daemon_serves_what_it_is_given_and_binds_the_rest(opened: ExitStack) -> None:
    one, other = listening(opened), listening(opened)
    address = address_of(one)
    early = connection(opened, address)
    with daemon([(address, one), (address_of(other), other)], address, "127.0.0.1:0") as made:
        assert hears(early).startswith(b"220 ")
        assert made.addresses[0] == address
        assert address_of(other) not in made.addresses


def test_what_does_not_fit_is_told_of_its_server(opened: ExitStack) -> None:
    one = listening(opened)
    with pytest.raises(StartError) as told:
        daemon([("127.0.0.1:1025", one)], "127.0.0.1:0", "127.0.0.1:1025").start()
    why = f"the socket that was handed over is of {address_of(one)}"
    assert told.value.problems == (f"servers[1].listen_interface: 127.0.0.1:1025: {why}",)


def test_what_is_given_is_not_told_to_be_in_use(opened: ExitStack) -> None:
    """By a start that fails for something else, and tells of all servers at once."""
    one, taken = listening(opened), listening(opened)
    address = address_of(one)
    names = [address, "mx.invalid:25", address_of(taken), "systemd:smtp"]
    with pytest.raises(StartError) as told:
        daemon([(address, one)], *names).start()
    found = sorted(line.partition(".listen_interface: ")[0] for line in told.value.problems)
    assert found == ["servers[1]", "servers[2]", "servers[3]"]
