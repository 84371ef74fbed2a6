"""Other receivers: Postfix's smtp-sink, aiosmtpd of PyPI, smtp-server of npm.

The last two are installed under build/peers, pinned and by hash, with a Python environment of their
own: nothing else of the project has them. Where they cannot be had the reason is told, and the rest
is measured without them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from measuring import Start
from postfix import BenchError, Postfix
from receivers import Receiver, free_port, program, smtp_sink

HERE: Final = Path(__file__).parent
ROOM: Final = HERE.parent / "build" / "peers"
PATIENCE: Final = 180.0
"""Seconds for an installation."""
SESSIONS: Final = 1_200
"""Connections at a time, at most."""


def peers(postfix: Postfix) -> tuple[dict[str, Start], dict[str, str]]:
    """All that can be had here, and why the others cannot."""
    found: dict[str, Start] = {"smtp-sink": partial(smtp_sink, postfix, SESSIONS)}
    missing = {}
    for name, (install, start) in INSTALLED.items():
        try:
            install()
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            missing[name] = reason(error)
        else:
            found[name] = start
    return found, missing


def reason(error: Exception) -> str:
    """Why, in a line."""
    said = getattr(error, "stderr", None) or str(error)
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return (text.strip().splitlines() or [type(error).__name__])[-1][:200]


# --- aiosmtpd ------------------------------------------------------------------------------------

VENV: Final = ROOM / "venv"
REQUIREMENTS: Final = HERE / "aiosmtpd.txt"


def _install_aiosmtpd() -> None:
    def pip() -> None:
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*command, "--disable-pip-version-check", "--require-hashes", "-r", str(REQUIREMENTS)])

    _once(VENV / "installed", REQUIREMENTS, pip)


@contextlib.contextmanager
def aiosmtpd() -> Iterator[Receiver]:
    """Its own program, with the handler that throws away."""
    port = free_port()
    command = [str(VENV / "bin" / "python"), "-m", "aiosmtpd", "--nosetuid"]
    command += ["--class", "aiosmtpd.handlers.Sink", "--listen", f"127.0.0.1:{port}"]
    with program(command, port) as receiver:
        yield receiver


# --- smtp-server ---------------------------------------------------------------------------------

NODE: Final = ROOM / "node"
PACKAGE: Final = HERE / "node"


def _install_smtp_server() -> None:
    if not (shutil.which("npm") and shutil.which("node")):
        raise BenchError("Node.js and npm are missing")

    def npm() -> None:
        shutil.copytree(PACKAGE, NODE, dirs_exist_ok=True)
        _run(["npm", "ci", "--silent"], NODE)

    _once(NODE / "installed", PACKAGE / "package-lock.json", npm)


@contextlib.contextmanager
def smtp_server() -> Iterator[Receiver]:
    """The library with the few lines that it needs to be a program."""
    shutil.copy(PACKAGE / "receiver.mjs", NODE)
    port = free_port()
    with program(["node", str(NODE / "receiver.mjs"), str(port)], port) as receiver:
        yield receiver


# --- Installing ----------------------------------------------------------------------------------

INSTALLED: Final[dict[str, tuple[Callable[[], None], Start]]] = {
    "aiosmtpd": (_install_aiosmtpd, aiosmtpd),
    "smtp-server": (_install_smtp_server, smtp_server),
}


def _once(mark: Path, wanted: Path, install: Callable[[], None]) -> None:
    """Does nothing where what is wanted is there; the mark comes last, after all has gone well."""
    if mark.exists() and mark.read_bytes() == wanted.read_bytes():
        return
    print(f"installing what {wanted.name} names under build/peers", file=sys.stderr, flush=True)
    ROOM.mkdir(parents=True, exist_ok=True)
    install()
    shutil.copy(wanted, mark)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
