"""The bar of a command that takes its time: for people, on stderr, and gone at the end."""

from __future__ import annotations

import subprocess
import sys

from tests.terminals import run_on_terminal

CODE = """
import sys
from guerrilla.commands.progress import progress
with progress("dropping", 300) as done:
    for _ in range(3):
        done(100)
print("rich" in sys.modules)
"""


def test_a_terminal_is_shown_how_far_it_is() -> None:
    told, shown = run_on_terminal([sys.executable, "-c", CODE])
    assert told == b"True\n"
    assert b"dropping" in shown
    assert b"300/300" in shown
    # Transient: the line is cleared, and the cursor shown again.
    assert shown.rstrip().endswith((b"\x1b[2K", b"\x1b[?25h"))


def test_what_is_no_terminal_is_told_nothing() -> None:
    """And what makes the bar is not even loaded."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, timeout=50)
    assert (done.stdout, done.stderr) == (b"False\n", b"")
