"""What the tests of Pipe share."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from guerrilla._core import Address, Envelope
from guerrilla.processors.pipe import Pipe
from guerrilla.reply import Reply
from tests.chains import run

DATA = b"Subject: hello\r\n\r\nbody\r\n"


def envelope(*recipients: str | Address, data: bytes = DATA, **keys: Any) -> Envelope:
    """One with a delivery header, as the stage Header leaves it."""
    keys = {"mail_from": "from@example.org", **keys}
    made = Envelope.create(data, rcpt_to=recipients or ("to@example.com",), **keys)
    made.make_delivery_header("example.com")
    return made


def pipe(*command: str, **options: Any) -> Pipe:
    """A stage that runs a command; not opened."""
    return Pipe(Pipe.Options.model_validate({"pipe_command": command, **options}))


def shell(script: str, *arguments: object, **options: Any) -> Pipe:
    """One that runs lines for a shell, to which the arguments are `$1` and so on."""
    script = script.replace("$", "$$")  # Of the shell, and no macros.
    return pipe("/bin/sh", "-c", script, "sh", *map(str, arguments), **options)


def answers(stage: Pipe, *mails: Envelope, **settings: Any) -> list[str]:
    """What senders hear of these mails: `saved`, or code and enhanced code."""
    run(mails, stage, **settings)
    return [_answer(mail) for mail in mails]


def _answer(mail: Envelope) -> str:
    found = mail.answered
    if found is None:
        assert not mail.answer(), "it was not answered"
        return "saved"
    replies = (found,) if isinstance(found, Reply) else found
    return " ".join(f"{reply.code} {reply.enhanced}" for reply in replies)


def is_gone(pid: int) -> bool:
    """Whether no such process runs; what nobody has reaped yet runs no more."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] == "Z"
    return True


def children() -> set[int]:
    """The processes that this one has started, alive or not reaped."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
            if int(fields[1]) == os.getpid():
                found.add(int(path.parent.name))
    return found
