"""`guerrillad send`: a small client of SMTP and LMTP, to try a server with."""

from __future__ import annotations

import argparse
import base64
import contextlib
import email.utils
import re
import smtplib
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guerrilla._core import Address
from guerrilla.commands.common import CommandError, add_command, ask_password, shown
from guerrilla.config import machine_name, parse_address
from guerrilla.forward.link import checking, connect

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from guerrilla.commands.common import Subparsers
    from guerrilla.config import ListenAddress

DEFAULT_SERVER: Final = "127.0.0.1:2525"
TIMEOUT: Final = 60.0
"""Seconds to wait for any reply: twice what the server has to save a mail."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_HEADER_END: Final = re.compile(rb"^\r\n|\r\n\r\n")
_MORE: Final = """\
examples:
  guerrillad send --to you@example.com               a small test message
  guerrillad send --to you@example.com mail.eml      a message from a file
  guerrillad send --to a@example.com --to b@example.com --server 127.0.0.1:25 *.eml
  guerrillad send --to you@example.com --server unix:/run/guerrilla/lmtp --lmtp
  guerrillad send --to you@example.com --server localhost:2525 --user alice \\
      --tls starttls --ca tls/mx.example.com.crt

Each reply of the server to a message is printed. Exit status 1: something was refused. The
password of --user is asked for, or is the first line of what is not a terminal.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "send", run, help_="send messages to a server", more=_MORE)
    parser.add_argument(
        "--to",
        metavar="ADDRESS",
        action="append",
        required=True,
        type=_address,
        help="recipient; may be given several times",
    )
    parser.add_argument(
        "--from",
        metavar="ADDRESS",
        dest="sender",
        type=_address,
        help="reverse-path; '<>' for none (default: guerrillad@THIS-MACHINE)",
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        type=_server,
        help=f"HOST:PORT or unix:/PATH (default: {DEFAULT_SERVER})",
    )
    parser.add_argument("--helo", metavar="NAME", help="the name to say at EHLO")
    parser.add_argument("--lmtp", action="store_true", help="speak LMTP: a reply a recipient")
    parser.add_argument(
        "--tls",
        choices=("starttls", "implicit"),
        help="send within TLS, with a certificate that is checked",
    )
    parser.add_argument(
        "--ca",
        metavar="FILE",
        default="",
        help="PEM file that the certificate is checked by (default: those of the machine)",
    )
    parser.add_argument("--user", metavar="NAME", help="log in by AUTH PLAIN")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="message, sent as it is but for line ends, which become CRLF; '-' for standard input",
    )


def run(args: argparse.Namespace) -> int:
    """Sends every message over one connection; 1 when anything was refused.

    Raises:
        CommandError: no connection, or it broke; a password that cannot be sent.
        OSError: a file cannot be read.
    """
    context = _context(args.ca) if args.tls else None
    password = _password(args)
    sender = f"guerrillad@{machine_name()}" if args.sender is None else args.sender
    # All are read first: a missing file is found before anything is sent.
    messages = [(name, _read(name)) for name in args.files]
    if not messages:
        messages = [("test message", _test_message(sender, args.to))]
    server: ListenAddress = args.server
    try:
        with contextlib.closing(_Client(args, context)) as client:
            client.begin()
            if password is not None:
                client.log_in(args.user, password)
            results = [_deliver(client, sender, args.to, *message) for message in messages]
            # All is said and done: how it ends changes nothing.
            with contextlib.suppress(OSError):
                client.quit()
    except smtplib.SMTPResponseException as error:
        msg = f"{server}: {_reply(error.smtp_code, error.smtp_error)}"
        raise CommandError(msg) from error
    except smtplib.SMTPException as error:
        msg = f"{server}: {error}"
        raise CommandError(msg) from error
    except ssl.SSLError as error:
        msg = f"{server}: TLS: {getattr(error, 'verify_message', None) or error.reason or error}"
        raise CommandError(msg) from error
    except OSError as error:
        msg = f"cannot reach {server}: {error.strerror or error} (is a server running there?)"
        raise CommandError(msg) from error
    return 0 if all(results) else 1


def _context(ca_file: str) -> ssl.SSLContext:
    """TLS.

    Raises:
        CommandError: the file cannot be used.
    """
    try:
        return checking(ca_file)
    except OSError as error:  # an SSLError is one: the file has no certificate
        raise CommandError(f"--ca: {ca_file}: {error.strerror or error}") from error


def _password(args: argparse.Namespace) -> str | None:
    """The password of `--user`.

    Raises:
        CommandError: it cannot be sent, or there is none.
    """
    if args.user is None:
        return None
    if not args.tls and not args.server.is_of_this_machine:
        raise CommandError("--user: needs --tls, as the password could be read on its way")
    return ask_password(f"Password of {shown(args.user)}: ")


