"""Envelopes as stages see them: views, headers, what may be added, what survives serialisation."""

from __future__ import annotations

import gc
from email.message import EmailMessage

import pytest

from guerrilla import Address, Check, Envelope, Reply, TLSInfo
from guerrilla._core import claim, decode_words, make_check, parse_addresses

RAW = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\r\n"
    b"To: you@example.net\r\n"
    b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n =?utf-8?q?_again?=\r\n"
    b"received: one\r\nReceived: two\r\n"
    b"\r\n"
    b"body\r\n"
)


def envelope(raw: bytes = RAW, **more: object) -> Envelope:
    fields: dict[str, object] = {
        "mail_from": "sender@example.com",
        "rcpt_to": ["one@example.net", "two@example.net"],
        "helo": "client.example",
        "host_name": "mx.example.net",
        "remote_ip": "192.0.2.1",
        "remote_port": 4711,
        "queued_id": "01h00000000000000000000000",
        "received_at": 1_700_000_000.25,
    }
    return Envelope.create(raw, **(fields | more))  # type: ignore[arg-type]


def test_data_is_a_read_only_view_that_outlives_the_envelope() -> None:
    one = envelope()
    view, head = one.data, one.header_data
    assert view.readonly
    assert (view.format, view.ndim, view.contiguous) == ("B", 1, True)
    with pytest.raises(TypeError):
        view[0] = 0
    assert one.size == len(view) == len(RAW)
    del one
    gc.collect()
    assert bytes(view) == RAW
    assert bytes(head) == RAW[: RAW.index(b"\r\n\r\n") + 4]
    assert bytes(envelope(b"").data) == b""


def test_fields_of_the_transaction() -> None:
    one = envelope(parameters={"size": "10"}, tls=TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256"))
    assert str(one.mail_from) == "sender@example.com"
    assert one.parameters == {"SIZE": "10"} == one.mail_from.parameters
    assert [str(address) for address in one.rcpt_to] == ["one@example.net", "two@example.net"]
    assert (one.helo, one.esmtp, one.remote_ip, one.remote_port) == (
        "client.example", True, "192.0.2.1", 4711,
    )  # fmt: skip
    assert one.tls is not None
    assert one.tls.version == "TLSv1.3"
    assert one.received_at == 1_700_000_000.25


def test_header_is_case_insensitive_with_several_values() -> None:
    header = envelope().header
    assert header["SUBJECT"].startswith("=?utf-8?b?")
    assert header.get_all("Received") == ["one", "two"]
    assert "to" in header
    assert "Bcc" not in header
    assert 5 not in header
    assert header.get("bcc") is None
    assert header.get("bcc", "none") == "none"
    assert list(header) == ["From", "To", "Subject", "received", "Received"]
    assert len(header.items()) == len(header) == 5
    with pytest.raises(KeyError, match="Bcc"):
        header["Bcc"]


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        (b"plain", "plain"),
        (b"=?cp437?q?=81ber?=", "über"),  # no charset of the web: Python's codec
        (b"=?utf-7?q?+APw-ber?=", "über"),
        (b"=?x-unheard-of?q?ber?=", "=?x-unheard-of?q?ber?="),
        (b"=?unicode_escape?q?=5Cx41?=", "=?unicode_escape?q?=5Cx41?="),  # a codec, no charset
        (b"=?base64?q?QQ==?=", "=?base64?q?QQ==?="),
        (b"=?utf-8?q?a=0D=0AX-Evil:_b?=", "a  X-Evil: b"),
    ],
)
def test_subject_is_decoded(value: bytes, subject: str) -> None:
    assert envelope(b"Subject: " + value + b"\r\n\r\n").subject == subject


def test_a_value_is_decoded_as_the_subject_is() -> None:
    value = envelope().header["Subject"]
    assert decode_words(value) == envelope().subject == "Grüße again"
    assert decode_words("=?utf-8?q?a=0D=0A=00b?= é =?x?y?z?=") == "a   b é =?x?y?z?="
    # Linear: a minute and more where each of them is looked for an end.
    assert decode_words("=?a?q?" * 170_000) == "=?a?q?" * 170_000


def test_a_message_without_a_subject_has_an_empty_one() -> None:
    assert envelope(b"no header at all").subject == ""
    assert envelope().subject == "Grüße again"


def test_hashes_differ_by_recipient_and_repeat_for_the_same_envelope() -> None:
    one, same = envelope(), envelope()
    assert one.hashes == []
    first, second = one.compute_hashes()
    assert first != second
    assert one.hashes == [first, second] == same.compute_hashes()
    assert one.compute_hashes() == [first, second]  # replaced, not appended
    assert envelope(queued_id="01h00000000000000000000001").compute_hashes()[0] != first


def test_the_delivery_header_discloses_no_other_recipient() -> None:
    one = envelope()
    assert one.delivery_header == b""
    assert bytes(one) == RAW
    one.make_delivery_header("mail.example.org")
    received = (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.net with ESMTP id 01h00000000000000000000000;\r\n"
        b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
    )
    assert one.delivery_header == received
    assert one.delivery_header_for(1) == b"Delivered-To: two@mail.example.org\r\n" + received
    assert bytes(one) == received + RAW
    assert one.bytes_for(0) == one.delivery_header_for(0) + RAW
    with pytest.raises(IndexError, match="recipient 2 of 2"):
        one.delivery_header_for(2)


