"""The mails that tests send: as files, on the wire, and as a receiver stores them."""

from __future__ import annotations

import os
import re
from pathlib import Path

EXTRA_CORPUS = "GUERRILLA_EXTRA_CORPUS"
"""Environment variable naming a folder of more mails to read beside `tests/corpus`."""

_CORPUS = Path(__file__).parent / "corpus"
_CRLF = b"\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")
# Only after a real CRLF: a receiver takes a dot away nowhere else (RFC 5321, section 4.5.2).
_LEADING_DOT = re.compile(rb"(\A|\r\n)\.")


def corpus() -> list[Path]:
    """List the mails to test with.

    Returns:
        The `.eml` files of `tests/corpus`, sorted by name; then, when the environment variable
        `GUERRILLA_EXTRA_CORPUS` is set and not empty, every file at any depth of the folder it
        names, except hidden files and those whose names begin with `README`, sorted by path.

    Raises:
        FileNotFoundError: A folder holds no mail. A corpus that silently became empty would turn
            every test over it into one that cannot fail.
    """
    mails = _some(sorted(_CORPUS.glob("*.eml")), _CORPUS)
    if folder := os.environ.get(EXTRA_CORPUS):
        extra = Path(folder)
        files = (path for path in extra.rglob("*") if path.is_file())
        found = (path for path in files if not path.name.startswith((".", "README")))
        mails += _some(sorted(found), extra)
    return mails


def as_sent(raw: bytes) -> bytes:
    r"""Give what a receiver with `bare_newline = fix` stores when `raw` is sent to it.

    A message that does not end in CRLF first gets one, because the end of the data is CRLF dot
    CRLF (RFC 5321, section 4.1.1.4): an empty message becomes one CRLF, and one that ends in a bare
    LF or CR gains an empty line. Then each bare CR and each bare LF becomes CRLF; CRLF stays.
    `as_sent(as_sent(raw)) == as_sent(raw)`.

    To compare with `smtplib`, send `as_sent(raw)`: it delivers exactly that. `smtplib` converts
    line ends only of `str` messages, which must be ASCII; given `bytes` it sends bare newlines
    unchanged, adds the same final CRLF, and doubles a dot after a bare LF as well (its
    `_quote_periods` is `(?m)^\.`). A receiver undoes the doubling only after a real CRLF, so a
    `raw` that holds LF dot without a CR before it, sent as it is by `smtplib`, arrives with one dot
    more than `as_sent(raw)` has. `on_the_wire` has no such exception.

    Args:
        raw: The bytes of the mail's file.

    Returns:
        The message, every line ended with CRLF, without dot-stuffing.
    """
    return _LINE_END.sub(_CRLF, _ended(raw))


def on_the_wire(raw: bytes) -> bytes:
    """Give the bytes to send by hand after 354, the final dot included.

    Bare newlines stay as they are, so that the receiver's handling of them is what is tested; a
    receiver with `bare_newline = fix` stores `as_sent(raw)`, one with `keep` stores `raw` with the
    CRLF that is added here where `raw` does not end in one.

    Args:
        raw: The bytes of the mail's file.

    Returns:
        `raw` with the dot doubled that begins the message or follows CRLF (RFC 5321, section
        4.5.2), ended with CRLF dot CRLF.
    """
    return _LEADING_DOT.sub(rb"\1..", _ended(raw)) + b"." + _CRLF


def _ended(raw: bytes) -> bytes:
    return raw if raw.endswith(_CRLF) else raw + _CRLF


def _some(mails: list[Path], folder: Path) -> list[Path]:
    if not mails:
        message = f"no mails in {folder}"
        raise FileNotFoundError(message)
    return mails
