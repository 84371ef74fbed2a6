"""The daemon: started, stopped, and refused to start, over real sockets."""

from __future__ import annotations

import logging
import os
import resource
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

import guerrilla
from guerrilla._core import Address, Check, Envelope, Transaction
from guerrilla.addresses import resolve
from guerrilla.base import Processor
from guerrilla.config import AppConfig, from_mapping, parse_listen_interface
from guerrilla.daemon import Daemon
from guerrilla.errors import StartError
from guerrilla.pidfile import PidFile
from guerrilla.reply import Outcome, Reply

Until = Callable[[Callable[[], object]], None]


class Keeper(Processor):
    """Keeps mails in memory and calls that storing; does what the subject says before."""

    stores = True
    kept: ClassVar[list[bytes]]
    release: ClassVar[threading.Event]
    entered: ClassVar[threading.Event]
    did: ClassVar[list[str]]

    def open(self) -> None:
        self.did.append("open")

    def close(self) -> None:
        self.did.append("close")

    def save(self, envelope: Envelope) -> Outcome:
        match envelope.subject:
            case "raise":
                raise ValueError
            case "nonsense":
                return "250"  # type: ignore[return-value]
            case "exit":
                raise SystemExit(1)
            case "hang":
                self.entered.set()
                self.release.wait(30)
        self.kept.append(bytes(envelope.data))
        return None

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        return Reply(550, "5.1.1", "who?") if recipient.user == "nobody" else None


@pytest.fixture
def keeper() -> Iterator[type[Keeper]]:
    """A keeper class of the test's own."""

    class Own(Keeper):
        kept: ClassVar[list[bytes]] = []
        did: ClassVar[list[str]] = []
        release = threading.Event()
        entered = threading.Event()

    yield Own
    Own.release.set()


def config(**backend: Any) -> dict[str, Any]:
    return {
        "servers": [{"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com"}],
        "allowed_hosts": ["example.com"],
        "log_file": "off",
        "backend_config": {"save_process": "HeadersParser|Keeper", **backend},
    }


