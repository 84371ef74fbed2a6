"""The log has no room, or no reader: mail goes on, and what is missing is counted."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from tests.faults.daemons import mails_in, stats
from tests.faults.load import ROOM, sustain
from tests.faults.tally import Tally
from tests.ledger import Ledger
from tests.running import RunningDaemon
from tests.wire import until

MISSING: Final = 100
"""Records that are lost each time."""
TOLD: Final = "records are lost"
LINE: Final = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]{12}Z [A-Z]+ guerrilla\S* .+|  \| .*")
"""A record as text."""

SOON_DEAF: Final = 'exec "$0" -m guerrilla "$@" 2> >(head -c 300 >/dev/null)'
"""For bash: what stderr is read by ends after the first records."""


def start(folder: Path, log_file: Path) -> RunningDaemon:
    log = f"log_file = {json.dumps(os.fspath(log_file))}"
    return RunningDaemon(folder, top=log, server=ROOM)


def lose_some(daemon: RunningDaemon) -> None:
    """Waits until so many more records are lost."""
    enough = _lost(daemon) + MISSING
    until(lambda: _lost(daemon) >= enough)


def _lost(daemon: RunningDaemon) -> int:
    return int(stats(daemon)["log_records_dropped"])


def judge(verdict: Tally, ledger: Ledger, folder: Path, lost: int, rounds: int) -> None:
    """Asserts that no sender has heard of it, and that what is missing was counted."""
    assert (ledger.unopened, ledger.dropped, ledger.refusals) == (0, 0, 0)
    assert lost > 0
    note = f"{lost:,} records counted as lost"
    row = verdict.audit(ledger, mails_in(folder / "mail.db"), rounds=rounds, note=note)
    assert (row.unanswered, row.doubled) == (0, 0)


def test_the_disk_of_the_log_is_full(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    rounds = 10 if full else 2
    path = tmp_path / "guerrilla.log"
    path.symlink_to("/dev/full")
    written = []
    with start(tmp_path, path) as daemon:

        def disturb() -> None:
            for _ in range(rounds):
                lose_some(daemon)
                move(daemon, path, lambda: path.write_text(""))
                until(lambda: path.read_text().count("250 2.0.0 OK") > MISSING)
                written.append(path.read_text())
                move(daemon, path, lambda: path.symlink_to("/dev/full"))

        ledger = sustain(daemon.port, disturb)
        lost = _lost(daemon)
    # Once each time, and not for each record.
    assert daemon.log_text().count(TOLD) == rounds + 1
    for text in written:
        assert [line for line in text.splitlines()[:-1] if not LINE.fullmatch(line)] == []
    judge(tally("log: disk full", "SQLite"), ledger, tmp_path, lost, rounds)


def move(daemon: RunningDaemon, path: Path, replace: Callable[[], object]) -> None:
    """Puts another file in the place of the log, and has it opened."""
    path.unlink()
    replace()
    daemon.process.send_signal(signal.SIGUSR1)


class Reader:
    """Reads a named pipe, now and then."""

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self._path = path
        self._ending = threading.Event()
        self._thread = threading.Thread()

    def begin(self) -> Self:
        """Reads, in a thread of its own."""
        pipe = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, args=(pipe,))
        self._thread.start()
        return self

    def end(self) -> None:
        """Goes away."""
        self._ending.set()
        self._thread.join()

    def _run(self, pipe: int) -> None:
        try:
            while not self._ending.wait(0.005):
                try:
                    self.lines += os.read(pipe, 65_536).count(b"\n")
                except BlockingIOError:
                    continue
        finally:
            os.close(pipe)


def test_the_reader_of_the_log_comes_and_goes(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    rounds = 10 if full else 2
    path = tmp_path / "log.pipe"
    os.mkfifo(path)
    reader = Reader(path).begin()
    try:
        with start(tmp_path, path) as daemon:

            def disturb() -> None:
                for _ in range(rounds):
                    reader.end()
                    lose_some(daemon)
                    reader.begin()
                    enough = reader.lines + MISSING
                    until(lambda enough=enough: reader.lines >= enough)  # type: ignore[misc]

            ledger = sustain(daemon.port, disturb)
            lost = _lost(daemon)
    finally:
        reader.end()
    assert daemon.log_text().count(TOLD) == rounds
    judge(tally("log: reader gone", "SQLite"), ledger, tmp_path, lost, rounds)


def test_nobody_reads_stderr_any_more(tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    command = ("bash", "-c", SOON_DEAF, sys.executable)
    with RunningDaemon(tmp_path, server=ROOM, command=command) as daemon:
        ledger = sustain(daemon.port, lambda: lose_some(daemon))
        lost = _lost(daemon)
    judge(tally("log: stderr gone", "SQLite"), ledger, tmp_path, lost, 1)
