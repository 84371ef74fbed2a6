"""The simulation: what can be reckoned by hand, what was measured, and what cannot be meant."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import capacity
import scaling_report
from confirming import compare
from documents import filled
from measured import FILE, Measured, by_chance, figure, stored
from setups import Load, Setup, Store
from simulate import AVERAGE, ERROR
from simulation import run

BENCHES = Path(__file__).parent.parent / "benches"

FORMULA = re.compile(r"[\d,.()*/^+ -]*[*/+-][\d,.()*/^+ -]*( s)?")

PLAIN = Setup(edge=20.0, stages=30.0, client=50.0, cores=4)
SLOW = Store(wait_batch=5_000.0, wait_mail=100.0)


def rate(setup: Setup, seconds: float = 4.0) -> float:
    return run(setup, Load(), seconds).rate


def changed(setup: Setup, **fields: object) -> Setup:
    return dataclasses.replace(setup, **fields)  # type: ignore[arg-type]


def test_one_connection_waits_for_all_of_it() -> None:
    setup = changed(PLAIN, connections=1, store=Store(wait_batch=900.0))
    assert rate(setup) == pytest.approx(1e6 / (20 + 30 + 50 + 900), rel=0.01)
    # Each thread has slept: client and I/O thread for each turn, the worker once.
    assert rate(changed(setup, wake=10.0)) == pytest.approx(1e6 / (1_000 + 90), rel=0.02)


def test_batches_form_while_one_is_stored() -> None:
    setup = changed(PLAIN, connections=40, store=SLOW)
    assert rate(changed(setup, batch=1)) == pytest.approx(1e6 / (5_000 + 100 + 30), rel=0.02)
    result = run(setup, Load(), 10.0)
    # Half of them are stored while the others come in, or all at once; never one alone.
    assert 15 < result.mean_batch <= 40
    assert result.rate > 2_000


def test_python_computes_once_a_process() -> None:
    setup = changed(PLAIN, stages=1_000.0)
    alone = rate(setup)
    assert alone == pytest.approx(1_000, rel=0.02)
    assert rate(changed(setup, workers=4)) == pytest.approx(alone, rel=0.02)
    assert rate(changed(setup, processes=2)) == pytest.approx(2 * alone, rel=0.02)
    # More processes than cores bring nothing.
    assert rate(changed(setup, processes=4, cores=1)) < alone


def test_one_writer_is_one_whatever_the_processes() -> None:
    store = dataclasses.replace(SLOW, writers=1)
    setup = changed(PLAIN, batch=4, store=store)
    alone = rate(setup)
    assert rate(changed(setup, processes=4)) == pytest.approx(alone, rel=0.1)
    many = changed(setup, processes=4, store=SLOW)
    assert rate(many) > 3 * alone


def test_few_connections_may_fall_on_one_process() -> None:
    setup = changed(PLAIN, stages=1_000.0, connections=2, processes=2)
    even = rate(setup)
    by_hash = [
        run(changed(setup, shared=False), Load(), 1.0, seed).rate / even for seed in range(12)
    ]
    assert min(by_hash) < 0.7
    assert max(by_hash) > 0.95


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_mails_by_chance_wait_as_the_formula_says(load: float) -> None:
    """A queue with one server that always takes as long: Pollaczek and Khinchine."""
    takes = 0.001
    store = Store(wait_batch=takes * 1e6 - 1)
    setup = Setup(edge=0.001, stages=1.0, batch=1, connections=100_000, cores=64, store=store)
    result = run(setup, Load(rate=load / takes), 300.0 if load > 0.8 else 60.0)
    assert result.rate == pytest.approx(load / takes, rel=0.02)
    mean = sum(result.latencies) / len(result.latencies) - takes
    assert mean == pytest.approx(load * takes / (2 * (1 - load)), rel=0.08)
    # Little: as many wait as come while one waits.
    assert result.waiting == pytest.approx(result.rate * mean, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"queue": 100}, 452), ({"connections": 100}, 421), ({"timeout": 0.05}, 451)],
)
def test_a_burst_that_has_no_room_is_sent_away(changes: dict[str, object], code: int) -> None:
    setup = changed(PLAIN, client=0.0, connections=10_000, batch=10, store=SLOW)
    burst = Load(burst=1_000, every=1.0)
    whole = run(setup, burst, 10.0)
    assert not any(whole.refused.values())
    result = run(changed(setup, **changes), burst, 10.0)
    assert result.refused.pop(code) > 100
    assert not any(result.refused.values())
    assert len(result.latencies) < len(whole.latencies)


def test_all_mails_are_accounted_for() -> None:
    setup = changed(PLAIN, client=0.0, connections=300, queue=200, timeout=0.02, store=SLOW)
    result = run(setup, Load(rate=2_000.0, burst=500, every=0.7), 20.0)
    assert all(result.refused.values())
    told = len(result.latencies) + sum(result.refused.values())
    # What is on its way at the begin and at the end of the time that counts.
    assert abs(result.arrived - told) <= setup.connections
    again = run(setup, Load(rate=2_000.0, burst=500, every=0.7), 20.0)
    assert again.latencies == result.latencies


def test_it_confirms_what_was_measured() -> None:
    """Each point, but for those that its costs were taken from."""
    told = Measured.read(FILE)
    found = [one for one in compare(told) if not one.said]
    kinds = {one.what.split(",")[0].split(" ")[0] for one in compare(told)}
    assert kinds == {"null", "Python", "slow", "SQL", "Redis", "spool"}
    assert len(found) >= 18  # those of the README were measured on a quiet machine
    assert {one.what: one.error for one in found if abs(one.error) > ERROR} == {}
    assert sum(abs(one.error) for one in found) / len(found) <= AVERAGE


# --- The documents --------------------------------------------------------------------------------


def test_the_documents_have_what_the_figures_give() -> None:
    """`make bench-scaling ARGS='--from benches/scaling.json --write'` mends it."""
    for path, places in scaling_report.blocks(Measured.read(FILE)).items():
        text = path.read_text(encoding="utf-8")
        assert filled(text, places) == text


def test_a_place_that_is_not_there_is_named() -> None:
    with pytest.raises(LookupError, match="'here'"):
        filled("text\n", {"here": ["line"]})
    text = "<!-- here -->\nold\n<!-- end of here -->\n"
    assert "\nline\n" in filled(text, {"here": ["line"]})


def test_measured_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    told = Measured.read(FILE)
    copy = tmp_path / "copy.json"
    copy.write_text(told.text(), encoding="utf-8")
    assert Measured.read(copy) == told
    assert {one.processes for one in told.shares} == {1, told.many}


def test_figures_of_the_readme_are_found() -> None:
    assert figure("EHLO, STARTTLS (P-256), EHLO, QUIT") > figure("EHLO, QUIT") > 0
    rows = {(one.store, one.batch, one.connections): one for one in stored()}
    assert rows["SQL, SQLite", 64, 100].rate > rows["SQL, SQLite", 1, 100].rate
    with pytest.raises(LookupError, match="no such thing"):
        figure("no such thing")


def test_what_falls_by_chance() -> None:
    assert by_chance(2, 2) in {1.0, 2.0}
    assert 1.0 < by_chance(200, 2) < 1.2 < by_chance(8, 4) <= 2.5


def test_each_line_of_a_sheet_is_reckoned_from_those_above() -> None:
    """With the figures as they are printed."""
    given = capacity.Given.of(Measured.read(FILE))
    lines = [line for make in capacity.SHEETS.values() for line in make(given)]
    reckoned = 0
    for line in lines:
        kind, what, value, unit = line[:12].strip(), line[12:87], line[87:101], line[101:]
        assert kind in {"measured", "assumed", "calculated"}
        formulas = [part for part in re.split(r": |, ", what.strip()) if FORMULA.fullmatch(part)]
        for formula in formulas if kind == "calculated" else []:
            written = formula.replace(",", "").replace("^", "**").removesuffix(" s")
            right, said = float(eval(written)), float(value.replace(",", ""))  # our own text
            near = 0 <= said - right < 1 if "rounded up" in unit else abs(said - right) <= said / 99
            assert near, line
            reckoned += 1
    named = sum("one machine" in line or "smaller of" in line for line in lines)
    assert reckoned == sum(line.startswith("calculated") for line in lines) - named


def test_one_figure_is_the_same_in_all_sheets() -> None:
    """What a machine takes by its cores, and by its card."""
    given = capacity.Given.of(Measured.read(FILE))
    lines = [line for make in capacity.SHEETS.values() for line in make(given)]
    for what in (r"one machine, by CPU|messages/s by CPU", r"by its network card|by the card"):
        found = [line[87:101].strip() for line in lines if re.search(what, line)]
        assert len(found) > 1
        assert len(set(found)) == 1


def test_other_figures_may_be_put_in() -> None:
    told = Measured.read(FILE)
    small = capacity.cpu_rate(capacity.Given.of(told, **capacity.others(["cores=16"])))
    assert small < capacity.cpu_rate(capacity.Given.of(told))


# --- What cannot be meant -------------------------------------------------------------------------


def said(program: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, str(BENCHES / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rate", "-1"], "--rate: a number of at least 0 is expected, not -1"),
        (["--rate", "nan"], "--rate: a number of at least 0 is expected, not nan"),
        (["--sync-ms", "inf"], "--sync-ms: a number of at least 0 is expected, not inf"),
        (["--workers", "0"], "--workers: a number of at least 1 is expected, not 0"),
        (["--batch", "1.5"], "--batch: a whole number is expected, not '1.5'"),
        (["--connections", "many"], "--connections: a whole number is expected, not 'many'"),
        (["--store", "oracle"], "--store: invalid choice: 'oracle'"),
        (["--rate", "1e9"], "10 s of it are too many"),
        (["--seconds", "1e9"], "1e+09 s of it are too many"),
        (["--queue", "1", "--processes", "2"], "--queue 1: has to be one a process at least"),
    ],
)
def test_simulate_says_what_cannot_be_meant(arguments: list[str], told: str) -> None:
    code, text = said("simulate.py", *arguments)
    assert (code, told in text) == (2, True), text


@pytest.mark.parametrize(
    ("program", "arguments", "told"),
    [
        ("simulate.py", ["--from", "no-such-file"], "No such file"),
        ("capacity.py", ["cores=-1"], "cores=-1: has to be above 0"),
        ("capacity.py", ["cores=nan"], "cores=nan: has to be above 0"),
        ("capacity.py", ["cores=many"], "'many' is no number"),
        ("capacity.py", ["kernels=2"], "no figure 'kernels'; there are python_us, "),
        ("scaling.py", ["--from", "no-such-file"], "No such file"),
        ("scaling.py", ["--from", str(BENCHES / "README.md")], "README.md: "),
    ],
)
def test_what_cannot_be_read_is_said(program: str, arguments: list[str], told: str) -> None:
    code, text = said(program, *arguments)
    assert (code, told in text) == (1, True), text


def test_one_process_is_not_compared_with_itself() -> None:
    code, text = said("scaling.py", "--processes", "1")
    assert (code, "--processes 1: one is always measured" in text) == (2, True), text


def test_simulate_prints_a_line() -> None:
    command = [sys.executable, str(BENCHES / "simulate.py"), "--rate", "500", "--sync-ms", "5"]
    done = subprocess.run(
        [*command, "--store", "redis", "--seconds", "2"], capture_output=True, text=True,
        timeout=50, check=True,
    )  # fmt: skip
    head, line = done.stdout.splitlines()
    assert head.split()[2:4] == ["mails/s", "batch"]
    assert float(line.split()[0]) == pytest.approx(500, rel=0.2)
