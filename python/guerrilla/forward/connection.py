"""A session with the far side, kept from one mail to the next."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from guerrilla.forward.link import Link, connect
from guerrilla.forward.opening import Session, introduce, opening
from guerrilla.forward.replies import CLOSING, FarReply, ReplyReader
from guerrilla.forward.steps import Heard, LostError, ProtocolError, RefusedError, Say, Secure
from guerrilla.forward.transaction import Mail, Result, relay, verify

if TYPE_CHECKING:
    from guerrilla._core import Reply
    from guerrilla.config import ListenAddress
    from guerrilla.forward.client import Client
    from guerrilla.forward.commands import Path
    from guerrilla.forward.steps import Conversation

__all__ = ["Connection", "Peer"]

log = logging.getLogger("guerrilla.forward")

GOODBYE: Final = 1.0
"""Seconds that the far side has for its reply to QUIT."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Peer:
    """The far side, and what kind of session it is to have.

    Attributes:
        address: where it is.
        session: what is said to it first.
        context: of TLS; None for none.
        name: whom its certificate has to be of; empty where that is not asked for.
        implicit: TLS begins with the connection, without STARTTLS (RFC 8314).
        required: there is no session without TLS.
    """

    address: ListenAddress
    session: Session
    context: ssl.SSLContext | None = None
    name: str = ""
    implicit: bool = False
    required: bool = False


class _NoTLSError(Exception):
    """The handshake failed, and there is no need of TLS."""


