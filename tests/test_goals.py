"""The goals: what is made of figures, with figures by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import agreement
import goals
import peers
import plots
import results
import scaling_report
from calls import total
from clients import _Piping
from documents import filled
from load import OURS, SCENARIOS, SINK
from measuring import Samples
from postfix import BenchError, Postfix
from results import Results, figures, missed, report, speed
from rows import ROWS
from targets import BESIDE, GOALS, Goal, of, slower

ROOT = Path(__file__).parent.parent
B = {
    "b smtp-sink server µs": [120.0, 124.0, 500.0],
    "b smtp-sink client µs": [40.0],
    "b smtp-sink messages/s": [15_000.0],
    "b guerrilla server µs": [62.0, 60.0, 64.0],
    "b guerrilla client µs": [35.0],
    "b guerrilla messages/s": [25_000.0],
    "session, STARTTLS server µs": [500.0],
}
"""A machine that is half as fast as that of the limits."""


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
    told = run(B)
    assert slower(told.samples) == 2.0
    found = {one.title: one for one in figures(told, GOALS)}
    b = found["b: kept connections, 4 KiB"]
    assert (b.value, b.compared, b.met) == (0.5, 0.5, "goal")
    session = found["EHLO, STARTTLS (P-256), EHLO, QUIT"]
    assert (session.value, session.compared, session.met) == (500, 250, "goal")
    # A rate counts for twice as much there; without smtp-sink nothing is known of the machine.
    rate = {"SQL, SQLite messages/s": [6_000.0]}
    assert [one.compared for one in figures(run(B | rate), GOALS)][-1] == 12_000
    assert [one.compared for one in figures(run(rate), GOALS)] == [6_000]


def test_what_is_missed_or_was_not_measured() -> None:
    assert missed(run(B), ["b"]) == []
    assert missed(run(B), ["b", "d"]) == ["d: kept connections, 1 MiB"]
    slow = run(B | {"b guerrilla server µs": [90.0]})
    assert missed(slow, ["b"]) == ["b: kept connections, 4 KiB"]


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
    assert b[-6:] == ["0.50", "of", "smtp-sink's", "0.66", "0.55", "goal"]
    ours = next(line for line in lines if line.startswith("b  kept") and OURS in line)
    assert ours.split()[-4:] == ["62.0", "35.0", "25,000", "0.50"]
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


def test_a_row_that_fails_keeps_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise BenchError("no MariaDB")

    monkeypatch.setattr(goals, "ROWS", {"mariadb": fail})
    missing: dict[str, str] = {}
    goals.attempt("mariadb", None, missing)  # type: ignore[arg-type]
    assert missing == {"mariadb": "no MariaDB"}


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
    """Less than smtp-sink with small messages, and about a tenth of it at 100 KiB."""
    told = Results.read(goals.FILE)
    found = {one.title: one.value for one in figures(told, GOALS)}
    assert dataclasses.replace(told, scale=1.0) == told
    assert max(found[f"{one.name}: {one.title}"] for one in SCENARIOS[:2]) < 1
    assert found["c: kept connections, 100 KiB"] < 0.14
