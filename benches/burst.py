"""A burst of large mails at once: what memory it takes at most, and what is left of it.

    python benches/burst.py [--connections 1000] [--octets 1048576] [--bursts 2] [--json FILE]

All connections have said DATA before the first octet of a message is sent; then all send at once.
The second burst shows whether what the first one left is used again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import clients
from postfix import BenchError
from receivers import Receiver, guerrillad, machine, raise_file_limit

LOOKS: Final = (0.0, 1.0, 3.0)
"""Seconds behind the last answer at which memory is read."""
END: Final = b"\r\n.\r\n"


@dataclasses.dataclass(frozen=True)
class Burst:
    """KiB of the daemon: before it, at most, and after it by the seconds of `LOOKS`."""

    before: int
    peak: int
    after: tuple[int, ...]


def measure(receiver: Receiver, connections: int, octets: int) -> Burst:
    """One burst."""
    message = memoryview((clients.LINE * (octets // len(clients.LINE) + 1))[:octets] + END)
    with contextlib.ExitStack() as open_:
        begun = [_begun(open_, receiver.port) for _ in range(connections)]
        before = receiver.resident_kib()
        receiver.forget_peak()
        _send(begun, message)
        for one in begun:
            one.setblocking(True)
            one.settimeout(clients.PATIENCE)
            clients.reply(one, b"24")
        peak = receiver.peak_kib()
    after, done = [], time.monotonic()
    for look in LOOKS:
        time.sleep(max(0.0, done + look - time.monotonic()))
        after.append(receiver.resident_kib())
    return Burst(before, peak, tuple(after))


def _begun(open_: contextlib.ExitStack, port: int) -> socket.socket:
    connection = open_.enter_context(clients.open_session(port))
    for command in clients.COMMANDS:
        clients.ask(connection, command)
    connection.setblocking(False)
    return connection


def _send(connections: Sequence[socket.socket], message: memoryview) -> None:
    with selectors.DefaultSelector() as selector:
        for one in connections:
            selector.register(one, selectors.EVENT_WRITE, [0])
        while selector.get_map():
            ready = selector.select(clients.PATIENCE)
            if not ready:
                raise BenchError("nobody takes anything any more")
            for key, _ in ready:
                taker, sent = key.fileobj, key.data
                if isinstance(taker, socket.socket):
                    sent[0] += taker.send(message[sent[0] :])
                    if sent[0] == len(message):
                        selector.unregister(taker)


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--octets", type=int, default=1 << 20)
    parser.add_argument("--bursts", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures go there too")
    args = parser.parse_args()
    raise_file_limit()
    found: list[Burst] = []
    server = f"max_clients = {args.connections + 10}\ntimeout = 60"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="guerrilla-burst-") as folder,
            guerrillad(Path(folder), server) as receiver,
        ):
            clients.session(receiver.port, mails=1)
            for _ in range(args.bursts):
                found.append(measure(receiver, args.connections, args.octets))
                print(f"MiB: {_mib(found[-1])}", flush=True)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"burst.py: {error}", file=sys.stderr)
        return 1
    if args.json:
        rows = [dataclasses.asdict(one) for one in found]
        args.json.write_text(json.dumps({"machine": machine(), "bursts": rows}, indent=2) + "\n")
    return 0


def _mib(burst: Burst) -> str:
    after = ", ".join(
        f"{kib / 1_024:.1f} after {look:g} s" for kib, look in zip(burst.after, LOOKS, strict=True)
    )
    return f"{burst.before / 1_024:.1f} before, {burst.peak / 1_024:.1f} at most, {after}"


if __name__ == "__main__":
    sys.exit(main())