@pytest.fixture
def make(keeper: type[Keeper]) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that know the keeper; stops them at the end."""
    made: list[Daemon] = []

    def daemon(raw: dict[str, Any] | None = None, **keys: Any) -> Daemon:
        found = Daemon(from_mapping({**(raw or config()), **keys}))
        found.add_processor("Keeper", keeper)
        made.append(found)
        return found

    yield daemon
    keeper.release.set()
    for one in made:
        one.shutdown(5)


Make = Callable[..., Daemon]


def where(daemon: Daemon, index: int = 0) -> tuple[str, int]:
    host, _, port = daemon.addresses[index].rpartition(":")
    return host.strip("[]"), int(port)


def send(daemon: Daemon, subject: str = "hello", to: str = "to@example.com") -> tuple[int, bytes]:
    """Sends one mail; the reply to its data."""
    client = smtplib.SMTP(*where(daemon), timeout=30)
    try:
        client.ehlo("client.example.org")
        client.mail("from@example.org")
        code, text = client.rcpt(to)
        if code != 250:
            return code, text
        return client.data(f"Subject: {subject}\r\n\r\nbody\r\n".encode())
    finally:
        # Without QUIT: a daemon that stops says 421 instead of waiting for it.
        client.close()


def problems(daemon: Daemon) -> tuple[str, ...]:
    with pytest.raises(StartError) as caught:
        daemon.start()
    assert daemon.addresses == []
    assert daemon.wait(0)
    return caught.value.problems


def test_it_serves_and_stops(make: Make, keeper: type[Keeper]) -> None:
    daemon = make(config(save_workers_size=2))
    daemon.start()
    assert where(daemon)[1] > 0
    code, text = send(daemon)
    assert code == 250
    assert text.startswith(b"2.0.0 OK: queued as ")
    assert keeper.kept == [b"Subject: hello\r\n\r\nbody\r\n"]
    assert daemon.warnings() == []
    assert not daemon.wait(0)
    assert daemon.shutdown()
    assert daemon.wait(0)
    assert keeper.did == ["open", "open", "close", "close"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where(daemon), timeout=5)


def test_it_is_a_context_manager(make: Make, keeper: type[Keeper]) -> None:
    with make() as daemon:
        assert send(daemon)[0] == 250
    assert daemon.wait(0)
    assert len(keeper.kept) == 1


def test_it_counts(make: Make) -> None:
    daemon = make()
    assert daemon.stats() == {}
    daemon.start()
    send(daemon)
    stats = daemon.stats()
    assert stats["save_workers"] == 1
    assert stats["save_workers_abandoned"] == 0
    assert all(isinstance(value, int) for value in stats.values())


def test_recipients_are_checked_where_a_chain_says_so(make: Make) -> None:
    with make(config(validate_process="Keeper")) as daemon:
        assert send(daemon, to="nobody@example.com") == (550, b"5.1.1 who?")
        assert send(daemon)[0] == 250


@pytest.mark.parametrize("kind", ["raise", "nonsense", "exit", "hang"])
def test_one_bad_mail_harms_no_other(make: Make, keeper: type[Keeper], kind: str) -> None:
    # The second worker serves while the first one hangs.
    with make(config(save_workers_size=2, gw_save_timeout="1s")) as daemon:
        code, text = send(daemon, kind)
        assert (code, text[:5]) == (451, b"4.3.0")
        assert [send(daemon)[0] for _ in range(100)] == [250] * 100
        assert len(keeper.kept) == 100
        keeper.release.set()


def test_a_worker_that_hangs_gets_a_successor(
    make: Make, keeper: type[Keeper], until: Until
) -> None:
    with make(config(gw_save_timeout="200ms")) as daemon:
        assert send(daemon, "hang")[0] == 451
        until(lambda: daemon.stats()["save_workers_replaced"] == 1)
        assert daemon.stats()["save_workers_abandoned"] == 1
        assert send(daemon)[0] == 250
        keeper.release.set()
        until(lambda: daemon.stats()["save_workers_abandoned"] == 0)


def test_a_stop_lets_a_mail_finish(make: Make, keeper: type[Keeper]) -> None:
    daemon = make()
    daemon.start()
    answers: list[tuple[int, bytes]] = []
    sender = threading.Thread(target=lambda: answers.append(send(daemon, "hang")))
    sender.start()
    assert keeper.entered.wait(10)
    results: list[bool] = []
    stopper = threading.Thread(target=lambda: results.append(daemon.shutdown()))
    stopper.start()
    assert not daemon.wait(0.2)
    keeper.release.set()
    stopper.join(10)
    sender.join(10)
    assert results == [True]
    assert answers[0][0] == 250
    assert len(keeper.kept) == 1


def test_a_stop_takes_no_longer_than_its_timeout(make: Make, keeper: type[Keeper]) -> None:
    daemon = make()
    daemon.start()
    sender = threading.Thread(target=_send_and_forget, args=(daemon,))
    sender.start()
    assert keeper.entered.wait(10)
    begun = time.monotonic()
    assert not daemon.shutdown(0.3)
    assert time.monotonic() - begun < 5
    keeper.release.set()
    sender.join(10)


def _send_and_forget(daemon: Daemon) -> None:
    try:
        send(daemon, "hang")
    except (smtplib.SMTPException, OSError):
        return


def test_a_stop_before_the_start_does_nothing(make: Make) -> None:
    daemon = make()
    assert daemon.shutdown()
    assert not daemon.wait(0)
    daemon.start()
    assert send(daemon)[0] == 250


def test_a_daemon_is_started_once(make: Make, keeper: type[Keeper]) -> None:
    daemon = make()
    daemon.start()
    with pytest.raises(RuntimeError, match="once"):
        daemon.start()
    with pytest.raises(RuntimeError, match="before start"):
        daemon.add_processor("Other", keeper)


def test_a_chain_that_stores_nothing_is_warned_of(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with make(config(save_process="Debugger")) as daemon:
        (warning,) = daemon.warnings()
        assert "stores nothing" in warning
    assert "stores nothing" in caplog.text


def test_a_processor_of_ones_own_beside_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "daemon_shout.py").write_text(
        "import guerrilla\n"
        "@guerrilla.processor('DaemonShout', stores=True)\n"
        "def shout(envelope):\n"
        "    return guerrilla.Reply.ok(envelope.subject.upper())\n"
    )
    path = tmp_path / "guerrilla.toml"
    path.write_text(
        'log_file = "off"\nallowed_hosts = ["."]\n'
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
        '[backend_config]\nimport = ["daemon_shout"]\nsave_process = "DaemonShout"\n'
    )
    with guerrilla.Daemon.from_file(path) as daemon:
        assert send(daemon) == (250, b"2.0.0 HELLO")


def test_a_backend_of_ones_own_stands_in_place_of_the_chains() -> None:
    done: list[str] = []

    class Own:
        def open(self) -> None:
            done.append("open")

        def close(self) -> None:
            done.append("close")

        def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
            done.extend(envelope.subject for envelope in envelopes)
            return [None] * len(envelopes)

        def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
            return [Reply.reject() if c.recipient.user == "nobody" else None for c in checks]

    raw = config(save_process="Nonesuch", any_key_of_ones_own=1)
    with Daemon(from_mapping(raw), backend=Own) as daemon:
        assert daemon.warnings() == []
        assert send(daemon)[0] == 250
        assert send(daemon, to="nobody@example.com")[0] == 550
    assert done == ["open", "open", "hello", "close", "close"]


# What stops a start


def test_everything_that_is_wrong_is_told_at_once(make: Make, tmp_path: Path) -> None:
    raw = config(save_process="HeaderParser", **{"import": ["daemon_nowhere"]})
    raw["servers"].append({"listen_interface": "nowhere.invalid:25"})
    raw["servers"][0]["xclient_on"] = True
    found = problems(make(raw))
    for part in ("xclient_on", "daemon_nowhere", "nowhere.invalid"):
        assert sum(part in problem for problem in found) == 1
    del raw["backend_config"]["import"]
    raw["backend_config"]["redis_interfacee"] = "x"
    found = problems(make(raw))
    for part in ("'HeadersParser'", "backend_config.redis_interfacee"):
        assert sum(part in problem for problem in found) == 1


def test_unknown_keys_of_processors_can_be_ignored(make: Make) -> None:
    with make(config(no_such_key=1), ignore_unknown_keys=True) as daemon:
        assert send(daemon)[0] == 250


def test_a_key_of_a_processor_that_is_not_in_the_chain_is_fine(make: Make) -> None:
    with make(config(sleep_seconds=0)) as daemon:
        assert send(daemon)[0] == 250


def test_ports_in_use_are_named_and_all_of_them(make: Make, keeper: type[Keeper]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        names = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in (one, two)]
        raw = config()
        raw["servers"] += [{"listen_interface": name} for name in names]
        found = problems(make(raw))
    for name in names:
        assert sum(name in problem for problem in found) == 1
    assert keeper.did == ["open", "close"]


def test_a_stage_that_does_not_open_stops_the_start(make: Make, keeper: type[Keeper]) -> None:
    class Broken(Processor):
        def open(self) -> None:
            message = "connection refused"
            raise ConnectionError(message)

    daemon = make(config(save_process="Keeper|Broken"))
    daemon.add_processor("Broken", Broken)
    assert problems(daemon) == ("Broken: ConnectionError: connection refused",)
    assert keeper.did == ["open", "close"]


def test_a_value_a_processor_refuses_stops_the_start(make: Make) -> None:
    class Strict(Processor):
        class Options(pydantic.BaseModel):
            strict_size: int

    daemon = make(config(save_process="Strict", strict_size="big"))
    daemon.add_processor("Strict", Strict)
    (problem,) = problems(daemon)
    assert problem.startswith("backend_config.strict_size: ")


def test_problems_of_a_config_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.toml"
    path.write_text('[backend_config]\nsave_process = "Nonesuch"\n')
    (problem,) = problems(Daemon.from_file(path))
    assert problem.startswith(f"{path}: backend_config.save_process: ")


def test_no_server_at_all_stops_the_start(make: Make) -> None:
    raw = config()
    raw["servers"][0]["is_enabled"] = False
    assert problems(make(raw)) == ("servers: none is enabled",)


def test_a_log_that_cannot_be_written_stops_the_start(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.log"
    (problem,) = problems(make(log_file=str(path)))
    assert problem.startswith(f"log_file: {path}: ")


def test_more_clients_than_files_stop_the_start(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 250))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: limits.append(pair))
    raw = config()
    raw["servers"] = [
        {"listen_interface": f"127.0.0.{host}:0", "max_clients": 100} for host in (1, 2, 3)
    ]
    (problem,) = problems(make(raw))
    assert "300" in problem
    assert "250" in problem
    raw["servers"].pop()
    with make(raw):
        assert limits[-1] == (250, 250)


# Pid file


def test_the_pid_file_lives_as_long_as_the_daemon(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    with make(pid_file=str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        (problem,) = problems(make(pid_file=str(path)))
        assert str(os.getpid()) in problem
        assert str(path) in problem
        assert path.exists()
    assert not path.exists()


def test_a_start_that_fails_leaves_no_pid_file(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        raw = config()
        raw["servers"][0]["listen_interface"] = f"127.0.0.1:{taken.getsockname()[1]}"
        problems(make(raw, pid_file=str(path)))
    assert not path.exists()


def test_the_pid_file_of_a_dead_daemon_is_taken_over(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    path.write_text(f"{os.getppid()}\nand a long rest")
    with make(pid_file=str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_that_cannot_be_written_stops_the_start(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "guerrilla.pid"
    (problem,) = problems(make(pid_file=str(path)))
    assert problem == f"pid_file: {path}: No such file or directory"


def test_the_pid_file_of_another_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    first = PidFile(path)
    path.unlink()
    second = PidFile(path)
    first.remove()
    assert path.exists()
    second.remove()
    assert not path.exists()


# Logs


def test_the_log_of_the_core_comes_through(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with make(log_file=str(path), log_level="debug") as daemon:
        send(daemon)
        path.rename(tmp_path / "a.log.1")
        daemon.reopen_logs()
        send(daemon)
    assert "guerrilla.daemon started" in (tmp_path / "a.log.1").read_text()
    assert "guerrilla.daemon stopped" in path.read_text()
    assert not [
        handler
        for handler in logging.getLogger("guerrilla").handlers
        if isinstance(handler, logging.FileHandler)
    ]


# Addresses


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.1:25", ["127.0.0.1:25"]),
        ("0.0.0.0:0", ["0.0.0.0:0"]),
        ("unix:/run/a.sock", ["unix:/run/a.sock"]),
        ("[::1]:25", ["[::1]:25"]),
    ],
)
def test_an_address_stands_for_itself(text: str, addresses: list[str]) -> None:
    assert resolve(parse_listen_interface(text)) == addresses


@pytest.mark.parametrize(
    ("has_ipv6", "addresses"), [(True, ["0.0.0.0:25", "[::]:25"]), (False, ["0.0.0.0:25"])]
)
def test_a_port_alone_is_every_address(
    monkeypatch: pytest.MonkeyPatch, has_ipv6: bool, addresses: list[str]
) -> None:
    monkeypatch.setattr("guerrilla.addresses._has_ipv6", lambda: has_ipv6)
    assert resolve(parse_listen_interface(":25")) == addresses


@pytest.mark.parametrize(
    ("has_ipv6", "addresses"),
    [(True, ["192.0.2.1:25", "[2001:db8::1]:25"]), (False, ["192.0.2.1:25"])],
)
def test_a_name_is_each_of_its_addresses_once(
    monkeypatch: pytest.MonkeyPatch, has_ipv6: bool, addresses: list[str]
) -> None:
    def lookup(host: str, port: int, *, type: int) -> list[Any]:  # noqa: A002
        assert (host, port) == ("mx.example.com", 25)
        v6 = (socket.AF_INET6, type, 6, "", ("2001:db8::1", port, 0, 0))
        v4 = (socket.AF_INET, type, 6, "", ("192.0.2.1", port))
        return [v6, v4, v4]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr("guerrilla.addresses._has_ipv6", lambda: has_ipv6)
    assert resolve(parse_listen_interface("mx.example.com:25")) == addresses


def test_the_defaults_need_no_config() -> None:
    daemon = Daemon()
    assert daemon.config == AppConfig.default()
    assert daemon.addresses == []
