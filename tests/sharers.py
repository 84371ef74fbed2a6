"""Cores in processes of their own, with one memory."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final, Self

from guerrilla._core import Core, Reply, SharedMemory
from tests.cores import AUTH, BACKEND, MIB, SERVER

ROOT: Final = Path(__file__).parent.parent
OFFERED: Final = AUTH | {"offered": True, "allow_plaintext": True}


def settings(**server: Any) -> Any:
    """Of a core with one server."""
    return {
        "servers": [SERVER | server],
        "allowed_hosts": ["."],
        "max_memory": 64 * MIB,
        "spill_size": 0,
        "backends": [BACKEND],
        "log_level": 30,
    }


class Sharer:
    """A process with a core, which takes every mail and no login.

    Args:
        memory: what it has in common with others.
        place: its place there.
        server: keys of its server.
    """

    def __init__(self, memory: SharedMemory, place: int, **server: Any) -> None:
        fd = memory.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sharers", str(fd), str(place), repr(server)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            pass_fds=[fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            self._process.wait(20)
            self._close()
            raise AssertionError("it has not begun")

    def kill(self) -> None:
        """By SIGKILL: it can do nothing about it."""
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait(20) == -signal.SIGKILL
        self._close()

    def end(self) -> None:
        """As it has to."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


def _serve(fd: str, place: str, server: str) -> None:
    memory = SharedMemory.attach(int(fd), int(place))
    core = Core(settings(**ast.literal_eval(server)), memory)
    backend = core.backend("default")

    def save() -> None:
        while (envelopes := backend.receive(64, 20)) is not None:
            for envelope in envelopes:
                envelope.answer()

    def refuse() -> None:
        while (logins := backend.receive_logins(64, 20)) is not None:
            for login in logins:
                login.answer(Reply(535, "5.7.8", "Authentication credentials invalid"))

    (address,) = core.bind()
    core.start()
    for work in (save, refuse):
        threading.Thread(target=work, daemon=True).start()
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    core.close()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
