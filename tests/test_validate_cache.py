"""`validate_cache_ttl`: which answers about recipients are kept, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pydantic
import pytest

from guerrilla import Unavailable
from guerrilla._core import Address, Transaction
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.reply import Reply
from tests.daemons import starting
from tests.reloads import shows
from tests.wire import HELLO, Wire, until


class Book(Processor):
    """Answers as the recipient's name says, and notes who was asked about."""

    asked: ClassVar[list[str]]
    entered: ClassVar[threading.Event]
    release: ClassVar[threading.Event]

    class Options(pydantic.BaseModel):
        book: str = "one"

    options: Options

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        self.asked.append(f"{self.options.book}:{recipient.user}")
        match recipient.user:
            case "no":
                return Reply(550, "5.1.1", f"not in {self.options.book}")
            case "own":
                return Reply(251, "2.1.5", "will forward")
            case "later":
                return Reply(450, "4.2.1", "grey")
            case "away":
                message = "gone"
                raise Unavailable(message)
            case "slow":
                self.entered.set()
                self.release.wait(30)
                return Reply(550, "5.1.1", f"not in {self.options.book}")
        return None


@pytest.fixture
def book() -> Iterator[type[Book]]:
    class Own(Book):
        asked: ClassVar[list[str]] = []
        entered = threading.Event()
        release = threading.Event()

    yield Own
    Own.release.set()


def config(other: dict[str, Any] | None = None, **main: Any) -> AppConfig:
    chain = {"save_process": "HeadersParser", "validate_process": "Book", "validate_cache_ttl": 60}
    second = {"listen_interface": "127.0.0.2:0", "host_name": "mx2.example.com", "backend": "other"}
    return from_mapping(
        {
            "servers": [{"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com"}, second],
            "allowed_hosts": ["."],
            "log_file": "off",
            "backend_config": {**chain, **main},
            "backends": {"other": {**chain, "book": "two", **(other or {})}},
        }
    )


@pytest.fixture
def start(book: type[Book]) -> Iterator[Callable[..., Daemon]]:
    with starting("Book", book, book.release.set) as run:
        yield lambda **main: run(config(**main))


Start = Callable[..., Daemon]


def ask(daemon: Daemon, *recipients: str, index: int = 0) -> list[str]:
    """The replies to these recipients, each in a transaction of its own."""
    with Wire(daemon.addresses[index]) as wire:
        wire.ask(HELLO)
        replies = []
        for recipient in recipients:
            wire.ask(b"MAIL FROM:<a@example.org>\r\n")
            replies.append(wire.ask(b"RCPT TO:<%s>\r\n" % recipient.encode()))
            wire.ask(b"RSET\r\n")
        return replies


def figures(daemon: Daemon) -> tuple[int, int, int]:
    found = daemon.stats()
    hits, misses = found["check_cache_hits"], found["check_cache_misses"]
    return hits, misses, found["check_cache_size"]


def test_an_answer_for_good_is_given_again_without_a_crossing(
    start: Start, book: type[Book]
) -> None:
    daemon = start()
    names = ["yes@example.com", "no@example.com", "own@example.com"]
    first = ask(daemon, *names)
    assert [reply[:3] for reply in first] == ["250", "550", "251"]
    checks = daemon.stats()["checks"]
    assert ask(daemon, *names) == first
    assert ask(daemon, "no@EXAMPLE.com") == ["550 5.1.1 not in one"]
    assert book.asked == ["one:yes", "one:no", "one:own"]
    assert daemon.stats()["checks"] == checks == 3
    assert figures(daemon) == (4, 3, 3)
    # A local part is its host's affair.
    assert ask(daemon, "No@example.com")[0].startswith("250 ")
    assert ask(daemon, "no@example.net") == ["550 5.1.1 not in one"]
    assert book.asked[3:] == ["one:No", "one:no"]


def test_a_recipient_of_any_script_is_kept_by_the_a_form_of_its_host(
    start: Start, book: type[Book]
) -> None:
    daemon = start()
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)
        wire.ask(b"MAIL FROM:<a@example.org> SMTPUTF8\r\n")
        for host in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example"):
            assert wire.ask(f"RCPT TO:<用户@{host}>\r\n".encode()) == "250 2.1.5 OK"
        # Two forms of one name are two names: it is the host's affair.
        assert wire.ask("RCPT TO:<ä@example.com>\r\n".encode()) == "250 2.1.5 OK"
        assert wire.ask("RCPT TO:<a\u0308@example.com>\r\n".encode()) == "250 2.1.5 OK"
    assert book.asked == ["one:用户", "one:ä", "one:a\u0308"]
    assert figures(daemon) == (2, 3, 3)


