"""How a load ends: by Ctrl-C, with whoever started it, and what is seen of it on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guerrilla.testing import GuerrillaServer
from tests.bench.peers import serving, session, stalls
from tests.terminals import run_on_terminal

COMMAND = (sys.executable, "-m", "guerrilla", "bench")


def start(*words: str, stderr: int) -> subprocess.Popen[str]:
    # Tests that a shell runs in the background have SIGINT ignored, and so would the program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            process_group=0,  # As a shell starts it: Ctrl-C is for all of its group.
        )
    finally:
        signal.signal(signal.SIGINT, before)


def descendants(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def sockets(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # One that was closed meanwhile.
            count += os.readlink(link).startswith("socket:")
    return count


def soon(true: Callable[[], object]) -> None:
    """Waits as long as two programs may take to start on a busy machine."""
    limit = time.monotonic() + 40
    while not true():
        assert time.monotonic() < limit, "it did not happen within 40 s"
        time.sleep(0.01)


def test_ctrl_c_ends_it_with_the_figures_so_far() -> None:
    with GuerrillaServer() as server:
        words = ("--target", server.address, "--rate", "500", "--duration", "5m", "--json")
        process = start(*words, stderr=subprocess.PIPE)
        server.wait_for(100, 40)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    told = json.loads(out)
    assert (told["ended"], told["errors"]) == ("stopped", [])
    # Of each of ten connections one may be on its way.
    assert told["messages"]["accepted"] >= 90
    assert told["latency"]["from_due"]["count"] >= 90


def test_ctrl_c_ends_its_daemon_too() -> None:
    process = start("--duration", "5m", "--rate", "10", stderr=subprocess.PIPE)
    soon(lambda: sockets(process.pid) >= 10)
    [daemon] = descendants(process.pid)
    # Ctrl-C is not for it, or it would stop before the load does, and refuse what is on its way.
    assert os.getpgid(daemon) != os.getpgid(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    assert "errors    none\n" in out
    assert out.endswith("ended by Ctrl-C\n")
    assert not is_alive(daemon)


def test_ctrl_c_while_a_server_stalls() -> None:
    waiting: list[object] = []

    def stalling(connection: object) -> None:
        waiting.append(connection)
        stalls(connection)  # type: ignore[arg-type]

    with serving(session({".": stalling})) as address:
        process = start("--target", address, "--connections", "3", stderr=subprocess.PIPE)
        soon(lambda: len(waiting) == 3)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    assert "0 accepted, 3 unfinished in " in out
    assert out.endswith("ended by Ctrl-C\n")


def test_its_daemon_ends_with_it_whatever_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        process = start("--duration", "5m", "--rate", "10", stderr=subprocess.DEVNULL)
        soon(lambda: sockets(process.pid) >= 10)
        [daemon] = descendants(process.pid)
        process.kill()
        process.communicate(timeout=20)
        soon(lambda: not is_alive(daemon))


def test_a_terminal_is_shown_how_far_it_is() -> None:
    words = ("--rate", "10", "--messages", "60")
    with serving(session({})) as address:
        told, shown = run_on_terminal([*COMMAND, "--target", address, *words])
    assert b"60 accepted" in told
    assert b"messages/s" in shown
    assert b"accepted" in shown
    assert shown.rstrip().endswith((b"\x1b[2K", b"\x1b[?25h"))


def test_a_daemon_that_does_not_start_is_told_of(tmp_path: Path) -> None:
    """Whatever it says is passed on."""
    code = (
        "import sys, guerrilla.bench.receiver as it; it.CHAIN = 'NoSuchProcessor'\n"
        "from guerrilla.cli import main; sys.exit(main(['bench']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (1, "")
    first, *more = done.stderr.splitlines()
    assert first == "guerrillad: the daemon to load did not start"
    assert "NoSuchProcessor" in " ".join(more)
