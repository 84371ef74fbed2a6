"""Pipe: gives each mail to a program."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, cast

import pydantic

from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, Unavailable, expected
from guerrilla.pipe.command import NULL_SENDER, parse_command
from guerrilla.pipe.exits import reply_of
from guerrilla.pipe.program import Program, chunks, run
from guerrilla.reply import TRY_LATER, Replies, Reply
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Address, Envelope
    from guerrilla.reply import Outcome

__all__ = ["Pipe"]

log = logging.getLogger("guerrilla.processors.pipe")

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a program is looked for, and what it finds as `PATH`."""

_PASSED_ON: Final = ("LANG", "TZ")
"""What it has of the daemon's environment; nothing else, which may hold secrets."""

_FLAGS: Final = frozenset("FRhu")
_SAVED: Final = Reply.ok()
_SCHEMA: Final = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
_COMMAND: Final = pydantic.WithJsonSchema(_SCHEMA)


class Pipe(Processor):
    """Gives each mail to a program on its standard input; exit status 0 means that it is saved.

    Other statuses are answered as `sysexits.h` names them: 75 is `451`, 67 is `550 5.1.1`. A
    program that takes too long is killed, with all that it started, and its mail answered `451`.
    """

    stores: ClassVar[bool] = True

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        pipe_command: Annotated[
            tuple[str, ...] | str, pydantic.Field(validate_default=True), _COMMAND
        ] = ()
        """The program with its arguments, as a list or as a text that is split at blanks as a
        shell would; no shell runs it. `${recipient}` and others are macros, `$$` is a dollar
        sign. A chain that names Pipe needs it."""
        pipe_per_recipient: bool = False
        """Run it for each recipient, with that one's `Delivered-To`, rather than once a mail."""
        pipe_user: str = ""
        """Whom it runs as, `user` or `user:group`, where the daemon is root; by default as the
        daemon."""
        pipe_directory: str = ""
        """Where it runs; by default where the daemon does."""
        pipe_timeout: Seconds = 20.0
        """After how long it is killed. Over 0, and best below `gw_save_timeout`."""
        pipe_concurrency: int = pydantic.Field(8, ge=1)
        """How many of them run at a time, for each worker."""
        pipe_flags: str = ""
        """Letters of Postfix: `F` puts a `From ` line before the mail, `R` a `Return-Path` field;
        `h` and `u` make host and local part of recipients lower case in macros."""
        pipe_line_ends: Literal["crlf", "lf"] = "crlf"
        """How lines end in its input: as they came, or as Unix programs like them."""

        @pydantic.field_validator("pipe_command", mode="before")
        @classmethod
        def _command(cls, value: object) -> object:
            parse_command(value)
            return value

        @pydantic.field_validator("pipe_timeout")
        @classmethod
        def _some_time(cls, value: float) -> float:
            if value == 0:
                raise expected("a duration over 0", value)
            return value

        @pydantic.field_validator("pipe_flags")
        @classmethod
        def _known_flags(cls, value: str) -> str:
            if set(value) - _FLAGS:
                raise expected("letters out of F, R, h and u", value)
            return value

    def __init__(self, options: Options) -> None:
        """Starts nothing."""
        super().__init__(options)
        self._options = options
        self._arguments = parse_command(options.pipe_command, options.pipe_flags)
        self._gate = asyncio.Semaphore(options.pipe_concurrency)
        self._program: Program | None = None

    def open(self) -> None:
        """Looks for the program, its folder and its user; starts nothing.

        Raises:
            ConfigError: one of them is not there.
        """
        options = self._options
        problems: list[str] = []
        path = _found(self._arguments.program, problems)
        folder = options.pipe_directory and os.path.abspath(options.pipe_directory)
        if folder and not os.path.isdir(folder):
            problems.append(f"backend_config.pipe_directory: there is no folder {folder}")
        uid, gid, groups = _identity(options.pipe_user, problems)
        if problems:
            raise ConfigError(problems)
        if os.geteuid() == 0 and not options.pipe_user:
            log.warning("%s runs as root: set backend_config.pipe_user", path)
        environment = {"PATH": PATH}
        environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._program = Program(
            path, environment, folder or None, options.pipe_timeout, uid, gid, groups
        )

    async def save(self, envelope: Envelope) -> Outcome:  # type: ignore[override]
        """Runs the program, for all recipients or for each.

        Raises:
            guerrilla.Unavailable: it cannot be started.
            guerrilla.errors.DeliveryError: an address cannot be an argument.
        """
        if not self._options.pipe_per_recipient:
            every = range(len(envelope.rcpt_to))
            return await self._run(self._job(envelope, every, envelope.delivery_header))
        first: dict[Address, int] = {}
        for index, recipient in enumerate(envelope.rcpt_to):
            first.setdefault(recipient, index)
        # All arguments first: who is refused for them stops no program half way.
        jobs = [
            self._job(envelope, [index], envelope.delivery_header_for(index))
            for index in first.values()
        ]
        done = await asyncio.gather(*map(self._run, jobs), return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
        replies = dict(zip(first, done, strict=True))
        if not any(done):
            return None
        return Replies(_reply(replies[recipient]) for recipient in envelope.rcpt_to)

    def _job(self, envelope: Envelope, indices: Sequence[int], header: bytes) -> _Job:
        head = self._flagged(envelope) + envelope.added_headers + header
        size = len(head) + len(envelope.data)
        return _Job(envelope, self._arguments.expand(envelope, indices, size), head)

    def _flagged(self, envelope: Envelope) -> bytes:
        sender = envelope.mail_from
        found = ""
        if "F" in self._options.pipe_flags:
            name = NULL_SENDER if sender.is_null else str(sender)
            found += f"From {name}  {time.asctime(time.gmtime(envelope.received_at))}\r\n"
        if "R" in self._options.pipe_flags:
            found += f"Return-Path: <{'' if sender.is_null else sender}>\r\n"
        return found.encode()

    async def _run(self, job: _Job) -> Reply | None:
        program = cast("Program", self._program)  # A chain that is not open is never asked.
        queued_id = job.envelope.queued_id
        as_lf = self._options.pipe_line_ends == "lf"
        async with self._gate:
            try:
                data = chunks((job.head, job.envelope.data), as_lf=as_lf)
                ended = await run(program, job.arguments, data)
            except OSError as error:
                raise Unavailable(f"{program.path}: {error.strerror}") from error
        if ended.status is None:
            limit = f"{program.timeout:g} s"
            log.error("%s: %s killed after %s: %s", queued_id, program.path, limit, ended.line)
            return TRY_LATER
        reply = reply_of(ended.status)
        if reply is None:
            log.debug("%s: %s took it: %s", queued_id, program.path, ended.line)
            return None
        log.warning(
            "%s: %s ended with %s, answered %d: %s",
            queued_id,
            program.path,
            f"status {ended.status}" if ended.status > 0 else f"signal {-ended.status}",
            reply.code,
            ended.line,
        )
        return reply


@dataclass(frozen=True, slots=True)
class _Job:
    """What one run of the program is for."""

    envelope: Envelope
    arguments: Sequence[bytes]
    head: bytes


def _reply(outcome: Reply | BaseException | None) -> Reply:
    return outcome if isinstance(outcome, Reply) else _SAVED


def _found(name: str, problems: list[str]) -> str:
    """The path of a program that can be run."""
    key = "backend_config.pipe_command"
    path = shutil.which(name, path=PATH)
    if path is not None:
        return os.path.abspath(path)
    if "/" not in name:
        problems.append(f"{key}: there is no program {name} in {PATH}")
    elif os.path.isfile(name):
        problems.append(f"{key}: {os.path.abspath(name)} cannot be executed: chmod +x it")
    else:
        problems.append(f"{key}: there is no program {os.path.abspath(name)}")
    return name


def _identity(
    text: str, problems: list[str]
) -> tuple[int | None, int | None, tuple[int, ...] | None]:
    """User id, group id and groups of `pipe_user`; None each for those of the daemon."""
    if not text:
        return None, None, None
    user, _, group = text.partition(":")
    try:
        entry = pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError as error:
        problems.append(f"backend_config.pipe_user: {error.args[0]}: got {text!r}")
        return None, None, None
    if os.geteuid() == 0:
        return entry.pw_uid, gid, tuple(os.getgrouplist(user, gid))
    if (entry.pw_uid, gid) != (os.geteuid(), os.getegid()):
        problems.append(
            f"backend_config.pipe_user: only root can run a program as {text!r}; leave the key "
            "out, or let the daemon run as root"
        )
    return None, None, None
