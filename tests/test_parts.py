"""`Envelope.parts()`: the parts of a message, what each says of itself, and bounds."""

from __future__ import annotations

import gc
import random
from base64 import b64encode
from email import policy
from email.message import EmailMessage
from typing import Any, Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerrilla import Envelope, Part, Parts
from tests.cores import MIB, Client, close_clients, core

__all__ = ["close_clients"]

DEEPEST: Final = 100
Bound = Literal["depth", "parts"]


def parts_of(text: str | bytes, **bounds: Any) -> Parts:
    return Envelope.create(text.encode() if isinstance(text, str) else text).parts(**bounds)


def only(header: str, body: str | bytes = b"A") -> Part:
    """The part of a message that is one."""
    body = body.encode() if isinstance(body, str) else body
    (part,) = parts_of(header.encode() + b"\r\n\r\n" + body)
    return part


def multipart(*parts: str, kind: str = "mixed", boundary: str = "b") -> str:
    inner = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    header = f"Content-Type: multipart/{kind}; boundary={boundary}\r\n\r\n"
    return f"{header}{inner}--{boundary}--\r\n"


def test_a_part_says_what_it_is() -> None:
    text, image = parts_of(
        multipart(
            "Content-Type: Text/HTML; Charset=UTF-8; format=flowed\r\n\r\ncaf\u00e9",
            "Content-Type: image/png; name*=utf-8''%F0%9F%90%A6.png\r\n"
            "Content-Disposition: Inline\r\nContent-ID: <a@b>\r\n"
            "Content-Transfer-Encoding: Base64\r\n\r\niVBO\r\nRw==",
        )
    )
    assert (text.path, text.content_type, text.charset) == ((1,), "text/html", "utf-8")
    assert text.parameters == {"charset": "UTF-8", "format": "flowed"}
    assert (text.filename, text.disposition, text.content_id) == (None, None, None)
    assert (text.text, text.content, text.is_attachment) == ("caf\u00e9", b"caf\xc3\xa9", False)
    assert text.header.items() == [("Content-Type", "Text/HTML; Charset=UTF-8; format=flowed")]
    assert repr(text) == '<Part 1 "text/html", 5 octets>'

    assert (image.path, image.content_type, image.charset) == ((2,), "image/png", None)
    assert (image.filename, image.disposition, image.content_id) == (
        "\U0001f426.png", "inline", "a@b",
    )  # fmt: skip
    assert (bytes(image.raw), image.size) == (b"iVBO\r\nRw==", 10)
    assert image.content == b"\x89PNG"
    assert image.header["content-id"] == "<a@b>"
    assert image.beyond is None


def test_parts_are_a_sequence_of_the_same_objects() -> None:
    parts = parts_of(multipart("\r\nA", "\r\nB", "\r\nC"))
    assert len(parts) == 3
    assert [part.content for part in parts] == [b"A", b"B", b"C"]
    assert parts[0] is parts[0] is parts[-3] is next(iter(parts)) is parts.walk()[1]
    assert parts[1].content is parts[1].content
    for index in (3, -4):
        with pytest.raises(IndexError):
            parts[index]
    assert [part.path for part in parts.walk()] == [(), (1,), (2,), (3,)]
    assert [part.is_multipart for part in parts.walk()] == [True, False, False, False]
    assert parts.walk()[0].content.startswith(b"--b\r\n")
    assert repr(parts).startswith("<Parts: 3 of ")


def test_text_html_and_attachments() -> None:
    plain, html = "\r\nplain", "Content-Type: text/html\r\n\r\n<p>"
    pdf = "Content-Type: application/pdf\r\n\r\n%PDF"
    saved = "Content-Disposition: attachment\r\n\r\nsaved"
    both = (
        multipart(plain, html, kind="alternative").replace("b\r\n", "c\r\n").replace("b--", "c--")
    )
    footer = "\r\nfooter"
    for message, text, markup, attachments in (
        (plain, "plain", None, 0),
        (html, None, "<p>", 0),
        (pdf, None, None, 1),
        (multipart(both, pdf), "plain", "<p>", 1),
        (multipart(saved, plain, footer, pdf), "plain", None, 3),
        (multipart(html, plain, kind="related"), None, "<p>", 1),
        (multipart(saved), None, None, 1),
    ):
        parts = parts_of(message)
        assert (parts.text, parts.html, len(parts.attachments)) == (text, markup, attachments)
        assert (parts.text_part is None, parts.html_part is None) == (text is None, markup is None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("X: y", False),
        ("Content-Type: image/png", True),
        ("Content-Type: image/png\r\nContent-Disposition: inline; filename=a", False),
        ("Content-Type: text/plain; name=a.txt", True),
        ("Content-Disposition: attachment", True),
        ("Content-Disposition: unknown", True),
    ],
)
def test_is_attachment(fields: str, *, expected: bool) -> None:
    assert only(fields).is_attachment is expected


