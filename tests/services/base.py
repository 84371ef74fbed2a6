"""A private server: a folder, a process, and how one knows that it is ready."""

from __future__ import annotations

import abc
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.wire import halt

READY_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0

_PORTS = range(10_000, 32_000)
"""Linux gives clients those from 32,768 on, other systems higher ones."""
_PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/bin")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago; for servers that cannot be given port 0.

    None that the kernel gives to clients: one of them would have it while the server is down.
    """
    # Not the order of the test session, which another one beside it may have too.
    for port in random.SystemRandom().sample(_PORTS, 1_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    raise AssertionError(f"no port from {_PORTS.start} to {_PORTS.stop} is free")


def program(*names: str) -> str:
    """The path of the first of these programs, also where only root's PATH looks.

    Raises:
        AssertionError: none is installed; `scripts/test-tools.sh` should have seen to it.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise AssertionError(f"none of {', '.join(names)} is installed: see scripts/test-tools.sh")


class Service(abc.ABC):
    """A server in a process of its own; a context manager, and startable again after a stop.

    A subclass says what to run (`command`) and when it is ready (`is_ready`).

    Args:
        folder: an empty one of its own.
    """

    name = "service"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self) -> Sequence[str]:
        """What to run in the foreground."""

    def environment(self) -> Mapping[str, str] | None:
        """Its environment; None: that of the tests."""
        return None

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves; asked again and again until it does. May raise."""

    @property
    def output(self) -> Path:
        """What it printed."""
        return self.folder / f"{self.name}.out"

    def start(self) -> None:
        """Starts it and waits until it is ready.

        Raises:
            AssertionError: it ended, or was not ready in time; with what it printed.
        """
        assert self.process is None, f"{self.name} runs already"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(),
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """Ends it as its owner would. Idempotent."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Ends it at once, as a crash would. Idempotent."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Lets it answer nothing until `resume`."""
        assert self.process is not None
        halt(self.process.pid)

    def resume(self) -> None:
        """Undoes `pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        limit = time.monotonic() + READY_TIMEOUT
        while True:
            with contextlib.suppress(Exception):
                if self.is_ready():
                    return
            if self.process.poll() is not None or time.monotonic() > limit:
                said = self.output.read_text(encoding="utf-8", errors="replace")[-4000:]
                self.kill()
                raise AssertionError(f"{self.name} did not become ready\n{said}")
            time.sleep(0.02)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end within {STOP_TIMEOUT} s") from None
