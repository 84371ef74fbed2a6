"""Events of mails and connections, as those hear them who embed a daemon."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from guerrilla.daemon import Daemon
from guerrilla.events import ConnectionEvent, Event, MailEvent
from tests.daemons import Keeper, Make, config, connect, send
from tests.wire import HELLO, Wire, until

EVENTS = (Event.MAIL_SAVED, Event.MAIL_REFUSED, Event.CONNECTION_OPENED, Event.CONNECTION_CLOSED)


def listen(daemon: Daemon, *events: Event) -> list[tuple[Event, Any]]:
    """What is heard from now on."""
    heard: list[tuple[Event, Any]] = []

    def hear(event: Event, payload: object) -> None:
        heard.append((event, payload))

    for event in events:
        daemon.subscribe(event, partial(hear, event))
    return heard


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_mail_that_is_saved_is_told_with_all_its_recipients(
    make: Make, keeper: type[Keeper]
) -> None:
    daemon = make()
    heard = listen(daemon, *EVENTS)
    with daemon:
        with connect(daemon) as wire:
            wire.send(HELLO + b"MAIL FROM:<from@example.org>\r\n")
            for number in range(9):
                wire.send(b"RCPT TO:<to%d@example.com>\r\n" % number)
            assert [wire.reply()[:3] for _ in range(11)] == ["250"] * 11
            assert wire.ask(b"DATA\r\n").startswith("354 ")
            assert wire.ask(b"Subject: told\r\n\r\n.\r\n").startswith("250 ")
        until(lambda: len(heard) == 3)
    opened, saved, closed = heard
    assert [event for event, _ in heard] == [EVENTS[2], EVENTS[0], EVENTS[3]]
    assert opened[1] == closed[1]
    assert isinstance(opened[1], ConnectionEvent)
    assert opened[1].remote_ip == "127.0.0.1"
    mail = saved[1]
    assert isinstance(mail, MailEvent)
    assert mail.queued_id == keeper.envelopes[0].queued_id
    assert [str(address) for address in mail.rcpt_to] == [f"to{n}@example.com" for n in range(9)]
    assert (str(mail.mail_from), mail.helo) == ("from@example.org", "client.example.org")
    assert (mail.size, mail.reply.code, mail.client_id) == (17, 250, opened[1].client_id)


def test_every_way_of_a_refusal_is_told_with_its_reply(make: Make, keeper: type[Keeper]) -> None:
    raw = config(gw_save_timeout="300ms")
    raw["servers"][0]["max_size"] = 100
    daemon = make(raw, log_level="error")  # the line of a message is another matter
    heard = listen(daemon, Event.MAIL_REFUSED)
    with daemon:
        for message, code in (
            (b"Subject: raise\r\n\r\n", "451"),
            (b"Subject: hang\r\n\r\n", "451"),
            (b"x" * 200, "552"),
        ):
            with connect(daemon) as wire:
                assert wire.deliver(message).startswith(code)
        keeper.release.set()
        until(lambda: len(heard) == 3)
    replies = [(mail.reply.code, mail.queued_id is None) for _, mail in heard]
    assert replies == [(451, False), (451, False), (552, True)]


def test_nothing_is_made_while_nobody_hears(make: Make) -> None:
    with make() as daemon:
        assert send(daemon)[0] == 250
        assert "guerrilla-events" not in threads()
        heard = listen(daemon, Event.MAIL_SAVED)
        assert send(daemon)[0] == 250
        until(lambda: len(heard) == 1)
        assert "guerrilla-events" in threads()
    assert "guerrilla-events" not in threads()


def test_a_handler_that_stops_the_daemon_does_not_hang(make: Make) -> None:
    daemon = make()
    daemon.subscribe(Event.CONNECTION_CLOSED, lambda _: daemon.shutdown())
    daemon.start()
    with connect(daemon) as wire:
        assert isinstance(wire, Wire)
    assert daemon.wait(20)
