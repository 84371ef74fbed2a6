"""What a receiver of mail has to answer and to store, written from RFC 5321 and the documentation.

A `Model` is fed the octets of a client, in any pieces, and says which replies are due and which
messages are stored. It has no socket and no clock, and shares no code with the server: the two are
compared by test_dialogues.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.grammar import (
    NOT_ASCII,
    SYNTAX,
    Refused,
    Replies,
    attributes,
    checked,
    in_utf8,
    is_bad,
    is_host,
    is_ip,
    matches,
    path_of,
)

_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")

_BODY: Final = r"(?i)7BIT|8BITMIME|BINARYMIME"
_SEQUENCE: Final = ("503 5.5.1 ",)
_TOO_LARGE: Final = ("552 5.3.4 ",)
_MAIL_OK: Final = ("250 2.1.0 ",)
_XTEXT: Final = r"(?:[!-*,-<>-~]|\+[2-7][0-9A-F])"
_OF_MAIL: Final = {
    "SIZE": r"\d{1,20}",
    "BODY": _BODY,
    "SMTPUTF8": "",
    "RET": r"(?i)FULL|HDRS",
    "ENVID": _XTEXT + "{1,100}",
}
_OF_RCPT: Final = {
    "NOTIFY": r"(?i)NEVER|(SUCCESS|FAILURE|DELAY)(,(?!\1)(SUCCESS|FAILURE|DELAY))?",
    "ORCPT": rf"rfc822;{_XTEXT}{{1,493}}|utf-8;[!-\[\]-~\xa1-\U0010ffff]+",
}
"""The parameters, of which a `+` alone is no xtext (RFC 3461 section 4)."""
_STORED: Final = ("250 2.0.0 OK: queued as ",)
_UNCOUNTED: Final = ("421 4.5.4 ",)
"""A BDAT whose octets nobody can count: what follows it cannot be told from commands."""


class Policy(NamedTuple):
    """The settings of a server that a dialogue can meet, by their names."""

    bare_newline: str = "fix"
    helo_required: bool = True
    max_size: int = 10_000
    max_recipients: int = 3
    max_errors: int = 5
    max_idle_commands: int = 8
    max_messages: int = 0
    xclient_on: bool = False
    allowed_hosts: tuple[str, ...] = ("example.com", "*.example.net", "[127.0.0.1]")
    host_name: str = "mx.example.com"


class Message(NamedTuple):
    """What is stored: once for each recipient, in whatever order."""

    helo: str
    """As its `Received:` names the client."""
    return_path: str
    recipients: frozenset[str]
    octets: bytes


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
        self._chunk: tuple[int, bool] | None = None
        """Octets of a BDAT that is coming in, and whether it is the last."""
        self._helo: str | None = None
        self._proxied: str | None = None
        """What a proxy says that the client said in HELO."""
        self._spoke, self._believed = False, True
        """A proxy that has spoken for a client may pass on what that one says, from its mail on."""
        self._errors = self._idle = self._messages = 0
        self._reset()

    def feed(self, octets: bytes) -> None:
        """The client sends more."""
        self._unread += octets
        while not self.closed:
            if self._receiving:
                more = self._end_of_data()
            elif self._chunk is not None:
                more = self._end_of_chunk(*self._chunk)
            else:
                more = self._line()
            if not more:
                break

    @property
    def missing(self) -> int:
        """Octets that a chunk lacks: until they come nothing is a command."""
        return 0 if self._chunk is None else self._chunk[0] - len(self._unread)

    @property
    def early(self) -> list[Replies]:
        """A reply that may come already: a line without its end so far that can only be bad."""
        if self.closed or self._receiving or self._chunk is not None:
            return []
        if not is_bad(self._unread.removesuffix(b"\r")):
            return []
        if _may_be_bdat(self._unread):
            return [_UNCOUNTED]
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
        if reply is not None:
            self.replies.append(reply)
        return True

    def _obey(self, line: bytes) -> Replies | None:
        if is_bad(line) and _may_be_bdat(line):
            return self._uncounted()
        if is_bad(line):
            raise Refused("500 5.5.2 ")
        verb, _, argument = line.decode("latin-1").rstrip(" ").partition(" ")
        if verb.upper() == "BDAT":
            return self._bdat(argument)
        obey = self._verbs().get(verb.upper())
        if obey is None:
            raise Refused("500 5.5.1 ")
        return obey(argument)

    def _verbs(self) -> dict[str, Callable[[str], Replies]]:
        more = {"XCLIENT": self._xclient} if self.policy.xclient_on else {}
        return more | {
            "HELO": self._hello,
            "EHLO": self._hello,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "QUIT": self._quit,
            "RSET": lambda argument: self._no_mail(_MAIL_OK, not argument, self._reset),
            "NOOP": lambda _: self._no_mail(("250 2.0.0 ",)),
            "HELP": lambda _: self._no_mail(("214 2.0.0 ",)),
            "VRFY": lambda argument: self._no_mail(("252 2.5.0 ",), bool(argument)),
        }

    def _no_mail(
        self, reply: Replies, good: bool = True, then: Callable[[], None] = lambda: None
    ) -> Replies:
        """A command that brings no mail nearer: too many in a row end the session."""
        if not good:
            raise Refused(*SYNTAX)
        self._idle += 1
        if self._idle > self.policy.max_idle_commands > 0:
            self.closed = True
            return ("421 4.7.0 ",)
        then()
        return reply

    # --- Commands ---------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._utf8 = False
        self._sender: str | None = None
        self._binary = False
        self._chunks: bytes | None = None
        """Those that have come."""
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
        return self._no_mail(("250 ",), is_host(argument) or is_ip(argument), begin)

    def _xclient(self, argument: str) -> Replies:
        """Postfix's XCLIENT_README: whoever speaks for another begins anew."""
        said = attributes(argument)
        reply = self._no_mail(("220 ",))
        if self.closed:
            return reply
        if not self._believed:
            raise Refused("550 5.7.0 ")
        if self._sender is not None:
            raise Refused(*_SEQUENCE)
        self._spoke = True
        if "HELO" in said:
            self._proxied = said["HELO"]
        self._helo = self._proxied
        return reply

    def _mail(self, argument: str) -> Replies:
        # RFC 6531 section 3.4: what MAIL says of itself holds for its path too.
        utf8 = not argument.isascii() and "SMTPUTF8" in argument.upper().split(" ")
        path, more = path_of(in_utf8(argument) if utf8 else argument, "FROM:", utf8)
        if path is None:
            raise Refused(*SYNTAX)  # <Postmaster> is nobody's return path
        parameters = checked(more, _OF_MAIL, utf8)
        if utf8 and "SMTPUTF8" not in parameters:
            raise Refused(*SYNTAX, *NOT_ASCII)  # it was in quotes
        size = parameters.get("SIZE")
        if self._helo is None and self.policy.helo_required:
            raise Refused(*_SEQUENCE)
        if self._sender is not None:
            raise Refused(*_SEQUENCE)
        if size is not None and int(size) > self.policy.max_size:
            raise Refused(*_TOO_LARGE)
        if 0 < self.policy.max_messages <= self._messages:
            self.closed = True
            return ("421 4.7.0 ",)
        self._sender, self._idle = "@".join(filter(None, path)), 0
        self._utf8 = "SMTPUTF8" in parameters
        self._binary = (parameters.get("BODY") or "").upper() == "BINARYMIME"
        self._believed &= not self._spoke
        return _MAIL_OK

    def _rcpt(self, argument: str) -> Replies:
        argument = in_utf8(argument) if self._utf8 else argument
        path, parameters = path_of(argument, "TO:", self._utf8)
        if path == ("", ""):
            raise Refused(*SYNTAX)  # the null path receives nothing
        checked(parameters, _OF_RCPT, self._utf8)
        if self._sender is None or self._chunks is not None:
            raise Refused(*_SEQUENCE)
        if len(self._recipients) >= self.policy.max_recipients:
            raise Refused("452 4.5.3 ")
        if path is None:  # section 4.5.1: whatever the hosts are
            name = argument[argument.index("<") + 1 : argument.index(">")]
            path = (name, self.policy.host_name)
        elif not any(matches(path[1], pattern) for pattern in self.policy.allowed_hosts):
            self._relay_denied = True
            raise Refused("550 5.7.1 ")
        self._recipients.append("@".join(path))
        return ("250 2.1.5 ",)

    def _data(self, argument: str) -> Replies:
        if argument:
            raise Refused(*SYNTAX)
        if self._sender is None or self._chunks is not None or self._binary:
            raise Refused(*_SEQUENCE)
        if not self._recipients:
            raise Refused(*self._no_recipients())
        self._receiving = True
        return ("354 ",)

    def _no_recipients(self) -> Replies:
        return ("554 5.5.1 ",) if self._relay_denied else _SEQUENCE

    def _bdat(self, argument: str) -> Replies | None:
        """RFC 3030 section 2: the reply comes behind the octets."""
        words = [word for word in argument.split(" ") if word]
        said = re.fullmatch(r"([0-9]+)( last)?", " ".join(words).lower())
        if said is None or int(said[1]) >= 1 << 64:
            return self._uncounted()
        self._chunk = int(said[1]), said[2] is not None
        if self._chunk == (0, False):
            reply = self._no_mail(("250 ",))
            return reply if self.closed else None
        return None

    def _uncounted(self) -> Replies:
        self.closed = True
        return _UNCOUNTED

    def _quit(self, argument: str) -> Replies:
        if argument:
            raise Refused(*SYNTAX)
        self.closed = True
        return ("221 2.0.0 ",)

    # --- Messages ---------------------------------------------------------------------------------

    def _end_of_data(self) -> bool:
        """Only CRLF.CRLF ends a message, and DATA itself ended by CRLF (section 4.1.1.4)."""
        before, end, rest = (b"\r\n" + self._unread).partition(b"\r\n.\r\n")
        if not end:
            return False
        self._unread, self._receiving = rest, False
        self._messages += 1
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
            self._store(message)
        self.replies.append(tuple(refusals) or _STORED)
        self._reset()
        return True

    def _store(self, message: bytes) -> None:
        sender, recipients = self._sender or "", frozenset(self._recipients)
        self.stored[len(self.replies)] = Message(
            self._helo or "unknown", sender, recipients, message
        )

    def _end_of_chunk(self, size: int, last: bool) -> bool:
        """Nothing but its size ends it, and what is in it stays as it is."""
        if len(self._unread) < size:
            return False
        octets, self._unread, self._chunk = self._unread[:size], self._unread[size:], None
        message = (self._chunks or b"") + octets
        if self._sender is None:
            reply: Replies = _SEQUENCE
        elif not self._recipients:
            reply = self._no_recipients()
        elif len(message) > self.policy.max_size:
            reply = _TOO_LARGE
            self._messages += 1
        elif last:
            reply = _STORED
            self._messages += 1
            self._store(message)
        else:
            self._chunks = message
            self.replies.append((f"250 2.0.0 {size} octets",))
            return True
        self.replies.append(reply)
        self._reset()
        return True


def _may_be_bdat(line: bytes) -> bool:
    return line[:4].upper() == b"BDAT"