def test_a_file_name_is_what_the_sender_gave() -> None:
    for given_name, name in (
        ('filename="../../etc/passwd"', "../../etc/passwd"),
        ('filename="C:\\a.exe"', "C:\\a.exe"),
        ("filename=my file.txt", "my file.txt"),
        ("filename*0*=iso-8859-1''caf%E9; filename*1=.txt", "caf\u00e9.txt"),
        ('filename="=?koi8-r?q?=C6=C1?="', "\u0444\u0430"),
        ("filename*=utf-8''a%0D%0AX:%20y", "a  X: y"),
        ("filename*=utf-7''+AOk-", "\u00e9"),
        ('filename=""', None),
    ):
        assert only(f"Content-Disposition: attachment; {given_name}").filename == name


def test_text_of_a_charset() -> None:
    for charset, octets, text in (
        ("iso-8859-1", b"caf\xe9 \x80", "caf\u00e9 \u20ac"),
        ("US-ASCII", b"caf\xc3\xa9", "caf\u00e9"),
        ("utf-8", b"caf\xe9", "caf\ufffd"),
        ('"utf-7"', b"+AOk-", "\u00e9"),
        ("nobody-knows", b"caf\xe9", "caf\u00e9"),
        ('""', b"a\r\n\0b", "a\r\n\0b"),
    ):
        part = only(f"Content-Type: text/plain; charset={charset}", octets)
        assert part.text == text
        assert part.charset == (charset.strip('"').lower() or None)
    assert only("X: y", b"caf\xe9").text == "caf\u00e9"


def test_bounds() -> None:
    inner = "Content-Type: multipart/x; boundary=c\r\n\r\n--c\r\n\r\nA\r\n--c--"
    deep = multipart(inner, "\r\nB", "\r\nC")
    table: list[tuple[dict[str, int], Bound | None, list[tuple[tuple[int, ...], Bound | None]]]] = [
        ({}, None, [((1, 1), None), ((2,), None), ((3,), None)]),
        ({"max_depth": 1}, "depth", [((1,), "depth"), ((2,), None), ((3,), None)]),
        ({"max_depth": 0}, "depth", [((1,), "depth")]),
        ({"max_parts": 4}, "parts", [((1, 1), None), ((2,), None), ((3,), "parts")]),
        ({"max_parts": 1}, "parts", [((1,), "parts")]),
    ]
    for bounds, truncated, expected in table:
        parts = parts_of(deep, **bounds)
        assert parts.truncated == truncated, bounds
        assert [(part.path, part.beyond) for part in parts] == expected, bounds
    rest = parts_of(deep, max_parts=4)[-1]
    assert (rest.content, rest.content_type) == (b"\r\nC\r\n--b--\r\n", "application/octet-stream")
    assert len(parts_of(deep, max_depth=DEEPEST)) == 3
    with pytest.raises(ValueError, match="max_depth is at most 100, not 101"):
        parts_of(deep, max_depth=101)


def test_max_size_cuts_what_is_decoded() -> None:
    for encoding, body in (("7bit", b"0123456789"), ("base64", b64encode(b"0123456789"))):
        header = f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        for size, truncated in ((9, True), (10, False), (0, True)):
            (part,) = parts_of(header + body, max_size=size)
            assert (part.content, part.is_truncated) == (b"0123456789"[:size], truncated)
            assert bytes(part.raw) == body
    (cut,) = parts_of("\r\n\u00e9\u00e9", max_size=3)
    assert cut.text == "\u00e9"


def test_attached_messages() -> None:
    html = "Content-Type: text/html\r\n\r\nB"
    inner = "Subject: inner\r\n" + multipart("\r\nA", html, boundary="c")
    message = multipart("\r\nouter", f"Content-Type: message/rfc822\r\n\r\n{inner}")
    _, attached = parts_of(message)
    assert (attached.content_type, attached.is_attachment) == ("message/rfc822", True)
    assert [part.content for part in Envelope.create(attached.content).parts()] == [b"A", b"B"]

    parts = parts_of(message, messages=True)
    assert [part.path for part in parts] == [(1,), (2, 1), (2, 2)]
    assert [part.path for part in parts.walk()] == [(), (1,), (2,), (2,), (2, 1), (2, 2)]
    assert parts.walk()[3].header["Subject"] == "inner"
    assert (parts.text, parts.html) == ("outer", None)
    assert parts_of(message, messages=True, max_depth=2)[1].beyond == "depth"
    assert parts_of(message, messages=True, max_depth=3).truncated is None


def test_only_so_much_of_a_header_is_looked_at() -> None:
    mail = f"X: {'x' * 100}\r\nContent-Type: text/html\r\n\r\n<p>"
    for size, kind in ((100, "text/plain"), (1000, "text/html")):
        with core(server={"max_header_size": size}) as (made, address):
            _client_sends(address, mail.encode())
            (envelope,) = made.receive(1, 20) or []
            (part,) = envelope.parts()
            assert (part.content_type, part.content) == (kind, b"<p>\r\n")
            envelope.answer()


