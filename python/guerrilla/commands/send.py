"""`guerrillad send`: a small SMTP client, to try a server with."""

from __future__ import annotations

import argparse
import contextlib
import email.utils
import re
import smtplib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guerrilla._core import Address
from guerrilla.commands.common import CommandError, add_command, shown
from guerrilla.config import machine_name, parse_listen_interface
from guerrilla.forward.link import connect

if TYPE_CHECKING:
    import socket

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

Each reply of the server to a message is printed. Exit status 1: something was refused.
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
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="message, sent as it is but for line ends, which become CRLF; '-' for standard input",
    )


def run(args: argparse.Namespace) -> int:
    """Sends every message over one connection; 1 when anything was refused.

    Raises:
        CommandError: no connection, or it broke.
        OSError: a file cannot be read.
    """
    sender = f"guerrillad@{machine_name()}" if args.sender is None else args.sender
    # All are read first: a missing file is found before anything is sent.
    messages = [(name, _read(name)) for name in args.files]
    if not messages:
        messages = [("test message", _test_message(sender, args.to))]
    server: ListenAddress = args.server
    try:
        with contextlib.closing(_Client(server, args.helo)) as client:
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
    except OSError as error:
        msg = f"cannot reach {server}: {error.strerror or error} (is a server running there?)"
        raise CommandError(msg) from error
    return 0 if all(results) else 1


class _Client(smtplib.SMTP):
    """smtplib's client, which may also speak over a unix socket."""

    def __init__(self, server: ListenAddress, helo: str | None) -> None:
        self._server = server
        host = server.path if server.kind == "unix" else server.host or "127.0.0.1"
        super().__init__(host, server.port or smtplib.SMTP_PORT, helo, TIMEOUT)
        self.ehlo_or_helo_if_needed()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        del host, port  # of the server, as `connect` knows it
        return connect(self._server, timeout)


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
    if client.does_esmtp and client.has_extn("size"):
        options.append(f"SIZE={len(message)}")
    if client.does_esmtp and client.has_extn("8bitmime") and not message.isascii():
        options.append("BODY=8BITMIME")
    code, text = client.mail(sender, options)
    if not _succeeded(code):
        return _refused(client, name, code, text)
    accepted = 0
    for recipient in recipients:
        code, text = client.rcpt(recipient)
        if _succeeded(code):
            accepted += 1
        else:
            _say(f"{name}: {recipient}: {_reply(code, text)}")
    if not accepted:
        client.rset()
        return False
    try:
        code, text = client.data(message)
    except smtplib.SMTPDataError as error:
        return _refused(client, name, error.smtp_code, error.smtp_error)
    _say(f"{name}: {_reply(code, text)}")
    return _succeeded(code) and accepted == len(recipients)


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
        return parse_listen_interface(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
