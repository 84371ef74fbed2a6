"""What is one over several processes: with real processes, of which some are killed."""

from __future__ import annotations

import base64
import os
import ssl
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla._core import Core, SharedMemory
from tests.certificates import self_signed, unverified
from tests.sharers import OFFERED, Sharer, settings
from tests.wire import HELLO, Wire, until

TOO_MANY: Final = "421 4.7.0 Too many connections, please try again later"
TOO_MANY_OF_IT: Final = "421 4.7.0 Too many connections from your address, please try again later"
TOO_FAST: Final = "421 4.7.0 Too many new connections from your address, please try again later"
MAIL: Final = b"Subject: hello\r\n\r\nbody"

Start = Callable[..., Sharer]


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory.create(2)


@pytest.fixture
def start(memory: SharedMemory) -> Iterator[Start]:
    """A process at a place, with these keys of its server."""
    with ExitStack() as ended:

        def begin(place: int, **server: Any) -> Sharer:
            return ended.enter_context(Sharer(memory, place, **server))

        yield begin


@pytest.fixture
def come() -> Iterator[Callable[[Sharer], Wire]]:
    """A client that stays until the test ends, or it is closed."""
    with ExitStack() as ended:
        yield lambda sharer: ended.enter_context(Wire(sharer.address, greeted=False))


Come = Callable[[Sharer], Wire]


def is_in(wire: Wire, otherwise: str) -> bool:
    """Whether it is greeted; if not, it hears this."""
    first = wire.reply()
    if first.startswith("220 "):
        return True
    assert first == otherwise
    return False


def leave(*wires: Wire) -> None:
    for wire in wires:
        assert wire.ask(b"QUIT\r\n").startswith("221 ")
        assert wire.rest() == []


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "refusal"), [("max_clients", TOO_MANY), ("max_connections_per_ip", TOO_MANY_OF_IT)]
)
def test_connections_are_counted_over_all_processes(
    memory: SharedMemory, start: Start, come: Come, key: str, refusal: str
) -> None:
    """Also those of one that was killed, until it is buried."""
    one, two = start(0, **{key: 3}), start(1, **{key: 3})
    inside = [come(one), come(one), come(two)]
    assert all(is_in(wire, refusal) for wire in inside)
    assert not is_in(come(one), refusal)
    assert not is_in(come(two), refusal)
    leave(inside.pop(0))
    until(lambda: memory.stats()["connections_open"] == 2)
    inside.append(come(two))
    assert is_in(inside[-1], refusal)
    assert not is_in(come(two), refusal)

    one.kill()
    assert memory.stats()["connections_open"] == 3
    assert not is_in(come(two), refusal)
    memory.bury(0)
    assert memory.stats()["connections_open"] == 2
    assert is_in(come(two), refusal)
    assert not is_in(come(two), refusal)
    refused = "connections_refused" if key == "max_clients" else "connections_limited"
    assert memory.stats()[refused] == 5

    three = start(0, **{key: 3})
    assert not is_in(come(three), refusal)


def test_new_connections_are_counted_over_all_processes(
    memory: SharedMemory, start: Start, come: Come
) -> None:
    """Whether or not they are still there."""
    keys: Any = {"max_connection_rate_per_ip": 3}
    one, two = start(0, **keys), start(1, **keys)
    for sharer in (one, two, one):
        wire = come(sharer)
        assert is_in(wire, TOO_FAST)
        leave(wire)
    until(lambda: memory.stats()["connections_open"] == 0)
    assert [is_in(come(sharer), TOO_FAST) for sharer in (one, two)] == [False, False]
    # What was opened at one that is gone is gone as well.
    one.kill()
    memory.bury(0)
    assert [is_in(come(two), TOO_FAST) for _ in range(3)] == [True, True, False]


def test_failed_logins_are_counted_over_all_processes(start: Start, come: Come) -> None:
    keys: Any = {"auth": OFFERED | {"max_failures": 2}}
    sharers = start(0, **keys), start(1, **keys)
    login = b"AUTH PLAIN %s\r\n" % base64.b64encode(b"\0joe\0secret")
    for sharer in sharers:
        wire = come(sharer)
        assert is_in(wire, "")
        wire.ask(HELLO)
        assert wire.ask(login).startswith("535 ")
    wire = come(sharers[0])
    assert is_in(wire, "")
    wire.ask(HELLO)
    assert wire.ask(login).startswith("421 4.7.0 ")


