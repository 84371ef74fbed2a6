"""Events, as their users type them. Checked by mypy --strict, never run."""

from __future__ import annotations

from typing import assert_type

from guerrilla import (
    Address,
    AppConfig,
    Change,
    ConfigChange,
    ConnectionEvent,
    Envelope,
    Event,
    EventBus,
    MailEvent,
    Reply,
    ServerChange,
    ServerConfig,
)
from guerrilla.config.diff import changes

bus = EventBus()


def on_config(change: ConfigChange) -> None:
    assert_type(change.old, AppConfig)


def on_server(change: ServerChange) -> None:
    assert_type(change.name, str)
    assert_type(change.new, ServerConfig | None)


def on_mail(mail: MailEvent) -> bool:
    assert_type(mail.rcpt_to, tuple[Address, ...])
    assert_type(mail.reply, Reply)
    assert_type(mail.event, Event)
    mail.size = 7  # type: ignore[misc]
    return True


def on_connection(connection: ConnectionEvent) -> None:
    assert_type(connection.remote_port, int)


async def on_later(payload: object) -> None: ...


bus.subscribe(Event.NEW_CONFIG, on_config)
bus.subscribe(Event.SERVER_NEW, on_server)
bus.subscribe("mail:saved", on_mail)
bus.subscribe(Event.CONNECTION_OPENED, on_connection)
bus.subscribe(Event.MAIL_SAVED, "print")  # type: ignore[arg-type]
bus.subscribe(7, on_mail)  # type: ignore[arg-type]
bus.publish("my:own", {"any": "thing"})
bus.unsubscribe("mail:saved", on_mail)
assert_type(bus.has(Event.MAIL_SAVED), bool)


def look(old: AppConfig, new: AppConfig, envelope: Envelope) -> None:
    for change in changes(old, new, tls_changed={"127.0.0.1:25"}):
        assert_type(change, Change)
        assert_type(change.payload, ConfigChange | ServerChange)
    assert_type(MailEvent.of(envelope, Reply.ok()), MailEvent)
