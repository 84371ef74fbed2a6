"""The goals: what is made of figures, with figures by hand."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import agreement
import floor
import goals
import load as load_
import peers
import plots
import results
import rows as rows_
import scaling_report
from calls import total
from clients import _Piping
from documents import filled
from load import OURS, SCENARIOS, SINK
from measuring import Bench, Samples
from postfix import BenchError, Load, Postfix
from receivers import Receiver
from results import Results, figures, goal_table, missed, report, speed
from rows import ROWS
from targets import BESIDE, GOALS, Goal, gauge, of, slower

ROOT = Path(__file__).parent.parent
B = {
    "b smtp-sink server µs": [120.0, 124.0, 500.0],
    "b smtp-sink client µs": [40.0],
    "b smtp-sink messages/s": [15_000.0],
    "b guerrilla server µs": [62.0, 60.0, 64.0],
    "b guerrilla client µs": [35.0],
    "b guerrilla messages/s": [25_000.0],
    "session, STARTTLS server µs": [500.0, 520.0, 510.0],
    "gauge tls smtp-sink server µs": [124.0, 130.0, 62.0],
}
"""A machine that is half as fast as that of the limits, most of the time."""


def run(samples: dict[str, list[float]], **more: object) -> Results:
    values = {
        "date": "1 May 2026",
        "machine": "2 cores",
        "commit": "abc1234",
        "rounds": 3,
        "scale": 1.0,
        "versions": {"guerrilla": "0.1.0"},
        "missing": {},
    } | more
    return Results(samples=Samples(samples), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "more", "met"),
    [
        (4.9, False, "goal"),
        (5, False, "goal"),
        (7, False, "must"),
        (10.1, False, "no"),
        (12, True, "goal"),
        (6, True, "no"),
    ],
)
def test_what_is_met(value: float, more: bool, met: str) -> None:
    goal = Goal("row", "title", "unit", of(""), 10, 12 if more else 5, more=more)
    assert goal.met(value) == met


def test_what_has_no_limits_is_neither_met_nor_missed() -> None:
    assert Goal("row", "title", "unit", of("")).met(1) == ""


def test_medians_and_ratios_and_what_a_slow_machine_makes_of_them() -> None:
    """Each round by itself, and each row by what was measured right before it."""
    told = run(B)
    assert [slower(told.samples, row) for row in ("tls", "redis")] == [2.0, 2.0]
    found = {one.title: one for one in figures(told, GOALS)}
    b = found["b: kept connections, 4 KiB"]
    assert (b.value, b.compared, b.met) == (60 / 124, 60 / 124, "goal")
    session = found["EHLO, STARTTLS (P-256), EHLO, QUIT"]
    assert (session.value, session.compared, session.met) == (510, 250, "goal")
    # A rate counts for twice as much there; without smtp-sink nothing is known of the machine.
    rate = {"data_gib_s": [6.0, 7.0, 1.0]}
    (parser,) = (one for one in figures(run(B | rate), GOALS) if one.row == "parser")
    assert parser.compared == pytest.approx(6.0 * 120 / 62)
    (parser,) = figures(run(rate), GOALS)
    assert (parser.value, parser.compared) == (6.0, 6.0)


def test_a_round_counts_as_it_was_whatever_the_others_were() -> None:
    """Of a machine that is slow for a while: half of smtp-sink's in two rounds of three."""
    samples = {
        "c smtp-sink server µs": [100.0, 300.0, 100.0],
        "c guerrilla server µs": [50.0, 150.0, 160.0],
    }
    (found,) = figures(run(samples), GOALS)
    assert (found.value, found.least, found.most) == (0.5, 0.5, 1.6)


def test_a_rate_that_a_disk_bounds_counts_as_it_was_measured() -> None:
    for store in ("SQL, SQLite", "SQL, MariaDB"):
        rate = {f"{store} messages/s": [6_000.0]}
        assert [one.compared for one in figures(run(B | rate), GOALS)][-1] == 6_000


