"""Senders that send slowly, in a process of their own: `drip.py PORT SENDERS OCTETS`.

Each sends the first MiB of its message at once, so that together they hold all the memory there is.
Then it prints `ready`, and they go on in chunks, slowly, until its standard input is closed. Then
they send the rest, and it prints the answers: how often each code came.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import Counter

FIRST = 2**20
CHUNK = b"x" * 65_536
PAUSE = 0.4
"""Seconds between two chunks of one sender."""
COMMANDS = (
    b"EHLO drip.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
)
PATIENCE = 40.0


def connect(port: int) -> socket.socket:
    """A connection that has its 354."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    client.sendall(COMMANDS)
    seen = b""
    while b"\r\n354 " not in seen:
        octets = client.recv(4_096)
        if not octets:
            raise ConnectionError(seen)
        seen += octets
    return client


def drip(clients: list[socket.socket], octets: int) -> int:
    """Sends chunks until told, or until all is sent; octets that each has sent."""
    sent = 0
    turn = time.monotonic()
    while sent < octets:
        for index, client in enumerate(clients):
            due = turn + PAUSE * index / len(clients)
            while (left := due - time.monotonic()) > 0:
                if select.select([sys.stdin], [], [], left)[0]:
                    return sent
            client.sendall(CHUNK)
        sent += len(CHUNK)
        turn += PAUSE
    return sent


def main(port: int, senders: int, octets: int) -> None:
    """Does what the module says."""
    clients = [connect(port) for _ in range(senders)]
    for client in clients:
        client.sendall(b"Subject: drip\r\n\r\n")
        for _ in range(FIRST // len(CHUNK)):
            client.sendall(CHUNK)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    rest = octets - FIRST - drip(clients, octets - FIRST)
    codes: Counter[str] = Counter()
    for client in clients:
        # The one that stopped in the middle of a turn may be a chunk ahead of the others.
        for _ in range(rest // len(CHUNK)):
            client.sendall(CHUNK)
        client.sendall(b"\r\n.\r\n")
        codes[client.recv(4_096)[:9].decode()] += 1
    sys.stdout.writelines(f"{count} {code}\n" for code, count in codes.items())


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]))
