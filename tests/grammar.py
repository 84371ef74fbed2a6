"""The grammar of commands, for the model: RFC 5321 section 4.1.2, RFC 6531, and XCLIENT's.

What does not parse is `Refused`, with the replies that may be given to it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Final

Replies = tuple[str, ...]
"""One reply as the beginnings that it may have: its code, and its enhanced code if it has one."""

LONGEST_LINE: Final = 2_048
"""Octets of a command line with its CRLF; RFC 5321 section 4.5.3.1.4 asks for 512 and more for each
extension."""
LONGEST_LOCAL: Final = 128
LONGEST_HOST: Final = 255
LONGEST_PATH: Final = 256
"""With its brackets: sections 4.5.3.1.1 to 4.5.3.1.3, with a local part of twice the 64."""

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL: Final = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\]|\\.)*")'
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # RFC 1035 section 2.3.4
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_HOST: Final = rf"(?:{_DOMAIN}\.?|\[[^\]\[<>\s]*\])"
_ROUTE: Final = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_FORM: Final = rf" ?<(?:({_ROUTE})({_LOCAL})@({_HOST})|(postmaster)|())>"
_PATH: Final = re.compile(_FORM, re.IGNORECASE)
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\xa1-\U0010ffff]+))?")


def _beyond(form: str) -> str:
    """A form with letters beyond ASCII wherever it has letters: RFC 6531 section 3.3."""
    return form.replace("[A-Z", "[\xa1-\U0010ffffA-Z").replace(r"(?:[^", r"(?:[^\x80-\xa0")


_PATH_UTF8: Final = re.compile(_beyond(_FORM), re.IGNORECASE)
_DOMAIN_UTF8: Final = re.compile(_beyond(_DOMAIN))

SYNTAX: Final = ("501 5.5.4 ",)
NOT_ASCII: Final = ("553 5.6.7 ",)
TOO_LONG: Final = ("550 5.5.4 ",)


class Refused(Exception):  # a reply, not a fault
    """A command that is not obeyed; it changes nothing."""

    def __init__(self, *starts: str) -> None:
        super().__init__(starts)
        self.reply: Replies = starts


def is_bad(line: bytes) -> bool:
    """Controls, among them bare CR and LF, are no part of a command."""
    return len(line) + 2 > LONGEST_LINE or any(octet < 32 or octet == 127 for octet in line)


def in_utf8(text: str) -> str:
    """What was read as Latin-1, as UTF-8: none of it may be anything else."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        # Or what is wrong before that.
        raise Refused(*SYNTAX, *TOO_LONG, "555 5.5.4 ") from None


def path_of(argument: str, word: str, utf8: bool) -> tuple[tuple[str, str] | None, str]:
    """Local part and host, None for <Postmaster>; and what stands behind the path."""
    if argument[: len(word)].upper() != word:
        raise Refused(*SYNTAX)
    found = (_PATH_UTF8 if utf8 else _PATH).match(argument, len(word))
    is_ascii = found is None or utf8 or found[0].isascii()
    if found is None or not is_ascii or not all(map(_may_be_host, _hosts_of(found))):
        raise Refused(*_why_no_path(argument, len(word), utf8))
    _, local, host, postmaster, _ = found.groups()
    rest = argument[found.end() :]
    if rest and not rest.startswith(" "):
        raise Refused(*SYNTAX)
    if postmaster:
        return None, rest
    if local is None:
        return ("", ""), rest
    too_long = _octets(found[0].strip()) > LONGEST_PATH or _octets(local) > LONGEST_LOCAL
    if too_long or any(_octets(one) > LONGEST_HOST for one in _hosts_of(found)):
        raise Refused(*TOO_LONG)
    return (_shortest(local), host), rest


def _hosts_of(path: re.Match[str]) -> list[str]:
    route = [host.removeprefix("@") for host in (path[1] or "").rstrip(":").split(",") if host]
    return [*route, path[3]] if path[3] else route


def _octets(text: str) -> int:
    return len(text.encode())


def _may_be_host(text: str) -> bool:
    """However long; what is not ASCII by its letters, none of which here is anything to IDNA."""
    return is_host(text, 10_000) or (not text.isascii() and bool(_DOMAIN_UTF8.fullmatch(text)))


