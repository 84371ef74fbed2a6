"""The core over sockets, with the test in the place of the workers: budgets, ends, counters."""

from __future__ import annotations

import encodings
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guerrilla import Envelope, Reply
from guerrilla._core import Core

MIB = 1 << 20
SERVER: dict[str, Any] = {
    "name": "test",
    "address": "127.0.0.1:0",
    "host_name": "mx.example.net",
    "max_size": 32 * MIB,
    "timeout": 10.0,
    "max_clients": 1000,
    "max_recipients": 100,
    "max_errors": 5,
    "max_idle_commands": 50,
    "max_header_size": MIB,
    "max_received_hops": 50,
    "helo_required": True,
    "bare_newline": "fix",
    "data_timeout": 600.0,
    "min_data_rate": 100,
    "xclient": False,
    "proxy_protocol": False,
    "trusted_proxies": [],
    "max_messages": 0,
    "max_connections_per_ip": 0,
    "max_connection_rate_per_ip": 0,
    "ipv6_prefix": 64,
    "greet_delay": 0.0,
    "backend": "default",
    "tls": None,
}
BACKEND: dict[str, Any] = {
    "name": "default",
    "save_timeout": 10.0,
    "check_timeout": 10.0,
    "check_recipients": False,
    "cache_ttl": 0.0,
    "breaker_failures": 0,
    "breaker_reset": 10.0,
}


@contextmanager
def core(*, server: dict[str, Any] | None = None, **more: Any) -> Iterator[tuple[Core, str]]:
    settings: dict[str, Any] = {
        "servers": [SERVER | (server or {})],
        "allowed_hosts": ["."],
        "max_memory": 256 * MIB,
        "spill_size": 0,
        "backends": [BACKEND | {key: more.pop(key) for key in BACKEND if key in more}],
        "log_level": 30,
    }
    made = Core(settings | more)  # type: ignore[arg-type]
    try:
        (address,) = made.bind()
        made.start()
        yield made, address
    finally:
        made.close()


def unstarted(address: str) -> Core:
    return Core(
        {
            "servers": [SERVER | {"address": address}],  # type: ignore[list-item]
            "allowed_hosts": ["."],
            "max_memory": MIB,
            "spill_size": 0,
            "backends": [BACKEND],  # type: ignore[list-item]
            "log_level": 30,
        }
    )


_clients: list[Client] = []


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().socket.close()


class Client:
    """A client that says what it is told."""

    def __init__(self, address: str) -> None:
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address.removeprefix("unix:"))
        else:
            host, port = address.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(20)
        _clients.append(self)
        self.read(1)

    def read(self, lines: int) -> bytes:
        """So many lines, or what there is when the server closes."""
        data = b""
        while data.count(b"\r\n") < lines:
            octets = self.socket.recv(65536)
            if not octets:
                break
            data += octets
        return data

    def ask(self, text: str, lines: int = 1) -> bytes:
        self.socket.sendall(text.encode())
        return self.read(lines)

    def data(self, parameters: str = "") -> bytes:
        """Everything up to the answer to DATA."""
        self.ask("HELO client\r\n")
        self.ask(f"MAIL FROM:<a@example.com>{parameters}\r\n")
        self.ask("RCPT TO:<b@example.net>\r\n")
        return self.ask("DATA\r\n")

    def message(self, octets: int, parameters: str = "") -> None:
        assert self.data(parameters).startswith(b"354")
        self.socket.sendall(b"x" * octets + b"\r\n.\r\n")

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def take(made: Core, count: int = 1) -> list[Envelope]:
    taken: list[Envelope] = []
    while len(taken) < count:
        batch = made.receive(count - len(taken), 20)
        assert batch, "nothing came"
        taken += batch
    return taken


def test_memory_of_a_message_whose_worker_hangs_comes_back_when_the_peer_goes() -> None:
    with core() as (made, address):
        client = Client(address)
        client.message(MIB)
        held = take(made)
        assert made.stats()["memory_used"] > MIB
        client.reset()
        until(lambda: made.stats()["memory_used"] == 0)
        assert made.stats()["memory_retained"] > MIB
        del held
        assert made.stats()["memory_retained"] == 0


def test_what_is_queued_stays_on_the_budget_until_a_worker_takes_it() -> None:
    with core(save_timeout=0.2) as (made, address):
        client = Client(address)
        client.message(MIB)
        told = b"451 4.3.0 Error: saving takes too long, please try again later\r\n"
        assert client.read(1) == told
        assert made.stats()["memory_used"] > MIB
        assert made.receive(1, 0) == []  # its time is up: nobody gets it
        assert (made.stats()["memory_used"], made.stats()["memory_retained"]) == (0, 0)


def test_a_small_declared_size_does_not_make_a_queue_without_end() -> None:
    with core() as (made, address):
        client = Client(address)
        client.message(0, " SIZE=1")
        until(lambda: made.stats()["queue_depth"] == 1)
        assert made.stats()["memory_used"] >= 4096


