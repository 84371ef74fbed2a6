"""What a receiver of mail has to answer and to store, written from RFC 5321 and the documentation.

A `Model` is fed the octets of a client, in any pieces, and says which replies are due and which
messages are stored. It has no socket and no clock, and shares no code with the server: the two are
compared by test_dialogues.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Final, NamedTuple

Replies = tuple[str, ...]
"""One reply as the beginnings that it may have: its code, and its enhanced code if it has one."""

LONGEST_LINE: Final = 1_024
"""Octets of a command line with its CRLF; RFC 5321 section 4.5.3.1.4 asks for 512 at least."""
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
_PATH: Final = re.compile(rf" ?<(?:({_ROUTE})({_LOCAL})@({_HOST})|(postmaster)|())>", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")

_SYNTAX: Final = ("501 5.5.4 ",)
_SEQUENCE: Final = ("503 5.5.1 ",)
_NOT_ASCII: Final = ("553 5.6.7 ",)
_TOO_LONG: Final = ("550 5.5.4 ",)
_TOO_LARGE: Final = ("552 5.3.4 ",)
_MAIL_OK: Final = ("250 2.1.0 ",)
_STORED: Final = ("250 2.0.0 OK: queued as ",)


class Policy(NamedTuple):
    """The settings of a server that a dialogue can meet, by their names."""

    bare_newline: str = "fix"
    helo_required: bool = True
    max_size: int = 10_000
    max_recipients: int = 3
    max_errors: int = 5
    max_idle_commands: int = 8
    allowed_hosts: tuple[str, ...] = ("example.com", "*.example.net", "[127.0.0.1]")
    host_name: str = "mx.example.com"


class Message(NamedTuple):
    """What is stored: once for each recipient, in whatever order."""

    helo: str
    """As its `Received:` names the client."""
    return_path: str
    recipients: frozenset[str]
    octets: bytes


class Refused(Exception):  # a reply, not a fault
    """A command that is not obeyed; it changes nothing."""

    def __init__(self, *starts: str) -> None:
        super().__init__(starts)
        self.reply: Replies = starts


class Model:
    """One session."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.replies: list[Replies] = [("220 ",)]
        """All that are due, in order; the greeting is the first."""
        self.stored: dict[int, Message] = {}
        """The messages that are accepted, by the index of the reply that says so."""
        self.closed = False
        """The session is over: whatever the client says now is not obeyed."""
        self._unread = b""
        self._receiving = False
        self._helo: str | None = None
        self._errors = self._idle = 0
        self._reset()

    def feed(self, octets: bytes) -> None:
        """The client sends more."""
        self._unread += octets
        while not self.closed and (self._end_of_data() if self._receiving else self._line()):
            pass

    @property
    def early(self) -> list[Replies]:
        """A reply that may come already: a line without its end so far that can only be bad."""
        if self.closed or self._receiving or not _is_bad(self._unread.removesuffix(b"\r")):
            return []
        return [("500 5.5.2 ", "421 4.7.0 ")]

    # --- Lines ------------------------------------------------------------------------------------

    def _line(self) -> bool:
        line, end, rest = self._unread.partition(b"\r\n")
        if not end:
            return False
        self._unread = rest
        try:
            reply = self._obey(line)
        except Refused as refused:
            reply = refused.reply
            self._errors += reply[0].startswith("500")
            if reply[0].startswith("500") and self._errors == self.policy.max_errors:
                reply, self.closed = ("421 4.7.0 ",), True
        self.replies.append(reply)
        return True

    def _obey(self, line: bytes) -> Replies:
        if _is_bad(line):
            raise Refused("500 5.5.2 ")
        verb, _, argument = line.decode("latin-1").rstrip(" ").partition(" ")
        obey = self._verbs().get(verb.upper())
        if obey is None:
            raise Refused("500 5.5.1 ")
        return obey(argument)

    def _verbs(self) -> dict[str, Callable[[str], Replies]]:
        return {
            "HELO": self._hello,
            "EHLO": self._hello,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "QUIT": self._quit,
            "RSET": lambda argument: self._no_mail(_MAIL_OK, _none(argument), self._reset),
            "NOOP": lambda _: self._no_mail(("250 2.0.0 ",)),
            "HELP": lambda _: self._no_mail(("214 2.0.0 ",)),
            "VRFY": lambda argument: self._no_mail(("252 2.5.0 ",), bool(argument)),
        }

    def _no_mail(
        self, reply: Replies, good: bool = True, then: Callable[[], None] = lambda: None
    ) -> Replies:
        """A command that brings no mail nearer: too many in a row end the session."""
        if not good:
            raise Refused(*_SYNTAX)
        self._idle += 1
        if self._idle > self.policy.max_idle_commands > 0:
            self.closed = True
            return ("421 4.7.0 ",)
        then()
        return reply

    # --- Commands ---------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._relay_denied = False

    def _hello(self, argument: str) -> Replies:
        """RFC 5321 section 4.1.1.1; it resets as RSET does (section 4.1.4)."""
        argument = argument.strip(" ")  # more spaces than one are tolerated

        def begin() -> None:
            self._reset()
            # An IPv6 address without brackets is no word that could stand in a `Received:`.
            self._helo = argument if argument.startswith("[") else argument.replace(":", "?")

        # An address without brackets is tolerated.
        return self._no_mail(("250 ",), _is_host(argument) or _is_ip(argument), begin)

    def _mail(self, argument: str) -> Replies:
        path, parameters = _path_of(argument, "FROM:")
        if path is None:
            raise Refused(*_SYNTAX)  # <Postmaster> is nobody's return path
        size = _checked(parameters, {"SIZE": r"\d{1,20}", "BODY": r"(?i)7BIT|8BITMIME"}).get("SIZE")
        if self._helo is None and self.policy.helo_required:
            raise Refused(*_SEQUENCE)
        if self._sender is not None:
            raise Refused(*_SEQUENCE)
        if size is not None and int(size) > self.policy.max_size:
            raise Refused(*_TOO_LARGE)
        self._sender, self._idle = "@".join(filter(None, path)), 0
        return _MAIL_OK

    def _rcpt(self, argument: str) -> Replies:
        path, parameters = _path_of(argument, "TO:")
        if path == ("", ""):
            raise Refused(*_SYNTAX)  # the null path receives nothing
        _checked(parameters, {})
        if self._sender is None:
            raise Refused(*_SEQUENCE)
        if len(self._recipients) >= self.policy.max_recipients:
            raise Refused("452 4.5.3 ")
        if path is None:  # section 4.5.1: whatever the hosts are
            name = argument[argument.index("<") + 1 : argument.index(">")]
            path = (name, self.policy.host_name)
        elif not any(_matches(path[1], pattern) for pattern in self.policy.allowed_hosts):
            self._relay_denied = True
            raise Refused("550 5.7.1 ")
        self._recipients.append("@".join(path))
        return ("250 2.1.5 ",)

    def _data(self, argument: str) -> Replies:
        if argument:
            raise Refused(*_SYNTAX)
        if self._sender is None:
            raise Refused(*_SEQUENCE)
        if not self._recipients:
            raise Refused(*(("554 5.5.1 ",) if self._relay_denied else _SEQUENCE))
        self._receiving = True
        return ("354 ",)

    def _quit(self, argument: str) -> Replies:
        if argument:
            raise Refused(*_SYNTAX)
        self.closed = True
        return ("221 2.0.0 ",)

    # --- Messages ---------------------------------------------------------------------------------

    def _end_of_data(self) -> bool:
        """Only CRLF.CRLF ends a message, and DATA itself ended by CRLF (section 4.1.1.4)."""
        before, end, rest = (b"\r\n" + self._unread).partition(b"\r\n.\r\n")
        if not end:
            return False
        self._unread, self._receiving = rest, False
        message = (before + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]  # section 4.5.2
        bare = _BARE.search(message) is not None
        if self.policy.bare_newline == "fix":
            message = _BARE.sub(b"\r\n", message)
        refusals: list[str] = []
        if len(message) > self.policy.max_size:
            refusals += _TOO_LARGE
        if bare and self.policy.bare_newline == "reject":
            refusals += ["554 5.6.0 "]
        if not refusals:
            sender, recipients = self._sender or "", frozenset(self._recipients)
            self.stored[len(self.replies)] = Message(
                self._helo or "unknown", sender, recipients, message
            )
        self.replies.append(tuple(refusals) or _STORED)
        self._reset()
        return True


