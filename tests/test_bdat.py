"""BDAT over sockets: large messages in chunks, what they cost, and the time that they have."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.cores import MIB, core, take, until
from tests.running import RunningDaemon
from tests.test_spill import BLOCK, answer, digesting, small_files, spilled, text
from tests.wire import GONE, HELLO, Wire, anonymous_memory, forget_peak, peak_memory

__all__ = ["small_files"]

MAIL: Final = b"MAIL FROM:<from@example.org>\r\nRCPT TO:<to@example.com>\r\n"
TIMED_OUT: Final = "421 4.4.2 Timeout, closing the connection"
AT_MOST: Final = 15.0
"""Seconds within which a limit of about one has taken effect, on a busy machine too."""
HUGE: Final = 10 << 30


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    """A BDAT with its octets."""
    return b"BDAT %d%s\r\n%s" % (len(octets), b" LAST" if last else b"", octets)


def begin(wire: Wire, hello: bytes = HELLO) -> None:
    """Up to the first BDAT."""
    if hello:
        assert wire.ask(hello).startswith("250 ")
    wire.send(MAIL)
    assert [wire.reply()[:3] for _ in range(2)] == ["250", "250"]


# --- Large ones -----------------------------------------------------------------------------------


def send_large(client: Wire, blocks: int, pid: int) -> int:
    """Sends so many blocks in chunks of four and an empty one; the most memory on the way."""
    head = b"Subject: large\r\n\r\n"
    seen = hashlib.sha256(head)
    client.send(chunk(head))
    assert client.reply() == f"250 2.0.0 {len(head)} octets received"
    most = 0
    for _ in range(blocks // 4):
        client.send(chunk(BLOCK * 4))
        seen.update(BLOCK * 4)
        assert client.reply() == f"250 2.0.0 {len(BLOCK) * 4} octets received"
        most = max(most, anonymous_memory(pid))
    client.send(b"BDAT 0 LAST\r\n")
    whole = len(head) + blocks // 4 * 4 * len(BLOCK)
    assert client.reply() == f"250 2.0.0 {whole} {seen.hexdigest()} {len(head)}"
    return max(most, anonymous_memory(pid))


def test_a_large_message_in_chunks_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    with (
        digesting(tmp_path, top='max_memory = "4 MiB"', server='max_size = "1 GiB"') as daemon,
        Wire(daemon.port) as client,
    ):
        begin(client)
        send_large(client, 2 * MIB // len(BLOCK), daemon.pid)
        before = anonymous_memory(daemon.pid)
        begin(client, b"")
        most = send_large(client, 64 * MIB // len(BLOCK), daemon.pid)
        assert most - before < 8 * MIB
        until(lambda: spilled(daemon.pid) == 0)


def test_one_chunk_may_be_the_whole_message_and_all_may_be_in_one_write(tmp_path: Path) -> None:
    with (
        digesting(tmp_path, top="spill_size = 100_000", server='max_size = "1 GiB"') as daemon,
        Wire(daemon.port) as client,
    ):
        begin(client)
        for size in (99_999, 100_001, 1_000_000, 8 * MIB):
            raw = text(size)
            # Bare newlines and dots stay as they are.
            expected = answer(raw, len(b"Subject: large\r\n\r\n"))
            assert client.ask(chunk(raw, last=True)) == expected
            begin(client, b"")
            parts = [raw[at : at + 70_001] for at in range(0, size, 70_001)]
            sent = b"".join(map(chunk, parts)) + b"BDAT 0 LAST\r\n"
            thread = threading.Thread(target=client.send, args=(sent,))
            thread.start()
            replies = [client.reply() for _ in (*parts, None)]
            thread.join()
            assert replies[:-1] == [f"250 2.0.0 {len(part)} octets received" for part in parts]
            assert replies[-1] == expected
            begin(client, b"")
        until(lambda: spilled(daemon.pid) == 0)


def test_a_chunk_that_the_disk_does_not_take_ends_its_message_alone(
    small_files: RunningDaemon,
) -> None:
    with Wire(small_files.port) as client:
        begin(client)
        replies = [client.ask(chunk(text(MIB), last=number == 5)) for number in range(6)]
        codes = [reply[:3] for reply in replies]
        refused = codes.index("452")
        assert replies[refused] == "452 4.3.1 Insufficient storage, please try again later"
        assert set(codes[:refused]) == {"250"}
        assert set(codes[refused + 1 :]) <= {"503"}
        begin(client, b"")
        raw = text(2 * MIB)
        expected = answer(raw, len(b"Subject: large\r\n\r\n"))
        assert client.ask(chunk(raw, last=True)) == expected
        until(lambda: spilled(small_files.pid) == 0)


def test_octets_of_a_refused_chunk_cost_no_memory(tmp_path: Path) -> None:
    with digesting(tmp_path) as daemon, Wire(daemon.port) as client:
        assert client.ask(HELLO).startswith("250 ")
        now = forget_peak(daemon.pid)
        for first, code in ((b"", "503 5.5.1 "), (MAIL, "552 5.3.4 ")):
            client.send(first)
            assert all(client.reply().startswith("250 ") for _ in first.split(b"\r\n")[1:])
            client.send(b"BDAT %d LAST\r\n" % (256 * MIB))
            for _ in range(256):
                client.send(b"RSET\r\n\r\n" * (MIB // 8))
            assert client.reply().startswith(code)
        assert client.ask(b"NOOP\r\n") == "250 2.0.0 OK"
        assert peak_memory(daemon.pid) - now < 32 * MIB


# --- Memory that comes back -----------------------------------------------------------------------


def says(text: bytes) -> Callable[[Wire], None]:
    """Says it and hears the answer."""

    def leave(wire: Wire) -> None:
        wire.ask(text)

    return leave


LEAVES: Final[dict[str, Callable[[Wire], None]]] = {
    "RSET": says(b"RSET\r\n"),
    "EHLO": says(HELLO),
    "QUIT": says(b"QUIT\r\n"),
    "a size that cannot be read": says(b"BDAT x\r\n"),
    "too large": says(chunk(b"x" * 32 * MIB)),
    "close": Wire.close,
    "reset": Wire.reset,
    "finish sending": Wire.finish_sending,
}


@pytest.mark.parametrize("spill_size", [0, 1])
@pytest.mark.parametrize("way", LEAVES)
def test_what_chunks_hold_comes_back_however_they_end(way: str, spill_size: int) -> None:
    with core(spill_size=spill_size) as (made, address), Wire(address) as client:
        begin(client)
        assert client.ask(chunk(b"x" * MIB)).startswith("250 ")
        figures = made.stats()
        assert figures["memory_used"] >= (1 if spill_size else MIB)
        assert figures["sessions_data"] == 1
        LEAVES[way](client)
        until(lambda: made.stats()["memory_used"] == 0)
        until(lambda: made.stats()["spilled_octets"] == 0)
        assert made.stats()["memory_retained"] == made.stats()["queue_depth"] == 0


def test_within_a_chunk_it_comes_back_too() -> None:
    with core() as (made, address), Wire(address) as client:
        begin(client)
        client.send(b"BDAT %d LAST\r\n" % HUGE)
        # Nothing of it can be stored: no body was taken at all.
        client.send(b"x" * MIB)
        until(lambda: made.stats()["sessions_data"] == 1)
        assert made.stats()["memory_used"] == 0
        client.reset()
        until(lambda: made.stats()["sessions_data"] == 0)
    with core(server={"max_size": 0}) as (made, address), Wire(address) as client:
        begin(client)
        client.send(b"BDAT %d LAST\r\n" % HUGE + b"x" * MIB)
        until(lambda: made.stats()["memory_used"] >= MIB)
        client.reset()
        until(lambda: made.stats()["memory_used"] == 0)


def test_a_first_chunk_waits_for_memory_as_data_does() -> None:
    """An empty one too, behind which nothing comes that would be read."""
    with core(max_memory=65_536) as (made, address), Wire(address) as first, Wire(address) as late:
        begin(first)
        assert first.ask(chunk(b"x" * 60_000)).startswith("250 ")
        begin(late)
        late.send(b"BDAT 0 LAST\r\n")
        until(lambda: made.stats()["sessions_data"] == 2)
        assert first.ask(b"RSET\r\n").startswith("250 ")
        (envelope,) = take(made)
        assert bytes(envelope.data) == b""
        assert envelope.answer(None)
        assert late.reply().startswith("250 2.0.0 OK: queued")


def test_the_time_in_which_a_chunk_waits_for_memory_is_not_the_clients() -> None:
    limits = {"timeout": 3.0}
    with (
        core(max_memory=65_536, server=limits) as (made, address),
        Wire(address) as first,
        Wire(address) as late,
    ):
        begin(first)
        assert first.ask(chunk(b"x" * 60_000)).startswith("250 ")
        begin(late)
        late.send(b"BDAT 5 LAST\r\n")
        ends = time.monotonic() + limits["timeout"] + 0.3
        until(lambda: made.stats()["sessions_data"] == 2)
        while time.monotonic() < ends:
            assert first.ask(b"NOOP\r\n").startswith("250 ")  # its own time is no matter here
            time.sleep(0.1)
        assert first.ask(b"RSET\r\n").startswith("250 ")
        until(lambda: 0 < made.stats()["memory_used"] < 60_000)  # it is begun
        late.send(b"hello")
        (envelope,) = take(made)
        assert bytes(envelope.data) == b"hello"
        assert envelope.answer(None)
        assert late.reply().startswith("250 2.0.0 OK: queued")


# --- Time -----------------------------------------------------------------------------------------


def drip(client: Wire, parts: list[bytes], pause: float = 0.05) -> None:
    """Sends part by part until the daemon closes."""
    for part in parts:
        try:
            client.send(part)
        except GONE:
            return
        time.sleep(pause)


def ends(client: Wire, parts: list[bytes]) -> list[str]:
    """What it hears, other than that a chunk was taken, while it sends that; in time."""
    began = time.monotonic()
    client.socket.settimeout(AT_MOST)
    thread = threading.Thread(target=drip, args=(client, parts))
    thread.start()
    said = client.rest()
    taken = time.monotonic() - began
    with contextlib.suppress(OSError):
        client.socket.shutdown(2)
    thread.join()
    assert taken < AT_MOST
    return [line for line in said if not line.endswith("octets received")]


MANY: Final = 1_000
CHUNKS_OF_ONE: Final = [chunk(b"x")] * MANY


@pytest.mark.parametrize(
    ("first", "parts"),
    [
        pytest.param(MAIL + chunk(b"x"), [], id="silence between chunks"),
        pytest.param(MAIL + b"BDAT 2\r\nx", [], id="silence within a chunk"),
        pytest.param(b"BDAT 2\r\nx", [], id="silence within a refused chunk"),
        pytest.param(MAIL + chunk(b"x"), [b"NOOP "] + [b"x"] * 900, id="a slow command between"),
    ],
)
def test_a_pause_is_too_long_after_timeout(first: bytes, parts: list[bytes]) -> None:
    with core(server={"timeout": 3.0}) as (made, address), Wire(address) as client:
        assert client.ask(HELLO).startswith("250 ")
        client.send(first)
        assert ends(client, parts)[-1:] == [TIMED_OUT]
        until(lambda: made.stats()["memory_used"] == 0)
        assert made.stats()["timeouts"] == 1


@pytest.mark.parametrize(
    ("first", "parts"),
    [
        pytest.param(MAIL, CHUNKS_OF_ONE, id="chunks of one octet"),
        pytest.param(MAIL + chunk(b"x"), [b"NOOP\r\n"] * 49, id="commands between"),
        pytest.param(MAIL + b"BDAT 1000000\r\n", [b"x"] * MANY, id="octets of a chunk"),
        pytest.param(MAIL + b"BDAT %d\r\n" % HUGE, [b"x"] * MANY, id="a chunk that is too large"),
        pytest.param(b"BDAT %d LAST\r\n" % HUGE, [b"x"] * MANY, id="a chunk without a mail"),
        pytest.param(b"BDAT %d\r\n" % (1 << 30), [b"y" * MIB] * MANY, id="a fast one of 1 GiB"),
    ],
)
def test_a_message_of_chunks_is_too_slow_after_data_timeout(
    first: bytes, parts: list[bytes]
) -> None:
    if first.endswith(b"1073741824\r\n"):
        parts = parts[: (1 << 30) // MIB - 25]  # never whole
    limits = {"timeout": 60.0, "data_timeout": 1.0}
    with core(server=limits) as (made, address), Wire(address) as client:
        assert client.ask(HELLO).startswith("250 ")
        client.send(first)
        assert ends(client, parts)[-1:] == [TIMED_OUT]
        until(lambda: made.stats()["memory_used"] == 0)
        assert made.stats()["timeouts"] == 1


def test_after_the_last_chunk_the_next_mail_has_its_own_time() -> None:
    with core(server={"data_timeout": 3.0}) as (made, address), Wire(address) as client:
        for _ in range(2):
            begin(client)
            assert client.ask(chunk(b"x")) == "250 2.0.0 1 octets received"
            client.send(chunk(b"y", last=True))
            (envelope,) = take(made)
            assert bytes(envelope.data) == b"xy"
            time.sleep(1.6)  # what the worker takes is not the client's
            assert envelope.answer(None)
            assert client.reply().startswith("250 2.0.0 OK: queued")
        assert client.ask(b"NOOP\r\n").startswith("250 ")
        assert made.stats()["timeouts"] == 0


def test_a_stop_lets_a_message_of_chunks_end() -> None:
    with core() as (made, address), Wire(address) as idle, Wire(address) as client:
        begin(client)
        assert client.ask(chunk(b"x")) == "250 2.0.0 1 octets received"
        stopping = threading.Thread(target=made.stop, args=(AT_MOST,))
        stopping.start()
        assert idle.reply().startswith("421 ")
        client.send(chunk(b"y", last=True))
        (envelope,) = take(made)
        assert envelope.answer(None)
        assert client.reply().startswith("250 2.0.0 OK: queued")
        assert client.reply().startswith("421 ")
        stopping.join()