class _Client(smtplib.SMTP):
    """smtplib's client, which may also speak LMTP, within TLS, and over a unix socket."""

    def __init__(self, args: argparse.Namespace, context: ssl.SSLContext | None) -> None:
        self._server: ListenAddress = args.server
        self._tls: str | None = args.tls
        self._context = context
        self.is_lmtp: bool = args.lmtp
        # Whose certificate it has to be.
        self._name = self._server.host or "localhost"
        super().__init__(self._name, self._server.port or smtplib.SMTP_PORT, args.helo, TIMEOUT)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        del host, port  # of the server, as `connect` knows it
        found = connect(self._server, time.monotonic() + timeout)
        if self._context is None or self._tls != "implicit":
            return found
        return self._context.wrap_socket(found, server_hostname=self._name)

    def begin(self) -> None:
        """Says EHLO or LHLO, and begins TLS by STARTTLS where that is wanted.

        Raises:
            smtplib.SMTPException: it is refused, or not offered.
        """
        self._greet()
        if self._tls == "starttls":
            self.starttls(context=self._context)
            self._greet()

    def _greet(self) -> None:
        if not self.is_lmtp:
            self.ehlo_or_helo_if_needed()
            return
        self.ehlo_msg = "lhlo"
        code, text = self.ehlo()
        # HELO would lead to an SMTP server, which has one reply for all.
        if not _succeeded(code):
            raise smtplib.SMTPHeloError(code, text)

    def log_in(self, user: str, password: str) -> None:
        """AUTH PLAIN (RFC 4616), in UTF-8, which smtplib's own refuses.

        Raises:
            smtplib.SMTPException: it is refused, or not offered.
        """
        if "PLAIN" not in self.esmtp_features.get("auth", "").upper().split():
            raise smtplib.SMTPNotSupportedError("the server does not offer AUTH PLAIN")
        secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        code, text = self.docmd("AUTH", f"PLAIN {secret}")
        if not _succeeded(code):
            raise smtplib.SMTPAuthenticationError(code, text)

    def message(self, message: bytes, recipients: list[str]) -> Iterator[tuple[str, int, bytes]]:
        """Sends it, and gives the replies; in LMTP one of each recipient (RFC 2033 section 4.2).

        Raises:
            smtplib.SMTPDataError: DATA is refused.
        """
        code, text = self.data(message)
        if not self.is_lmtp:
            yield "", code, text
            return
        for recipient in recipients[:-1]:
            yield recipient, code, text
            code, text = self.getreply()
        yield recipients[-1], code, text


def _deliver(
    client: _Client, sender: str, recipients: list[str], name: str, message: bytes
) -> bool:
    """One transaction; prints the replies that tell its fate; whether all was accepted."""
    options = []
    try:
        utf8 = _needs_utf8(client, [sender, *recipients], message)
    except ValueError as error:
        _say(f"{name}: {error}")
        return False
    if utf8:
        options.append("SMTPUTF8")
    else:
        # Of an address that is not ASCII only the host is left, which has an ASCII form.
        sender, recipients = _in_ascii(sender), [_in_ascii(one) for one in recipients]
    code, text = client.mail(sender, [*options, *_options(client, message)])
    if not _succeeded(code):
        return _refused(client, name, code, text)
    accepted: list[str] = []
    for recipient in recipients:
        code, text = client.rcpt(recipient)
        if _succeeded(code):
            accepted.append(recipient)
        else:
            _say(f"{name}: {recipient}: {_reply(code, text)}")
    if not accepted:
        client.rset()
        return False
    is_good = len(accepted) == len(recipients)
    try:
        for recipient, code, text in client.message(message, accepted):
            _say(f"{name}: {f'{recipient}: ' if recipient else ''}{_reply(code, text)}")
            is_good = is_good and _succeeded(code)
    except smtplib.SMTPDataError as error:
        return _refused(client, name, error.smtp_code, error.smtp_error)
    return is_good


def _options(client: _Client, message: bytes) -> Iterator[str]:
    if client.does_esmtp and client.has_extn("size"):
        yield f"SIZE={len(message)}"
    if client.does_esmtp and client.has_extn("8bitmime") and not message.isascii():
        yield "BODY=8BITMIME"


def _needs_utf8(client: _Client, addresses: list[str], message: bytes) -> bool:
    """Whether SMTPUTF8 (RFC 6531) is to be said.

    Raises:
        ValueError: it is needed, and the server does not offer it.
    """
    header = _HEADER_END.split(message, maxsplit=1)[0]
    if client.does_esmtp and client.has_extn("smtputf8"):
        return not (all(address.isascii() for address in addresses) and header.isascii())
    for address in addresses:
        if not Address.parse(address).user.isascii():
            msg = f"{address} needs SMTPUTF8, which the server does not offer"
            raise ValueError(msg)
    return False


def _in_ascii(text: str) -> str:
    if text.isascii():
        return text
    address = Address.parse(text)
    return str(Address(address.user, address.ascii_host))


def _refused(client: _Client, name: str, code: int, text: bytes | str) -> bool:
    _say(f"{name}: {_reply(code, text)}")
    client.rset()
    return False


def _succeeded(code: int) -> bool:
    return code // 100 == 2  # a 2yz reply, RFC 5321 section 4.2.1  # noqa: PLR2004


def _reply(code: int, text: bytes | str) -> str:
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return shown(f"{code} {' '.join(plain.splitlines())}".strip())


def _say(line: str) -> None:
    print(line, flush=True)


def _read(name: str) -> bytes:
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    return _LINE_END.sub(b"\r\n", data)


def _test_message(sender: str, recipients: list[str]) -> bytes:
    lines = (
        f"Date: {email.utils.formatdate(time.time())}",
        f"From: <{sender}>" if sender else "From: guerrillad:;",
        f"To: {', '.join(f'<{recipient}>' for recipient in recipients)}",
        "Subject: A test message of guerrillad send",
        f"Message-ID: {email.utils.make_msgid(domain=machine_name())}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "It arrived.",
        "",
    )
    return "\r\n".join(lines).encode()


def _address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except ValueError as error:
        msg = f"{text!r} is no mail address: {error}"
        raise argparse.ArgumentTypeError(msg) from error


def _server(text: str) -> ListenAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
