"""guerrillad with all of its processes, and senders that go on until they are ended.

A rate is taken from the middle of such a load, by the daemon's own counter and by the CPU clocks of
all processes on both sides at the same two moments: neither the start of a client nor its last
mails are in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from guerrilla.control.client import ControlError, ask
from measured import Memory, busiest
from postfix import BenchError, Load, Postfix
from receivers import CHAIN, SILENT, Receiver, guerrillad

HERE: Final = Path(__file__).parent
STAGES: Final = HERE / "benchstages.py"
CHAINS: Final = {"null": CHAIN, "python": f"{CHAIN}|Email", "slow": f"{CHAIN}|Slow"}
CHAINS["large"] = CHAINS["python"]
SMALL: Final = 4_096
"""Octets of a message."""
ENDLESS: Final = 2_000_000_000
"""Messages: more than any sender comes to."""
PATIENCE: Final = 30.0
POLL: Final = 0.02
WARM: Final = 300
"""Messages before the measured ones."""


@dataclasses.dataclass(frozen=True)
class Window:
    """What happened between two moments. CPU in µs a message, rate in messages a second."""

    rate: float
    server_us: float
    client_us: float
    busiest: float
    """The share of the messages that the busiest process had, against an even one."""
    others: float
    """Cores that others had meanwhile: neighbours, interrupts, the host of a virtual machine."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A daemon with its processes."""

    receiver: Receiver
    socket: Path

    def asked(self, command: str) -> dict[str, Any]:
        """What it answers at its control socket."""
        try:
            answer = ask(self.socket, command)
        except ControlError as error:
            raise BenchError(f"guerrillad does not answer: {error}") from error
        if not answer["ok"]:
            raise BenchError(f"{command}: {'; '.join(answer['errors'])}")
        result: dict[str, Any] = answer["result"]
        return result

    def children(self) -> list[dict[str, Any]]:
        """What it says of each process; there is one without a parent, too."""
        found = self.asked("status").get("processes")
        if found:
            return list(found)
        stats = self.asked("stats")
        clients, messages = stats["connections_open"], stats["messages_received"]
        return [{"pid": self.receiver.pid, "clients": clients, "messages": messages}]

    def pids(self) -> list[int]:
        """Those that serve; the parent, where there is one, comes last."""
        serving = [one["pid"] for one in self.children()]
        return serving + [self.receiver.pid] * (self.receiver.pid not in serving)

    def clients(self) -> list[int]:
        """Connections that each process has."""
        return [one["clients"] for one in self.children()]

    def messages(self) -> list[int]:
        """That each process has received."""
        return [one["messages"] for one in self.children()]

    def memory(self) -> list[Memory]:
        """Of each, in the order of `pids`."""
        return [Memory.of(pid) for pid in self.pids()]

    def window(self, senders: list[subprocess.Popen[str]], seconds: float) -> Window:
        """So many seconds of a load that is there."""
        server, client = self.pids(), [one.pid for one in senders]
        had, begin = self.messages(), time.perf_counter()
        cpu, busy = (cpu_ns(server), cpu_ns(client)), busy_ns()
        time.sleep(seconds)
        have, took = self.messages(), time.perf_counter() - begin
        used = cpu_ns(server) - cpu[0], cpu_ns(client) - cpu[1]
        others = max(0.0, busy_ns() - busy - sum(used)) / 1e9 / took
        each = [now - then for then, now in zip(had, have, strict=True)]
        if not (count := sum(each)):
            raise BenchError("no message came in: give it more --seconds")
        server_us, client_us = (ns / 1_000 / count for ns in used)
        return Window(count / took, server_us, client_us, busiest(each), others)


def cpu_ns(pids: list[int]) -> int:
    """CPU time of all of them, with their threads."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def busy_ns() -> int:
    """Time that the cores of this machine were not idle, all of them together."""
    line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    ticks = [int(word) for word in line.split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


# --- Starting ------------------------------------------------------------------------------------


@contextlib.contextmanager
def family(
    folder: Path,
    processes: int,
    chain: str = "null",
    keys: Mapping[str, object] | None = None,
    *,
    shared: bool = False,
    server: str = "max_clients = 1500",
) -> Iterator[Family]:
    """Runs a daemon of so many processes, in a folder of its own; `server`: keys of its server."""
    folder.mkdir(exist_ok=True)
    shutil.copy(STAGES, folder)
    backend = f'save_process = "{CHAINS[chain]}"\nlog_received_mails = false\n'
    backend += f'import = ["{STAGES.stem}"]\n'
    backend += "".join(f"{key} = {value}\n" for key, value in (keys or {}).items())
    top = f"processes = {processes}\nshared_sockets = {str(shared).lower()}"
    with guerrillad(folder, server, log=SILENT, backend=backend, top=top) as receiver:
        yield Family(receiver, folder / "load.toml.sock")


Start = Callable[[int, int, int], subprocess.Popen[str]]
"""Starts a sender to a port, over so many connections, of mails of so many octets."""


def by_postfix(postfix: Postfix, *, kept: bool = True, recipients: int = 1) -> Start:
    """Postfix's smtp-source."""

    def start(port: int, connections: int, size: int) -> subprocess.Popen[str]:
        command = postfix.sending(port, Load(connections, ENDLESS, size, kept, recipients))
        environment = dict(postfix.environment)
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


def by_python(port: int, connections: int, _: int) -> subprocess.Popen[str]:
    """The same in Python, where a figure is not the point: 4 KiB always."""
    command = [sys.executable, str(HERE / "clients.py"), str(port), str(connections)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def load(
    family: Family, start: Start, connections: int, programs: int, size: int = SMALL
) -> Iterator[list[subprocess.Popen[str]]]:
    """Sends over so many connections, divided among programs, once it has warmed up.

    Each connection sends a mail when the one before it is answered, so a process that answers
    faster is sent more.
    """
    programs = min(programs, connections)
    before = sum(family.messages())
    senders: list[subprocess.Popen[str]] = []
    try:
        for number in range(programs):
            mine = connections // programs + (number < connections % programs)
            senders.append(start(family.receiver.port, mine, size))
        warm = min(WARM, 10 * connections)
        await_that(lambda: sum(family.messages()) - before >= warm, senders)
        yield senders
        raise_if_ended(senders)
    finally:
        for one in senders:
            one.kill()
        for one in senders:
            one.communicate(timeout=PATIENCE)
    await_that(lambda: not sum(family.clients()))


def await_that(
    done: Callable[[], bool], senders: list[subprocess.Popen[str]] | None = None
) -> None:
    """Waits for it, not for ever."""
    limit = time.monotonic() + PATIENCE
    while not done():
        raise_if_ended(senders or [])
        if time.monotonic() > limit:
            raise BenchError("guerrillad has not come as far as expected: is the machine busy?")
        time.sleep(POLL)


def raise_if_ended(senders: list[subprocess.Popen[str]]) -> None:
    """They are to send until they are ended."""
    for one in senders:
        if one.poll() is not None:
            said = one.communicate()[1].strip()[-300:]
            raise BenchError(f"a sender ended: {said}")
