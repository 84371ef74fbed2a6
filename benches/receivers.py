"""What is measured: guerrillad and Postfix's smtp-sink, each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from guerrilla._core import make_certificate
from postfix import BenchError, Postfix

CHAIN: Final = "HeadersParser|Header|Debugger"
BACKEND: Final = f'save_process = "{CHAIN}"\nlog_received_mails = false'
START_LIMIT: Final = 20.0
SILENT: Final = 'log_file = "off"\nlog_level = "error"'
LOGGED: Final = 'log_file = "load.log"\nlog_level = "info"'
"""A line a message, to a file."""


@dataclasses.dataclass(frozen=True)
class Receiver:
    """A running receiver, and what it has used so far."""

    pid: int
    port: int

    def cpu_ns(self) -> int:
        """CPU time of its process with all threads, by its own clock (clock_getcpuclockid(3))."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def resident_kib(self) -> int:
        """Resident memory of its process."""
        return self._status("VmRSS")

    def peak_kib(self) -> int:
        """The most that was resident since it was forgotten."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begins a new one."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def _status(self, key: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        lines = status.splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@contextlib.contextmanager
def guerrillad(
    folder: Path,
    server: str = "max_clients = 1500",
    log: str = SILENT,
    backend: str = BACKEND,
    top: str = "",
) -> Iterator[Receiver]:
    """Runs the daemon, with the chain of the targets unless told otherwise.

    Args:
        folder: for its config; it runs there.
        server: more lines of TOML for the server.
        log: the keys of the log, as TOML.
        backend: `backend_config`, as TOML.
        top: more keys of the config itself, as TOML.
    """
    config = folder / "load.toml"
    config.write_text(
        f'allowed_hosts = ["."]\n{log}\n{top}\n'
        f'[[servers]]\nlisten_interface = "127.0.0.1:0"\n{server}\n'
        f"[backend_config]\n{backend}\n"
    )
    command = [sys.executable, "-m", "guerrilla", "serve", "-c", str(config)]
    with telling(command, folder) as receiver:
        yield receiver


def starttls(folder: Path) -> str:
    """The `tls` key of a server that offers STARTTLS, as TOML; its files come into the folder."""
    key, chain = folder / "tls.key", folder / "tls.crt"
    for path, pem in zip((key, chain), make_certificate(["localhost"], 2), strict=True):
        path.write_text(pem)
    files = f'private_key_file = "{key}", public_key_file = "{chain}"'
    return f"tls = {{ start_tls_on = true, {files} }}"


def _printed_port(process: subprocess.Popen[str]) -> int:
    for line in process.stdout or ():
        words = line.split()
        if words[:1] == ["listening"]:
            return int(words[1].rpartition(":")[2])
    raise BenchError(f"{process.args!r} did not start")


@contextlib.contextmanager
def telling(command: Sequence[str], folder: Path) -> Iterator[Receiver]:
    """Runs a receiver that prints where it listens, in that folder.

    Raises:
        BenchError: it does not start.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            yield Receiver(process.pid, _printed_port(process))
        finally:
            _end(process)


@contextlib.contextmanager
def smtp_sink(postfix: Postfix, sessions: int) -> Iterator[Receiver]:
    """Runs the reference: it answers 250 and throws away what it got.

    Args:
        postfix: where it is.
        sessions: how many it takes at a time; its own limit is 256, and nothing else changes by it.
    """
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [postfix.sink, *user, "-m", str(sessions), f"127.0.0.1:{port}", "1000"]
    with program(command, port, postfix.environment) as receiver:
        yield receiver


def free_port() -> int:
    """One that nobody listens on, for a program that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def program(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Receiver]:
    """Runs a receiver that listens on this port.

    Raises:
        BenchError: it does not.
    """
    with subprocess.Popen(
        command, env=None if environment is None else dict(environment)
    ) as process:
        try:
            _await_port(process, port)
            yield Receiver(process.pid, port)
        finally:
            _end(process)


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.02)
    raise BenchError(f"{process.args!r} did not start")


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(START_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()


def raise_file_limit() -> None:
    """Lets this process and those that it starts have as many descriptors as they may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def machine() -> str:
    """What the figures are of."""
    python = platform.python_version()
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {python}"