def test_an_envelope_of_many_recipients_counts_with_them() -> None:
    with core() as (made, address):
        client = Client(address)
        client.ask("HELO client\r\n")
        client.ask("MAIL FROM:<> SIZE=1\r\n")
        for number in range(100):
            client.ask(f"RCPT TO:<recipient-{number}@{'long.' * 30}name.example>\r\n")
        client.ask("DATA\r\n")
        client.socket.sendall(b"x\r\n.\r\n")
        until(lambda: made.stats()["queue_depth"] == 1)
        assert made.stats()["memory_used"] > 40_000
        take(made)[0].answer(None)
        assert client.read(1).startswith(b"250")
        assert made.stats()["memory_used"] == 0


def test_a_message_in_a_file_is_counted_and_outlives_the_core() -> None:
    with core(spill_size=MIB) as (made, address):
        client = Client(address)
        client.message(MIB)  # a CRLF more
        (held,) = take(made)
        figures = made.stats()
        assert figures["memory_used"] < 2 * 4096
        assert (figures["spilled"], figures["spilled_octets"]) == (1, MIB + 2)
        assert held.answer(None)
        assert client.read(1).startswith(b"250")
        assert made.stats()["memory_used"] == 0
        assert 0 < made.stats()["memory_retained"] < 2 * 4096
        view = held.data
        assert view.readonly
        assert Envelope.from_bytes(held.to_bytes()).data == view
        assert bytes(held) == view
    del held
    # The view holds the message, and closing the core does not take it away.
    assert view == b"x" * MIB + b"\r\n"
    assert made.stats()["spilled_octets"] == MIB + 2
    view.release()
    assert made.stats()["spilled_octets"] == made.stats()["memory_retained"] == 0


def test_a_queue_that_nobody_empties_does_not_fill_the_disk() -> None:
    with core(spill_size=1, save_timeout=0.2) as (made, address):
        late, gone = Client(address), Client(address)
        late.message(MIB)
        assert late.read(1).startswith(b"451 4.3.0")
        until(lambda: made.stats()["spilled_octets"] == 0)
        gone.message(MIB)
        until(lambda: made.stats()["queue_depth"] == 1)
        gone.reset()
        until(lambda: made.stats()["spilled_octets"] == 0)
        figures = made.stats()
        assert (figures["queue_depth"], figures["memory_used"]) == (0, 0)
        assert (figures["expired_before_commit"], figures["peer_gone"]) == (1, 1)


def test_an_envelope_that_is_dropped_closes_its_file() -> None:
    with core(spill_size=1) as (made, address):
        client = Client(address)
        client.message(1)
        take(made)
        assert client.read(1).startswith(b"451")
        until(lambda: made.stats()["spilled_octets"] == 0)
        assert made.stats()["spill_failures"] == 0


def test_growth_that_finds_no_memory_is_counted() -> None:
    with core(max_memory=MIB) as (made, address):
        client = Client(address)
        client.message(2 * MIB)
        assert client.read(1).startswith(b"452 4.3.1")
        assert made.stats()["refused_for_memory"] == 1
        assert client.ask("NOOP\r\n").startswith(b"250")


def test_everyone_who_is_answered_hears_it_when_all_is_closed() -> None:
    count = 300
    with core() as (made, address):
        clients = [Client(address) for _ in range(count)]
        for client in clients:
            client.message(10)
        for envelope in take(made, count):
            assert envelope.answer(None)
        made.close()
        answers = [client.read(1)[:3] for client in clients]
        assert answers == [b"250"] * count
        assert made.stats()["answers_lost"] == 0


def test_a_pipelining_client_begins_nothing_after_the_stop() -> None:
    with core() as (made, address):
        client = Client(address)
        assert client.data().startswith(b"354")
        mail = "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
        client.socket.sendall(f"one\r\n.\r\n{mail}".encode())
        (envelope,) = take(made)
        stopped: list[bool] = []
        thread = threading.Thread(target=lambda: stopped.append(made.stop(10)))
        thread.start()
        until(lambda: not listens(address))
        envelope.answer(None)
        assert client.read(3).split(b"\r\n")[0].startswith(b"250 2.0.0")
        thread.join()
        assert stopped == [True]
        assert made.receive(1, 0) is None


def test_what_becomes_of_checks_is_not_counted_as_messages() -> None:
    with core(check_recipients=True) as (made, address):
        client = Client(address)
        client.ask("HELO client\r\n")
        client.ask("MAIL FROM:<>\r\n")
        client.socket.sendall(b"RCPT TO:<b@example.net>\r\n")
        assert made.receive_checks(1, 20)
        client.reset()
        until(lambda: made.stats()["connections_open"] == 0)
        stats = made.stats()
        assert (stats["peer_gone"], stats["answers_lost"], stats["checks"]) == (0, 0, 1)


