"""A hostile load of a known size, in a process of its own: `hostile.py PORT DRIPPERS NEW`.

DRIPPERS connections send a byte a second, half of them of a command line and half of a message;
whichever is closed is opened anew. NEW more come each second: each says something that nobody
wants, and is gone half a second later. It prints `ready` when all the drippers are connected, goes
on until its standard input is closed, at most for two minutes, and then prints as JSON what it has
really done: a machine that is too busy for the load must not make a server look good.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

AT_MOST: Final = 120.0
TICK: Final = 0.02
"""Seconds; a fiftieth of the drippers has its turn in each."""
STAY: Final = 0.5
"""Seconds that a newcomer stays."""
SOURCES: Final = [f"127.0.0.{number}" for number in range(2, 6)]
"""More than one, so that ports do not run short."""
BIND_ADDRESS_NO_PORT: Final = 24
"""Of Linux: the port is chosen at the connect, when the other end is known."""
RESET: Final = struct.pack("ii", 1, 0)

HELLO: Final = b"EHLO drip.example.org\r\n"
MAIL: Final = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
COMMAND: Final = HELLO + b"NOOP "
DATA: Final = HELLO + MAIL + b"DATA\r\n"
NEWCOMERS: Final = (
    b"",
    b"EHL",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"GET / HTTP/1.1\r\nHost: mx.example.com\r\nAccept: */*\r\n\r\n",
    b"WHAT\r\n" * 20,
    HELLO + MAIL,
    HELLO + MAIL + b"RSET\r\n" * 20,
    DATA + b"Subject: half\r\n\r\nhalf",
    b"x" * 5_000,
    HELLO + b"NOOP\r\n" * 100,
)


class Load:
    """The connections, and what they have done."""

    def __init__(self, port: int, drippers: int) -> None:
        self.port = port
        self.dripped = self.came = self.opened_anew = 0
        self.sources = itertools.cycle(SOURCES)
        self.said = itertools.cycle(NEWCOMERS)
        self.drippers = [self.connect(self.first(index)) for index in range(drippers)]
        self.guests: deque[tuple[float, socket.socket]] = deque()

    def connect(self, octets: bytes) -> socket.socket:
        """A connection that has said that."""
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        client.bind((next(self.sources), 0))
        client.settimeout(10)
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        with contextlib.suppress(OSError):  # it may have been refused already
            client.send(octets)
        return client

    def first(self, index: int) -> bytes:
        """What a dripper begins with."""
        return DATA if index % 2 else COMMAND

    def drip(self, index: int) -> None:
        """A byte more."""
        try:
            self.drippers[index].send(b"x")
            self.dripped += 1
        except OSError:
            self.drippers[index].close()
            self.drippers[index] = self.connect(self.first(index))
            self.opened_anew += 1

    def come(self, now: float) -> None:
        """A newcomer, and the end of those that have been here long enough."""
        self.guests.append((now + STAY, self.connect(next(self.said))))
        self.came += 1
        while self.guests and self.guests[0][0] <= now:
            _, guest = self.guests.popleft()
            if self.came % 2:
                guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            guest.close()


def ticks(began: float) -> Iterator[float]:
    """The time at each tick, until standard input is closed."""
    due = began
    while (now := time.monotonic()) < began + AT_MOST:
        due += TICK
        if select.select([sys.stdin], [], [], max(0.0, due - now))[0]:
            return
        yield time.monotonic()


def main(port: int, drippers: int, new: int) -> None:
    """Does what the module says."""
    load = Load(port, drippers)
    print("ready", flush=True)
    began = time.monotonic()
    for now in ticks(began):
        # By the clock, so that a tick that comes late is made up for.
        for count in range(load.dripped + load.opened_anew, int((now - began) * drippers)):
            load.drip(count % drippers)
        for _ in range(load.came, int((now - began) * new)):
            load.come(now)
    seconds = time.monotonic() - began
    cpu = time.process_time()
    done = {
        "dripped": load.dripped / seconds,
        "came": load.came / seconds,
        "opened_anew": load.opened_anew,
        "cpu": cpu / seconds,
    }
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]))
