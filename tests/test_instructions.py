"""The gate of `make bench-gate`: which figures may stand."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "instructions.py"
_spec = importlib.util.spec_from_file_location("instructions", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
instructions: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = instructions
_spec.loader.exec_module(instructions)

HERE = {"compiler": "rustc 1.95.0", "processor": "x86_64 with AVX2"}


def cost(reading: int = 5_000) -> dict[str, Any]:
    return {"session": instructions.Cost({"read": reading, "write": 5_000}, 900)}


def judge(
    measured: dict[str, Any], kept: dict[str, Any], made_by: dict[str, str] | None = None
) -> tuple[str, bool]:
    lines, good = instructions.judge(measured, made_by or HERE, instructions.to_keep(kept, HERE))
    return "\n".join(lines), good


def test_a_figure_that_is_4_percent_lower_than_measured_fails_and_its_function_is_named() -> None:
    kept = instructions.to_keep(cost(), HERE)
    kept["scenarios"]["session"]["instructions"] = round(10_000 / 1.04)
    kept["scenarios"]["session"]["functions"]["write"] = 4_600
    lines, good = instructions.judge(cost(), HERE, kept)
    assert not good
    assert "  +400 write" in lines
    assert "--write" in lines[-1]


@pytest.mark.parametrize(("reading", "good"), [(5_299, True), (5_301, False), (4_000, True)])
def test_3_percent_more_are_let_through_and_fewer_are_told(reading: int, good: bool) -> None:
    said, stands = judge(cost(reading), cost())
    assert stands is good
    assert ("fewer than are kept" in said) is (reading < 5_000)


@pytest.mark.parametrize("other", [{"compiler": "rustc 1.99.0"}, {"processor": "x86_64"}])
def test_what_another_compiler_or_processor_does_is_told_and_has_a_wider_limit(
    other: dict[str, str],
) -> None:
    said, good = judge(cost(6_500), cost(), HERE | other)
    assert good
    assert next(iter(other.values())) in said
    assert not judge(cost(7_500), cost(), HERE | other)[1]


def test_another_instruction_set_is_not_compared() -> None:
    said, good = judge(cost(50_000), cost(), HERE | {"processor": "aarch64"})
    assert good
    assert "nothing is compared" in said


def test_callgrind_counts_a_function_without_what_it_calls() -> None:
    lines = """\
ob=(1) /the/program
fn=(1) main
10 5
cfn=(2) guerrilla::smtp::parse::h0123456789abcdef
calls=1 20
11 900
+1 7

fn=(2)
20 40
cob=(2) /lib/libc.so.6
cfn=(3) malloc
calls=2 0
21 60

ob=(2)
fn=(3)
0 60
""".splitlines()
    own, others = instructions.tally(lines, "/the/program")
    assert own == {"main": 12, "guerrilla::smtp::parse": 40}
    assert others == 60


def test_the_figures_that_are_kept_add_up() -> None:
    kept = json.loads(instructions.FIGURES.read_text(encoding="utf-8"))
    assert set(kept["scenarios"]) == set(instructions.SCENARIOS)
    for scenario in kept["scenarios"].values():
        assert sum(scenario["functions"].values()) == pytest.approx(
            scenario["instructions"], rel=0.1
        )
