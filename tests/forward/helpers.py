"""What the tests of Forward share: conversations without a socket, and a far side with a script."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from guerrilla._core import Address, Envelope, Reply, make_check
from guerrilla.forward.commands import Path
from guerrilla.forward.extensions import Extensions
from guerrilla.forward.replies import FarReply, ReplyReader
from guerrilla.forward.steps import Heard, Say, Secure
from guerrilla.processors.forward import Forward
from guerrilla.testing import make_envelope, run_chain

Value = TypeVar("Value")
PATIENCE = 10.0

MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
ALL = ("PIPELINING", "SIZE 100000", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME")
PIPELINED = ("PIPELINING", "8BITMIME")


# --- Without a socket ----------------------------------------------------------------------------


def extensions(*offers: str) -> Extensions:
    return Extensions(["mx.example.com", *offers])


def path(mailbox: str = "to@example.com", **parameters: str | None) -> Path:
    return Path(mailbox, parameters)


def heard(text: str, say: Say) -> Heard:
    """What a far side that says `text` is heard as; it has closed where that is too little."""
    reader = ReplyReader()
    reader.feed(text.replace("\n", "\r\n").encode())
    replies: list[FarReply] = []
    while len(replies) < say.replies and (reply := reader.next()) is not None:
        replies.append(reply)
    lost = "" if len(replies) == say.replies else "it closed the connection"
    return Heard(replies, lost=lost, in_doubt=say.is_message)


def talk(
    conversation: Generator[Say | Secure, Heard, Value], *answers: str | Heard
) -> tuple[list[bytes], Value]:
    r"""Takes a conversation to its end.

    Args:
        conversation: what is said.
        answers: to each step but `Secure`, with `\n` at the end of each line.

    Returns:
        What was said in each step (`TLS` for `Secure`), and its result.
    """
    said: list[bytes] = []
    left = deque(answers)
    try:
        step = next(conversation)
        while True:
            if isinstance(step, Secure):
                said.append(b"TLS")
                step = conversation.send(Heard())
                continue
            said.append(b"".join(step.octets))
            answer = left.popleft()
            found = answer if isinstance(answer, Heard) else heard(answer, step)
            step = conversation.send(found)
    except StopIteration as end:
        assert not left, f"never asked for: {left}"
        return said, end.value


# --- With one ------------------------------------------------------------------------------------

CLOSE = ""
"""An answer: the connection is closed without a word."""
SILENCE = "\0"
"""An answer: none."""


class FarSide:
    """An SMTP or LMTP server on a port of 127.0.0.1 that answers well unless told otherwise.

    A context manager.

    Args:
        offers: what EHLO is answered with.
        lmtp: it speaks LMTP.
        drip: it says each octet by itself.
        tls: what it does TLS with, by STARTTLS.
        implicit: with that from the first octet.
    """

    def __init__(
        self,
        *offers: str,
        lmtp: bool = False,
        drip: bool = False,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
    ) -> None:
        self.offers = list(offers)
        self.answers: defaultdict[str, deque[str]] = defaultdict(deque)
        """What it says next to a verb (`.` for a message) instead of what it would say."""
        self.said: list[str] = []
        """Every command, in order."""
        self.messages: list[bytes] = []
        """What it has taken, dots undoubled."""
        self.connections = 0
        self.silent = ""
        """A verb that it does not answer."""
        self.handshake = ""
        """What it does instead of one: `garbage`, `reset` or `close`."""
        self.deaf = False
        """After its reply to DATA it hears nothing more, and closes."""
        self._lmtp, self._drip, self._tls, self._implicit = lmtp, drip, tls, implicit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def options(self) -> dict[str, object]:
        protocol = "lmtp" if self._lmtp else "smtp"
        return {"forward_address": f"127.0.0.1:{self.port}", "forward_protocol": protocol}

    def will_say(self, verb: str, *answers: str) -> None:
        self.answers[verb].extend(answers)

    def hang_up(self) -> None:
        """Closes what is open, as a server that ends."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._open.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        session = _Session(self, connection)
        with contextlib.suppress(OSError, EOFError):
            if self._implicit:
                session.begin_tls()
            session.run()
        self._open.discard(session.connection)
        session.connection.close()