def test_added_fields_stand_first_and_the_message_stays() -> None:
    one = envelope()
    one.add_header("X-One", "1")
    one.add_header("X-Two", "zwei ü")
    assert one.added_headers == "X-Two: zwei ü\r\nX-One: 1\r\n".encode()
    assert bytes(one) == one.added_headers + RAW
    assert bytes(one.data) == RAW


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("X Y", "x"),
        ("X:", "x"),
        ("Xü", "x"),
        ("X", "a\r\nBcc: b"),
        ("X", "a\nb"),
        ("X", "a\0b"),
        ("X", "a" * 1000),
    ],
)
def test_a_field_that_would_break_the_header_is_refused(name: str, value: str) -> None:
    one = envelope()
    with pytest.raises(ValueError, match="header"):
        one.add_header(name, value)
    assert one.added_headers == b""


def test_everything_survives_serialisation() -> None:
    one = envelope(
        b"\x00\xff" + RAW,
        auth="joe",
        tls=TLSInfo("TLSv1.2", "X", "mx.example.net", "CN=joe"),
        server="127.0.0.1:25",
        mail_from=Address("joe smith", "example.com", {"SIZE": "10", "BODY": None}),
        protocol="LMTP",
    )
    one.compute_hashes()
    one.make_delivery_header("mail.example.org")
    one.add_header("X-Ü".replace("Ü", "U"), "ü")
    one.values["score"] = {"spam": [1, 2.5, None, "ü"]}
    again = Envelope.from_bytes(one.to_bytes())
    names = (
        "queued_id", "received_at", "size", "client_id", "server", "host_name", "remote_ip",
        "remote_port", "helo", "protocol", "tls", "auth", "mail_from", "parameters", "rcpt_to",
        "hashes", "values", "delivery_header", "added_headers", "subject",
    )  # fmt: skip
    assert [getattr(one, name) for name in names] == [getattr(again, name) for name in names]
    assert again.bytes_for(1) == one.bytes_for(1)
    assert again.to_bytes() == one.to_bytes()


def test_a_value_that_is_not_json_is_named() -> None:
    one = envelope()
    one.values["good"] = 1
    one.values["bad"] = object()
    with pytest.raises(ValueError, match=r"values\['bad'\] is not JSON"):
        one.to_bytes()


@pytest.mark.parametrize("cut", [0, 3, 6, 20, -1])
def test_a_damaged_serialisation_is_refused(cut: int) -> None:
    whole = envelope().to_bytes()
    with pytest.raises(ValueError, match="not a serialised envelope"):
        Envelope.from_bytes(whole[:cut])
    with pytest.raises(ValueError, match="not a serialised envelope"):
        Envelope.from_bytes(whole.replace(b'"protocol":"ESMTP"', b'"protocol":"no"'))
    with pytest.raises(ValueError, match="of another kind or version"):
        Envelope.from_bytes(b"GRL9" + whole[4:])


def test_the_first_answer_counts() -> None:
    one = envelope()
    assert [one.expired] == [False]
    assert one.answer(Reply.reject())
    assert not one.answer(None)
    assert one.answered == Reply.reject()
    assert one.expired
    assert claim([one]) == [False]


def test_only_verdicts_are_answers() -> None:
    one = envelope()
    for verdict in ("250 OK", 250, [Reply.ok()], [Reply.ok(), "x"], object()):
        with pytest.raises(TypeError, match="a verdict"):
            one.answer(verdict)  # type: ignore[arg-type]
    assert one.answered is None
    assert one.answer([Reply.ok(), Reply.reject()])
    assert one.answered == (Reply.ok(), Reply.reject())


def test_an_envelope_is_claimed_until_it_is_answered() -> None:
    one, two = envelope(), envelope()
    two.answer(None)
    assert claim([one, two]) == [True, False]
    assert claim([one]) == [True]


def test_message_is_pythons_own() -> None:
    message = envelope().message()
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == "Grüße again"
    assert message.get_content() == "body\r\n"


def test_a_check_is_answered_once() -> None:
    check: Check = make_check("you@example.net", mail_from="<>", helo="client")
    assert (check.recipient.user, check.transaction.mail_from.is_null) == ("you", True)
    assert check.answered is None
    assert check.answer(None)
    assert check.answered == Reply.ok("OK", "2.1.5")
    assert not check.answer(Reply.reject())


@pytest.mark.parametrize("text", ["a", "a@", "@b", "a b@c", "<a@b", "a@b>", "ü\x85@example.com"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ddress"):
        Address.parse(text)


def test_addresses_are_values() -> None:
    assert Address.parse("<a@b.example>") == Address("a", "b.example")
    assert len({Address("a", "b"), Address("a", "b"), Address("A", "b")}) == 2
    assert str(Address('a "b"', "c.example")) == r'"a \"b\""@c.example'
    assert Address.parse("x@[IPv6:2001:DB8:0::1]").ip == "2001:db8::1"


def test_addresses_of_a_field_are_found_whatever_stands_around_them() -> None:
    field = (
        '"Last, First" <a@example.com>, b@example.net (x), Group: c@d.example, e@f.example;, junk'
    )
    assert parse_addresses(field) == [
        ("a@example.com", "Last, First"),
        ("b@example.net", ""),
        ("c@d.example", ""),
        ("e@f.example", ""),
    ]
    assert parse_addresses("(" * 100_000) == []


def test_an_address_is_equal_to_another_of_the_same_mailbox() -> None:
    sent = Address("a", "Example.COM", {"SIZE": "10", "BODY": "7BIT"})
    assert sent == Address.parse("a@example.com")
    assert hash(sent) == hash(Address.parse("a@example.com"))
    assert sent != Address.parse("A@example.com")
    assert sent != "a@example.com"
    assert list(sent.parameters) == ["SIZE", "BODY"]  # as sent
    again = Envelope.from_bytes(envelope(mail_from=sent).to_bytes()).mail_from
    assert list(again.parameters.items()) == list(sent.parameters.items())