def test_a_mail_is_taken_for_a_recipient_whose_answer_was_kept(start: Start) -> None:
    daemon = start()
    for _ in range(2):
        with Wire(daemon.addresses[0]) as wire:
            assert wire.deliver(b"Subject: hello").startswith("250 ")
    assert figures(daemon) == (1, 1, 1)


def test_what_may_pass_is_not_kept(start: Start, book: type[Book]) -> None:
    daemon = start(gw_val_rcpt_timeout="4s", validate_workers_size=2)
    names = ["later@example.com", "away@example.com"]
    for _ in range(2):
        assert [reply[:3] for reply in ask(daemon, *names)] == ["450", "451"]
    assert book.asked == ["one:later", "one:away"] * 2
    assert ask(daemon, "slow@example.com") == ["451 4.4.3 " + SLOW]
    book.release.set()
    assert figures(daemon)[2] == 0
    # The one that came too late is not kept either: its sender heard another.
    until(lambda: ask(daemon, "slow@example.com")[0].startswith("550 "))
    assert book.asked.count("one:slow") >= 2


SLOW = "Error: checking the recipient takes too long, please try again later"


def test_it_is_asked_again_when_the_time_is_up(start: Start, book: type[Book]) -> None:
    daemon = start(validate_cache_ttl="4s")
    ask(daemon, "no@example.com", "no@example.com")
    assert book.asked == ["one:no"]

    def is_asked_again() -> bool:
        ask(daemon, "no@example.com")
        return len(book.asked) > 1

    until(is_asked_again)
    assert figures(daemon)[2] == 1


def test_without_the_key_all_are_asked_about(start: Start, book: type[Book]) -> None:
    daemon = start(validate_cache_ttl=0)
    ask(daemon, "no@example.com", "no@example.com")
    assert book.asked == ["one:no"] * 2
    assert figures(daemon) == (0, 0, 0)


def test_each_backend_keeps_its_own(start: Start, book: type[Book]) -> None:
    daemon = start()
    assert ask(daemon, "no@example.com") == ["550 5.1.1 not in one"]
    assert ask(daemon, "no@example.com", index=1) == ["550 5.1.1 not in two"]
    assert ask(daemon, "no@example.com", index=1) == ["550 5.1.1 not in two"]
    backends = daemon.stats()["backends"]
    hits = {name: found["check_cache_hits"] for name, found in backends.items()}
    assert hits == {"default": 0, "other": 1}
    assert book.asked == ["one:no", "two:no"]


def test_a_reload_forgets_those_of_the_backend_that_it_changes(
    start: Start, book: type[Book]
) -> None:
    daemon = start()
    for index in range(2):
        ask(daemon, "no@example.com", index=index)
    assert daemon.reload_config(config(book="new")).ok
    assert ask(daemon, "no@example.com") == ["550 5.1.1 not in new"]
    assert ask(daemon, "no@example.com", index=1) == ["550 5.1.1 not in two"]
    assert book.asked == ["one:no", "two:no", "new:no"]
    other = daemon.config.model_copy(update={"allowed_hosts": ("example.com",)})
    assert daemon.reload_config(other).ok
    ask(daemon, "no@example.com")
    assert len(book.asked) == 3


@shows("at once", "backend_config.validate_cache_ttl")
def test_a_reload_turns_it_off_and_on(start: Start, book: type[Book]) -> None:
    daemon = start()
    ask(daemon, "no@example.com")
    for ttl, asked in ((0, 3), ("1h", 4)):
        assert daemon.reload_config(config(validate_cache_ttl=ttl)).ok
        for _ in range(2):
            assert ask(daemon, "no@example.com") == ["550 5.1.1 not in one"]
        assert len(book.asked) == asked


def test_an_answer_of_the_old_chain_is_not_kept_by_the_new(start: Start, book: type[Book]) -> None:
    daemon = start()
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)
        wire.ask(b"MAIL FROM:<a@example.org>\r\n")
        wire.send(b"RCPT TO:<slow@example.com>\r\n")
        assert book.entered.wait(20)
        assert daemon.reload_config(config(book="new")).ok
        book.release.set()
        assert wire.reply() == "550 5.1.1 not in one"
    assert ask(daemon, "slow@example.com", "slow@example.com") == ["550 5.1.1 not in new"] * 2
    assert book.asked == ["one:slow", "new:slow"]


def test_what_is_kept_is_given_while_the_backend_is_away(start: Start, book: type[Book]) -> None:
    daemon = start(breaker_failures=0)
    assert ask(daemon, "yes@example.com")[0].startswith("250 ")
    assert ask(daemon, "away@example.com", "yes@example.com")[1].startswith("250 ")
    assert book.asked == ["one:yes", "one:away"]
