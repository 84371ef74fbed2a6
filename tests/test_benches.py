"""The edge and the chains that store, measured in small: what is printed then are no figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import calls
import edge
import edge_tls
import load as load_
import scaling
from family import by_python, family, load
from measuring import Bench
from postfix import BenchError, find_postfix
from receivers import smtp_sink, starttls

ROOT = Path(__file__).parent.parent
PROCESSORS = ROOT / "benches" / "processors.py"


def small(tmp_path: Path, **more: Any) -> Bench:
    return Bench(tmp_path, starttls(tmp_path), scale=0.004, **more)


def test_the_edge_is_measured_in_small(tmp_path: Path) -> None:
    """All but `hostile`, whose load is tested with the hostile clients."""
    at = small(tmp_path)
    for row in (edge.idle, edge.refused, edge_tls.tls):
        row(at)
    for name, values in at.samples.of.items():
        # 40 connections, or four, may find room in what the daemon has anyway, or it gives back
        # a little of something else.
        least, most = (-256, 1_024) if name.endswith("KiB") else (0.1, 1e7)
        assert all(least < value < most for value in values), (name, values)
    assert at.samples.median("refused: max_connections_per_ip server µs") > 0
    # A handshake is what makes the difference, on any machine.
    assert at.samples.ratio("session, STARTTLS server µs", "session, plain server µs") > 1.5
    assert at.samples.median("idle TLS KiB") > 1


def test_messages_are_measured_beside_smtp_sink_in_small(tmp_path: Path) -> None:
    """Postfix's client, one that does not wait, and calls counted by strace."""
    postfix = find_postfix()
    at = small(
        tmp_path, sender=postfix, peers={load_.SINK: partial(smtp_sink, postfix, sessions=300)}
    )
    for row in (partial(load_.messages, scenario=load_.SCENARIOS[1]), load_.piped, calls.calls):
        row(at)
    for name in (load_.SINK, load_.OURS):
        assert at.samples.median(f"b {name} server µs") > 5
        assert at.samples.median(f"piped {name} server µs") > 1
        assert at.samples.median(f"unwaiting {name} server µs") > 1
        # MAIL, RCPT, DATA and the message: each is read and answered.
        assert at.samples.median(f"calls {name}") >= 8


@pytest.mark.parametrize(
    ("stores", "behind"),
    [
        (["SQL, SQLite", "FastCGI", "HTTP", "Pipe"], {"FastCGI", "HTTP", "Pipe"}),
        (["Forward"], {"Forward"}),
    ],
)
def test_storing_is_measured_in_small(stores: list[str], behind: set[str], tmp_path: Path) -> None:
    """A store in the daemon, servers behind it, and programs that it runs."""
    told = tmp_path / "samples.json"
    command = [sys.executable, str(PROCESSORS), "--stores", ";".join(stores)]
    command += ["--client", "python", "--connections", "1,10", "--seconds", "0.05"]
    done = subprocess.run(
        [*command, "--json", str(told)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr.count("processors.py")) == (0, 0), done.stderr
    samples = json.loads(told.read_text())["samples"]
    found = {(one["store"], one["batch"], one["connections"]) for one in samples}
    assert len(found) == len(samples) == len(stores) * 2 * 2
    assert all(one["rate"] > 0 and one["server_us"] > 0 for one in samples)
    # What is behind: nothing, PHP, a web server, a program a mail, and another mail server.
    last = {one["store"]: one["behind_us"] for one in samples}
    assert {store for store, spent in last.items() if spent > 0} == behind
    for store in stores:
        assert f"\n{store} " in done.stdout


def test_the_spool_is_measured_in_small(tmp_path: Path) -> None:
    """Each chain, and what of the rate of one that keeps nothing is left."""
    told = tmp_path / "samples.json"
    command = [sys.executable, str(ROOT / "benches" / "spool.py"), "--client", "python"]
    command += ["--rounds", "1", "--connections", "2", "--seconds", "0.05", "--json", str(told)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    samples = json.loads(told.read_text())["samples"]
    assert [one["chain"] for one in samples] == ["null", "250", "Python, 250"]
    assert all(one["rate"] > 0 and one["server_us"] > 0 for one in samples)
    assert "Python, 250 / null" in done.stdout


def test_several_processes_are_measured_in_small(tmp_path: Path) -> None:
    """A daemon of two: what each has, all CPU of both sides, memory of each and of the parent."""
    plan = scaling.Plan(2, seconds=2.5, settle=0.1)
    bench = scaling.Bench(plan, by_python, tmp_path, cores=2)
    rounds = [scaling.one_round(bench, "python", processes) for processes in (1, 2)]
    for found, processes in zip(rounds, (1, 3), strict=True):
        assert len(found.rest) == len(found.load) == processes
        assert all(0 < one.own <= one.pss <= one.rss for one in (*found.rest, *found.load))
        assert found.window.rate > 0
        # A mail takes some 0.2 ms of Python on any machine, and no client sends for nothing.
        assert found.window.server_us > 50
        assert found.window.client_us > 5
    assert rounds[0].window.busiest == 1.0
    assert 1.0 <= rounds[1].window.busiest < 2.0
    told = scaling.summary(2, "python", 2, rounds[1:])
    assert told.share == pytest.approx(told.rate * (told.server_us + told.client_us) / 2e6)


def test_connections_are_counted_where_they_fall(tmp_path: Path) -> None:
    for shared in (False, True):
        with family(tmp_path, 2, shared=shared) as daemon:
            assert scaling.spread(daemon, 1) == 2.0  # one of two has it alone
            assert 1.0 <= scaling.spread(daemon, 40) <= 2.0
            assert daemon.clients() == [0, 0]


def test_a_sender_that_ends_is_said(tmp_path: Path) -> None:
    """It is to send until it is ended: what stops it would be measured as idleness."""

    def start(_port: int, _connections: int, _size: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "raise SystemExit('it is over')"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    with (
        family(tmp_path, 1) as daemon,
        pytest.raises(BenchError, match="a sender ended: it is over"),
        load(daemon, start, 1, 1),
    ):
        pytest.fail("nothing was sent")


def test_the_figures_of_storing_are_what_the_program_writes() -> None:
    """Its block is in the README, with a line a chain and batch."""
    text = (ROOT / "benches" / "README.md").read_text(encoding="utf-8")
    block = text.partition("<!-- processors -->")[2].partition("<!-- end of processors -->")[0]
    for store in ("SQL, SQLite", "SQL, MariaDB", "SQL, PostgreSQL", "Redis", "GuerrillaRedisDB"):
        assert f"\n{store} " in block
    for store in ("MailDir", "FastCGI", "Pipe"):
        assert f"\n{store} " in block