def _client_sends(address: str, mail: bytes) -> Client:
    client = Client(address)
    assert client.data().startswith(b"354")
    client.socket.sendall(mail + b"\r\n.\r\n")
    return client


def test_parts_of_a_message_in_a_file_outlive_it() -> None:
    content = random.Random(7).randbytes(MIB)
    mail = EmailMessage()
    mail.set_content("text")
    mail.add_attachment(content, maintype="image", subtype="png", filename="a.png")
    with core(spill_size=10_000) as (made, address):
        client = _client_sends(address, mail.as_bytes(policy=policy.SMTP))
        (envelope,) = made.receive(1, 20) or []
        assert made.stats()["spilled"] == 1
        parts = envelope.parts()
        envelope.answer()
        assert client.read(1).startswith(b"250")
        del envelope
        (image,) = parts.attachments
        text = parts[0].raw
        del parts
        gc.collect()
        assert image.content == content
        assert bytes(text) == b"text\r\n"
        assert text.readonly
        assert made.stats()["spilled_octets"] > MIB
        del image, text
        gc.collect()
        assert made.stats()["spilled_octets"] == 0


def test_bombs_are_bounded() -> None:
    nested = "".join(
        f"Content-Type: multipart/mixed; boundary={level}\r\n\r\n--{level}\r\n"
        for level in range(10_000)
    )
    parts = parts_of(nested)
    assert (len(parts), len(parts.walk()), parts.truncated) == (1, 17, "depth")
    many = "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + "--b\r\n" * 1_000_000
    parts = parts_of(many)
    assert (len(parts), parts.truncated) == (1_000, "parts")
    assert parts[-1].size > 4_000_000
    message = "Content-Type: message/rfc822\r\n\r\n" * 10_000
    assert len(parts_of(message, messages=True).walk()) == 17
    huge = "Content-Type: text/html; " + "a=b; " * 200_000 + "\r\n\r\nA"
    (part,) = parts_of(huge)
    assert (part.content_type, part.parameters) == ("text/html", {"a": "b"})


LINE_ENDS: Final = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""What Python makes a line end of when it puts a text into a mail."""
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters=LINE_ENDS))
CONTENTS = st.lists(st.one_of(TEXTS, st.binary()), min_size=1, max_size=4)


@given(CONTENTS, st.booleans(), st.sampled_from(["base64", "quoted-printable", "8bit"]))
def test_what_python_puts_together_is_taken_apart(
    contents: list[str | bytes],
    nested: bool,
    encoding: str,
) -> None:
    mail = EmailMessage()
    mail.set_content("first")
    if nested:
        mail.add_alternative("<p>", subtype="html")
    for content in contents:
        if isinstance(content, str):
            mail.add_attachment(content, cte=encoding, filename="n\u00e4me.txt")
        else:
            mail.add_attachment(content, maintype="x", subtype="y", filename="a" * 100)
    parts = parts_of(mail.as_bytes(policy=policy.SMTP))
    assert (parts.text, parts.html) == ("first\r\n", "<p>\r\n" if nested else None)
    assert parts.truncated is None
    for part, content in zip(parts.attachments, contents, strict=True):
        if isinstance(content, str):
            assert part.text in {content + "\n", content + "\r\n"}
            assert part.filename == "n\u00e4me.txt"
        else:
            assert (part.content, part.filename) == (content, "a" * 100)


PIECES = st.sampled_from(
    [
        b"\r\n", b"\n", b"--b", b"--b\r\n", b"--c\n", b"--b--\r\n", b"A", b"\0", b"\xe9", b"=C3",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"Content-Type: multipart/x; boundary=c\n\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"Content-Type: text/html; charset=utf-16\r\n",
        b"Content-Disposition: x; filename*0*=utf-8''%C3\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n",
        b"Content-ID: <\r\n", b"begin 6 a\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30), st.integers(0, 3), st.integers(0, 5), st.integers(0, 9))
def test_no_mail_is_an_error(pieces: list[bytes], depth: int, count: int, size: int) -> None:
    raw = b"".join(pieces)
    for messages in (False, True):
        parts = parts_of(raw, max_depth=depth, max_parts=count, max_size=size, messages=messages)
        assert 1 <= len(parts) <= max(count, 1) + 1
        assert (parts.truncated is None) == all(part.beyond is None for part in parts)
        for part in parts.walk():
            assert part.size == len(part.raw) == part.raw.nbytes
            assert len(part.content) <= size
            assert part.content_type.count("/") == 1
            assert part.text is not None
            assert not {*"\r\n\0"} & {*(part.filename or "")}
            assert len(part.path) <= depth + 1
            assert isinstance(part.parameters, dict)
            assert (part.charset, part.content_id, part.disposition, part.header) is not None
