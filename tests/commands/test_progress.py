"""The bar of a command that takes its time: for people, on stderr, and gone at the end."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

CODE = """
import sys
from guerrilla.commands.progress import progress
with progress("dropping", 300) as done:
    for _ in range(3):
        done(100)
print("rich" in sys.modules)
"""


def test_a_terminal_is_shown_how_far_it_is() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True, timeout=50
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
    assert done.stdout == b"True\n"
    assert b"dropping" in shown
    assert b"300/300" in shown
    # Transient: the line is cleared, and the cursor shown again.
    assert shown.rstrip().endswith((b"\x1b[2K", b"\x1b[?25h"))


def test_what_is_no_terminal_is_told_nothing() -> None:
    """And what makes the bar is not even loaded."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, timeout=50)
    assert (done.stdout, done.stderr) == (b"False\n", b"")
