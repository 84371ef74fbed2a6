"""What a connection takes by how far it is: resident memory of each, by thousands of them.

    python benches/states.py [--connections 2000] [--states greeted,EHLO] [--json FILE]

Each state has a daemon of its own, at which so many connections are brought that far and then left
alone. What the daemon has beside what it had with one of them, divided by their number, is the
figure. The kernel's part, socket and buffers, is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import clients
from edge_tls import StartTls
from postfix import BenchError
from receivers import BACKEND, SILENT, guerrillad, machine, raise_file_limit, starttls

STAGES: Final = Path(__file__).parent / "benchstages.py"
SETTLE: Final = 1.0
"""Seconds before memory is read."""
KIB: Final = 1_024
MAIL: Final = b"MAIL FROM:<a@example.com>\r\n"
WAITING: Final = (
    'save_process = "Slow"\nimport = ["benchstages"]\nslow_batch = 600.0\n'
    'gw_save_timeout = "20m"\nlog_received_mails = false'
)
LOGIN: Final = 'save_process = "Debugger"\nauth_process = "Anybody"\nimport = ["benchstages"]'

Begin = Callable[[int, str], socket.socket]
"""A connection to that port from that address, brought to where it is to stay."""


def greeted(port: int, source: str) -> socket.socket:
    """The greeting is read, and nothing is said."""
    connection = clients.connect(port, source)
    clients.reply(connection)
    return connection


def after(*commands: bytes, ehlo: bytes = clients.EHLO, last: bytes = b"") -> Begin:
    """The one that EHLO begins and these go on with; `last` is not answered."""

    def begin(port: int, source: str) -> socket.socket:
        connection = greeted(port, source)
        for command in (ehlo, *commands):
            clients.ask(connection, command)
        connection.sendall(last)
        return connection

    return begin


def secured(*commands: bytes, last: bytes = b"") -> Begin:
    """The same with TLS."""
    start = StartTls()

    def begin(port: int, source: str) -> socket.socket:
        connection = clients.open_session(port, start, source)
        for command in commands:
            clients.ask(connection, command)
        if last:
            connection.sendall(last)
        if isinstance(connection, ssl.SSLSocket):
            # Silent from here on: its keys are not needed any more, and this is the smaller.
            return socket.socket(fileno=connection.detach())
        return connection

    return begin


@dataclasses.dataclass(frozen=True)
class State:
    """How a connection gets there, and what the daemon needs for it."""

    begin: Begin
    server: str = ""
    backend: str = BACKEND
    share: float = 1.0
    """Of the connections: those that take much are fewer."""


RCPT: Final = b"RCPT TO:<b@example.net>\r\n"
BEGUN: Final = (MAIL, RCPT, b"DATA\r\n")


def octets(kib: int) -> bytes:
    """So much of a message, without its end."""
    return (b"Subject: load\r\n\r\n" + clients.LINE * (kib * KIB // len(clients.LINE) + 1))[
        : kib * KIB
    ]


STATES: Final = {
    "greeted": State(greeted),
    "EHLO": State(after()),
    "EHLO, half a command": State(after(last=b"MAIL FROM:<a@exa")),
    "MAIL": State(after(MAIL)),
    "RCPT": State(after(MAIL, RCPT)),
    "10 RCPT": State(after(MAIL, *[RCPT] * 10)),
    "DATA": State(after(*BEGUN), share=0.5),
    "DATA, 4 KiB received": State(after(*BEGUN, last=octets(4)), share=0.5),
    "DATA, 100 KiB received": State(after(*BEGUN, last=octets(100)), share=0.2),
    "DATA, 2 MiB received": State(after(*BEGUN, last=octets(2_048)), share=0.05),
    "4 KiB, waiting for the verdict": State(
        after(*BEGUN, last=octets(4) + b"\r\n.\r\n"), backend=WAITING, share=0.5
    ),
    "AUTH, challenged": State(
        after(b"AUTH LOGIN\r\n"), server="auth = { allow_plaintext = true }", backend=LOGIN
    ),
    "AUTH, logged in": State(
        after(b"AUTH PLAIN AGEAYg==\r\n"),
        server="auth = { allow_plaintext = true }",
        backend=LOGIN,
    ),
    "LHLO": State(after(ehlo=b"LHLO client.example\r\n"), server='protocol = "lmtp"'),
    "TLS, EHLO": State(secured()),
    "TLS, RCPT": State(secured(MAIL, RCPT)),
    "TLS, DATA, 4 KiB received": State(secured(*BEGUN, last=octets(4)), share=0.5),
}


def measure(state: State, connections: int, folder: Path) -> float:
    """KiB of each."""
    shutil.copy(STAGES, folder)
    count = max(2, round(connections * state.share))
    server = f"max_clients = {count + 10}\ntimeout = 600\ndata_timeout = 0\n{state.server}\n"
    top = 'shutdown_timeout = 1\nmax_memory = "1 GiB"'
    with contextlib.ExitStack() as open_:
        receiver = open_.enter_context(
            guerrillad(folder, server + starttls(folder), SILENT, state.backend, top)
        )

        def begin(source: str) -> socket.socket:
            return state.begin(receiver.port, source)

        # What the first ones cost is not a connection's.
        open_.enter_context(clients.hold(2, begin))
        time.sleep(SETTLE)
        before = receiver.resident_kib()
        open_.enter_context(clients.hold(count, begin))
        time.sleep(SETTLE)
        return (receiver.resident_kib() - before) / count


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--states", default=";".join(STATES), help="which, with semicolons")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures go there too")
    args = parser.parse_args()
    names = args.states.split(";")
    if unknown := [name for name in names if name not in STATES]:
        parser.error(f"no state {'; '.join(unknown)}: there are {'; '.join(STATES)}")
    raise_file_limit()
    found: dict[str, float] = {}
    print(f"{machine()}\n\n{'':<34} KiB each", flush=True)
    try:
        for name in names:
            with tempfile.TemporaryDirectory(prefix="guerrilla-states-") as folder:
                found[name] = measure(STATES[name], args.connections, Path(folder))
            print(f"{name:<34} {found[name]:8.2f}", flush=True)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"states.py: {error}", file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "kib": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
