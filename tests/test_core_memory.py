"""What a core counts of memory and disk, and gives back."""

from __future__ import annotations

import encodings

from guerrilla import Envelope
from tests.cores import MIB, Client, core, take, until
from tests.cores import close_clients as _close_clients  # an automatic fixture  # noqa: F401


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
        until(lambda: made.stats()["memory_retained"] == 0)


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
    with core(spill_size=1, save_timeout=2.0) as (made, address):
        late = Client(address)
        late.message(MIB)
        assert late.read(1).startswith(b"451 4.3.0")
        until(lambda: made.stats()["spilled_octets"] == 0)
        figures = made.stats()
        assert (figures["queue_depth"], figures["memory_used"]) == (0, 0)
        assert (figures["expired_before_commit"], figures["peer_gone"]) == (1, 0)
    with core(spill_size=1) as (made, address):
        gone = Client(address)
        gone.message(MIB)
        until(lambda: made.stats()["queue_depth"] == 1)
        gone.reset()
        until(lambda: made.stats()["spilled_octets"] == 0)
        figures = made.stats()
        assert (figures["queue_depth"], figures["memory_used"]) == (0, 0)
        assert (figures["expired_before_commit"], figures["peer_gone"]) == (0, 1)


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


def test_a_subject_of_many_unheard_of_charsets_leaves_nothing_behind() -> None:
    words = " ".join(f"=?unheard-of-{number}?q?a?=" for number in range(2_000))
    known = len(encodings._cache)
    assert "=?unheard-of-7?q?a?=" in Envelope.create(f"Subject: {words}\r\n\r\n".encode()).subject
    assert len(encodings._cache) == known
