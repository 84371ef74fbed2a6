"""The core over sockets, with the test in the place of the workers: ends, counters, ports."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from guerrilla import Reply
from tests.cores import Client, core, listens, take, unstarted, until
from tests.cores import close_clients as _close_clients  # an automatic fixture  # noqa: F401


def test_everyone_who_is_answered_hears_it_when_all_is_closed() -> None:
    count = 300
    with core(server={"timeout": 60.0}, save_timeout=60.0) as (made, address):
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
        begun = client.data()
        assert begun.startswith(b"354")
        began = time.monotonic()
        # Who is late hears both at once.
        told = begun.partition(b"\r\n")[2] or client.read(1)
        assert told.startswith(b"421 4.4.2")
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


def test_a_worker_hears_at_once_of_what_comes_alone() -> None:
    """Each time it sleeps and nothing else happens: who is not called hears of it a minute late."""
    with core(check_recipients=True) as (made, address):
        client = Client(address)
        assert client.ask("HELO client\r\n").startswith(b"250")

        def work() -> None:
            for _ in range(20):
                for receive in (made.receive_checks, made.receive):
                    asked = receive(64, 60)
                    assert asked
                    asked[0].answer(None)

        worker = threading.Thread(target=work)
        worker.start()
        began = time.monotonic()
        for _ in range(20):
            client.ask("MAIL FROM:<a@example.com>\r\n")
            assert client.ask("RCPT TO:<b@example.net>\r\n").startswith(b"250")
            assert client.ask("DATA\r\n").startswith(b"354")
            assert client.ask("one\r\n.\r\n").startswith(b"250")
        worker.join()
        assert time.monotonic() - began < 20
