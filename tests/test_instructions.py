"""The gate of `make bench-gate`: which figures may stand."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
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


def test_a_program_is_known_by_whatever_path_leads_to_it(tmp_path: Path) -> None:
    """Callgrind names the file itself."""
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    lines = [f"ob={tmp_path}/target/core", "fn=main", "10 5"]
    assert instructions.tally(lines, f"{tmp_path}/link/core") == ({"main": 5}, 0)


@pytest.mark.parametrize("options", [["--gate"], ["--gate", "--write"], []])
def test_no_instruction_is_no_figure(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a gate that sees nothing would find all as it should be, and keep it."""
    kept = tmp_path / "instructions.json"
    monkeypatch.setattr(instructions, "FIGURES", kept)
    monkeypatch.setattr(instructions, "build", lambda: "/the/program")
    monkeypatch.setattr(instructions.shutil, "which", lambda _: "/usr/bin/valgrind")
    monkeypatch.setattr(instructions, "count", lambda *_: (Counter(), 900))
    monkeypatch.setattr(sys, "argv", ["instructions.py", *options])
    with pytest.raises(SystemExit, match="no instruction of /the/program"):
        instructions.main()
    assert not kept.exists()


def test_a_figure_that_was_never_kept_is_told() -> None:
    for kept in ({}, {"session": instructions.Cost({}, 0)}):
        said, good = judge(cost(), kept)
        assert not good
        assert said == "session: no figure in instructions.json"


def test_without_valgrind_it_says_so_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--gate"],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "valgrind is missing: sh scripts/test-tools.sh\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_the_page_says_the_figures_that_are_kept() -> None:
    kept = json.loads(instructions.FIGURES.read_text(encoding="utf-8"))["scenarios"]
    page = (SCRIPT.parent.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    table = page.partition("\n## Instructions\n")[2].partition("\n## ")[0]
    for scenario in ("parse", "session"):
        assert f"| {kept[scenario]['instructions']:,} |" in table


def test_the_figures_that_are_kept_add_up() -> None:
    kept = json.loads(instructions.FIGURES.read_text(encoding="utf-8"))
    assert set(kept["scenarios"]) == set(instructions.SCENARIOS)
    for scenario in kept["scenarios"].values():
        assert sum(scenario["functions"].values()) == pytest.approx(
            scenario["instructions"], rel=0.1
        )