def test_servers_of_other_names_have_their_own_limits(start: Start, come: Come) -> None:
    one, two = start(0, max_clients=1), start(1, max_clients=1, name="other")
    assert is_in(come(one), TOO_MANY)
    assert is_in(come(two), TOO_MANY)


# --- Counters -------------------------------------------------------------------------------------


def test_counters_outlive_a_process_that_is_killed(
    memory: SharedMemory, start: Start, come: Come
) -> None:
    for killed in range(2):
        sharer = start(0)
        wire = come(sharer)
        assert is_in(wire, "")
        assert wire.deliver(MAIL).startswith("250 ")
        assert memory.stats(0)["messages_accepted"] == 1
        sharer.kill()
        for buried in (False, True):
            figures = memory.stats()
            assert figures["messages_accepted"] == killed + 1
            assert figures["replies_220"] == killed + 1
            assert figures["connections_open"] == (0 if buried else 1)
            assert figures["sessions_idle"] == (0 if buried else 1)
            if not buried:
                memory.bury(0)
        assert memory.stats(0)["messages_accepted"] == 0
    assert memory.stats(1)["messages_accepted"] == 0


def test_a_process_that_ends_leaves_its_counters_and_its_place(
    memory: SharedMemory, start: Start, come: Come
) -> None:
    sharer = start(0)
    wire = come(sharer)
    assert is_in(wire, "")
    sharer.end()
    figures = memory.stats()
    assert (figures["connections_accepted"], figures["connections_open"]) == (1, 0)
    start(0)


def test_no_two_connections_have_one_number(start: Start, come: Come) -> None:
    sharers = start(0), start(1)
    numbers = [come(sharers[at % 2]).reply().split()[4] for at in range(4)]
    assert sorted(numbers) == ["#1", "#2", "#3", "#4"]


# --- TLS ------------------------------------------------------------------------------------------


def section(folder: Path, **more: Any) -> dict[str, Any]:
    """What a core has of TLS."""
    pair = self_signed(folder, stem="common") if not (folder / "common.key").exists() else None
    names = (folder / "common.key", folder / "common.crt")
    assert pair is None or (pair.key, pair.certificate) == names
    return {
        "start_tls": True,
        "always_on": False,
        "required": False,
        "certificates": [tuple(str(name) for name in names)],
        "root_cas_file": None,
        "client_auth": "NoClientCert",
        "protocols": ["tls1.2", "tls1.3"],
        "ciphers": [],
        "curves": [],
        "prefer_server_ciphers": False,
    } | more


