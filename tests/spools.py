"""Daemons that answer mail at the spool, and a stage right of it that does what a mail says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, Self

from guerrilla.control import sockets
from tests.control import PATIENCE
from tests.running import RunningDaemon
from tests.wire import Wire

FATE: Final = r"""
import os
import time

import guerrilla
from guerrilla import Reply
from guerrilla.engine.base import Processor


@guerrilla.processor("Fate")
class Fate(Processor):
    # What becomes of a mail is in its subject, until a file `open` is there; then each is kept.
    stores = True

    def save(self, envelope):
        while not os.path.exists("open"):
            if envelope.subject == "later":
                return Reply.retry("4.3.0", "not now")
            if envelope.subject == "never":
                return Reply.reject("5.7.1", "not at all")
            if envelope.subject != "hang":
                break
            time.sleep(0.02)
        with open("kept", "a") as kept:
            kept.write(envelope.queued_id + "\n")
        return None
"""
"""The module of the stage."""


def spooling(folder: Path, *, chain: str = "HeadersParser|250|Fate", **more: Any) -> RunningDaemon:
    """A daemon in `folder` with a spool there, and `Fate` right of it.

    Args:
        folder: where it runs.
        chain: its `save_process`.
        more: as `RunningDaemon` takes it.
    """
    (folder / "fate.py").write_text(FATE, encoding="utf-8")
    spool = f"spool = {{ path = {json.dumps(os.fspath(folder / 'spool'))}, min_free = 0 }}"
    top = more.pop("top", "")
    backend = 'import = ["fate"]\n' + more.pop("backend", "")
    return RunningDaemon(folder, chain=chain, top=f"{spool}\n{top}", backend=backend, **more)


def kept(folder: Path) -> list[str]:
    """The ids of what `Fate` has kept."""
    path = folder / "kept"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def deliver(daemon: RunningDaemon, *subjects: str, body: bytes = b"body") -> list[str]:
    """Sends a mail for each subject; their ids."""
    found = []
    with Wire(daemon.port) as wire:
        for subject in subjects:
            reply = wire.deliver(b"Subject: " + subject.encode() + b"\r\n\r\n" + body)
            assert reply.startswith("250 2.0.0 OK: queued as "), reply
            found.append(reply.rsplit(" ", 1)[1])
    return found


class Asked:
    """A connection to the control socket, of which each answer is measured."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._socket = sockets.connect(f"{daemon.config_file}.sock", PATIENCE)
        self._file = self._socket.makefile("rb")
        self.longest = 0

    def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The result; what is no result fails the test."""
        answer = self.answer(command, **arguments)
        assert answer["ok"], answer
        result: dict[str, Any] = answer["result"]
        return result

    def answer(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The whole answer."""
        request = {"command": command} | ({"arguments": arguments} if arguments else {})
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        line = self._file.readline()
        self.longest = max(self.longest, len(line))
        found: dict[str, Any] = json.loads(line)
        return found

    def entries(self, *, failed: bool = False, **more: Any) -> list[dict[str, Any]]:
        """All messages, of all pages."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self("spool-list", after=after, failed=failed, **more)
            found += page["entries"]
            after = page["next"]
        return found

    def states(self) -> dict[str, str]:
        """The state of each message by its id, of those that have failed too.

        One that is being set aside is in both lists, and still in work.
        """
        entries = [*self.entries(failed=True), *self.entries()]
        return {entry["id"]: entry["state"] for entry in entries}

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
