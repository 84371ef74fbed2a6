"""What a command and a message cost the parser and the session, in instructions.

That is exact, on however busy a machine. `make instructions` shows them; `make bench-gate` compares
them with `benches/instructions.json` and fails where one has grown by more than 3 %. Who has a
reason for that accepts it by `make bench-gate ARGS=--write`.

One figure is the difference of two runs, so that what a run costs once is not in it. What libc does
(memory, copies) is shown and not compared: it takes other ways on another processor. The program
itself takes one of two, with AVX2 and without. Both compiler and processor are kept with the
figures; where one is another, what has grown may be its doing, and the limit is wider.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "benches" / "instructions.json"
# A round of each: five commands, or one message of 4 KiB.
SCENARIOS = ("parse", "session", "pipelined")
ROUNDS = (500, 1500)
LIMIT = 1.03
# By another compiler, or on another processor.
WIDE_LIMIT = 1.2
# Functions of which figures are kept: those of at least so many instructions.
WORTH_KEEPING = 50
# What is shown of what has grown.
MOST_SHOWN = 5

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
_HASH = re.compile(r"::h[0-9a-f]{16}$")


class Cost(NamedTuple):
    """Instructions of one round."""

    # Of the program itself, by function.
    functions: dict[str, int]
    # Of libc and the loader.
    libraries: int

    @property
    def total(self) -> int:
        """Of the program itself."""
        return sum(self.functions.values())


@cache
def same(path: str, program: str) -> bool:
    """Whether both are one file: callgrind names what was mapped, which a link may lead to."""
    return Path(path).resolve() == Path(program).resolve()


def tally(lines: Iterable[str], program: str) -> tuple[Counter[str], int]:
    """Instructions that callgrind counted, by function of the program, and of all else."""
    names: dict[tuple[str, str], str] = {}

    def name(kind: str, text: str) -> str:
        # Each is written once; behind that its number stands for it.
        match = _NAME.match(text)
        if match is None:
            return text
        if match[2] is not None:
            names[kind, match[1]] = match[2]
        return names[kind, match[1]]

    own: Counter[str] = Counter()
    others, within, function, is_call = 0, False, "", False
    for line in lines:
        key, _, text = line.rstrip().partition("=")
        if key in {"ob", "cob"}:
            object_ = name("ob", text)
            within = same(object_, program) if key == "ob" else within
        elif key in {"fn", "cfn"}:
            called = name("fn", text)
            function = called if key == "fn" else function
        elif key == "calls":
            # The next line is what was called, which is counted where it is.
            is_call = True
        elif line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
            cost = 0 if is_call else int(line.split()[1])
            is_call = False
            if within:
                own[_HASH.sub("", function)] += cost
            else:
                others += cost
    return own, others


def count(program: str, scenario: str, rounds: int) -> tuple[Counter[str], int]:
    """Runs the program under callgrind."""
    with tempfile.NamedTemporaryFile(suffix=".callgrind") as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}"]
        run = subprocess.run(
            [*command, program, scenario, str(rounds)], capture_output=True, text=True, check=False
        )
        if run.returncode != 0:
            sys.exit(f"{scenario}: {run.stderr}")
        with Path(out.name).open(encoding="utf-8") as lines:
            return tally(lines, program)


def measure(program: str, scenario: str) -> Cost:
    """What a round costs."""
    (few, few_others), (many, many_others) = (count(program, scenario, n) for n in ROUNDS)
    rounds = ROUNDS[1] - ROUNDS[0]
    each = {name: (many[name] - few[name]) // rounds for name in many}
    kept = {name: cost for name, cost in each.items() if cost}
    if sum(kept.values()) <= 0:
        sys.exit(f"{scenario}: callgrind has counted no instruction of {program}: nothing is kept")
    return Cost(kept, (many_others - few_others) // rounds)


def build() -> str:
    """The program that is measured: built as all else is."""
    command = "cargo bench --profile release --locked --bench core --no-run --message-format=json"
    built = subprocess.run(command.split(), stdout=subprocess.PIPE, check=True, cwd=ROOT)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["kind"] == ["bench"]:
            return str(message["executable"])
    sys.exit("cargo built no benchmark")


def maker() -> dict[str, str]:
    """What makes the figures what they are, besides the sources."""
    compiler = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    processor = platform.machine()
    flags = Path("/proc/cpuinfo")
    if flags.exists() and re.search(r"^flags\s*:.* avx2( |$)", flags.read_text(), re.MULTILINE):
        processor += " with AVX2"
    return {"compiler": compiler.stdout.split(" (")[0], "processor": processor}


def judge(
    measured: dict[str, Cost], made_by: dict[str, str], kept: dict[str, Any]
) -> tuple[list[str], bool]:
    """What there is to say of figures beside those that are kept, and whether they may stand."""
    lines, good = [], True
    others = [
        f"{made_by[key]}, not {was}" for key, was in kept["made_by"].items() if made_by[key] != was
    ]
    limit = WIDE_LIMIT if others else LIMIT
    if others:
        lines.append(f"the figures are another's: {'; '.join(others)}. Limit {limit - 1:.0%}")
    if made_by["processor"].split()[0] != kept["made_by"]["processor"].split()[0]:
        return [*lines, "nothing is compared with another instruction set"], True
    for scenario, cost in measured.items():
        was = kept["scenarios"].get(scenario)
        if not was or was["instructions"] <= 0:
            return [*lines, f"{scenario}: no figure in {FIGURES.name}"], False
        change = cost.total / was["instructions"] - 1
        lines.append(f"{scenario}: {cost.total:,} instructions, {change:+.1%}")
        if change > limit - 1:
            good = False
            lines += grown(cost.functions, was["functions"])
        elif change < 1 - LIMIT:
            lines.append("  fewer than are kept: make bench-gate ARGS=--write keeps these")
    if not good:
        lines.append(
            f"more than {limit - 1:.0%} over {FIGURES.name}; "
            "if it is worth it: make bench-gate ARGS=--write"
        )
    return lines, good


def grown(now: dict[str, int], was: dict[str, int]) -> list[str]:
    """The functions that have grown, most of all first."""
    names = now.keys() | was.keys()
    changes = sorted(((now.get(name, 0) - was.get(name, 0), name) for name in names), reverse=True)
    return [f"  {change:+,} {name}" for change, name in changes[:MOST_SHOWN] if change > 0]


def to_keep(measured: dict[str, Cost], made_by: dict[str, str]) -> dict[str, Any]:
    """The figures as the file has them."""
    scenarios = {
        scenario: {
            "instructions": cost.total,
            "functions": {
                name: of
                for name, of in sorted(cost.functions.items(), key=lambda item: (-item[1], item[0]))
                if of >= WORTH_KEEPING
            },
        }
        for scenario, cost in measured.items()
    }
    return {"made_by": made_by, "scenarios": scenarios}


def show(measured: dict[str, Cost]) -> None:
    """Prints them by function."""
    for scenario, cost in measured.items():
        print(f"{scenario}: {cost.total:,} instructions, and {cost.libraries:,} of libc")
        for name, of in sorted(cost.functions.items(), key=lambda item: -item[1]):
            if of >= WORTH_KEEPING:
                print(f"  {of:7,} {name}")


def main() -> int:
    """Shows, compares or keeps them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gate", action="store_true", help="compare them with those that are kept")
    parser.add_argument("--write", action="store_true", help="keep them")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: sh scripts/test-tools.sh")
    program = build()
    measured = {scenario: measure(program, scenario) for scenario in SCENARIOS}
    if options.write:
        FIGURES.write_text(
            json.dumps(to_keep(measured, maker()), indent=1) + "\n", encoding="utf-8"
        )
    if not options.gate:
        show(measured)
        return 0
    lines, good = judge(measured, maker(), json.loads(FIGURES.read_text(encoding="utf-8")))
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
