"""The parts of every mail of the corpus, as Python's `email` finds and decodes them.

Two readers written by different people agree, but for what is listed here, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from itertools import zip_longest
from pathlib import Path
from typing import Final

from guerrilla import Envelope
from tests.corpora import as_sent, corpus

OURS: Final = Path(__file__).parent / "corpus"
DEEPEST: Final = 100

HEADER: Final = (
    "what is no field is in the header of the message, as in `header`; Python ends it there"
)
NAMES: Final = "a name is as its sender meant it: RFC 2231 first, else RFC 2047, else UTF-8"
DIFFERENCES: Final = {
    "attachment-filename-both-forms": NAMES,
    "attachment-filename-raw-utf8": NAMES,
    "bom-at-start": HEADER,
    "dot-message-only": HEADER,
    "dot-message-only-crlf": HEADER,
    "dot-message-two-crlf": HEADER,
    "encoded-word-in-filename": NAMES,
    "fold-8bit-whitespace": HEADER,
    "header-first-line-without-colon": HEADER,
    "header-last-line-without-colon": HEADER,
    "header-line-without-colon": HEADER,
    "header-name-8bit": HEADER,
    "header-name-with-space": HEADER,
    "header-no-empty-line-before-body": HEADER,
    "header-nul-in-name": HEADER,
    "header-space-before-colon": HEADER,
    "header-tab-before-colon": HEADER,
    "mbox-quoted-from-first-line": HEADER,
    "mime-content-type-comments": "a comment is none of the type",
    "mime-cut-in-boundary": "the last line end is kept where no delimiter comes behind it",
    "mime-empty-boundary": "an empty boundary is none (RFC 2046, section 5.1.1)",
    "mime-empty-parts": "three delimiters begin three parts; Python passes over one",
    "mime-nested-500-deep": f"no deeper than {DEEPEST}",
    "mime-no-closing-boundary": "the last line end is kept where no delimiter comes behind it",
    "mime-no-parts": "the body of what has no parts is there",
    "mime-same-boundary-nested": "the inner multipart has its own parts",
    "no-headers-body-only": HEADER,
    "only-one-character": HEADER,
    "qp-bad": "blanks at the end of a line are dropped, also behind a soft line break",
    "qp-trailing-space": "blanks at the end of a line are dropped (RFC 2045, section 6.7)",
    "utf16-whole-message": HEADER,
}
"""Why the parts of a mail differ."""

Leaf = tuple[tuple[int, ...], str, str | None, bytes | None]


def python_leaves(
    message: Message, path: tuple[int, ...] = (), *, root: bool = True
) -> Iterator[Leaf]:
    """Path, type, name and content; of what Python makes parts of and IMAP does not, no content."""
    kind = message.get_content_maintype()
    if kind == "multipart" and message.is_multipart():
        for number, part in enumerate(_parts(message), 1):
            yield from python_leaves(part, (*path, number), root=False)
    elif (
        message.get_content_type() == "message/rfc822"
        and message.is_multipart()
        and _plain(message)
    ):
        here = (*path, 1) if root else path
        yield from python_leaves(_parts(message)[0], here)
    else:
        content = None if message.is_multipart() else message.get_payload(decode=True)
        assert content is None or isinstance(content, bytes)
        here = (*path, 1) if root else path
        yield here, message.get_content_type(), message.get_filename() or None, content


def _parts(message: Message) -> list[Message]:
    parts = message.get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message)]


def _plain(message: Message) -> bool:
    encoding = str(message.get("Content-Transfer-Encoding", "7bit"))
    return encoding.lower() in {"7bit", "8bit", "binary"}


def differences(path: Path) -> list[tuple[Leaf | None, Leaf | None]]:
    """What is found here, and by Python, where that is not the same."""
    raw = as_sent(path.read_bytes())
    parts = Envelope.create(raw).parts(max_depth=DEEPEST, max_parts=10_000, messages=True)
    found = [(part.path, part.content_type, part.filename, part.content) for part in parts]
    expected = python_leaves(message_from_bytes(raw))
    return [
        (one, other)
        for one, other in zip_longest(found, expected)
        if one is None or other is None or not _agree(one, other)
    ]


def _agree(found: Leaf, expected: Leaf) -> bool:
    return found[:3] == expected[:3] and expected[3] in {None, found[3]}


def test_mails_whose_parts_differ_from_those_of_python_are_listed() -> None:
    differ = {path.stem for path in corpus() if path.parent == OURS and differences(path)}
    assert differ == set(DIFFERENCES)


def test_of_every_mail_parts_are_octets_of_it_in_order_and_text(
    record_property: Callable[[str, object], None],
) -> None:
    for path in corpus():
        raw = as_sent(path.read_bytes())
        for messages in (False, True):
            parts = Envelope.create(raw).parts(messages=messages)
            end = 0
            for part in parts:
                found = raw.index(bytes(part.raw), end) if part.size else end
                end = found + part.size
                part.text.encode()  # no lone surrogates
                assert len(part.content) <= part.size
                assert part.is_truncated is False
            others = [part for part in (parts.text_part, parts.html_part) if part is not None]
            assert len(parts) == len(others) + len(parts.attachments), path.name
        differ = differences(path)
        if path.parent != OURS and differ:
            # Nobody has looked at these mails: a difference is to be read, not a failure.
            record_property(f"parts differ from Python's: {path}", differ)