class _Session:
    """One connection of a `FarSide`."""

    def __init__(self, far: FarSide, connection: socket.socket) -> None:
        self.far, self.connection = far, connection
        self.unread = b""
        self.taken = 0

    def run(self) -> None:
        self.say("CONNECT", "220 mx.example.com ready")
        while True:
            line = self.line()
            self.far.said.append(line)
            verb = line.split(maxsplit=1)[0].upper()
            if verb != self.far.silent:
                getattr(self, f"on_{verb.lower()}", self.on_other)(verb, line)

    def on_ehlo(self, verb: str, line: str) -> None:
        lines = ["mx.example.com", *self.far.offers]
        signs = ["-"] * (len(lines) - 1) + [" "]
        text = "\r\n".join(f"250{sign}{one}" for sign, one in zip(signs, lines, strict=True))
        self.say(verb, text)

    on_lhlo = on_ehlo

    def on_rcpt(self, verb: str, line: str) -> None:
        self.taken += self.say(verb, "250 2.1.5 ok").startswith("2")

    def on_rset(self, verb: str, line: str) -> None:
        self.taken = 0
        self.say(verb, "250 2.0.0 ok")

    def on_data(self, verb: str, line: str) -> None:
        default = "354 go ahead" if self.taken else "503 5.5.1 no recipients"
        if self.say(verb, default).startswith("354"):
            if self.far.deaf:
                raise EOFError
            self.unread = b"\r\n" + self.unread
            while b"\r\n.\r\n" not in self.unread:
                self._read()
            message, _, self.unread = self.unread.partition(b"\r\n.\r\n")
            self.take(b"\r\n".join([message, b""]).replace(b"\r\n..", b"\r\n.")[2:])

    def on_bdat(self, verb: str, line: str) -> None:
        self.take(self.octets(int(line.split()[1])))

    def take(self, message: bytes) -> None:
        self.far.messages.append(message)
        for _ in range(self.taken if self.far._lmtp else 1):
            self.say(".", "250 2.0.0 taken")
        self.taken = 0

    def on_starttls(self, verb: str, line: str) -> None:
        is_begun = self.say(verb, "220 begin").startswith("220")
        if is_begun and self.far.handshake:
            self.connection.recv(1 << 16)
            if self.far.handshake == "garbage":
                self.connection.sendall(b"500 what?\r\n")
            if self.far.handshake == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise EOFError
        if is_begun:
            self.begin_tls()

    def begin_tls(self) -> None:
        if self.far._tls is not None:
            secured = self.far._tls.wrap_socket(
                self.connection, server_side=True, do_handshake_on_connect=False
            )
            self.far._open.discard(self.connection)
            self.far._open.add(secured)
            self.connection = secured
            secured.do_handshake()

    def on_auth(self, verb: str, line: str) -> None:
        default = "334 VXNlcm5hbWU6" if line.upper() == "AUTH LOGIN" else "235 2.7.0 ok"
        if self.say(verb, default).startswith("334"):
            self.far.said.append(base64.b64decode(self.line()).decode())
            self.say("USER", "334 UGFzc3dvcmQ6")
            self.far.said.append(base64.b64decode(self.line()).decode())
            self.say("PASS", "235 2.7.0 ok")

    def on_quit(self, verb: str, line: str) -> None:
        self.say(verb, "221 bye")
        raise EOFError

    def on_other(self, verb: str, line: str) -> None:
        self.say(verb, "250 2.0.0 ok")

    def say(self, verb: str, text: str) -> str:
        if self.far.answers[verb]:
            text = self.far.answers[verb].popleft()
        if text == CLOSE:
            raise EOFError
        if text == SILENCE:
            return text
        octets = text.encode("utf-8", "surrogateescape") + b"\r\n"
        pieces = [octets[i : i + 1] for i in range(len(octets))] if self.far._drip else [octets]
        for piece in pieces:
            self.connection.sendall(piece)
        if text.startswith("421"):
            raise EOFError
        return text

    def line(self) -> str:
        while b"\r\n" not in self.unread:
            self._read()
        line, _, self.unread = self.unread.partition(b"\r\n")
        return line.decode()

    def octets(self, count: int) -> bytes:
        while len(self.unread) < count:
            self._read()
        found, self.unread = self.unread[:count], self.unread[count:]
        return found

    def _read(self) -> None:
        octets = self.connection.recv(1 << 16)
        if not octets:
            raise EOFError
        self.unread += octets


# --- The stage -----------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(options: Mapping[str, object], **keys: object) -> Iterator[Forward]:
    """A stage that is open."""
    stage = Forward(Forward.Options.model_validate({**options, **keys}))
    stage.open()
    try:
        yield stage
    finally:
        stage.close()


def saved(stage: Forward, **keys: Any) -> object:
    """What becomes of a small mail."""
    return stage.save(make_envelope(MESSAGE, **keys))


def send(
    options: Mapping[str, object], *mails: Envelope, chain: str = "Forward", **keys: object
) -> list[Reply]:
    """What the senders of these mails hear; of one, when none is given."""
    return run_chain(chain, mails or [make_envelope()], options={**options, **keys})


def ask(stage: Forward, recipient: str = "to@example.com") -> Reply | None:
    """What is said of a recipient."""
    transaction = make_check(recipient, mail_from="from@example.org").transaction
    return stage.validate(transaction, Address.parse(recipient))
