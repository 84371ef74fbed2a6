"""Where `guerrillad` begins: quiet about signals from its first moment on.

It imports nothing that takes long: Ctrl-C while the commands load would else be a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    _Handler = Callable[[int, FrameType | None], None]

_WITH_VALUE = ("-c", "--config")
"""The options before a command that have a value as a word of its own."""

_EXIT_INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; every error is one clear line a problem on stderr.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit status: 0 done, 1 an error, 130 interrupted.

    Raises:
        SystemExit: 1 for wrong arguments, 0 after `--help`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    serves = _command(given) == "serve"
    early = _EarlySignals(serves=serves)
    try:
        _fill_standard_streams()
        from guerrilla.commands.parser import run  # only now: see above  # noqa: PLC0415

        if not serves:  # `serve` takes over without a gap.
            early.restore()
        return run(arguments)
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    finally:
        early.restore()


def _command(words: Sequence[str]) -> str | None:
    """The command among the arguments: the first word that is no option, nor the value of one."""
    left = iter(words)
    for word in left:
        if word in _WITH_VALUE:
            next(left, None)
        elif not word.startswith("-"):
            return word
    return None


class _EarlySignals:
    """Ends the program at once while nothing is open that would have to be closed."""

    def __init__(self, *, serves: bool) -> None:
        self._serves = serves
        self._handler: _Handler = self._end  # One object, to be told from others.
        self._before: dict[int, object] = {}
        # What is no daemon dies of the others quietly as it is.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)[: 3 if serves else 1]:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN and not serves:
                continue
            try:
                signal.signal(number, self._handler)
            except ValueError:  # Not in the main thread: its owner has the signals.
                return
            self._before[number] = before

    def restore(self) -> None:
        """Puts back what was there, but where a command has set its own by now."""
        for number, before in self._before.items():
            if signal.getsignal(number) is self._handler:
                signal.signal(number, before)  # type: ignore[arg-type]  # as getsignal gave it
        self._before = {}

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self._serves:
            os._exit(_EXIT_INTERRUPTED)
        try:
            name = signal.Signals(number).name
            os.write(2, f"guerrillad: {name}: stopped before it had started\n".encode())
        finally:
            os._exit(0)


def _fill_standard_streams() -> None:
    """Opens those that were closed, as by `>&-`, to nowhere.

    Else a database or a socket would get their number, and what is meant for stderr.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It takes the lowest number that is free: this one.