# --- Grammar (section 4.1.2) ----------------------------------------------------------------------


def _is_bad(line: bytes) -> bool:
    """Controls, among them bare CR and LF, are no part of a command."""
    return len(line) + 2 > LONGEST_LINE or any(octet < 32 or octet == 127 for octet in line)


def _none(argument: str) -> bool:
    return not argument


def _path_of(argument: str, word: str) -> tuple[tuple[str, str] | None, str]:
    """Local part and host, None for <Postmaster>; and what stands behind the path."""
    if argument[: len(word)].upper() != word:
        raise Refused(*_SYNTAX)
    found = _PATH.match(argument, len(word))
    if found is None or not all(_is_host(host, 10_000) for host in _hosts_of(found)):
        raise Refused(*_why_no_path(argument, len(word)))
    _, local, host, postmaster, _ = found.groups()
    rest = argument[found.end() :]
    if rest and not rest.startswith(" "):
        raise Refused(*_SYNTAX)
    if postmaster:
        return None, rest
    if local is None:
        return ("", ""), rest
    too_long = len(found[0].strip()) > LONGEST_PATH or len(local) > LONGEST_LOCAL
    if too_long or any(len(one) > LONGEST_HOST for one in _hosts_of(found)):
        raise Refused(*_TOO_LONG)
    return (_shortest(local), host), rest


