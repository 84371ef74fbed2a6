"""What is sent: messages made to a size or to sizes of a range, or those of a folder."""

from __future__ import annotations

import email.utils
import os
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla.errors import GuerrillaError
from guerrilla.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MailsError", "Sizes", "header", "parse_sizes"]

MAX_SIZE: Final = 1 << 30
"""Octets of a message: more than any mail server takes."""
MAX_FILES: Final = 10_000
"""Messages of a folder, which are held in memory."""
MAX_OCTETS: Final = 256 << 20
"""Octets of them all."""

_NUMBER: Final = "0" * 12
"""Stands in the header section where the core writes the number of a message, as long as this."""
_SHORT: Final = re.compile(r"([0-9]{1,9})([km])i?b?", re.IGNORECASE)
"""As mail servers write sizes: by 1,024."""
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_FORMS: Final = "a size as 4k, a range as 1k-100k, or a folder with .eml files"


class MailsError(GuerrillaError, ValueError):
    """There is nothing of this kind to send; a line for a person."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What messages are to be like.

    Attributes:
        text: how it was asked for.
        least: octets of the smallest one.
        most: octets of the largest one.
        mails: what is sent in place of made messages.
    """

    text: str
    least: int
    most: int
    mails: tuple[bytes, ...] = ()


def parse_sizes(text: str) -> Sizes:
    """Reads `4k`, `1k-100k`, or the messages of a folder.

    Raises:
        MailsError: it is none of these, or the folder has nothing to send.
        OSError: a file of the folder cannot be read.
    """
    if os.path.isdir(text):
        return _of_folder(text)
    if os.sep in text or text.endswith(".eml"):
        msg = f"{text!r} is no folder; expected {_FORMS}"
        raise MailsError(msg)
    least, dash, most = text.partition("-")
    sizes = Sizes(text, _size(least, text), _size(most if dash else least, text))
    if sizes.least > sizes.most:
        msg = f"{text!r}: the range begins with the smaller size"
        raise MailsError(msg)
    if sizes.most > MAX_SIZE:
        msg = f"{text!r}: a message has at most 1 GiB"
        raise MailsError(msg)
    return sizes


def header(sender: str, recipient: str, sizes: Sizes) -> list[bytes]:
    """The header section of made messages, in the pieces between which their number stands.

    Raises:
        MailsError: the smallest message has no room for it.
    """
    lines = (
        f"Date: {email.utils.formatdate(time.time())}",
        f"From: <{sender}>" if sender else "From: bench:;",
        f"To: <{recipient}>",
        f"Subject: Message {_NUMBER} of guerrillad bench",
        f"Message-ID: <{_NUMBER}.{secrets.token_hex(6)}x@bench.invalid>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "",
    )
    text = "\r\n".join(lines).encode()
    least = len(text) + 2  # with an empty line as its body
    if not sizes.mails and sizes.least < least:
        msg = f"--size: {sizes.text}: at least {least} octets, as the header section takes so many"
        raise MailsError(msg)
    first, second, rest = text.split(_NUMBER.encode(), 2)
    return [first, second, rest]


def _size(text: str, whole: str) -> int:
    short = _SHORT.fullmatch(text.strip())
    if short is not None:
        return int(short[1]) << (10 if short[2].lower() == "k" else 20)
    try:
        return parse_bytes(text)
    except ValueError as error:
        msg = f"{whole!r}: expected {_FORMS}"
        raise MailsError(msg) from error


def _of_folder(folder: str) -> Sizes:
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".eml"))
    if not names:
        msg = f"{folder}: there is no .eml file in it"
        raise MailsError(msg)
    if len(names) > MAX_FILES:
        msg = f"{folder}: {len(names):,} .eml files, and at most {MAX_FILES:,} are held in memory"
        raise MailsError(msg)
    mails = _read([os.path.join(folder, name) for name in names])
    sizes = [len(mail) for mail in mails]
    return Sizes(folder, min(sizes), max(sizes), mails)


def _read(paths: Sequence[str]) -> tuple[bytes, ...]:
    mails = []
    left = MAX_OCTETS
    for path in paths:
        with open(path, "rb") as file:
            mail = file.read(left + 1)
        left -= len(mail)
        if left < 0:
            msg = f"{os.path.dirname(path)}: over 256 MiB of .eml files, which are held in memory"
            raise MailsError(msg)
        # As it has to be on its way; a lone CR or LF would be taken for what it is not.
        mails.append(_LINE_END.sub(b"\r\n", mail))
    return tuple(mails)
