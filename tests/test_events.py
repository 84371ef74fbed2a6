"""The bus: who hears what, in which order, and what a bad handler does to the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from guerrilla import Envelope, Reply
from guerrilla.events import Event, EventBus, MailEvent

CONFIG = (
    "new_config",
    "allowed_hosts",
    "pid_file",
    "log_file",
    "reopen_log_file",
    "log_level",
    "backend_config",
)
SERVER = (
    "new_server",
    "remove_server",
    "update_config",
    "start_server",
    "stop_server",
    "new_log_file",
    "reopen_log_file",
    "timeout",
    "max_clients",
    "tls_config",
)
NAMES = [f"config_change:{name}" for name in CONFIG] + [f"server_change:{name}" for name in SERVER]
"""Go-Guerrilla's."""


def test_the_names_are_go_guerrillas() -> None:
    assert len(NAMES) == 17
    ours = {"mail:saved", "mail:refused", "connection:opened", "connection:closed"}
    assert {str(event) for event in Event} == {*NAMES, *ours}


def test_handlers_are_called_in_the_order_they_subscribed() -> None:
    bus = EventBus()
    heard: list[tuple[str, object]] = []
    bus.subscribe(Event.LOG_LEVEL, lambda payload: heard.append(("one", payload)))
    bus.subscribe(Event.LOG_LEVEL, lambda payload: heard.append(("two", payload)))
    bus.subscribe(Event.PID_FILE, lambda payload: heard.append(("other", payload)))
    bus.publish(Event.LOG_LEVEL, 7)
    assert heard == [("one", 7), ("two", 7)]


def test_a_name_is_as_good_as_the_event_and_others_can_be_made_up() -> None:
    bus = EventBus()
    heard: list[object] = []
    bus.subscribe("server_change:timeout", heard.append)
    bus.subscribe("weather:rain", heard.append)
    bus.publish(Event.SERVER_TIMEOUT, 1)
    bus.publish("weather:rain")
    assert heard == [1, None]
    assert bus.has(Event.SERVER_TIMEOUT)
    assert not bus.has("weather:snow")


def test_who_unsubscribes_hears_no_more() -> None:
    bus = EventBus()
    heard: list[object] = []
    bus.subscribe(Event.MAIL_SAVED, heard.append)
    bus.subscribe(Event.MAIL_SAVED, heard.append)
    bus.publish(Event.MAIL_SAVED, 1)
    bus.unsubscribe(Event.MAIL_SAVED, heard.append)  # a bound method, made anew
    bus.publish(Event.MAIL_SAVED, 2)
    bus.unsubscribe("mail:saved", heard.append)
    bus.publish(Event.MAIL_SAVED, 3)
    assert heard == [1, 1, 2]
    assert not bus.has(Event.MAIL_SAVED)
    with pytest.raises(ValueError, match="not subscribed to mail:saved"):
        bus.unsubscribe(Event.MAIL_SAVED, heard.append)


def test_a_handler_that_raises_is_logged_and_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = EventBus()
    heard: list[object] = []

    def bad(payload: object) -> None:
        raise ValueError(payload)

    bus.subscribe(Event.MAIL_SAVED, bad)
    bus.subscribe(Event.MAIL_SAVED, heard.append)
    bus.publish(Event.MAIL_SAVED, "a mail")
    assert heard == ["a mail"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "guerrilla.events"
    assert "mail:saved" in record.getMessage()
    assert record.exc_info is not None


def test_an_exit_is_no_error_to_hide() -> None:
    bus = EventBus()

    def leave(payload: object) -> None:
        raise SystemExit(3)

    bus.subscribe("end", leave)
    with pytest.raises(SystemExit):
        bus.publish("end")


def test_what_nobody_could_call_is_refused() -> None:
    bus = EventBus()

    async def later(payload: object) -> None:
        """Would never be awaited."""

    for handler in (later, None, "print"):
        with pytest.raises(TypeError, match="plain function"):
            bus.subscribe(Event.MAIL_SAVED, handler)  # type: ignore[arg-type]
    assert not bus.has(Event.MAIL_SAVED)


def test_a_handler_may_subscribe_and_unsubscribe() -> None:
    """It is called outside of any lock, and changes what comes next, not what is under way."""
    bus = EventBus()
    heard: list[object] = []

    def once(payload: object) -> None:
        bus.unsubscribe("tick", once)
        bus.subscribe("tick", heard.append)

    bus.subscribe("tick", once)
    bus.publish("tick", 1)
    bus.publish("tick", 2)
    assert heard == [2]


def test_threads_lose_no_subscription() -> None:
    bus = EventBus()
    count = 200
    heard: list[object] = []

    def subscribe() -> None:
        for _ in range(count):
            bus.subscribe("tick", heard.append)
            bus.publish("tock")

    threads = [threading.Thread(target=subscribe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bus.publish("tick", 1)
    assert len(heard) == 4 * count


def test_what_is_told_of_a_mail(mail: Callable[..., Envelope]) -> None:
    envelope = mail("hello", "a@example.com", "b@example.com")
    envelope.answer()
    saved = MailEvent.of(envelope)
    assert saved.event is Event.MAIL_SAVED
    assert saved.queued_id == envelope.queued_id
    assert saved.reply == Reply.ok(f"OK: queued as {envelope.queued_id}")
    assert [str(address) for address in saved.rcpt_to] == ["a@example.com", "b@example.com"]
    assert (saved.size, saved.helo, saved.tls) == (envelope.size, "localhost", None)


def test_several_replies_are_told_as_the_sender_hears_them(mail: Callable[..., Envelope]) -> None:
    envelope = mail("hello", "a@example.com", "b@example.com")
    envelope.answer([Reply.ok(), Reply.retry()])
    refused = MailEvent.of(envelope)
    assert refused.event is Event.MAIL_REFUSED
    assert refused.reply == Reply.retry()