def _hosts_of(path: re.Match[str]) -> list[str]:
    route = [host.removeprefix("@") for host in (path[1] or "").rstrip(":").split(",") if host]
    return [*route, path[3]] if path[3] else route


def _why_no_path(argument: str, begin: int) -> Replies:
    """Which of several problems is told first is the server's affair."""
    ascii_ = "".join(one if one.isascii() else "a" for one in argument)
    found = _PATH.match(ascii_, begin)
    path = argument[begin : found.end() if found else None]
    if found and not path.isascii() and all(_is_host(host, 10_000) for host in _hosts_of(found)):
        return _NOT_ASCII  # RFC 6531, which is not offered, is all that is missing
    not_ascii = () if path.isascii() else _NOT_ASCII
    return (*_SYNTAX, *not_ascii, *(_TOO_LONG if len(path) > LONGEST_LOCAL else ()))


def _shortest(local: str) -> str:
    """A quoted local part without the quotes that it does not need: both name one mailbox."""
    if not local.startswith('"'):
        return local
    plain = re.sub(r"\\(.)", r"\1", local[1:-1])
    if re.fullmatch(rf"{_ATOM}(\.{_ATOM})*", plain):
        return plain
    return '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


def _checked(text: str, known: dict[str, str]) -> dict[str, str]:
    """The parameters behind a path, each behind a space (section 4.1.1.11)."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for word in text.split():
        found = _PARAMETER.fullmatch(word)
        if found is None:
            problems += _SYNTAX
            continue
        name, value = found[1].upper(), found[2] or ""
        if name in values:
            problems += _SYNTAX
        elif name not in known:
            problems.append("555 5.5.4 ")
        elif not re.fullmatch(known[name], value):
            problems += _SYNTAX
        values[name] = value
    if problems:
        raise Refused(*problems)
    return values


def _is_host(text: str, longest: int = LONGEST_HOST) -> bool:
    if text.startswith("["):
        inner = text[1:-1] if text.endswith("]") else ""
        is_six = inner[:5].upper() == "IPV6:"
        return _is_ip(inner[5:], 6) if is_six else _is_ip(inner, 4)
    return len(text) <= longest and re.fullmatch(rf"{_DOMAIN}\.?", text) is not None


def _is_ip(text: str, *versions: int) -> bool:
    with contextlib.suppress(ValueError):
        return "%" not in text and ipaddress.ip_address(text).version in (versions or (4, 6))
    return False


def _matches(host: str, pattern: str) -> bool:
    is_literal = host.startswith("[") or pattern.startswith("[")
    host, pattern = host.lower(), pattern.lower()
    return host == pattern if is_literal else fnmatch(host, pattern)
