"""A daemon of one's own: `guerrillad serve` in a process that ends with whoever started it.

Run as a program, it is that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guerrilla._core import make_certificate
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHAIN", "Receiver", "receiving"]

CHAIN: Final = "HeadersParser|Header|Debugger"
"""Looks at the header section and makes the delivery header, and keeps nothing."""

START_LIMIT: Final = 30.0
STOP_LIMIT: Final = 15.0
_LAST_LINE: Final = "  stop"
_LISTENING: Final = "  listening"
_ROOM: Final = 64
"""Connections beside those of the load."""


class ReceiverError(GuerrillaError):
    """It did not start; lines for a person."""


@dataclass(frozen=True)
class Receiver:
    """A running one."""

    pid: int
    address: str

    def cpu(self) -> float:
        """Seconds of CPU that all of its processes have used."""
        return sum(_cpu(pid) for pid in _family(self.pid))


@contextlib.contextmanager
def receiving(
    *, connections: int, size: int, tls: str | None, lmtp: bool, processes: int
) -> Iterator[Receiver]:
    """Runs a daemon on a free port of 127.0.0.1, which takes mail for anybody and keeps nothing.

    Raises:
        ReceiverError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="guerrillad-bench-") as name:
        folder = Path(name)
        config = folder / "bench.json"
        keys = _config(folder, connections, size, tls, lmtp=lmtp, processes=processes)
        config.write_text(json.dumps(keys), encoding="utf-8")
        with (folder / "log").open("w+b") as log:
            process = subprocess.Popen(  # our own program  # noqa: S603
                [sys.executable, "-m", "guerrilla.bench.receiver", os.fspath(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                process_group=0,  # Ctrl-C is for the load; this ends when that has.
            )
            try:
                address = _address(process)
                if address is None:
                    log.seek(0)
                    said = log.read().decode("utf-8", "replace").strip()
                    raise ReceiverError(f"the daemon to load did not start\n{said}".strip())
                yield Receiver(process.pid, address)
            finally:
                _end(process)


def _config(
    folder: Path, connections: int, size: int, tls: str | None, *, lmtp: bool, processes: int
) -> dict[str, Any]:
    server: dict[str, Any] = {
        "listen_interface": "127.0.0.1:0",
        "host_name": "localhost",
        "max_clients": connections + _ROOM,
        "max_size": size + (1 << 20),
    }
    if lmtp:
        server["protocol"] = "lmtp"
    if tls is not None:
        key, certificate = folder / "tls.key", folder / "tls.crt"
        for path, pem in zip((key, certificate), make_certificate(["localhost"], 2), strict=True):
            path.write_text(pem, encoding="ascii")
        server["tls"] = {
            "start_tls_on" if tls == "starttls" else "tls_always_on": True,
            "private_key_file": os.fspath(key),
            "public_key_file": os.fspath(certificate),
        }
    return {
        "allowed_hosts": ["."],
        "control_socket": "off",
        "log_file": "stderr",
        "log_level": "error",
        "processes": processes,
        "servers": [server],
        "backend_config": {"save_process": CHAIN, "log_received_mails": False},
    }


def _address(process: subprocess.Popen[str]) -> str | None:
    """Where it listens, once it has started; None where it has not, or not in time."""
    alarm = threading.Timer(START_LIMIT, process.kill)
    alarm.start()
    address = None
    try:
        for line in process.stdout or ():
            if line.startswith(_LISTENING):
                address = line.split()[1]
            if line.startswith(_LAST_LINE):
                return address
    finally:
        alarm.cancel()
    return None


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:  # A kernel without them.
        children = ""
    return [pid, *(int(child) for child in children.split())]


def _cpu(pid: int) -> float:
    """By its own clock (clock_getcpuclockid(3)); 0 of one that has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _end_with_stdin() -> None:
    """Whoever started this has closed it, or has died."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(config: str) -> int:
    from guerrilla.cli import main  # noqa: PLC0415  # of the program alone

    # A reader that holds the lock of a stream would be in the way of the end.
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    return main(["serve", "-c", config])


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1]))
