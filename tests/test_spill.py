"""Messages that go to files: what is stored, what they cost, and what a bad disk costs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.corpora import as_sent, on_the_wire
from tests.running import RunningDaemon
from tests.wire import Wire, anonymous_memory, until

MIB = 2**20
SPILL = 100_000
READ = 64 * 1024
"""Octets that the daemon reads at once."""
DIGEST = Path(__file__).parent / "data" / "digest.py"
LARGE = 200 * MIB
STORED = 30
"""Seconds to wait for the answer to a large message."""
BLOCK = (b"x" * 1022 + b"\r\n") * 256


def digesting(folder: Path, **more: Any) -> RunningDaemon:
    """A daemon that answers with what it saw."""
    shutil.copy(DIGEST, folder)
    environment = more.pop("TMPDIR", None)
    return RunningDaemon(
        folder,
        chain="HeadersParser|Digest",
        backend='import = ["digest"]',
        environment=None if environment is None else os.environ | {"TMPDIR": environment},
        **more,
    )


def answer(message: bytes, header: int) -> str:
    """What `Digest` says of it."""
    return f"250 2.0.0 {len(message)} {hashlib.sha256(message).hexdigest()} {header}"


def spilled(pid: int) -> int:
    """Files without a name that a process has open, and maps of such."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            count += target.startswith("/") and target.endswith(" (deleted)")
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return count + sum(line.endswith(" (deleted)") for line in maps.splitlines())


# --- Octet for octet ------------------------------------------------------------------------------