def test_the_spread_is_that_of_the_rounds() -> None:
    """Of several samples a round its median; a row that failed in one has one round less."""
    name = "c: kept connections, 100 KiB"
    sink, ours = ("c smtp-sink server µs", "c guerrilla server µs")
    cases = (
        ([10.0, 1.0, 20.0], (0.1, 2.0)),
        ([10.0, 11.0, 12.0, 1.0, 1.0, 99.0, 20.0, 20.0, 20.0], (0.1, 2.0)),
        ([10.0, 20.0], (1.0, 2.0)),
    )
    for values, spread in cases:
        told = run({sink: [10.0] * len(values), ours: values})
        (found,) = figures(told, GOALS)
        assert (found.title, found.least, found.most) == (name, *spread)
    told = run({sink: [10.0] * 2, ours: [10.0, 20.0]})
    (line,) = (one for one in goal_table(told) if one.startswith(name))
    assert "  1.00 to 2.00  " in line


def test_what_is_missed_or_was_not_measured() -> None:
    assert missed(run(B), ["b"]) == []
    assert missed(run(B), ["b", "d"]) == ["d: kept connections, 1 MiB"]
    slow = run(B | {"b guerrilla server µs": [90.0, 91.0, 92.0]})
    assert missed(slow, ["b"]) == ["b: kept connections, 4 KiB"]
    why = {"d": "no memory", "aiosmtpd": "no network"}
    assert missed(run(B, missing=why), ["b"]) == ["aiosmtpd: no network"]
    # It failed in one round; the others are there.
    assert missed(run(B, missing={"b": "in round 2: busy"}), ["b"]) == ["b: in round 2: busy"]


def test_every_row_is_there_and_every_figure_has_its_own_title() -> None:
    assert {one.row for one in (*GOALS, *BESIDE)} <= set(ROWS)
    titles = [one.title for one in (*GOALS, *BESIDE)]
    assert len(titles) == len(set(titles))
    assert all(one.must is not None and one.goal is not None for one in GOALS)
    assert all((one.goal or 0) > (one.must or 0) if one.more else True for one in GOALS)


def test_the_tables() -> None:
    lines = report(run(B, missing={"aiosmtpd": "no network"}))
    assert "not measured: aiosmtpd: no network" in lines
    (b,) = (line.split() for line in lines if line.startswith("b: kept"))
    figure = ["0.484", "of", "smtp-sink's", "0.128", "to", "0.517"]
    assert b[-9:] == [*figure, "0.66", "0.55", "goal"]
    ours = next(line for line in lines if line.startswith("b  kept") and OURS in line)
    assert ours.split()[-4:] == ["62.0", "35.0", "25,000", "0.48"]
    front = next(line for line in speed(run(B)) if line.startswith(SCENARIOS[1].title))
    assert front.split()[-4:] == ["124", "-", "-", "62"]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    told = run(B, missing={"d": "a disk is full"})
    file = tmp_path / "results.json"
    file.write_text(told.text(), encoding="utf-8")
    assert Results.read(file) == told
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json: no figures of goals\.py"):
        Results.read(file)


def test_the_pictures() -> None:
    values = {
        f"{one.name} {name} server µs": [10.0 * (number + 1) * place]
        for number, one in enumerate(SCENARIOS)
        for place, name in enumerate(results.RECEIVERS, 1)
    }
    for draw in (plots.by_receiver, plots.by_size):
        canvas = draw(run(values))
        assert canvas is not None
        picture = ET.fromstring("\n".join([*canvas._parts, "</svg>"]))
        texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert {*results.RECEIVERS, "100 KiB", "1 MiB"} <= set(texts)
        assert draw(run({})) is None
    # Ten times as much is as far up, wherever it begins.
    panel = plots.Log("", [2.0, 300.0])
    assert panel.y(10) - panel.y(100) == pytest.approx(panel.y(1) - panel.y(10))
    assert (panel.y(1), panel.y(1_000)) == (plots.HEIGHT - plots.BOTTOM, plots.TOP)


def test_a_table_of_strace_is_added_up() -> None:
    head = "% time     seconds  usecs/call     calls    errors syscall\n"
    row = "100.00    0.021      2      9000           sendto\n"
    assert total(f"{head}{row}100.00    0.042      2      18000       7 total\n") == 18_000
    with pytest.raises(BenchError, match="no total"):
        total(head + row)


def test_replies_to_whole_messages_are_counted_however_they_come() -> None:
    piping = _Piping()
    replies = b"250 a\r\n250 b\r\n354 c\r\n250 d\r\n" * 3
    heard = [piping.hear(bytes([octet])) for octet in replies]
    assert (sum(heard), max(heard), _Piping().hear(replies)) == (3, 1, 3)
    with pytest.raises(BenchError, match="452 full"):
        piping.hear(b"452 full\r\n")
    with pytest.raises(BenchError, match="closed"):
        piping.hear(b"")


