"""A storm of reloads while mail comes in: no sender hears of it, and nothing is left of it."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from guerrilla._core import Address, Transaction
from guerrilla.base import Processor
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.reply import Reply
from tests.certificates import self_signed
from tests.wire import HELLO, TRANSACTION, Wire, resident_memory, until

SENDERS: Final = 50
MAILS: Final = 20_000
RELOADS: Final = 200
QUEUED: Final = re.compile(r"250 2\.0\.0 OK: queued as ([0-9a-z]{26})")
MIB: Final = 2**20
MOST_WORKERS: Final = 4
GROWTH: Final = 16 * MIB
"""Octets that a storm may leave, whatever its length: what allocators and caches keep."""


class Anyone(Processor):
    """Has nothing against any recipient."""

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        del transaction, recipient
        return None


class Weather:
    """Configs, each other than the one before, in which the senders' mail is welcome."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._tls = [
            {},
            self_signed(folder, stem="one").section(),
            self_signed(folder, stem="two").section(watch=True),
        ]
        self._turn = 0

    def calm(self) -> AppConfig:
        """What it begins and ends with."""
        return from_mapping(self._config({}, {}, {}))

    def next(self) -> AppConfig:
        """The next one."""
        self._turn += 1
        one = self._chance.choice
        server = {
            "host_name": f"mx{self._turn}.example.com",
            "max_size": one([1 << 20, 2 << 20, "64 MiB"]),
            "timeout": one([30, 60, "2m"]),
            "max_clients": one([100, 200]),
            "max_recipients": one([10, 100, 0]),
            "max_messages": one([0, 1_000_000]),
            "max_errors": one([1, 5, 0]),
            "max_idle_commands": one([10, 50, 0]),
            "max_header_size": one([100_000, "1 MiB"]),
            "max_received_hops": one([1, 50, 0]),
            "max_connections_per_ip": one([0, 1_000]),
            "max_connection_rate_per_ip": one([0, 1_000]),
            "ipv6_prefix": one([48, 64]),
            "data_timeout": one([60, 600, 0]),
            "min_data_rate": one([1, 100, 0]),
            "helo_required": one([True, False]),
            "bare_newline": one(["fix", "keep", "reject"]),
            "greet_delay": one([0, "10ms"]),
            "proxy_protocol": one([True, False]),
            "xclient_on": one([True, False]),
            "trusted_proxies": one([["127.0.0.1"], ["192.0.2.0/24"], []]),
            "tls": one(self._tls),
            "backend": one(["default", "hot", "cold"]),
        }
        backend = {
            "save_process": one(["SQL", "HeadersParser|SQL", "HeadersParser|Hasher|Header|SQL"]),
            "validate_process": one(["", "Anyone"]),
            "save_workers_size": one([1, 2, MOST_WORKERS]),
            "validate_workers_size": one([1, 2]),
            "save_batch_size": one([1, 16, 64]),
            "save_concurrency": one([1, 64]),
            "gw_save_timeout": one([30, 60]),
            "gw_val_rcpt_timeout": one([20, 30]),
            "validate_cache_ttl": one([0, 60]),
            "breaker_failures": one([0, 1]),
        }
        top: dict[str, Any] = {
            "allowed_hosts": one([["."], ["example.com"], ["*.com", "example.net"]]),
            "max_memory": one(["64 MiB", "256 MiB"]),
            "spill_size": one([0, 1_000, "1 MiB"]),
            "log_level": one(["info", "error"]),
            "log_file": one(["off", str(self._folder / "a.log"), str(self._folder / "b.log")]),
            "pid_file": one(["", str(self._folder / "a.pid"), str(self._folder / "b.pid")]),
            "shutdown_timeout": one([30, 60]),
        }
        # Those that no server names come and go as well.
        names = {str(server["backend"]), one(["hot", "cold", "default"])} - {"default"}
        top["backends"] = {
            name: {"save_process": "SQL", "sql_dsn": str(self._folder / "mail.db"), **more}
            for name in sorted(names)
            for more in [
                {
                    "save_workers_size": one([1, 2]),
                    "validate_process": one(["", "Anyone"]),
                    "gw_val_rcpt_timeout": 30,
                }
            ]
        }
        return from_mapping(self._config(server, backend, top, second=self._turn % 2 == 1))

    def _config(
        self,
        server: dict[str, Any],
        backend: dict[str, Any],
        top: dict[str, Any],
        *,
        second: bool = False,
    ) -> dict[str, Any]:
        servers = [{"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com", **server}]
        if second:
            servers.append({"listen_interface": "127.0.0.2:0", "host_name": "second.example.com"})
        return {
            "servers": servers,
            "allowed_hosts": ["example.com"],
            "log_file": "off",
            **top,
            "backend_config": {
                "save_process": "HeadersParser|Header|SQL",
                "sql_driver": "sqlite",
                "sql_dsn": str(self._folder / "mail.db"),
                "mail_table": "new_mail",
                **backend,
            },
        }


