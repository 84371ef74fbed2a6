"""Processors, mails and replies, as their users type them. Checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

import guerrilla
from guerrilla import (
    AUTHENTICATED,
    TAKEN,
    Address,
    Check,
    Credentials,
    DeliveryError,
    Envelope,
    Header,
    Login,
    NoSuchUser,
    Outcome,
    Part,
    Parts,
    Processor,
    QuotaExceeded,
    Replies,
    Reply,
    StorageError,
    StorageNotAvailable,
    StorageTimeout,
    StorageTooBusy,
    TLSInfo,
    Transaction,
    Unavailable,
    UserSuspended,
    fold,
)


@guerrilla.processor("Plain")
def plain(envelope: Envelope) -> Reply | None:
    return Reply.reject("5.7.1", "no") if envelope.subject else None


@guerrilla.processor("Later", stores=True)
async def later(envelope: Envelope) -> Outcome:
    envelope.values["seen"] = True
    return TAKEN


@guerrilla.validator("Users")
def users(transaction: Transaction, recipient: Address) -> Reply | None:
    assert_type(recipient.user, str)
    raise NoSuchUser


@guerrilla.authenticator("Door")
async def door(transaction: Transaction, credentials: Credentials) -> Reply | None:
    assert_type(credentials.password, str)
    credentials.password = "other"  # type: ignore[misc]
    return AUTHENTICATED if credentials.username else None


@guerrilla.processor("Class")
class Own(Processor):
    """All that can be overridden."""

    stores = True
    atomic = True
    authorizes = True

    class Options(Processor.Options):
        """Its keys."""

        own_key: int = 7

    def open(self) -> None:
        raise Unavailable

    def close(self) -> None: ...

    def save(self, envelope: Envelope) -> Outcome:
        return Replies(Reply.ok() for _ in envelope.rcpt_to)

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        return [None] * len(envelopes)

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        return [Reply.retry() for check in checks if check.transaction.helo]

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply | None:
        return AUTHENTICATED if credentials.authorization_identity == transaction.helo else None

    def authenticate_batch(self, logins: Sequence[Login]) -> Sequence[Reply | None]:
        return [self.authenticate(login.transaction, login.credentials) for login in logins]


class Wrong(Processor):
    """What is no outcome."""

    def save(self, envelope: Envelope) -> str:  # type: ignore[override]
        return "250 OK"


# The decorators leave what they decorate as it is.
assert_type(Own(Own.Options()), Own)
Reply(250, None)  # type: ignore[call-arg]
Reply("250", None, "OK")  # type: ignore[arg-type]


def read(envelope: Envelope) -> None:
    assert_type(plain(envelope), Reply | None)
    assert_type(envelope.header, Header)
    assert_type(envelope.parts(max_parts=10), Parts)
    assert_type(envelope.parts()[0], Part)
    assert_type(envelope.parts().html, str | None)
    assert_type([part.content for part in envelope.parts().attachments], list[bytes])
    assert_type(envelope.header.get("subject"), str | None)
    assert_type(envelope.data, memoryview)
    assert_type(envelope.tls, TLSInfo | None)
    assert_type(envelope.values, dict[str, Any])
    assert_type(envelope.mail_from, Address)
    assert_type(envelope.mail_from.ascii_host, str)
    assert_type((envelope.dsn_return, envelope.envelope_id), tuple[str | None, str | None])
    assert_type(envelope.smtputf8, bool)
    assert_type(envelope.rcpt_to[0].notify, tuple[str, ...] | None)
    assert_type(envelope.rcpt_to[0].original_recipient, str | None)
    assert_type(fold([Reply.ok()]), Reply)
    assert_type(DeliveryError.code, int)
    envelope.subject = "other"  # type: ignore[misc]


kinds: list[type[DeliveryError]] = [
    NoSuchUser,
    UserSuspended,
    QuotaExceeded,
    StorageNotAvailable,
    StorageTooBusy,
    StorageTimeout,
    StorageError,
]
