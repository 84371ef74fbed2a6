"""Compressor, and the compressed form of an envelope."""

from __future__ import annotations

import os
import threading
import time
import zlib
from pathlib import Path

import pytest

from guerrilla._core import Envelope
from guerrilla.engine.base import Processor
from guerrilla.processors.compressor import Compressor, stored_form
from guerrilla.testing import make_envelope, run_chain
from tests.corpora import corpus

CHAIN = "Header|Compressor"


def compressor() -> Compressor:
    return Compressor(Processor.Options())


def test_it_sets_a_json_value_and_nothing_else() -> None:
    envelope = make_envelope(rcpt_to=["a@example.com", "b@example.com"])
    before = envelope.to_bytes()
    compressor().save(envelope)
    assert envelope.values == {"zlib-compressor": True}
    again = Envelope.from_bytes(envelope.to_bytes())
    assert again.values == {"zlib-compressor": True}
    envelope.values.clear()
    assert envelope.to_bytes() == before


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.name)
def test_every_mail_comes_back_byte_for_byte(path: Path) -> None:
    envelope = make_envelope(path.read_bytes())
    run_chain(CHAIN, envelope)
    assert zlib.decompress(envelope.compressed_for(0)) == envelope.bytes_for(0)


def test_each_recipient_has_his_own_and_no_other() -> None:
    envelope = make_envelope(rcpt_to=["to@example.com", "bcc@example.org"])
    envelope.add_header("X-Spam", "no")
    run_chain(CHAIN, envelope)
    first, second = (zlib.decompress(envelope.compressed_for(index)) for index in range(2))
    assert (first, second) == (envelope.bytes_for(0), envelope.bytes_for(1))
    assert first.startswith(b"X-Spam: no\r\n")
    assert b"Delivered-To: to@" in first
    assert b"bcc" not in first
    assert b"Delivered-To: bcc@" in second
    assert b"to@" not in second.replace(b"Delivered-To: bcc@", b"")


def test_every_reading_gives_the_same_octets() -> None:
    envelope, other = make_envelope(body="one\n" * 500), make_envelope(body="another\n")
    first = envelope.compressed_for(0)
    other.compressed_for(0)
    assert envelope.compressed_for(0) == first
    readings = []
    thread = threading.Thread(target=lambda: readings.append(envelope.compressed_for(0)))
    thread.start()
    thread.join()
    assert readings == [first]
    assert Envelope.from_bytes(envelope.to_bytes()).compressed_for(0) == first


def test_it_is_zlib_at_its_fastest_level() -> None:
    octets = make_envelope(body="text\n" * 500).compressed_for(0)
    assert octets[:2] == b"\x78\x01"
    assert len(octets) < 200


def test_a_later_header_is_in_it() -> None:
    envelope = make_envelope()
    before = envelope.compressed_for(0)
    envelope.add_header("X-Late", "yes")
    after = zlib.decompress(envelope.compressed_for(0))
    assert after == b"X-Late: yes\r\n" + zlib.decompress(before)


def test_there_is_none_for_nobody() -> None:
    envelope = make_envelope()
    with pytest.raises(IndexError, match="recipient 1 of 1"):
        envelope.compressed_for(1)


def test_other_threads_run_while_a_large_one_is_compressed() -> None:
    """It takes 0.1 s at least; with the GIL, this thread had at most the last 5 ms of them.

    One try in which this thread is given a core is enough.
    """
    assert any(spun() > 0.02 for _ in range(5))


def spun() -> float:
    """Seconds of the processor that another thread has while a message is compressed."""
    envelope = make_envelope(b"Subject: large\r\n\r\n" + os.urandom(20 << 20))
    started, done = threading.Event(), threading.Event()

    def compress() -> None:
        started.set()
        envelope.compressed_for(0)
        done.set()

    thread = threading.Thread(target=compress)
    thread.start()
    started.wait()
    before = time.thread_time()
    while not done.is_set():
        pass
    used = time.thread_time() - before
    thread.join()
    return used


def test_a_store_keeps_the_form_that_was_asked_for() -> None:
    envelope = make_envelope()
    assert stored_form(envelope, 0) == envelope.bytes_for(0)
    compressor().save(envelope)
    assert stored_form(envelope, 0) == envelope.compressed_for(0)
