"""The JSON of a mail: its parts, what a limit leaves out, and that nothing is lost by it."""

from __future__ import annotations

import base64
import email.policy
import json
import time
from email.message import EmailMessage
from typing import Any

import pytest

from guerrilla._core import Envelope
from guerrilla.webhook.content import as_batch, as_json, as_raw
from guerrilla.webhook.parts import Limits
from tests.corpora import as_sent, corpus

LIMITS = Limits(1_000, 16, 32 << 20)
FILE = bytes(range(256)) * 40


def a_message() -> EmailMessage:
    """Text, HTML with an image, two files, a message in it."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "all kinds"
    message.set_content("Grüße", charset="iso-8859-1")
    message.add_alternative("<b>Grüße</b>", subtype="html")
    html = message.get_payload()[1]  # type: ignore[index]
    html.add_related(FILE, "image", "png", cid="<logo@example>")  # type: ignore[union-attr]
    message.add_attachment(FILE, "application", "pdf", filename="räum.pdf")
    message.add_attachment("a,b\r\n", subtype="csv", filename="../../a.csv")
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner.set_content("inner text")
    message.add_attachment(inner)
    return message


def json_of(message: bytes | EmailMessage, limits: Limits = LIMITS, raw: Any = "truncated") -> Any:
    octets = message if isinstance(message, bytes) else message.as_bytes()
    return json.loads(b"".join(as_json(Envelope.create(octets), limits, raw)))


def test_every_kind_of_part() -> None:
    found = json_of(a_message())
    assert found["text"].strip() == "Grüße"
    assert found["html"].strip() == "<b>Grüße</b>"
    assert found["truncated"] is False
    assert found["raw"] is None
    image, pdf, csv, inner = found["attachments"]
    assert (image["content_id"], image["content_type"]) == ("logo@example", "image/png")
    assert image["disposition"] == "inline"
    assert (pdf["filename"], pdf["disposition"]) == ("räum.pdf", "attachment")
    assert (csv["filename"], csv["charset"]) == ("../../a.csv", "utf-8")
    assert base64.b64decode(csv["content"]) == b"a,b\r\n"
    for part in (image, pdf):
        assert base64.b64decode(part["content"]) == FILE
        assert (part["size"], part["truncated"]) == (len(FILE), False)
    assert inner["content_type"] == "message/rfc822"
    assert b"Subject: inner" in base64.b64decode(inner["content"])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 192 << 10, (192 << 10) + 1, 500_000])
def test_base64_of_any_length(size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    message = b"Content-Type: application/x\r\n\r\n" + content
    found = json_of(message, raw="always")
    assert base64.b64decode(found["raw"], validate=True) == message
    assert "=" not in found["raw"][:-2]
    [part] = found["attachments"]
    assert base64.b64decode(part["content"], validate=True) == content


def test_a_second_text_is_an_attachment() -> None:
    """As the footer of a mailing list: nothing is left out."""
    parts = [b"--b\r\nContent-Type: text/plain\r\n\r\n%s\r\n" % text for text in (b"one", b"two")]
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    found = json_of(head + b"".join(parts) + b"--b--\r\n")
    assert found["text"] == "one"
    [footer] = found["attachments"]
    assert base64.b64decode(footer["content"]) == b"two"


def test_what_does_not_fit_is_told_and_in_raw() -> None:
    message = a_message().as_bytes()
    found = json_of(message, LIMITS._replace(size=len(FILE) + 500))
    assert found["truncated"] is True
    assert found["text"].strip() == "Grüße"
    image, pdf, csv, _ = found["attachments"]
    assert (image["truncated"], csv["truncated"]) == (False, False)
    assert (pdf["content"], pdf["truncated"]) == (None, True)
    assert pdf["size"] > len(FILE)  # As it was sent, in Base64.
    assert base64.b64decode(found["raw"]) == message


def test_a_text_that_does_not_fit_is_told_too() -> None:
    found = json_of(b"Subject: x\r\n\r\n" + b"y" * 1_000, LIMITS._replace(size=999))
    assert (found["text"], found["truncated"]) == (None, True)
    [text] = found["attachments"]
    assert (text["content_type"], text["size"], text["content"]) == ("text/plain", 1_000, None)
    whole = json_of(b"Subject: x\r\n\r\n" + b"y" * 1_000, LIMITS._replace(size=1_000))
    assert (whole["text"], whole["truncated"], whole["raw"]) == ("y" * 1_000, False, None)


@pytest.mark.parametrize("limits", [LIMITS._replace(parts=3), LIMITS._replace(depth=1)])
def test_parts_that_are_too_many_or_too_deep(limits: Limits) -> None:
    message = a_message().as_bytes()
    found = json_of(message, limits)
    assert found["truncated"] is True
    assert [one for one in found["attachments"] if one["truncated"]]
    assert base64.b64decode(found["raw"]) == message


def test_when_the_mail_is_there_as_well() -> None:
    small, cut = a_message().as_bytes(), LIMITS._replace(size=10)
    assert json_of(small, raw="never")["raw"] is None
    assert base64.b64decode(json_of(small, raw="always")["raw"]) == small
    found = json_of(small, cut, raw="never")
    assert (found["raw"], found["truncated"]) == (None, True)


def test_the_mail_has_the_fields_that_stages_have_added() -> None:
    envelope = Envelope.create(b"Subject: x\r\n\r\n")
    envelope.add_header("X-Spam", "=?utf-8?q?n=C3=B6?=")
    envelope.make_delivery_header("example.com")
    found = json.loads(b"".join(as_json(envelope, LIMITS, "always")))
    assert [field["name"] for field in found["headers"]] == ["X-Spam", "Received", "Subject"]
    assert found["headers"][0]["value"] == "nö"
    assert base64.b64decode(found["raw"]) == bytes(envelope)
    assert b"".join(as_raw(envelope).pieces) == bytes(envelope)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"\xff\xfe: \x00\x01\r\n\r\n\xff\x00",
        b"Subject: \xed\xa0\x80 =?utf-7?q?+2AA-?=\r\n\r\n\xed\xa0\x80",
        b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-\r\n",
        b'Content-Type: text/plain; charset="x\x00y"\r\n\r\nx',
        b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n!!!=",
    ],
)
def test_whatever_was_sent_makes_json(message: bytes) -> None:
    envelope = Envelope.create(message)
    octets = b"".join(as_json(envelope, LIMITS, "always"))
    found = json.loads(octets.decode("utf-8"))
    assert base64.b64decode(found["raw"]) == message
    assert "\ud800" not in str(found)


def test_the_corpus_makes_json() -> None:
    mails = [Envelope.create(as_sent(path.read_bytes())) for path in corpus()]
    for mail, found in zip(
        mails,
        json.loads(b"".join(as_batch(as_json(one, LIMITS, "never") for one in mails).pieces)),
        strict=True,
    ):
        assert found["queued_id"] == mail.queued_id
        assert found["subject"] == mail.subject
        assert len(found["headers"]) == len(mail.header)


def test_many_words_and_parts_take_no_long_time() -> None:
    """A minute and more where any of it takes quadratic time."""
    head = b"X: " + b"=?a?q?" * 150_000 + b"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    begin = time.process_time()
    found = json_of(head + b"--b\r\n\r\n" * 500_000)
    assert time.process_time() - begin < 20
    assert found["truncated"] is True
