"""Everything that is aimed at, measured in one run: `make bench`.

    make bench [ARGS="--quick | --rows b,c | --rounds 3 | --write | --json FILE | --from FILE"]

Rows and receivers take turns: each round measures every row once, so that what else the machine
does falls upon all alike. A figure is reckoned from each round by itself; their median counts.
--write keeps every sample of a whole run in results.json, beside this file, and puts tables and
pictures into the documents. Everything is on 127.0.0.1, and bounded in count and time: some 20
minutes on two cores; --quick takes two or three, and says little.

Exit status: 0 when all that was asked for was measured and is as it must be, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Final

import plots
import scaling_report
from documents import filled
from load import SCENARIOS, SINK, at_most, warm_up
from measured import FILE as SCALING
from measured import Measured
from measuring import Bench, Samples
from peers import NODE, VENV, peers, reason
from postfix import BenchError, find_postfix
from receivers import machine, raise_file_limit, starttls
from results import Results, missed, report, speed
from rows import ROWS
from stores import Places
from targets import GOALS, gauge

HERE: Final = Path(__file__).parent
FILE: Final = HERE / "results.json"
README: Final = HERE / "README.md"
FRONT: Final = HERE.parent / "README.md"
ROUNDS: Final = 5
QUICK: Final = 0.15
ABSOLUTE: Final = frozenset(one.row for one in GOALS if one.scales)
"""Rows whose limits are for a machine of a known speed, which `smtp-sink` tells in scenario b,
right before each of them."""
FAILURES: Final = (BenchError, OSError, AssertionError, subprocess.SubprocessError, ValueError)


# --- Measuring -----------------------------------------------------------------------------------


def measure(names: Sequence[str], rounds: int, scale: float) -> Results:
    """All of these rows, so many times in turns."""
    missing: dict[str, str] = {}
    with bench(scale, missing) as at:
        for number, name in product(range(1, rounds + 1), names):
            begin = time.monotonic()
            if why := attempt(name, at):
                missing[name] = f"in round {number}: {why}"
            took = f"{number}/{rounds} {name}: {time.monotonic() - begin:.0f} s {why}"
            print(took.rstrip(), file=sys.stderr, flush=True)
        return Results(
            date=f"{date.today():%d %B %Y}",  # noqa: DTZ011
            machine=machine(),
            commit=commit(),
            rounds=rounds,
            scale=scale,
            versions=versions(at.peers),
            missing=missing,
            samples=at.samples,
        )


@contextlib.contextmanager
def bench(scale: float, missing: dict[str, str]) -> Iterator[Bench]:
    """What all rows work with."""
    postfix = find_postfix()
    found, why = peers(postfix)
    missing |= why
    with tempfile.TemporaryDirectory(prefix="guerrilla-goals-") as path:
        folder, stores = Path(path) / "run", Path(path) / "stores"
        for one in (folder, stores):
            one.mkdir()
        # Servers that run as another user have to come through to their own.
        Path(path).chmod(0o755)
        with Places(stores) as places:
            yield Bench(
                folder,
                starttls(folder),
                scale=scale,
                peers=found,
                sender=postfix,
                stores=places,
            )


def attempt(name: str, at: Bench) -> str:
    """Measures a row; why it could not be, else nothing.

    Only what has ended well counts: half a row would be compared with samples of another time.
    """
    samples = Samples()
    try:
        inner = dataclasses.replace(at, samples=samples)
        if name in ABSOLUTE:
            measure_speed(name, inner)
        ROWS[name](inner)
    except FAILURES as error:
        return reason(error)
    for key, values in samples.of.items():
        at.samples.of.setdefault(key, []).extend(values)
    return ""


def measure_speed(row: str, at: Bench) -> None:
    """How fast this machine is just now, for a row."""
    load = at_most(SCENARIOS[1].load, at.count(20_000))
    with at.peers[SINK]() as receiver:
        at.postfix.send(receiver.port, at_most(load, warm_up(load)))
        at.send(receiver, load, gauge(row))


def commit() -> str:
    """Of what is measured."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def versions(found: Mapping[str, object]) -> dict[str, str]:
    """Of ours and of the others, as far as they tell."""
    told = {"guerrilla": version("guerrilla")}
    if postconf := shutil.which("postconf", path="/usr/sbin:/usr/bin"):
        told["Postfix"] = _said([postconf, "-d", "-h", "mail_version"])
    if "aiosmtpd" in found:
        code = "from importlib.metadata import version; print(version('aiosmtpd'))"
        told["aiosmtpd"] = _said([str(VENV / "bin" / "python"), "-c", code])
    if "smtp-server" in found:
        code = "console.log(require('smtp-server/package.json').version)"
        told["smtp-server"] = _said(["node", "-e", code], NODE)
        told["Node.js"] = _said(["node", "--version"]).lstrip("v")
    return told


def _said(command: Sequence[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


# --- The documents -------------------------------------------------------------------------------


def places(told: Results) -> dict[Path, dict[str, list[str]]]:
    """What stands in each document, by the name of its place."""
    return {README: {"goals": report(told)}, FRONT: {"speed": speed(told)}}


def write(told: Results) -> None:
    """Tables, pictures, and what is reckoned from them."""
    FILE.write_text(told.text(), encoding="utf-8")
    # With as many digits as are kept, so that the file gives the same documents again.
    told = Results.read(FILE)
    for path, lines in places(told).items():
        path.write_text(filled(path.read_text(encoding="utf-8"), lines), encoding="utf-8")
    plots.draw(told)
    scaling_report.write(Measured.read(SCALING))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a round of few messages, to try it")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, with commas between")
    parser.add_argument("--rounds", type=int, help=f"the median counts; {ROUNDS} by default")
    parser.add_argument("--scale", type=float, help="of all counts and times; 1 by default")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing: take this file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the samples go there too")
    parser.add_argument(
        "--write", action="store_true", help=f"put them into {FILE.name} and the documents"
    )
    args = parser.parse_args()
    args.names = args.rows.split(",")
    if unknown := [name for name in args.names if name not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}: there are {', '.join(ROWS)}")
    args.rounds = args.rounds or (1 if args.quick else ROUNDS)
    args.scale = args.scale or (QUICK if args.quick else 1.0)
    if args.write and not args.source and (set(args.names) != set(ROWS) or args.scale < 1):
        parser.error("--write: with all rows and messages, or with --from")
    return args


def main() -> int:
    """Measures and prints; 1 when something is not as it must be."""
    args = _arguments()
    raise_file_limit()
    try:
        told = (
            Results.read(args.source)
            if args.source
            else measure(args.names, args.rounds, args.scale)
        )
        print("\n".join(report(told)), flush=True)
        if args.json:
            args.json.write_text(told.text(), encoding="utf-8")
        if args.write:
            write(told)
    except (*FAILURES, LookupError) as error:
        print(f"goals.py: {error}", file=sys.stderr)
        return 1
    bad = missed(told, args.names)
    if bad:
        print(f"\nnot as it must be: {'; '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