class Connection:
    """One session, for one thread.

    Args:
        peer: with whom.
        timeout: seconds that opening it may take.

    Raises:
        RefusedError: the far side will have no session of this kind.
        LostError: it closed the connection.
        ProtocolError: it speaks no SMTP.
        OSError: it cannot be reached, its certificate is not as it has to be, or it is too slow.
    """

    def __init__(self, peer: Peer, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._session = peer.session
        self._introduced = ""
        self._mails = 0
        self.is_used = False
        """Whether a transaction went well: only then is its end a usual thing."""
        self.is_clean = False
        """Whether the last transaction is over for both sides."""
        try:
            self._open(peer, deadline, with_tls=True)
        except _NoTLSError as error:
            # As it is for others: what is readable by many is better than what does not arrive.
            log.warning("%s: no TLS with it: %s: without it", peer.address, error)
            self._open(peer, deadline, with_tls=False)
        self.is_clean = True
        self._offered = self.far.parameters("XCLIENT")
        self._since = time.monotonic()

    def _open(self, peer: Peer, deadline: float, *, with_tls: bool) -> None:
        self._reader = ReplyReader()
        self._link = Link(connect(peer.address, deadline))
        try:
            starttls = with_tls and peer.context is not None and not peer.implicit
            if peer.implicit:
                self._secure(peer, deadline)
            talk = opening(peer.session, starttls=starttls, required=peer.required)
            self.far = self._hold(talk, deadline, peer)
        except BaseException:
            self._link.close()
            raise

    @property
    def tls(self) -> str | None:
        """The version of TLS, if any."""
        return self._link.tls

    @property
    def idle(self) -> float:
        """Seconds since it was last used."""
        return time.monotonic() - self._since

    @property
    def is_usable(self) -> bool:
        """Whether another transaction can begin.

        The far side may close a connection after a time, mostly with a 421: then there is
        something to read where nothing was asked for.
        """
        is_over = 0 < self.far.limit("MAILMAX") <= self._mails
        if is_over or not self.is_clean or self._reader.has_more:
            return False
        try:
            return self._link.receive() is None
        except OSError:
            return False

    def close(self) -> None:
        """Says QUIT where that makes sense, and closes. Idempotent."""
        if self.is_clean:
            self.is_clean = False
            with contextlib.suppress(OSError, ProtocolError):
                self._hear(Say((b"QUIT\r\n",), 1), time.monotonic() + GOODBYE)
        self._link.close()

    def introduce(self, client: Client, timeout: float) -> None:
        """Tells the far side who our client is, where it takes the last one for it.

        Raises:
            RefusedError: it will not hear of it.
            LostError: as for `relay`, or it will not hear of another one in this session.
            ProtocolError, TimeoutError, OSError: as for `relay`.
        """
        attributes = client.attributes(self._offered)
        if attributes == self._introduced:
            return
        self.is_clean = False
        talk = introduce(self._session, attributes, client.greets_as(self._session.helo))
        try:
            self.far = self._talk(talk, timeout)
        except RefusedError as error:
            if not self._introduced:
                raise
            # Some hear it once in a session: it might be the client's own word then.
            raise LostError(str(error)) from error
        self.is_clean, self._introduced = True, attributes

    def relay(self, mail: Mail, *, apart: bool, timeout: float) -> Result:
        """Hands over a mail.

        Args:
            mail: the mail.
            apart: as for `transaction.relay`.
            timeout: seconds for all of it.

        Raises:
            LostError: the connection ended before anything can have been taken.
            ProtocolError: it does not speak SMTP.
            TimeoutError: the time was over before anything can have been taken.
            OSError: anything else that happens to a socket.
        """
        self._begin()
        talk = relay(mail, self.far, lmtp=self._session.lmtp, apart=apart)
        result = self._talk(talk, timeout)
        self.is_clean = result.is_clean
        return result

    def verify(self, sender: Path, recipient: Path, *, size: int, timeout: float) -> Reply:
        """Asks about a recipient; raises as `relay`."""
        self._begin()
        talk = verify(sender, recipient, self.far, size=size)
        reply, self.is_clean = self._talk(talk, timeout)
        return reply

    def _begin(self) -> None:
        self.is_clean = False
        self._mails += 1

    def _talk(self, conversation: Conversation[_Value], timeout: float) -> _Value:
        value = self._hold(conversation, time.monotonic() + timeout)
        self.is_used = True
        self._since = time.monotonic()
        return value

    def _hold(
        self, conversation: Conversation[_Value], deadline: float, peer: Peer | None = None
    ) -> _Value:
        """Takes a conversation over the socket, to its end."""
        try:
            step = next(conversation)
            while True:
                if isinstance(step, Secure):
                    self._secure(peer, deadline)
                    step = conversation.send(Heard())
                else:
                    step = conversation.send(self._hear(step, deadline))
        except StopIteration as end:
            value: _Value = end.value
            return value

    def _secure(self, peer: Peer | None, deadline: float) -> None:
        if peer is None or peer.context is None:
            raise ProtocolError("no TLS was prepared")
        if self._reader.has_more:
            # Said before TLS, by whoever is on the way, to be taken for what is said within it.
            raise ProtocolError("it said more than its reply to STARTTLS")
        try:
            self._link.secure(peer.context, peer.name or None, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            if peer.required:
                raise
            raise _NoTLSError(str(error)) from error

    def _hear(self, say: Say, deadline: float) -> Heard:
        if self._reader.has_more and not say.is_message:  # which may be refused before it is heard
            # It would be taken for the reply to this, and that for the reply to the next.
            raise ProtocolError("it said more than it was asked")
        return _Exchange(self._link, self._reader, say).run(deadline)


class _Exchange:
    """Something that is sent, and what comes in answer.

    Both directions at once: a far side that is not listened to may stop listening.
    """

    def __init__(self, link: Link, reader: ReplyReader, say: Say) -> None:
        self._link = link
        self._reader = reader
        self._say = say
        self._replies: list[FarReply] = []
        self._pieces: Iterator[bytes] = filter(None, say.octets)
        self._unsent = memoryview(next(self._pieces, b""))
        self._next = next(self._pieces, b"")
        self._in_doubt = False

    def run(self, deadline: float) -> Heard:
        """See `Connection._hear`."""
        while True:
            try:
                if (heard := self._look()) is not None:
                    return heard
                if self._unsent:
                    self._send()
                self._link.wait(deadline, sending=bool(self._unsent))
                octets = self._link.receive()
            except (TimeoutError, ProtocolError) as error:
                if not self._in_doubt:
                    raise
                # What was said until then holds: LMTP has a reply for each recipient.
                return self._ended(str(error))
            except (ConnectionError, ssl.SSLError) as error:
                return self._last_words(f"it closed the connection: {error}")
            if octets == b"":
                return self._look() or self._ended("it closed the connection")
            self._reader.feed(octets or b"")

    def _send(self) -> None:
        # The end of a message arrives with its last piece: from now on it may be there.
        self._in_doubt = self._say.is_message and not self._next
        count = self._link.send(self._unsent)
        self._unsent = self._unsent[count:]
        if not self._unsent and self._next:
            self._unsent, self._next = memoryview(self._next), next(self._pieces, b"")

    def _look(self) -> Heard | None:
        """Takes the replies that are there; the end, where this is one."""
        while len(self._replies) < self._say.replies:
            reply = self._reader.next()
            if reply is None:
                return None
            if reply.code == CLOSING:
                return self._ended(f"it said {reply}")
            self._replies.append(reply)
            if self._unsent and self._say.is_message:
                return Heard(self._replies, in_doubt=self._in_doubt, unsent=True)
        if self._unsent:
            raise ProtocolError("it answered what it had not heard")
        return Heard(self._replies, in_doubt=self._in_doubt)

    def _ended(self, how: str) -> Heard:
        return Heard(self._replies, lost=how, in_doubt=self._in_doubt)

    def _last_words(self, how: str) -> Heard:
        """It takes no more. It may have said why before that."""
        with contextlib.suppress(OSError):
            while octets := self._link.receive():
                self._reader.feed(octets)
        return self._look() or self._ended(how)
