"""More mail at once than memory: it keeps to `max_memory`, and takes all of it in the end."""

from __future__ import annotations

import random
import resource
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

from tests.faults.daemons import mails_in, stats
from tests.faults.tally import Tally
from tests.ledger import Ledger
from tests.running import RunningDaemon
from tests.wire import GONE, HELLO, TRANSACTION, Wire, anonymous_memory

MIB: Final = 2**20
MAX_MEMORY: Final = 32 * MIB
BATCH: Final = 4
"""Mails that are stored at a time."""
CLIENTS: Final = {False: 100, True: 1_000}
SIZE: Final = {False: 4 * MIB, True: 10 * MIB}
SPACE: Final = {False: 256 * MIB, True: 3_072 * MIB}
"""What `ulimit -v` leaves it beyond what it has idle: far less than all messages, which are files
that are mapped while they wait for their answer; more than what glibc reserves for threads that
come with the load, 72 MiB each, or no mail could be taken at all."""
RESIDENT: Final = MAX_MEMORY + 32 * MIB
"""How much its own memory may grow: `max_memory`, and what that does not bound: buffers of sockets
and of SQLite, the compressed mails of a batch, what the allocator keeps."""
PATIENCE: Final = {False: 100.0, True: 500.0}
PAUSE: Final = {False: 0.5, True: 20.0}
"""Seconds within which a sender who was told 4xx tries again."""


class Giants(dict[str, bytes]):
    """Messages by their tokens, as a ledger keeps them, but made when one is looked at."""

    def __init__(self, number: int, size: int) -> None:
        line = bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz", k=76)) + b"\r\n"
        self.body = line * (size // len(line))
        super().__init__({f"{at:06d}": b"" for at in range(number)})

    def head(self, token: str) -> bytes:
        return f"X-Ledger: {token}\r\n\r\n".encode()

    def __getitem__(self, token: str) -> bytes:
        return self.head(token) + self.body


class Sender:
    """Clients who send a mail each, until it is taken."""

    def __init__(self, port: int, giants: Giants, *, patience: float, pause: float) -> None:
        self.ledger = Ledger([])
        self.ledger.messages = giants
        self._port = port
        self._giants = giants
        self._patience = patience
        self._pause = pause

    def run(self, token: str) -> None:
        """One of them."""
        chance = random.Random(token)
        limit = time.monotonic() + self._patience
        while not self._try(token):
            assert time.monotonic() < limit, token
            time.sleep(chance.uniform(0, self._pause))

    def _try(self, token: str) -> bool:
        ledger, whole = self.ledger, False
        try:
            with Wire(self._port) as wire:
                wire.socket.settimeout(self._patience)
                wire.ask(HELLO)
                wire.send(TRANSACTION)
                replies = [wire.reply() for _ in range(3)]
                if not replies[-1].startswith("354 "):
                    return self._refused(ledger.early, replies[-1], replies[-1])
                wire.send(self._giants.head(token))
                wire.send(self._giants.body)
                wire.send(b".\r\n")
                whole = True
                reply = wire.reply()
        except GONE:
            ledger.end(token, whole=whole)
            return False
        if not reply.startswith("250 "):
            return self._refused(ledger.deferred, token, reply)
        ledger.take(token, reply)
        return True

    def _refused(self, counter: Counter[str], key: str, reply: str) -> bool:
        with self.ledger.lock:
            if reply.startswith("452 "):
                counter[key] += 1
            else:
                self.ledger.other.append(reply)
        return False


class Peak:
    """The most memory of its own that a process has while one is within; not that of files."""

    def __init__(self, pid: int) -> None:
        self.octets = anonymous_memory(pid)
        self._pid = pid
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ending.wait(0.02):
            self.octets = max(self.octets, anonymous_memory(self._pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def limit_space(pid: int, more: int) -> None:
    """As `ulimit -v`, from now on: so much more than it has taken."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (taken + more, taken + more))


def test_more_than_memory_at_once_is_taken_in_the_end(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    clients, size = CLIENTS[full], SIZE[full]
    with RunningDaemon(
        tmp_path,
        chain="HeadersParser|Header|Compressor|SQL",  # a store of all of it would be disk alone
        top=f"max_memory = {MAX_MEMORY}",
        server=f"max_clients = {clients}\nmax_size = '20 MiB'",
        backend=f"save_batch_size = {BATCH}\ngw_save_timeout = '10m'",
    ) as daemon:
        idle = anonymous_memory(daemon.pid)
        limit_space(daemon.pid, SPACE[full])
        giants = Giants(clients, size)
        sender = Sender(daemon.port, giants, patience=PATIENCE[full], pause=PAUSE[full])
        with Peak(daemon.pid) as peak, ThreadPoolExecutor(clients) as pool:
            for one in [pool.submit(sender.run, token) for token in giants]:
                one.result()
        found = stats(daemon)
        log = daemon.log_text()
    assert found["panics"] == found["memory_used"] == 0
    assert "Traceback" not in log
    grown = peak.octets - idle
    assert grown < RESIDENT, grown // MIB
    ledger = sender.ledger
    # The limit was one.
    assert ledger.refusals > 0
    stored = (zlib.decompress(mail) for mail in mails_in(tmp_path / "mail.db"))
    note = f"{clients:,} clients with {size // MIB} MiB each; memory grew by {grown // MIB} MiB"
    row = tally("little memory", "SQLite").audit(ledger, stored, note=note)
    assert (row.answered, row.unanswered, row.doubled) == (clients, 0, 0)
