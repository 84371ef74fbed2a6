"""What the tests of HTTP share: mails, and a stage that is open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from guerrilla._core import Envelope
from guerrilla.engine.chain import Chain
from guerrilla.processors.http import HTTP
from guerrilla.reply import Reply
from guerrilla.testing import run_chain
from tests.chains import chain_of
from tests.services.webhook import Scripted

CHAIN = "HeadersParser|Header|HTTP"


def a_mail(subject: str = "hello", *rcpt_to: str, body: bytes = b"body\r\n") -> Envelope:
    """A mail of one part."""
    return Envelope.create(
        f"Subject: {subject}\r\n\r\n".encode() + body,
        mail_from="from@example.org",
        rcpt_to=rcpt_to or ("to@example.com",),
    )


def post(url: str, *envelopes: Envelope, **keys: Any) -> list[Reply]:
    """What their senders hear when they come as one batch."""
    return run_chain(CHAIN, envelopes, options={"http_url": url, **keys})


def codes(replies: list[Reply]) -> list[int]:
    return [reply.code for reply in replies]


@contextlib.contextmanager
def opened(server: Scripted | str, **keys: Any) -> Iterator[Chain[Any]]:
    """A chain that stays open while a test does things to its server."""
    url = server if isinstance(server, str) else server.url
    stage = HTTP(HTTP.Options.model_validate({"http_url": url, **keys}))
    with chain_of(stage) as chain:
        yield chain


def told(chain: Chain[Any], envelope: Envelope) -> int:
    """The code that the sender of a mail hears."""
    chain.run([envelope])
    verdict = envelope.answered
    return 250 if verdict is None else verdict.code if isinstance(verdict, Reply) else 0
