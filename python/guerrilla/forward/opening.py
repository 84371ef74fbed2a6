"""What is said before the first transaction: the greeting, EHLO or LHLO, STARTTLS, AUTH."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from guerrilla.forward.extensions import Extensions
from guerrilla.forward.steps import LoginRefusedError, RefusedError, Say, Secure, ask, line

if TYPE_CHECKING:
    from collections.abc import Collection

    from guerrilla.forward.replies import FarReply
    from guerrilla.forward.steps import Conversation

__all__ = ["Session", "introduce", "opening"]

READY = 220
CONTINUE = 334
LOGGED_IN = 235
REFUSED = 500
"""From here on a reply is for good."""


@dataclass(frozen=True, slots=True)
class Session:
    """What kind of session is wanted.

    Attributes:
        helo: what we call ourselves.
        lmtp: LMTP (RFC 2033), else SMTP.
        username: who logs in; empty for nobody.
        password: of that one.
        ignored: keywords of EHLO that are not to be seen.
        xclient: the far side is told of our clients by XCLIENT, which it has to offer.
    """

    helo: str
    lmtp: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    ignored: Collection[str] = ()
    xclient: bool = False


def opening(session: Session, *, starttls: bool, required: bool) -> Conversation[Extensions]:
    """Opens a session.

    Args:
        session: what is wanted.
        starttls: whether TLS is begun by STARTTLS (RFC 3207), where it is offered.
        required: whether there is no session without it.

    Raises:
        RefusedError: the far side, or we, will not have it so.
        LostError, ProtocolError: the far side went away, or is no such server.
    """
    heard = yield Say((), 1)
    _expect("our connection", heard[0])
    far = yield from _hello(session)
    if starttls and "STARTTLS" in far:
        reply = yield from ask(b"STARTTLS\r\n")
        if reply.code == READY:
            yield Secure()
            far = yield from _hello(session)  # what was said before is not to be trusted
        elif required:
            raise RefusedError(f"it refused STARTTLS: {reply}")
    elif starttls and required:
        raise RefusedError("it does not offer STARTTLS")
    if session.username:
        yield from _log_in(session, far)
        far.logged_in = True
    if session.xclient and "XCLIENT" not in far:
        raise RefusedError("it does not offer us XCLIENT")
    return far


def introduce(session: Session, attributes: str, helo: str) -> Conversation[Extensions]:
    """Tells of our client, after which the session begins again.

    Args:
        session: as it was opened.
        attributes: of the client.
        helo: what is said at EHLO then.

    Raises:
        RefusedError: the far side will not hear of it.
        LostError, ProtocolError: as for `opening`.
    """
    _expect("XCLIENT", (yield from ask(line(f"XCLIENT {attributes}"))))
    return (yield from _hello(replace(session, helo=helo)))


def _hello(session: Session) -> Conversation[Extensions]:
    verb = "LHLO" if session.lmtp else "EHLO"
    reply = yield from ask(line(f"{verb} {session.helo}"))
    is_old = reply.code in {500, 501, 502, 504}  # RFC 5321 section 3.2
    if is_old and not session.lmtp:
        _expect("HELO", (yield from ask(line(f"HELO {session.helo}"))))
        return Extensions()
    _expect(verb, reply)
    return Extensions(reply.lines, session.ignored)


def _log_in(session: Session, far: Extensions) -> Conversation[None]:
    """By PLAIN (RFC 4616), else by LOGIN, which some servers have alone."""
    offered = far.parameters("AUTH")
    name, password = session.username.encode(), session.password.encode()
    if "PLAIN" in offered:
        secret = base64.b64encode(b"\0%s\0%s" % (name, password))
        reply = yield from ask(b"AUTH PLAIN %s\r\n" % secret)
    elif "LOGIN" in offered:
        reply = yield from ask(b"AUTH LOGIN\r\n")
        for answer in (name, password):
            if reply.code == CONTINUE:
                reply = yield from ask(base64.b64encode(answer) + b"\r\n")
    else:
        raise RefusedError("it offers neither AUTH PLAIN nor AUTH LOGIN")
    if reply.code != LOGGED_IN:
        kind = RefusedError if reply.code < REFUSED else LoginRefusedError
        raise kind(f"it refused AUTH: {reply}")


def _expect(what: str, reply: FarReply) -> None:
    if not reply.is_success:
        raise RefusedError(f"its reply to {what} is {reply}")