def test_ratios_of_two_programs_are_compared() -> None:
    samples = Samples()
    for way, ours in (("ours", 33.0), ("theirs", 30.0)):
        samples.add(f"b {way} {OURS} server µs", ours)
        samples.add(f"b {way} {SINK} server µs", 60.0)
    lines, most = agreement.table(samples, SCENARIOS[1:2])
    assert lines[1].split()[-3:] == ["0.550", "0.500", "+10%"]
    assert most == pytest.approx(0.1)


def test_the_floor_is_beside_what_stands_on_it() -> None:
    of = {"smtp-sink": [90.0, 100.0, 140.0], "the floor": [62.0], "the core alone": [75.0]}
    samples = {f"a {name} server µs": costs for name, costs in of.items()}
    samples["a guerrilla server µs"] = [87.0]
    lines = floor.table(Samples(samples), [SCENARIOS[0]])
    assert [line.split()[-2:] for line in lines[1:]] == [
        ["100.0", "1.00"],
        ["62.0", "0.62"],
        ["75.0", "0.75"],
        ["87.0", "0.87"],
    ]


def test_scenarios_are_named_and_others_refused(capsys: pytest.CaptureFixture[str]) -> None:
    args, scenarios = load_.chosen(argparse.ArgumentParser(), ["--scenarios", "c,a"])
    assert (args.rounds, [one.name for one in scenarios]) == (3, ["c", "a"])
    with pytest.raises(SystemExit):
        load_.chosen(argparse.ArgumentParser(), ["--scenarios", "a,x,y"])
    assert "no scenario x, y: there are a, b, c, d" in capsys.readouterr().err


def test_a_peer_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise BenchError("no network\n")

    installed = {
        "aiosmtpd": (fail, peers.aiosmtpd),
        "smtp-server": (lambda: None, peers.smtp_server),
    }
    monkeypatch.setattr(peers, "INSTALLED", installed)
    postfix = Postfix("smtp-source", "smtp-sink", {})
    found, missing = peers.peers(postfix)
    assert (list(found), missing) == (["smtp-sink", "smtp-server"], {"aiosmtpd": "no network"})


