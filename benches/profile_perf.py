"""Samples of a daemon's CPU, by perf; and which source files a piece of the core was made of.

perf counts time on the CPU (cpu-clock), so that it works in virtual machines too. Its stacks are
good in the kernel; of the rest only the innermost function is used, since the core has no frame
pointers.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from postfix import BenchError
from profile_parts import Frame, Sample

RATE: Final = 4_999
"""Samples a second of a CPU; a prime, so that it falls in step with nothing."""
PATIENCE: Final = 60.0
_HEAD: Final = re.compile(r"^\s*(\d+)\s+(\d+)\s*$")
_FRAME: Final = re.compile(r"^\s+([0-9a-f]+)\s+(.*)\s+\(([^()]*)\)$")
_MAP: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp ([0-9a-f]+) \S+ \d+\s+(.*)$", re.MULTILINE)
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_LOADED: Final = 1


def find_perf() -> str | None:
    """The program, where it is there and may be used."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    command = [perf, "record", "-e", "cpu-clock", "-o", "/dev/null", "true"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    return perf if done.returncode == 0 else None


def record(perf: str, pid: int, seconds: float, file: Path) -> None:
    """So many seconds of a process.

    Raises:
        BenchError: perf did not do it.
    """
    command = [perf, "record", "-e", "cpu-clock", "-F", str(RATE), "-g", "-p", str(pid)]
    command += ["-o", str(file), "--", "sleep", f"{seconds:g}"]
    _run(command, seconds + PATIENCE)


def read(perf: str, file: Path) -> list[Sample]:
    """What was recorded."""
    command = [perf, "script", "-i", str(file), "--no-inline", "-F", "tid,period,ip,sym,dso"]
    return list(parsed(_run(command, PATIENCE).splitlines()))


def _run(command: list[str], limit: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command[:2])}: not done in {limit:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise BenchError(f"{' '.join(command[:2])}: {said}")
    return done.stdout.decode("utf-8", "replace")


def parsed(lines: Iterable[str]) -> Iterator[Sample]:
    """The samples in what `perf script` prints."""
    head: tuple[int, float] | None = None
    frames: list[Frame] = []
    for line in lines:
        if found := _FRAME.match(line):
            frames.append(Frame(int(found[1], 16), found[2], found[3]))
        elif found := _HEAD.match(line):
            if head is not None:
                yield Sample(*head, tuple(frames))
            head, frames = (int(found[1]), float(found[2])), []
    if head is not None:
        yield Sample(*head, tuple(frames))


# --- The sources of the core ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mapped:
    """Where a piece of a library is in the memory of a process."""

    start: int
    end: int
    offset: int
    """In the file."""


def mapped(pid: int, library: Path) -> list[Mapped]:
    """The code of a library in a running process."""
    text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    rows = _MAP.findall(text)
    return [
        Mapped(*(int(cell, 16) for cell in row[:3]))
        for row in rows
        if Path(row[3]) == library.resolve()
    ]


def linked_at(elf: bytes) -> list[tuple[int, int, int]]:
    """Of each loaded piece of an ELF file of 64 bits: offset, length, and address as linked."""
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    pieces = []
    for number in range(count):
        kind, _, offset, address, _, length, _, _ = _PROGRAM_HEADER.unpack_from(
            elf, start + number * size
        )
        if kind == _LOADED:
            pieces.append((offset, length, address))
    return pieces


def as_linked(
    address: int, maps: Iterable[Mapped], pieces: Iterable[tuple[int, int, int]]
) -> int | None:
    """The address in the file's own terms, of one in the memory of a process.

    Some versions of perf print that, others where it is in the file, which is a small number.
    """
    place = next((one for one in maps if one.start <= address < one.end), None)
    at = address if place is None else address - place.start + place.offset
    found = (linked + at - offset for offset, length, linked in pieces if 0 <= at - offset < length)
    return next(found, None)


def sources(
    samples: Iterable[Sample], library: Path, maps: list[Mapped]
) -> dict[int, tuple[str, ...]]:
    """By the address of each innermost frame in the core: its source files, innermost first.

    Empty where binutils' addr2line is missing.
    """
    program = shutil.which("addr2line")
    if program is None:
        return {}
    pieces = linked_at(library.read_bytes())
    leaves = {
        one.frames[0].address
        for one in samples
        if one.frames and library.name in one.frames[0].where
    }
    wanted: dict[int, list[int]] = {}
    for address in leaves:
        if (linked := as_linked(address, maps, pieces)) is not None:
            wanted.setdefault(linked, []).append(address)
    if not wanted:
        return {}
    command = [program, "-a", "-i", "-e", str(library), *(f"{one:#x}" for one in wanted)]
    files = files_of(_run(command, PATIENCE))
    return {address: files.get(one, ()) for one, each in wanted.items() for address in each}


def files_of(text: str) -> Mapping[int, tuple[str, ...]]:
    """By address, the files in what `addr2line -a -i` prints."""
    found: dict[int, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("0x"):
            current = found.setdefault(int(line, 16), [])
        else:
            current.append(line.rpartition(":")[0])
    return {address: tuple(each) for address, each in found.items()}
