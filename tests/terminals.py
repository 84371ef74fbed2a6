"""A command whose stderr is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Sequence


def run_on_terminal(command: Sequence[str]) -> tuple[bytes, bytes]:
    """Its output, and what the terminal has got; it has to succeed."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            check=True,
            timeout=50,
        )
        os.close(theirs)
        shown = b""
        try:
            while more := os.read(ours, 2**16):
                shown += more
        except OSError:  # EIO: nobody has the other end
            pass
    finally:
        os.close(ours)
    return done.stdout, shown
