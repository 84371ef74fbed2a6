"""Postfix's two test programs: found where they are, or unpacked from Debian's package."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

RUN_LIMIT: Final = 120.0
"""Seconds that one load may take."""
UNPACKED: Final = Path(__file__).parent.parent / "build" / "postfix"


class BenchError(Exception):
    """The measurement cannot be done; the text says what to do about it."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What smtp-source sends: without pipelining."""

    sessions: int
    messages: int
    size: int = 4_096
    kept: bool = True
    """Connections stay open for more than one message."""
    recipients: int = 1


@dataclasses.dataclass(frozen=True)
class Postfix:
    """Postfix's two test programs, and the environment that they run in."""

    source: str
    sink: str
    environment: Mapping[str, str]

    def sending(self, port: int, load: Load) -> list[str]:
        """The command that sends the messages."""
        command = [self.source, "-s", str(load.sessions), "-m", str(load.messages)]
        command += ["-l", str(load.size), "-M", "client.example", "-f", "a@example.com"]
        command += ["-d"] if load.kept else []
        command += ["-r", str(load.recipients)] if load.recipients > 1 else []
        return [*command, "-t", "b@example.net", f"inet:127.0.0.1:{port}"]

    def send(self, port: int, load: Load) -> tuple[float, float]:
        """Sends the messages.

        Returns:
            Seconds that it took, and CPU seconds of the client.

        Raises:
            BenchError: the client failed, or took longer than `RUN_LIMIT`.
        """
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        try:
            done = subprocess.run(
                self.sending(port, load),
                env=dict(self.environment),
                capture_output=True,
                text=True,
                timeout=RUN_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"smtp-source: not done in {RUN_LIMIT:.0f} s") from None
        wall = time.perf_counter() - begin
        if done.returncode:
            raise BenchError(f"smtp-source: {done.stderr.strip()[:300]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime


def find_postfix() -> Postfix:
    """Finds smtp-source and smtp-sink; unpacks Debian's package under build/ where it must.

    Nothing is installed by it, and Postfix itself is never started.

    Raises:
        BenchError: they are not here and cannot be had; the text says what to install.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    source, sink = shutil.which("smtp-source", path=path), shutil.which("smtp-sink", path=path)
    if source and sink:
        return Postfix(source, sink, dict(os.environ))
    if not (UNPACKED / "usr/sbin/smtp-sink").exists():
        _unpack_postfix()
    libraries = str(UNPACKED / "usr/lib/postfix")
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    found = Postfix(
        str(UNPACKED / "usr/sbin/smtp-source"), str(UNPACKED / "usr/sbin/smtp-sink"), environment
    )
    linked = subprocess.run(
        ["ldd", found.sink], env=environment, capture_output=True, text=True, check=True
    )
    missing = [line.split()[0] for line in linked.stdout.splitlines() if "not found" in line]
    if missing:
        raise BenchError(f"{found.sink} needs {', '.join(missing)}: install {_libraries()}")
    return found


def _unpack_postfix() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise BenchError("smtp-source and smtp-sink are missing: install Postfix (not to be run)")
    UNPACKED.mkdir(parents=True, exist_ok=True)
    fetch = ["apt-get", "download", "postfix"]
    print("fetching Debian's postfix package (unpacked under build/, not installed)", flush=True)
    if subprocess.run(fetch, cwd=UNPACKED, capture_output=True, check=False).returncode:
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
        done = subprocess.run(fetch, cwd=UNPACKED, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"apt-get download postfix: {done.stderr.strip()}")
    subprocess.run(["dpkg", "-x", str(_package()), str(UNPACKED)], check=True)


def _package() -> Path:
    return next(UNPACKED.glob("postfix_*.deb"))


def _libraries() -> str:
    """The packages of libraries that the unpacked one depends on."""
    depends = subprocess.run(
        ["dpkg-deb", "-f", str(_package()), "Depends"], capture_output=True, text=True, check=True
    )
    names = (part.split()[0] for part in depends.stdout.split(","))
    return " ".join(name for name in names if name.startswith("lib"))
