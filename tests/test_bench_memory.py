"""Memory, by the programs of benches: what grows, what a burst leaves, what a connection takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import burst
import slope
import states
from postfix import BenchError
from receivers import CHAIN, guerrillad

BENCHES = Path(__file__).parent.parent / "benches"
LEAK = 1_024
"""Octets of each mail that are enough to be found."""


def grown(tmp_path: Path, chain: str) -> float:
    """Octets a mail, by the slope of some seconds; small mails, so that no large one is a slope."""
    plan = slope.Plan(
        seconds=9.0, warm_up=3.0, every=0.25, rate=300.0, largest=16 << 10, chain=chain
    )
    found = None
    for number in range(3):
        (folder := tmp_path / str(number)).mkdir()
        found = slope.run(plan, folder, lambda _: None)
        # A machine that was busy otherwise has sent little, of which chance is a large part.
        if found.readings[-1].sent >= 0.8 * plan.rate * plan.seconds:
            break
    assert found is not None
    return found.octets_each


@pytest.mark.alone
def test_nothing_grows_with_each_mail(tmp_path: Path) -> None:
    assert grown(tmp_path, CHAIN) < LEAK / 2


@pytest.mark.alone
def test_a_leak_with_each_mail_is_found(tmp_path: Path) -> None:
    assert grown(tmp_path, f"{CHAIN}|Hoard") > LEAK / 2


def test_the_slope_is_that_of_what_is_behind_the_warm_up() -> None:
    """A line with a jump in the warm-up, and one that has too few readings."""
    readings = [
        slope.Reading(at, at * 100, 1_000 + at * 2 - (500 if at < 5 else 0)) for at in range(60)
    ]
    found = slope.slope_of(readings, 5.0)
    assert found.kib_a_minute == pytest.approx(120)
    assert found.octets_each == pytest.approx(2 * 1_024 / 100)
    with pytest.raises(BenchError, match="too few readings"):
        slope.slope_of(readings, 58.0)


@pytest.mark.alone
def test_what_a_burst_takes_is_given_back(tmp_path: Path) -> None:
    """Bodies of 150 MiB in all, in the heap: a few seconds later they are gone."""
    with guerrillad(tmp_path, "max_clients = 700") as receiver:
        burst.measure(receiver, 10, 1 << 10)
        found = burst.measure(receiver, 600, 200 << 10)
    assert found.peak > found.before + (48 << 10)
    assert found.after[-1] < found.before + (24 << 10)


def test_states_are_measured_in_small(tmp_path: Path) -> None:
    told = tmp_path / "figures.json"
    names = ["EHLO", "4 KiB, waiting for the verdict", "AUTH, challenged", "LHLO", "TLS, EHLO"]
    command = [sys.executable, str(BENCHES / "states.py"), "--connections", "40"]
    command += ["--states", ";".join(names), "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(told.read_text())["kib"]
    assert list(found) == names
    assert set(names) <= set(states.STATES)
    # What waits has its message, and what is secure has keys.
    assert found["4 KiB, waiting for the verdict"] > 4
    assert found["TLS, EHLO"] > 4