class Visitor:
    """A client that comes back with what it was given."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self._context = unverified()
        self._context.maximum_version = self._context.minimum_version = version
        self.session: ssl.SSLSession | None = None

    def resumes(self, sharer: Sharer) -> bool:
        """Whether it was known there; has a new session afterwards."""
        with Wire(sharer.address) as wire:
            wire.ask(HELLO)
            wire.ask(b"STARTTLS\r\n")
            secure = self._context.wrap_socket(wire.socket, session=self.session)
            with Wire(secure, greeted=False) as inner:
                # A ticket of TLS 1.3 comes behind the handshake, at the latest with a reply.
                assert inner.ask(HELLO).startswith("250")
                self.session = secure.session
                return bool(secure.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_goes_on_at_another_process(
    memory: SharedMemory, start: Start, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Until keys were rotated twice since; also at one that came later."""
    tls = section(tmp_path)
    one, two = start(0, tls=tls), start(1, tls=tls)
    visitor = Visitor(version)
    assert not visitor.resumes(one)
    assert [visitor.resumes(sharer) for sharer in (two, one, two)] == [True] * 3
    memory.rotate_tickets()
    assert visitor.resumes(one)
    old = visitor.session
    memory.rotate_tickets()
    assert visitor.resumes(two)
    visitor.session = old
    memory.rotate_tickets()
    assert not visitor.resumes(one)
    one.kill()
    memory.bury(0)
    assert visitor.resumes(start(0, tls=tls))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_unknown_where_other_certificates_are_asked_for(
    memory: SharedMemory, start: Start, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Or at another server, or of another memory."""
    roots = [self_signed(tmp_path, stem=stem).certificate for stem in ("root", "other")]
    asking = {"client_auth": "VerifyClientCertIfGiven", "root_cas_file": str(roots[0])}
    here = start(0, tls=section(tmp_path, **asking))
    for others in (
        {"tls": section(tmp_path, **asking | {"root_cas_file": str(roots[1])})},
        {"tls": section(tmp_path, **asking | {"client_auth": "RequestClientCert"})},
        {"tls": section(tmp_path)},
        {"tls": section(tmp_path, **asking), "name": "another"},
    ):
        visitor = Visitor(version)
        assert not visitor.resumes(here)
        with Sharer(memory, 1, **others) as there:
            assert not visitor.resumes(there)
        memory.bury(1)
    visitor = Visitor(version)
    assert not visitor.resumes(here)
    with Sharer(SharedMemory.create(1), 0, tls=section(tmp_path, **asking)) as there:
        assert not visitor.resumes(there)


# --- What is no memory ----------------------------------------------------------------------------


def test_what_is_no_memory_file_is_refused_with_the_reason(memory: SharedMemory) -> None:
    content = os.pread(memory.fileno(), 1 << 16, 0)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(ValueError, match="no memory file of guerrilla: it is not sealed"):
            SharedMemory.attach(file.fileno(), 0)
    fd = os.memfd_create("stale", os.MFD_CLOEXEC)
    try:
        with pytest.raises(ValueError, match="not sealed"):
            SharedMemory.attach(fd, 0)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        SharedMemory.attach(fd, 0)


@pytest.mark.parametrize(
    ("at", "word", "why"),
    [
        (0, 0, "it does not begin as one"),
        (8, 7, "of another build of guerrilla"),
        (16, 0, "for no number of processes"),
        (16, 5, "should have .* damaged"),
        (24, 9, "should have .* damaged"),
    ],
)
def test_a_stale_memory_file_is_refused_with_the_reason(
    memory: SharedMemory, at: int, word: int, why: str
) -> None:
    os.pwrite(memory.fileno(), struct.pack("=Q", word), at)
    with pytest.raises(ValueError, match=why):
        SharedMemory.attach(memory.fileno(), 0)


def test_nobody_can_cut_it(memory: SharedMemory) -> None:
    """A page that is missing would end whoever looks at it."""
    with pytest.raises(PermissionError):
        os.truncate(memory.fileno(), 4096)


def test_a_place_is_there_and_has_one_core(memory: SharedMemory) -> None:
    with pytest.raises(ValueError, match="no place 2 in this memory file: it has 0 to 1"):
        SharedMemory.attach(memory.fileno(), 2)
    for ask in (memory.stats, memory.bury):
        with pytest.raises(ValueError, match="no place 2"):
            ask(2)
    with pytest.raises(ValueError, match="attach it at one"):
        Core(settings(), memory)
    assert (memory.processes, memory.place) == (2, None)
    attached = SharedMemory.attach(memory.fileno(), 1)
    assert (attached.processes, attached.place) == (2, 1)
    core = Core(settings(), attached)
    with pytest.raises(ValueError, match=f"place 1 .* process {os.getpid()}: .* buried"):
        Core(settings(), SharedMemory.attach(memory.fileno(), 1))
    core.close()
    Core(settings(), attached).close()


@pytest.mark.parametrize("processes", [0, 1025])
def test_there_are_not_so_many_processes(processes: int) -> None:
    with pytest.raises(ValueError, match=f"{processes} processes: there can be 1 to 1024"):
        SharedMemory.create(processes)


def test_one_for_many_processes_takes_what_is_used() -> None:
    memory = SharedMemory.create(64)
    assert os.stat(memory.fileno()).st_blocks * 512 < 1 << 16


NO_ROOM = """
import resource
from guerrilla import _core
from tests.test_inherited import settings
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmSize:")]
most = int(line.split()[1]) * 1024 + 20_000_000
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    _core.Core(settings("127.0.0.1:0"))
except MemoryError as error:
    print(error)
"""


def test_a_core_without_room_for_its_tables_is_an_error_and_no_end() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NO_ROOM], capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("no memory for the tables of a core: ")