def _why_no_path(argument: str, begin: int, utf8: bool) -> Replies:
    """Which of several problems is told first is the server's affair."""
    if utf8:
        return (*SYNTAX, *(TOO_LONG if _octets(argument) > LONGEST_LOCAL else ()))
    ascii_ = "".join(one if one.isascii() else "a" for one in argument)
    found = _PATH.match(ascii_, begin)
    path = argument[begin : found.end() if found else None]
    if found and not path.isascii() and all(is_host(host, 10_000) for host in _hosts_of(found)):
        return NOT_ASCII  # SMTPUTF8 is all that is missing
    not_ascii = () if path.isascii() else NOT_ASCII
    return (*SYNTAX, *not_ascii, *(TOO_LONG if len(path) > LONGEST_LOCAL else ()))


def _shortest(local: str) -> str:
    """A quoted local part without the quotes that it does not need: both name one mailbox."""
    if not local.startswith('"'):
        return local
    plain = re.sub(r"\\(.)", r"\1", local[1:-1])
    if re.fullmatch(_beyond(rf"{_ATOM}(\.{_ATOM})*"), plain):
        return plain
    return '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


def checked(text: str, known: dict[str, str], utf8: bool) -> dict[str, str]:
    """The parameters behind a path, each behind a space (section 4.1.1.11)."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for word in filter(None, text.split(" ")):
        found = _PARAMETER.fullmatch(word)
        if found is None or not (utf8 or word.isascii()):
            problems += SYNTAX
            continue
        name, value = found[1].upper(), found[2] or ""
        if name in values:
            problems += SYNTAX
        elif name not in known:
            problems.append("555 5.5.4 ")
        elif not re.fullmatch(known[name], value):
            problems += SYNTAX
        values[name] = value
    if problems:
        raise Refused(*problems)
    return values


_XTEXT: Final = re.compile(
    r"([!-*,-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+"
)  # RFC 3461 section 4; no controls
_ATTRIBUTES: Final[dict[str, Callable[[str], object]]] = {
    "NAME": lambda text: re.fullmatch(_DOMAIN, text),
    "ADDR": lambda text: is_ip(text, 4) or (text[:5].upper() == "IPV6:" and is_ip(text[5:], 6)),
    "PORT": lambda text: re.fullmatch(r"\d+", text) and int(text) < 65_536,
    "PROTO": lambda text: text.upper() in ("SMTP", "ESMTP"),
    "HELO": lambda text: len(text) <= LONGEST_HOST,
    "LOGIN": lambda text: len(text) <= 255,
}


def attributes(argument: str) -> dict[str, str | None]:
    """What an XCLIENT says, by its attributes; None for what its proxy does not know."""
    said: dict[str, str | None] = {}
    for word in filter(None, argument.split(" ")):
        name, _, value = word.partition("=")
        name = name.upper()
        unknown = value.upper() in ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
        text = (
            re.sub(r"\+(..)", lambda hex_: chr(int(hex_[1], 16)), value)
            if (_XTEXT.fullmatch(value))
            else ""
        )
        good = text and name in _ATTRIBUTES and (unknown or _ATTRIBUTES[name](text))
        if not good or name in said:
            raise Refused(*SYNTAX)
        said[name] = None if unknown else text
    if not said:
        raise Refused(*SYNTAX)
    return said


def is_host(text: str, longest: int = LONGEST_HOST) -> bool:
    if text.startswith("["):
        inner = text[1:-1] if text.endswith("]") else ""
        is_six = inner[:5].upper() == "IPV6:"
        return is_ip(inner[5:], 6) if is_six else is_ip(inner, 4)
    return len(text) <= longest and re.fullmatch(rf"{_DOMAIN}\.?", text) is not None


def is_ip(text: str, *versions: int) -> bool:
    with contextlib.suppress(ValueError):
        return "%" not in text and ipaddress.ip_address(text).version in (versions or (4, 6))
    return False


def matches(host: str, pattern: str) -> bool:
    is_literal = host.startswith("[") or pattern.startswith("[")
    host, pattern = host.lower(), pattern.lower()
    return host == pattern if is_literal else fnmatch(host, pattern)