def measured(
    rows: dict[str, Callable[[Bench], None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Results:
    """Three rounds of these rows."""

    @contextlib.contextmanager
    def bench(scale: float, _: object) -> Iterator[Bench]:
        yield Bench(tmp_path, "", scale=scale)

    monkeypatch.setattr(goals, "ROWS", rows)
    monkeypatch.setattr(goals, "bench", bench)
    return goals.measure(list(rows), 3, 1.0)


def test_a_row_that_fails_in_a_round_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on in the next, keeps no other row from being measured, and is told."""
    rounds = iter("123")

    def spool(at: Bench) -> None:
        at.samples.add("first", 1.0)
        if next(rounds) == "2":
            raise BenchError("the disk is full")
        at.samples.add("second", 1.0)

    rows = {"spool": spool, "calls": lambda at: at.samples.add("calls", 8.0)}
    told = measured(rows, tmp_path, monkeypatch)
    assert told.samples.of == {"first": [1.0] * 2, "second": [1.0] * 2, "calls": [8.0] * 3}
    assert told.missing == {"spool": "in round 2: the disk is full"}


def test_the_speed_of_the_machine_is_measured_before_each_row_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a row that fails leaves none of it, so that the next round's is not taken for its own."""
    turns: list[str] = []

    def speed(row: str, at: Bench) -> None:
        turns.append(f"speed of {row}")
        at.samples.add(gauge(row), 62.0)

    def tls(at: Bench) -> None:
        turns.append("tls")
        if len(turns) == 2:
            raise BenchError("no certificate")
        at.samples.add("tls", 1.0)

    monkeypatch.setattr(goals, "measure_speed", speed)
    told = measured({"tls": tls, "sqlite": lambda _: turns.append("sqlite")}, tmp_path, monkeypatch)
    assert turns == ["speed of tls", "tls", "sqlite"] * 3
    assert told.samples.of == {"gauge tls smtp-sink": [62.0] * 2, "tls": [1.0] * 2}
    assert told.missing == {"tls": "in round 1: no certificate"}


@pytest.mark.parametrize("part", [["--rows", "b,c"], ["--quick"], ["--scale", "0.5"]])
def test_a_part_of_a_run_is_not_written(
    part: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["goals.py", "--write", *part])
    monkeypatch.setattr(goals, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as ended:
        goals.main()
    assert ended.value.code == 2
    assert "--write: with all rows" in capsys.readouterr().err


def test_only_what_is_to_be_written_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run to look at changes no file that a test holds the documents to."""
    monkeypatch.setattr(goals, "FILE", tmp_path / "results.json")
    monkeypatch.setattr(goals, "measure", lambda *_: run(B))
    monkeypatch.setattr(goals, "raise_file_limit", lambda: None)
    monkeypatch.setattr(sys, "argv", ["goals.py"])
    assert goals.main() == 1
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(sys, "argv", ["goals.py", "--json", str(tmp_path / "mine.json")])
    assert goals.main() == 1
    assert Results.read(tmp_path / "mine.json") == run(B)


def test_who_is_compiled_as_it_runs_has_its_share_of_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    class Sender(Postfix):
        def send(self, port: int, load: Load) -> tuple[float, float]:
            sent.append(load.messages)
            return float(port), 1.0

    names = results.RECEIVERS
    start = contextlib.nullcontext(Receiver(os.getpid(), 1))
    monkeypatch.setattr(load_, "receivers", lambda _: [(name, lambda: start) for name in names])
    at = Bench(tmp_path, "", sender=Sender("", "", {}))
    for scenario in SCENARIOS:
        sent.clear()
        load_.messages(at, scenario)
        warm, counted = sent[::2], dict(zip(names, sent[1::2], strict=True))
        assert len(set(warm)) == 1
        assert warm[0] >= 150
        assert counted[SINK] == counted[OURS] == scenario.load.messages
        assert counted["smtp-server"] >= counted[OURS] / 2 > counted["aiosmtpd"]


def test_less_load_than_was_asked_for_is_no_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([10_000.0, 4_700.0, 10_000.0, 4_800.0])
    times = {"p50": 0.001, "p99": 0.002}

    def loaded(*_: object) -> dict[str, object]:
        latency = {"from_dot": times, "from_due": times}
        return {"messages_per_second": next(rates), "latency": latency}

    monkeypatch.setattr(rows_, "loaded", loaded)
    at = Bench(tmp_path, "")
    with pytest.raises(BenchError, match="not kept up: 4700 of 5000"):
        rows_.latency(at)
    assert at.samples.of == {}
    rows_.latency(at)
    assert at.samples.median("p99 from the final dot ms") == 2


def test_what_is_written_is_what_the_file_gives_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five digits of each sample are kept: the documents have no more."""
    file, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text("<!-- goals -->\n<!-- end of goals -->\n", encoding="utf-8")
    monkeypatch.setattr(goals, "FILE", file)
    monkeypatch.setattr(goals, "places", lambda told: {page: {"goals": report(told)}})
    monkeypatch.setattr(plots, "draw", lambda _: None)
    monkeypatch.setattr(scaling_report, "write", lambda _: None)
    goals.write(run(B | {"b guerrilla server µs": [23_467.949]}))
    assert "\n".join(report(Results.read(file))) in page.read_text(encoding="utf-8")
    assert "23468.0" in page.read_text(encoding="utf-8")


# --- The documents --------------------------------------------------------------------------------


def test_the_documents_have_what_the_figures_give() -> None:
    """`make bench ARGS='--from benches/results.json --write'` mends it."""
    told = Results.read(goals.FILE)
    for path, places in goals.places(told).items():
        text = path.read_text(encoding="utf-8")
        assert filled(text, places) == text
    for path, draw in ((plots.BY_RECEIVER, plots.by_receiver), (plots.BY_SIZE, plots.by_size)):
        canvas = draw(told)
        assert canvas is not None
        assert path.read_text(encoding="utf-8") == "\n".join([*canvas._parts, "</svg>", ""])


def test_what_the_readme_says_of_its_figures_is_so() -> None:
    """Less than smtp-sink with small messages, and about an eighth of it at 100 KiB."""
    told = Results.read(goals.FILE)
    found = {one.title: one.value for one in figures(told, GOALS)}
    assert dataclasses.replace(told, scale=1.0) == told
    assert max(found[f"{one.name}: {one.title}"] for one in SCENARIOS[:2]) < 1
    assert found["c: kept connections, 100 KiB"] == pytest.approx(1 / 8, abs=0.02)