def send(wire: Wire, mails: int) -> list[str]:
    """Sends mails one behind the other; the ids they were answered with. Any other reply fails."""
    queued = []
    for number in range(mails):
        wire.send(TRANSACTION)
        codes = [wire.reply()[:3] for _ in range(3)]
        assert codes == ["250", "250", "354"], (number, codes)
        reply = wire.ask(b"Subject: storm\r\n\r\n" + b"x" * (number % 7 * 500) + b"\r\n.\r\n")
        found = QUEUED.fullmatch(reply)
        assert found, (number, reply)
        queued.append(found[1])
    return queued


def state() -> tuple[Counter[str], Counter[str]]:
    """Descriptors and threads of the daemon in this process; workers have a number each."""
    threads = (thread.name for thread in threading.enumerate())
    kinds = Counter(name.rstrip("0123456789") for name in threads if "guerrilla" in name)
    files: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing
            files[os.readlink(f"/proc/self/fd/{name}").partition(":")[0]] += 1
    # SQLite closes no descriptor of a file that somebody in the process has a lock on: it keeps it
    # for the next who opens the file. So there are as many as workers have been at once.
    for name in [name for name in files if name.endswith("mail.db")]:
        assert files.pop(name) <= 3 * MOST_WORKERS
    return files, kinds


def workers() -> dict[str, int]:
    """How many workers of each pool there are."""
    kinds = state()[1].items()
    return {name: number for name, number in kinds if "-save-" in name or "-validate-" in name}


def stored(folder: Path) -> list[str]:
    """The ids in the database, as often as they are there."""
    connection = apsw.Connection(str(folder / "mail.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [str(row[0]) for row in connection.execute("SELECT queued_id FROM new_mail")]
    finally:
        connection.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[Daemon, Weather]]:
    weather = Weather(tmp_path, seed=5)
    daemon = Daemon(weather.calm())
    daemon.add_processor("Anyone", Anyone)
    with daemon:
        yield daemon, weather


def storm(daemon: Daemon, weather: Weather, reloads: int, mails: int) -> list[str]:
    """Reloads, from the first mail to the last; the ids of all mails."""
    with ThreadPoolExecutor(SENDERS) as pool, ExitStack() as open_:
        wires = [open_.enter_context(Wire(daemon.addresses[0])) for _ in range(SENDERS)]
        for wire in wires:
            assert wire.ask(HELLO).startswith("250 ")
        sending = [pool.submit(send, wire, mails // SENDERS) for wire in wires]
        began = time.monotonic()
        done = 0
        while done < reloads or not all(sender.done() for sender in sending):
            assert daemon.reload_config(weather.next()).failures == ()
            done += 1
            assert time.monotonic() - began < 600
        queued = [name for sender in sending for name in sender.result()]
        assert daemon.reload_config(weather.calm()).ok
        for wire in wires:  # none was dropped
            assert wire.ask(b"QUIT\r\n").startswith("221 ")
        return queued


def test_a_storm_of_reloads_is_heard_by_nobody(
    daemon: tuple[Daemon, Weather], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps every record that it hears; of a logger that was so before, it would hear too.
    monkeypatch.setattr(logging.getLogger("guerrilla"), "propagate", False)
    running, weather = daemon
    storm(running, weather, 10, 500)  # what the first ones make is made once
    until(lambda: running.stats()["connections_open"] == 0)
    until(lambda: workers() == {"guerrilla-save-": 1, "guerrilla-validate-": 1})
    before, memory = state(), resident_memory(os.getpid())
    first = len(stored(tmp_path))
    queued = storm(running, weather, RELOADS, MAILS)
    assert len(set(queued)) == len(queued) == MAILS
    until(lambda: running.stats()["connections_open"] == 0)
    found = stored(tmp_path)
    assert len(found) == first + len(queued)
    assert set(queued) <= set(found)
    until(lambda: state() == before)
    assert resident_memory(os.getpid()) - memory < GROWTH
    stats = running.stats()
    assert (stats["memory_used"], stats["messages_deferred"], stats["messages_rejected"]) == (
        0,
    ) * 3
