"""What `goals.py` has measured: kept as JSON, and told as tables."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import kept
from load import OURS, SCENARIOS, SINK
from measuring import Samples, number
from targets import BESIDE, GOALS, Goal, Value, ratio

RECEIVERS: Final = (SINK, "aiosmtpd", "smtp-server", OURS)


@dataclasses.dataclass(frozen=True)
class Results:
    """A run."""

    date: str
    machine: str
    commit: str
    rounds: int
    scale: float
    """Of the counts that a figure needs; less says little."""
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    """What could not be measured, in a round or at all, by row or receiver, and why."""
    samples: Samples

    @classmethod
    def read(cls, path: Path) -> Results:
        """From a file that `text` has made.

        Raises:
            OSError: it cannot be read.
            ValueError: it is none of those; the text names it.
        """
        return kept.read(path, "goals.py", cls._of)

    @classmethod
    def _of(cls, told: dict[str, Any]) -> Results:
        samples = {name: row["samples"] for name, row in told["samples"].items()}
        keys = [one.name for one in dataclasses.fields(cls) if one.name != "samples"]
        return cls(**{key: told[key] for key in keys}, samples=Samples(samples))

    def text(self) -> str:
        """As JSON, a line a figure: what is aimed at, and every sample with its median."""
        told = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name != "samples"
        }
        goals = [dataclasses.asdict(one) for one in figures(self, GOALS)]
        samples = {
            name: {"median": self.samples.median(name), "samples": values}
            for name, values in sorted(self.samples.of.items())
        }
        rows = [f"  {json.dumps(key)}: {_json(value)}" for key, value in told.items()]
        each = ",\n".join(f"    {_json(one)}" for one in goals)
        rows.append(f'  "goals": [\n{each}\n  ]')
        each = ",\n".join(f"    {_json(name)}: {_json(one)}" for name, one in samples.items())
        rows.append(f'  "samples": {{\n{each}\n  }}')
        return "{\n" + ",\n".join(rows) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(kept.rounded(value), ensure_ascii=False)


# --- Figures -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Told:
    """A figure of a run, beside its limits."""

    row: str
    title: str
    unit: str
    value: float
    least: float
    """Of the rounds, each by itself."""
    most: float
    compared: float
    """With the limits: what it would have been on the machine that they are for."""
    must: float | None
    goal: float | None
    met: str


def figures(told: Results, goals: Sequence[Goal]) -> Iterator[Told]:
    """Those of them that were measured: the medians of the rounds, each reckoned by itself.

    So a figure is compared with what was measured minutes from it, and not with another round,
    when the machine may have had other things to do.
    """
    for one in goals:
        values = in_rounds(told, one.value)
        if not values:
            continue
        there = in_rounds(told, one.on_that_machine)
        value, compared = statistics.median(values), statistics.median(there)
        limits = one.must, one.goal, one.met(compared)
        least, most = min(values), max(values)
        yield Told(one.row, one.title, one.unit, value, least, most, compared, *limits)


def in_rounds(told: Results, value: Value) -> list[float]:
    """Of each round in which it was measured."""
    found = []
    for one in told.samples.parts(told.rounds):
        with contextlib.suppress(KeyError):
            found.append(value(one))
    return found


def missed(told: Results, rows: Sequence[str]) -> list[str]:
    """What of these rows is not as it must be or was not measured, and receivers that were not."""
    found = {one.title: one.met for one in figures(told, GOALS)}
    wanted = [one.title for one in GOALS if one.row in rows]
    others = {one.row for one in (*GOALS, *BESIDE)}.difference(rows)
    bad = [title for title in wanted if found.get(title, "no") == "no"]
    return bad + [f"{name}: {why}" for name, why in told.missing.items() if name not in others]


# --- Tables --------------------------------------------------------------------------------------


def head(told: Results) -> list[str]:
    """What the figures are of."""
    few = "" if told.scale >= 1 else f"; {told.scale:g} of the messages, which says little"
    versions = ", ".join(f"{name} {version}" for name, version in told.versions.items())
    lines = [
        f"{told.date}; {told.machine}; commit {told.commit}",
        f"medians of {told.rounds} round{'s' * (told.rounds > 1)}{few}; {versions}",
    ]
    return lines + [f"not measured: {name}: {why}" for name, why in told.missing.items()]


def goal_table(told: Results) -> list[str]:
    """What is aimed at, and what was reached."""
    form = "{:<43} {:>9} {:<20} {:>16} {:>9} {:>6} {:>6}  {}"
    titles = ("", "measured", "", "spread", "compared", "must", "goal", "met")
    lines = [form.format(*titles)]
    for one in figures(told, GOALS):
        limits = (f"{limit:,g}" for limit in (one.must, one.goal) if limit is not None)
        compared = fine(one.compared) if one.compared != one.value else ""
        rounds = f"{fine(one.least)} to {fine(one.most)}"
        cells = (one.title, fine(one.value), one.unit, rounds, compared, *limits, one.met)
        lines.append(form.format(*cells))
    return lines


def fine(value: float) -> str:
    """So that a ratio is not rounded to its limit."""
    return f"{value:.3f}" if abs(value) < 1 else number(value)


def beside_table(told: Results) -> list[str]:
    """What was measured beside that."""
    form = "{:<43} {:>9} {}"
    return [form.format(one.title, number(one.value), one.unit) for one in figures(told, BESIDE)]


def receiver_table(told: Results) -> list[str]:
    """Each load and receiver."""
    form = "{:34}{:12}{:>10}{:>11}{:>12}{:>13}"
    titles = ("scenario", "receiver", "server µs", "client µs", "messages/s", "/ smtp-sink")
    lines = [form.format(*titles)]
    for one in SCENARIOS:
        for name in RECEIVERS:
            key = f"{one.name} {name}"
            if f"{key} server µs" not in told.samples.of:
                continue
            sink, median = f"{one.name} {SINK} server µs", told.samples.median
            times = (
                f"{statistics.median(found):.2f}"
                if (found := in_rounds(told, ratio(f"{key} server µs", sink)))
                else ""
            )
            server, client = (f"{median(f'{key} {side} µs'):.1f}" for side in ("server", "client"))
            rate = f"{median(f'{key} messages/s'):,.0f}"
            title = f"{one.name}  {one.title}"
            lines.append(form.format(title, name, server, client, rate, times).rstrip())
    for name, count, key in idle(told):
        title = f"idle  {count} connections"
        lines.append(
            form.format(title, name, f"{told.samples.median(key):.2f}", "KiB each", "", "").rstrip()
        )
    return lines


def idle(told: Results) -> Iterator[tuple[str, str, str]]:
    """Receivers whose idle connections were weighed: how many, and the name of the samples."""
    for name in RECEIVERS:
        count, key = ("10,000", "plain") if name == OURS else ("1,000", name)
        if f"idle {key} KiB" in told.samples.of:
            yield name, count, f"idle {key} KiB"


def report(told: Results) -> list[str]:
    """All of it."""
    tables = goal_table(told), receiver_table(told), beside_table(told)
    lines = head(told)
    for table in tables:
        lines += ["", *table] if len(table) > 1 else []
    return lines


def speed(told: Results) -> list[str]:
    """What a message costs each receiver, for whoever sees the project first."""
    form = "{:<34}" + "{:>13}" * len(RECEIVERS)
    lines = [*head(told)[:2], "", form.format("server CPU µs a message", *RECEIVERS)]
    for one in SCENARIOS:
        keys = [f"{one.name} {name} server µs" for name in RECEIVERS]
        cells = [
            f"{told.samples.median(key):,.0f}" if key in told.samples.of else "-" for key in keys
        ]
        lines.append(form.format(f"{one.title}", *cells))
    weighed = {name: key for name, _, key in idle(told)}
    cells = [
        f"{told.samples.median(weighed[name]):.1f}" if name in weighed else "-"
        for name in RECEIVERS
    ]
    return [*lines, form.format("KiB an idle connection", *cells)]