def test_a_closed_intake_asks_nobody_and_opens_again() -> None:
    with core(check_recipients=True) as (made, address):
        made.backend("default").set_intake(False)
        client = Client(address)
        client.ask("HELO client\r\nMAIL FROM:<>\r\n", 2)
        assert client.ask("RCPT TO:<b@example.net>\r\n").startswith(b"451 4.3.2")
        assert made.stats()["check_queue_depth"] == 0
        made.backend("default").set_intake(True)
        client.socket.sendall(b"RCPT TO:<b@example.net>\r\n")
        checks = made.receive_checks(1, 20)
        assert checks
        checks[0].answer(None)
        assert client.read(1).startswith(b"250 2.1.5")


def test_a_stage_that_says_421_closes() -> None:
    with core() as (made, address):
        client = Client(address)
        client.message(10)
        take(made)[0].answer(Reply(421, "4.3.2", "come back tomorrow"))
        assert client.read(2) == b"421 4.3.2 come back tomorrow\r\n"


def test_an_answer_that_nobody_hears_is_counted() -> None:
    with core() as (made, address):
        client = Client(address)
        client.message(10)
        (envelope,) = take(made)
        assert [envelope.expired] == [False]
        client.reset()
        until(lambda: made.stats()["peer_gone"] == 1)
        assert envelope.expired
        assert not envelope.answer(None)


def test_a_client_that_only_stopped_sending_is_still_there() -> None:
    with core() as (made, address):
        client = Client(address)
        client.message(10)
        client.socket.shutdown(socket.SHUT_WR)
        (envelope,) = take(made)
        assert not envelope.expired
        assert envelope.answer(None)
        assert client.read(1).startswith(b"250 2.0.0 OK: queued as " + envelope.queued_id.encode())


def test_silence_after_354_ends_with_data_timeout() -> None:
    with core(server={"data_timeout": 0.3}) as (made, address):
        client = Client(address)
        assert client.data().startswith(b"354")
        began = time.monotonic()
        assert client.read(1).startswith(b"421 4.4.2")
        assert time.monotonic() - began < 5  # `timeout` is 10
        assert made.stats()["timeouts"] == 1


def test_a_core_that_is_forgotten_frees_its_port() -> None:
    made = unstarted("127.0.0.1:0")
    (address,) = made.bind()
    made.start()
    client = Client(address)
    del made
    assert client.read(1) in (b"", b"421 4.3.0 Server is shutting down. Please try again later\r\n")
    with pytest.raises(ConnectionRefusedError):
        Client(address)


def test_a_core_is_started_once_and_its_port_is_its_own() -> None:
    with core() as (made, address):
        for again in (made.bind, made.start):
            with pytest.raises(RuntimeError, match="started before"):
                again()
        with (
            pytest.raises(OSError, match=r"test: cannot listen: Address .* in use"),
            core(server={"address": address}),
        ):
            pass


def test_between_bind_and_start_connections_wait(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    made = unstarted(f"unix:{path}")
    with pytest.raises(RuntimeError, match="bind comes before start"):
        made.start()
    assert made.bind() == [f"unix:{path}"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(20)
        with pytest.raises(RuntimeError, match="bound or started before"):
            made.bind()
        assert made.stats()["connections_accepted"] == 0
        made.start()
        assert client.recv(4) == b"220 "
    made.close()


def test_what_is_bound_and_never_started_is_freed(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    made = unstarted(f"unix:{path}")
    made.bind()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert path.is_socket()
        assert made.stop(5)
        made.close()
        assert not path.exists()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(RuntimeError, match="started before"):
        made.start()


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"address": "nonsense"}, "address: must be"),
        ({"bare_newline": "maybe"}, "bare_newline: must be fix, keep or reject"),
        ({"host_name": "two words"}, "host_name: must be"),
        ({"timeout": -1.0}, "timeout: not a time"),
        ({"timeout": 1e19}, "timeout: not a time"),  # no clock reaches so far
    ],
)
def test_settings_that_cannot_be_obeyed_are_named(server: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message), core(server=server):
        pass


def test_a_unix_socket_goes_with_its_server_but_a_successors_stays(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    server = {"address": f"unix:{path}"}
    with core(server=server) as (_, address):
        assert Client(address).ask("NOOP\r\n").startswith(b"250")
        with pytest.raises(OSError, match="in use"), core(server=server):
            pass
        path.unlink()
        with core(server=server) as (_, other):
            pass
        assert not path.exists()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(os.fspath(path))
    assert path.exists()
    assert other == address
    successor.close()


def test_a_subject_of_many_unheard_of_charsets_leaves_nothing_behind() -> None:
    words = " ".join(f"=?unheard-of-{number}?q?a?=" for number in range(2_000))
    known = len(encodings._cache)
    assert "=?unheard-of-7?q?a?=" in Envelope.create(f"Subject: {words}\r\n\r\n".encode()).subject
    assert len(encodings._cache) == known
