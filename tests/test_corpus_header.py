"""The header and the Subject of every mail of the corpus, as Python's `email` reads them.

Two readers written by different people agree, but for what is listed here, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.errors import HeaderParseError
from email.header import decode_header
from email.parser import BytesHeaderParser
from email.policy import compat32
from pathlib import Path
from typing import Final

from guerrilla._core import Envelope
from tests.corpora import as_sent, corpus

OURS: Final = Path(__file__).parent / "corpus"

STOPS: Final = "Python ends the header section at a line that is no field; here it is kept, unnamed"
DROPS: Final = "Python passes over a line that is no field; here it is kept, unnamed"
BLANKS: Final = "Python takes blanks before the colon (RFC 5322, section 4.5) for the body's start"

HEADER_DIFFERENCES: Final = {
    "bom-at-start": STOPS,
    "dot-message-only": STOPS,
    "dot-message-only-crlf": STOPS,
    "dot-message-two-crlf": STOPS,
    "fold-8bit-whitespace": STOPS,
    "fold-first-line": DROPS,
    "header-first-line-without-colon": STOPS,
    "header-last-line-without-colon": STOPS,
    "header-line-without-colon": STOPS,
    "header-name-8bit": STOPS,
    "header-name-empty": DROPS,
    "header-name-with-space": STOPS,
    "header-no-empty-line-before-body": STOPS,
    "header-nul-in-name": STOPS,
    "header-space-before-colon": BLANKS,
    "header-tab-before-colon": BLANKS,
    "mbox-from-first-line": DROPS,
    "mbox-quoted-from-first-line": STOPS,
    "no-headers-body-only": STOPS,
    "only-one-character": STOPS,
    "only-spaces": DROPS,
    "utf16-whole-message": STOPS,
}
"""Why the fields of a mail differ."""

SUBJECT_DIFFERENCES: Final = {
    "charset-iso-2022-jp-kana-subject": "Python's iso-2022-jp has no half-width katakana",
    "charset-iso-2022-jp-nec-subject": "Python's iso-2022-jp has no row 13",
    "encoded-word-bad-base64": "what is no base64 stays as sent; Python drops the wrong bytes",
    "encoded-word-base64-bad-length": "what is no base64 stays as sent; Python gives up",
    "encoded-word-base64-padding-inside": "joined pieces are decoded; Python stops after one",
    "encoded-word-base64-url-alphabet": "the URL alphabet is not mail's; Python drops - and _",
    "encoded-word-empty-charset": "a word without a charset stays as sent; Python gives up",
    "encoded-word-missing-end-then-good": "the end is of the word opened last",
    "encoded-word-raw-8bit": "bytes stay bytes; Python makes latin-1 of them",
    "encoded-word-space-in-charset": "no word has a space in its charset; Python trims it",
    "encoded-word-unknown-charset": "a word in an unknown charset stays; Python gives up",
    "encoded-word-unknown-charset-between": "its neighbours are decoded; Python gives up",
}
"""Why the decoded Subject of a mail differs."""

CHARSETS: Final = {
    "big5": "big5hkscs",
    "euc-kr": "cp949",
    "gb2312": "gb18030",
    "iso-8859-1": "cp1252",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-9": "cp1254",
    "ks_c_5601-1987": "cp949",
    "shift_jis": "cp932",
    "us-ascii": "cp1252",
    "utf-8": "utf-8-sig",
    "windows-874": "cp874",
    "x-sjis": "cp932",
}
"""Python's name of what a charset is in mail: mostly a superset that has taken over the name."""

EMPTY_LINE: Final = re.compile(rb"(\A|\r\n)\r\n")
FOLD: Final = re.compile(rb"[\r\n]+(?=[ \t])")


def python_fields(message: bytes) -> list[tuple[str, str]]:
    """Unfolded and trimmed as here: Python leaves that to the policies that also change values."""
    parsed = BytesHeaderParser(policy=compat32).parsebytes(message)
    fields = []
    for name, value in parsed.raw_items():
        raw = str(value).encode("utf-8", "surrogateescape")
        fields.append((name, text(FOLD.sub(b"", raw).strip(b" \t\r\n"))))
    return fields


def python_subject(value: str) -> str | None:
    """RFC 2047 decoded with this module's charsets, on one line; None where Python gives up."""
    decoded = ""
    try:
        for part, label in decode_header(value):
            if isinstance(part, str):
                decoded += part
            elif label is None:
                decoded += part.decode("raw-unicode-escape")
            else:
                charset = label.partition("*")[0]
                decoded += part.decode(CHARSETS.get(charset, charset), "replace")
    except (HeaderParseError, LookupError):
        return None
    return re.sub(r"[\r\n\0]", " ", decoded)


def text(raw: bytes) -> str:
    """UTF-8 or windows-1252, which on the web has C1 controls where Python has no characters."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        known = (bytes([byte]).decode("cp1252", "replace") for byte in raw)
        pairs = zip(raw, known, strict=True)
        return "".join(chr(byte) if char == "\ufffd" else char for byte, char in pairs)


def read(path: Path) -> Envelope:
    return Envelope.create(as_sent(path.read_bytes()))


def subjects_agree(path: Path) -> bool:
    """From the same value on both sides: whether that is found is what the fields' tests show."""
    envelope = read(path)
    return envelope.subject == python_subject(envelope.header.get("Subject") or "")


def fields_agree(path: Path) -> bool:
    envelope = read(path)
    return envelope.header.items() == python_fields(bytes(envelope.data))


def test_fields_begin_with_those_that_python_finds() -> None:
    found = 0
    for path in corpus():
        envelope = read(path)
        named = [(name, value) for name, value in envelope.header.items() if name]
        expected = python_fields(bytes(envelope.data))
        assert named[: len(expected)] == expected, path.name
        found += len(expected)
    assert found > len(corpus())


def test_mails_whose_fields_differ_from_those_of_python_are_listed() -> None:
    differ = {path.stem for path in corpus() if path.parent == OURS and not fields_agree(path)}
    assert differ == set(HEADER_DIFFERENCES)


def test_mails_whose_subject_differs_from_that_of_python_are_listed() -> None:
    differ = {path.stem for path in corpus() if path.parent == OURS and not subjects_agree(path)}
    assert differ == set(SUBJECT_DIFFERENCES)


def test_subject_is_one_line_of_text(record_property: Callable[[str, object], None]) -> None:
    for path in corpus():
        subject = read(path).subject
        assert not set("\r\n\0") & set(subject), path.name
        subject.encode()  # no lone surrogates
        if path.parent != OURS and not subjects_agree(path):
            # Nobody has looked at these mails: a difference is to be read, not a failure.
            record_property(f"subject differs from Python's: {path}", subject)


def test_offset_of_the_body_is_after_the_first_empty_line() -> None:
    for path in corpus():
        message = as_sent(path.read_bytes())
        end = EMPTY_LINE.search(message)
        expected = message if end is None else message[: end.end()]
        assert bytes(Envelope.create(message).header_data) == expected, path.name