def text(size: int) -> bytes:
    """Lines of that size in all, with dots and bare newlines where pieces meet."""
    filler = b"".join(b"%07d %s\r\n" % (line, b"y" * 51) for line in range(size // 61 + 1))
    text = bytearray(b"Subject: large\r\n\r\n" + filler)
    for at in range(READ, size, READ // 4):
        # Those that are odd around each border, and across it.
        for behind, odd in enumerate((b"\r\n..\r\n", b"\n.\n", b"\r.\r")):
            start = at - 3 + 977 * behind
            text[start : start + len(odd)] = odd
    return bytes(text[: size - 2]) + b"\r\n"


SIZES = [
    base + more
    for base in (SPILL, SPILL + READ, SPILL + 2 * READ, MIB)
    for more in (-3, -2, -1, 0, 1, 2, 3)
]


def test_what_is_stored_is_what_was_sent_at_every_size(tmp_path: Path) -> None:
    with digesting(tmp_path, top=f"spill_size = {SPILL}") as daemon, Wire(daemon.port) as client:
        client.begin()
        for size in SIZES:
            raw = text(size)
            kept = as_sent(raw)
            client.send(on_the_wire(raw))
            assert client.reply() == answer(kept, len(b"Subject: large\r\n\r\n")), size
            client.begin_again()
        client.send(b".\r\n")
        assert client.reply().startswith("250 ")
        assert "ERROR" not in daemon.log_text()
        until(lambda: spilled(daemon.pid) == 0)


def test_what_was_in_a_file_is_in_the_database(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, top="spill_size = 1000") as daemon, Wire(daemon.port) as client:
        sent = [text(size) for size in (900, 1_100, 70_000, 300_000)]
        client.begin()
        for raw in sent:
            client.send(on_the_wire(raw))
            assert client.reply().startswith("250 2.0.0 OK: queued")
            client.begin_again()
        rows = daemon.rows()
        assert [row["subject"] for row in rows] == ["large"] * len(sent)
        for row, raw in zip(rows, sent, strict=True):
            assert row["mail"].endswith(as_sent(raw))
            assert row["mail"].count(b"Subject: large") == 1


def test_a_header_section_that_does_not_fit_before_the_file(tmp_path: Path) -> None:
    top = f"spill_size = {SPILL}"
    with digesting(tmp_path, top=top) as daemon, Wire(daemon.port) as client:
        client.begin()
        for lines in (1_000, 1_639, 3_000):
            header = b"".join(b"X-%04d: %s\r\n" % (line, b"z" * 51) for line in range(lines))
            message = header + b"\r\nbody\r\n"
            client.send(message + b".\r\n")
            assert client.reply() == answer(message, len(header) + 2)
            client.begin_again()


# --- Memory ---------------------------------------------------------------------------------------


def send_large(client: Wire, size: int, pid: int) -> tuple[str, int]:
    """Sends a message of that size; its answer, and the most anonymous memory on the way."""
    seen = hashlib.sha256()
    head = b"Subject: large\r\n\r\n"
    client.send(head)
    seen.update(head)
    most = 0
    for _ in range(size // len(BLOCK)):
        client.send(BLOCK)
        seen.update(BLOCK)
        most = max(most, anonymous_memory(pid))
    client.send(b".\r\n")
    client.socket.settimeout(STORED)
    said = client.reply()
    whole = len(head) + size // len(BLOCK) * len(BLOCK)
    assert said == f"250 2.0.0 {whole} {seen.hexdigest()} {len(head)}"
    return said, max(most, anonymous_memory(pid))


def test_a_large_message_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    with (
        digesting(tmp_path, top='max_memory = "4 MiB"', server='max_size = "1 GiB"') as daemon,
        Wire(daemon.port) as client,
    ):
        client.begin()
        send_large(client, 2 * MIB, daemon.pid)
        before = anonymous_memory(daemon.pid)
        client.begin_again()
        began = time.monotonic()
        _, most = send_large(client, LARGE, daemon.pid)
        taken = time.monotonic() - began
        print(f"{LARGE // MIB / taken:.0f} MiB/s, {(most - before) / MIB:.1f} MiB more")  # noqa: T201
        assert most - before < 8 * MIB
        until(lambda: spilled(daemon.pid) == 0)


@pytest.mark.parametrize("declared", ["", " SIZE=1", " SIZE=2097152"])
def test_a_crowd_that_memory_has_no_room_for_is_served_from_files(
    tmp_path: Path, declared: str
) -> None:
    raw = text(2 * MIB)
    expected = answer(as_sent(raw), len(b"Subject: large\r\n\r\n"))
    wire = on_the_wire(raw)

    def send(_: int) -> str:
        with Wire(port) as client:
            client.begin(declared)
            return client.ask(wire)

    count = 24
    with (
        ThreadPoolExecutor(count) as threads,
        digesting(tmp_path, top='max_memory = "2 MiB"', server="max_clients = 50") as daemon,
    ):
        port = daemon.port
        before = anonymous_memory(daemon.pid)
        assert list(threads.map(send, range(count))) == [expected] * count
        assert anonymous_memory(daemon.pid) - before < 16 * MIB
        until(lambda: spilled(daemon.pid) == 0)


# --- What goes wrong ------------------------------------------------------------------------------


def test_without_a_folder_for_files_the_message_is_deferred(tmp_path: Path) -> None:
    with (
        digesting(tmp_path, TMPDIR="/nonexistent/folder") as daemon,
        Wire(daemon.port) as client,
    ):
        client.begin()
        for _ in range(3):
            client.send(on_the_wire(text(3 * MIB)))
            assert client.reply() == "452 4.3.1 Insufficient storage, please try again later"
            client.begin_again()
        message = b"Subject: small\r\n\r\nbody\r\n"
        client.send(message + b".\r\n")
        assert client.reply() == answer(message, 18)
        until(lambda: "could not be spilled" in daemon.log_text())
        (line, *_) = [line for line in daemon.log_text().splitlines() if "spilled" in line]
        assert "/nonexistent/folder: No such file or directory (os error 2)" in line
        assert daemon.log_text().count("could not be spilled") <= 3


@pytest.fixture
def small_files(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon that can write 3 MiB into a file, as if the disk were full then."""
    with digesting(tmp_path) as daemon:
        _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (3 * MIB, hard))
        yield daemon


def test_a_file_that_cannot_grow_costs_its_message_only(small_files: RunningDaemon) -> None:
    with Wire(small_files.port) as client, Wire(small_files.port) as beside:
        client.begin()
        beside.begin()
        header = len(b"Subject: large\r\n\r\n")
        for size, code in [(4 * MIB, "452"), (2 * MIB, "250"), (5 * MIB, "452")]:
            client.send(on_the_wire(text(size)))
            assert client.reply()[:3] == code
            client.begin_again()
        beside.send(on_the_wire(text(2 * MIB)))
        assert beside.reply() == answer(as_sent(text(2 * MIB)), header)
        until(lambda: spilled(small_files.pid) == 0)
        until(lambda: "File too large (os error 27)" in small_files.log_text())
        assert "Traceback" not in small_files.log_text()


def test_a_client_that_goes_leaves_no_file_behind(tmp_path: Path) -> None:
    with digesting(tmp_path) as daemon:
        leave = (Wire.reset, Wire.close, Wire.finish_sending)
        clients = [Wire(daemon.port).begin() for _ in leave]
        for client in clients:
            client.send(text(3 * MIB))
        until(lambda: spilled(daemon.pid) == len(clients))
        for client, goes in zip(clients, leave, strict=True):
            goes(client)
        until(lambda: spilled(daemon.pid) == 0)
        for client in clients:
            client.close()
        with Wire(daemon.port) as client:
            client.begin()
            client.send(on_the_wire(text(3 * MIB)))
            assert client.reply().startswith("250 ")


def test_a_stop_does_not_wait_for_a_message_that_never_ends(tmp_path: Path) -> None:
    daemon = digesting(tmp_path, top='shutdown_timeout = "1s"')
    try:
        with Wire(daemon.port) as client:
            client.begin()
            client.send(text(3 * MIB))
            until(lambda: spilled(daemon.pid) == 1)
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(20) == 1  # a session was cut off
        assert "panic" not in daemon.log_text()
    finally:
        daemon.kill()
