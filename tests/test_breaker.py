"""The circuit breaker: what is asked in vain again and again is refused at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pydantic
import pytest

from guerrilla import StorageTooBusy, Unavailable
from guerrilla._core import Address, Envelope, Transaction
from guerrilla.commands.control import describe
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.reply import TRY_LATER, Outcome, Replies, Reply
from tests.chains import NO, Atomic, Batch, Mail, Stage, Store, chain_of, throw, when
from tests.daemons import starting
from tests.reloads import shows
from tests.wire import HELLO, Wire, until

DOWN = "451 4.3.0 Error: storage is not available, please try again later"
RECIPIENT = b"RCPT TO:<to@example.com>\r\n"


class Shop(Processor):
    """Stores where it is open."""

    stores = True
    is_open: ClassVar[dict[str, bool]]
    kept: ClassVar[list[str]]
    asked: ClassVar[list[int]]
    hang: ClassVar[threading.Event]

    class Options(pydantic.BaseModel):
        shop: str = "main"

    options: Options

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        self.asked.append(len(envelopes))
        if any(envelope.subject == "hang" for envelope in envelopes):
            self.hang.wait(30)
        if not self.is_open[self.options.shop]:
            message = "closed"
            raise Unavailable(message)
        self.kept.extend(envelope.queued_id for envelope in envelopes)
        return [None for _ in envelopes]

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        self.asked.append(0)
        if not self.is_open[self.options.shop]:
            message = "closed"
            raise Unavailable(message)
        return None


@pytest.fixture
def shop() -> Iterator[type[Shop]]:
    class Own(Shop):
        is_open: ClassVar[dict[str, bool]] = {"main": True, "other": True}
        kept: ClassVar[list[str]] = []
        asked: ClassVar[list[int]] = []
        hang = threading.Event()

    yield Own
    Own.hang.set()


def config(**main: Any) -> AppConfig:
    """Two servers with a backend each; that of the first breaks after two batches."""
    chain = {"save_process": "HeadersParser|Shop"}
    return from_mapping(
        {
            "servers": [
                {"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com"},
                {
                    "listen_interface": "127.0.0.2:0",
                    "host_name": "mx2.example.com",
                    "backend": "other",
                },
            ],
            "allowed_hosts": ["example.com"],
            "log_file": "off",
            "backend_config": {
                **chain,
                "breaker_failures": 2,
                "breaker_reset": 60,
                "save_batch_size": 1,
                **main,
            },
            "backends": {"other": {**chain, "shop": "other"}},
        }
    )


@pytest.fixture
def start(shop: type[Shop]) -> Iterator[Callable[..., Daemon]]:
    with starting("Shop", shop, shop.hang.set) as run:
        yield lambda **main: run(config(**main))


Start = Callable[..., Daemon]


def recipient(daemon: Daemon, index: int = 0) -> str:
    """What a new transaction hears to RCPT."""
    with Wire(daemon.addresses[index]) as wire:
        wire.ask(HELLO)
        wire.ask(b"MAIL FROM:<a@example.org>\r\n")
        return wire.ask(RECIPIENT)


def send(daemon: Daemon, subject: str = "hello") -> str:
    with Wire(daemon.addresses[0]) as wire:
        return wire.deliver(b"Subject: " + subject.encode())


def break_it(daemon: Daemon, shop: type[Shop]) -> None:
    shop.is_open["main"] = False
    for _ in range(2):
        assert send(daemon).startswith("451 4.3.0 ")
    until(lambda: figures(daemon)["breaker_open"])
    shop.asked.clear()


def figures(daemon: Daemon) -> dict[str, int]:
    found: dict[str, int] = daemon.stats()["backends"]["default"]
    return found


def test_it_opens_after_so_many_and_refuses_at_once(
    start: Start, shop: type[Shop], caplog: pytest.LogCaptureFixture
) -> None:
    daemon = start()
    assert send(daemon).startswith("250 ")
    shop.is_open["main"] = False
    assert send(daemon).startswith("451 ")
    shop.is_open["main"] = True
    assert send(daemon).startswith("250 ")  # not in a row
    break_it(daemon, shop)
    assert [recipient(daemon) for _ in range(3)] == [DOWN] * 3
    assert shop.asked == []
    assert recipient(daemon, 1).startswith("250 ")
    stats = daemon.stats()
    assert (stats["breaker_open"], stats["breaker_opened"], stats["breaker_refused"]) == (1, 1, 3)
    assert stats["backends"]["other"]["breaker_open"] == 0
    assert "  breaker    default: open" in describe(daemon.status())
    lines = [record.message for record in caplog.records if "again and again" in record.message]
    assert lines == [
        "backend_config: saving fails again and again: answered 451 until a trial succeeds"
    ]


def test_one_is_tried_after_the_reset(
    start: Start, shop: type[Shop], caplog: pytest.LogCaptureFixture
) -> None:
    daemon = start(breaker_reset="3s")
    break_it(daemon, shop)
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)

        def is_let_in() -> bool:
            wire.ask(b"RSET\r\n")
            wire.ask(b"MAIL FROM:<a@example.org>\r\n")
            return wire.ask(RECIPIENT).startswith("250 ")

        until(is_let_in)
        # The next recipient of the same transaction belongs to it; that of another does not.
        assert wire.ask(b"RCPT TO:<too@example.com>\r\n").startswith("250 ")
        assert recipient(daemon) == DOWN
        wire.ask(b"DATA\r\n")
        assert wire.ask(b"Subject: in vain\r\n.\r\n").startswith("451 4.3.0 ")
        assert shop.asked == [1]
        assert recipient(daemon) == DOWN
        assert figures(daemon)["breaker_opened"] == 1
        shop.is_open["main"] = True
        until(is_let_in)
        wire.ask(b"DATA\r\n")
        assert wire.ask(b"Subject: it works\r\n.\r\n").startswith("250 ")
    until(lambda: not figures(daemon)["breaker_open"])
    assert send(daemon).startswith("250 ")
    told = [record.message for record in caplog.records if "backend_config: " in record.message]
    assert [line.partition("saving ")[2] for line in told] == [
        "fails again and again: answered 451 until a trial succeeds",
        "works again: all is asked again",
    ]


def test_what_is_on_its_way_is_refused_without_being_asked_about(
    start: Start, shop: type[Shop]
) -> None:
    daemon = start()
    with Wire(daemon.addresses[0]) as first, Wire(daemon.addresses[0]) as second:
        first.begin()
        second.begin()
        break_it(daemon, shop)
        assert first.ask(b"Subject: late\r\n\r\n.\r\n").startswith("451 4.3.0 ")
        assert second.ask(b"Subject: late\r\n\r\n.\r\n").startswith("451 4.3.0 ")
        assert shop.asked == []
        # The session goes on, and its next transaction is refused at once.
        first.ask(b"MAIL FROM:<a@example.org>\r\n")
        assert first.ask(RECIPIENT) == DOWN
        assert first.ask(b"DATA\r\n").startswith("554 5.5.1 ")
        assert first.ask(b"NOOP\r\n").startswith("250 ")
    assert daemon.stats()["messages_deferred"] == 4
    assert figures(daemon)["breaker_refused"] == 3


def test_an_outage_under_several_senders_loses_nothing(start: Start, shop: type[Shop]) -> None:
    daemon = start(breaker_failures=3, breaker_reset="50ms", save_batch_size=8, save_workers_size=2)
    stop = threading.Event()
    saved: list[str] = []
    refused: list[str] = []

    def keep_sending() -> None:
        with Wire(daemon.addresses[0]) as wire:
            wire.ask(HELLO)
            while not stop.is_set():
                wire.ask(b"MAIL FROM:<a@example.org>\r\n")
                reply = wire.ask(RECIPIENT)
                if reply.startswith("250 "):
                    wire.ask(b"DATA\r\n")
                    reply = wire.ask(b"Subject: storm\r\n\r\n.\r\n")
                else:
                    wire.ask(b"RSET\r\n")
                (saved if reply.startswith("250 ") else refused).append(reply)

    with ThreadPoolExecutor(10) as pool:
        senders = [pool.submit(keep_sending) for _ in range(10)]
        try:
            for _ in range(3):
                before = len(saved)
                until(lambda before=before: len(saved) > before + 200)  # type: ignore[misc]
                shop.is_open["main"] = False
                until(lambda: figures(daemon)["breaker_open"])
                before, asked = len(refused), len(shop.asked)
                until(lambda before=before: len(refused) > before + 500)  # type: ignore[misc]
                # Trials, and those that workers had in hand: not one for each that was refused.
                assert len(shop.asked) - asked < 100
                shop.is_open["main"] = True
                until(lambda: not figures(daemon)["breaker_open"])
        finally:
            stop.set()
        for sender in senders:
            sender.result()
    assert {reply[:10] for reply in refused} == {"451 4.3.0 "}
    ids = [reply.rpartition(" ")[2] for reply in saved]
    assert sorted(ids) == sorted(shop.kept)
    assert figures(daemon)["breaker_opened"] >= 3


@shows("at once", "backend_config.breaker_failures", "backend_config.breaker_reset")
def test_a_reload_closes_that_of_what_it_changes_alone(start: Start, shop: type[Shop]) -> None:
    daemon = start()
    break_it(daemon, shop)
    other = daemon.config.model_copy(update={"allowed_hosts": (".",)})
    assert daemon.reload_config(other).ok
    assert recipient(daemon) == DOWN
    shop.is_open["main"] = True
    assert daemon.reload_config(config(breaker_reset=61)).ok
    assert send(daemon).startswith("250 ")
    assert figures(daemon)["breaker_open"] == 0
    break_it(daemon, shop)
    assert daemon.reload_config(config(breaker_failures=0)).ok
    for _ in range(4):
        assert send(daemon).startswith("451 ")
    assert len(shop.asked) == 4
    assert figures(daemon)["breaker_open"] == 0


def test_a_transaction_that_a_reload_finds_open_goes_on(start: Start, shop: type[Shop]) -> None:
    daemon = start()
    with Wire(daemon.addresses[0]) as wire:
        wire.begin()
        break_it(daemon, shop)
        shop.is_open["main"] = True
        assert daemon.reload_config(config(breaker_reset=61)).ok
        assert wire.ask(b"Subject: saved\r\n\r\n.\r\n").startswith("250 ")


def test_what_the_old_chain_fails_for_says_nothing_of_the_new(
    start: Start, shop: type[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Shop] = []

    def close(own: Shop) -> None:
        closed.append(own)

    monkeypatch.setattr(shop, "close", close)
    daemon = start(save_workers_size=2)
    shop.is_open["main"] = False
    with Wire(daemon.addresses[0]) as one, Wire(daemon.addresses[0]) as other:
        for wire in (one, other):
            wire.begin()
            wire.send(b"Subject: hang\r\n\r\n.\r\n")
        until(lambda: len(shop.asked) == 2)
        assert daemon.reload_config(config(breaker_reset=61)).ok
        shop.hang.set()
        assert [wire.reply()[:10] for wire in (one, other)] == ["451 4.3.0 "] * 2
    until(lambda: len(closed) == 2)
    assert (figures(daemon)["breaker_open"], figures(daemon)["breaker_opened"]) == (0, 0)
    shop.is_open["main"] = True
    assert send(daemon).startswith("250 ")


@pytest.mark.parametrize("ttl", [0, 60])
def test_a_recipient_that_is_refused_uses_up_no_trial(
    start: Start, shop: type[Shop], monkeypatch: pytest.MonkeyPatch, ttl: int
) -> None:
    def validate(own: Shop, transaction: Transaction, recipient: Address) -> Reply | None:
        return NO if recipient.user == "nobody" else None

    monkeypatch.setattr(shop, "validate", validate)
    daemon = start(validate_process="Shop", validate_cache_ttl=ttl, breaker_reset="3s")

    def both() -> bool:
        with Wire(daemon.addresses[0]) as wire:
            wire.ask(HELLO)
            wire.ask(b"MAIL FROM:<a@example.org>\r\n")
            refused = wire.ask(b"RCPT TO:<nobody@example.com>\r\n")[:1]
            return (refused, wire.ask(RECIPIENT)[:1]) == ("5", "2")

    assert both()
    break_it(daemon, shop)
    assert not both()
    until(both)
    assert figures(daemon)["breaker_open"] == 1


def test_recipients_that_cannot_be_checked_open_it_too(start: Start, shop: type[Shop]) -> None:
    daemon = start(validate_process="Shop", breaker_reset="3s")
    shop.is_open["main"] = False
    for _ in range(2):
        assert recipient(daemon).startswith("451 4.3.0 Please try again")
    until(lambda: figures(daemon)["breaker_open"])
    shop.asked.clear()
    assert recipient(daemon) == DOWN
    assert shop.asked == []
    shop.is_open["main"] = True
    until(lambda: recipient(daemon).startswith("250 "))
    until(lambda: not figures(daemon)["breaker_open"])
    assert send(daemon).startswith("250 ")


def test_one_that_hangs_opens_it(start: Start, shop: type[Shop]) -> None:
    daemon = start(breaker_failures=1, gw_save_timeout="2s")
    assert send(daemon, "hang").startswith("451 4.3.0 ")
    until(lambda: figures(daemon)["breaker_open"])
    assert recipient(daemon) == DOWN


# --- Which batches failed -------------------------------------------------------------------------


def _failed(
    processors: Sequence[Processor], mails: Sequence[Envelope], **settings: Any
) -> bool | None:
    with chain_of(*processors, **settings) as chain:
        chain.run(mails)
        return chain.failed(len(mails))


class BatchStore(Batch):
    stores = True


class AtomicStore(Atomic):
    stores = True


def test_what_was_raised_by_all_fails_and_one_that_was_saved_does_not(mail: Mail) -> None:
    for error in (Unavailable("gone"), ValueError(), StorageTooBusy()):
        assert _failed([Store(throw(error))], [mail("a"), mail("b")]) is True
        assert _failed([BatchStore(throw(error))], [mail("a"), mail("b")]) is True
        assert _failed([Stage(throw(error)), Store()], [mail("a")]) is True
        found = _failed([Store(when("bad", throw(error)))], [mail("a"), mail("bad")])
        assert found is False
    assert _failed([Store()], [mail("a")]) is False
    assert _failed([Stage()], [mail("a")]) is False  # one that stores nothing


def test_a_refusal_says_nothing_where_it_comes_before_the_store(mail: Mail) -> None:
    assert _failed([Stage(lambda _: NO), Store()], [mail("a")]) is None
    assert _failed([Stage(lambda _: TRY_LATER), Store()], [mail("a")]) is None
    assert _failed([Store(lambda _: NO)], [mail("a")]) is False


def test_a_passing_reply_of_the_store_is_a_failure(mail: Mail) -> None:
    busy = Reply(451, "4.3.2", "busy")
    full = Reply(452, "4.2.2", "full")
    assert _failed([Store(lambda _: busy)], [mail("a")]) is True
    assert _failed([Store(lambda _: Replies([busy]))], [mail("a")]) is True
    assert _failed([Store(lambda _: full)], [mail("a")]) is False
    assert _failed([Store(when("a", lambda: busy))], [mail("a"), mail("b")]) is False
    answers = [busy, None]
    assert _failed([BatchStore(lambda _: answers)], [mail("a"), mail("b")]) is False
    assert _failed([BatchStore(lambda _: [busy, busy])], [mail("a"), mail("b")]) is True


def test_the_last_store_decides(mail: Mail) -> None:
    gone = throw(Unavailable("gone"))
    assert _failed([Store(), BatchStore(gone)], [mail("a")]) is True
    assert _failed([Store(gone), BatchStore(lambda all_: [None] * len(all_))], [mail("a")]) is True


def test_a_batch_that_is_asked_again_fails_where_each_does(mail: Mail) -> None:
    def poisoned(items: Sequence[Envelope]) -> list[Outcome]:
        if any(item.subject == "bad" for item in items):
            raise ValueError
        return [None for _ in items]

    assert _failed([AtomicStore(poisoned)], [mail("a"), mail("bad")]) is False
    assert _failed([AtomicStore(poisoned)], [mail("bad"), mail("bad")]) is True


def test_async_stages_fail_alike(mail: Mail) -> None:
    class Slow(Stage):
        stores = True

        async def save(self, envelope: Envelope) -> Outcome:  # type: ignore[override]
            match envelope.subject:
                case "away":
                    raise Unavailable("gone")
                case "late":
                    await asyncio.sleep(20)
                case "bad":
                    raise ValueError
                case "busy":
                    return Reply(451, "4.3.2", "busy")
            return None

    all_bad = [mail(name) for name in ("away", "late", "bad", "busy")]
    assert _failed([Slow()], all_bad, save_timeout=0.3) is True
    assert _failed([Stage(), Slow()], [mail("bad"), mail("good")]) is False

    class Together(Processor):
        stores = True

        async def save_batch(  # type: ignore[override]
            self, envelopes: Sequence[Envelope]
        ) -> Sequence[Outcome]:
            raise Unavailable("gone")

    assert _failed([Stage(), Together(Processor.Options())], [mail("a"), mail("b")]) is True


def test_each_batch_is_for_itself(mail: Mail, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with chain_of(Store(when("bad", throw(ValueError())))) as chain:
        found = []
        for subject in ("bad", "good", "bad"):
            chain.run([mail(subject)])
            found.append(chain.failed(1))
    assert found == [True, False, True]
