"""A storm of SIGHUP under load: no sender hears of it, and nothing is left of it."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from guerrilla.config import AppConfig
from guerrilla.config.writing import readable, toml
from guerrilla.control.client import ask
from tests.faults.daemons import hang_up, mails_in, stats, threads
from tests.faults.tally import Tally
from tests.ledger import Ledger, Mail, deliver
from tests.running import RunningDaemon
from tests.test_storm import MOST_WORKERS, Weather
from tests.wire import until

CONNECTIONS: Final = 50
BAD: Final = 10
"""Of so many configs one is half written."""
RELOADS: Final = {False: 20, True: 150}
"""At least, short and full; they go on as long as mails come."""
MAILS: Final = {False: 4_000, True: 30_000}

SPILLING: Final = "guerrilla-spill"

ANYONE = """\
from guerrilla import Processor, processor
from guerrilla.errors import NoSuchUser


@processor("Anyone")
class Anyone(Processor):
    def validate(self, transaction, recipient):
        return None

    def authenticate(self, transaction, credentials):
        raise NoSuchUser
"""


class Storm:
    """Writes configs for a daemon, and has it read each.

    Args:
        folder: where all of its files are.
    """

    def __init__(self, folder: Path) -> None:
        self._socket = f"{folder / 'guerrilla.toml'}.sock"
        self._weather = Weather(folder, seed=8)
        (folder / "anyone.py").write_text(ANYONE)
        self.calm = self._text(self._weather.calm())
        self.reloads = 0
        self.refused = 0
        """Configs that were half written, and of which nothing was applied."""

    def reload(self, daemon: RunningDaemon) -> None:
        """Another config than the last one, now and then a bad one."""
        self.reloads += 1
        text = self._text(self._weather.next())
        if self.reloads % BAD:
            self.obey(daemon, text)
        else:
            _put(daemon, text[: len(text) // 2] + "\nhalf written")
            hang_up(daemon)
            # It stays until somebody has read it: whoever obeys the signal may find the next one.
            answer = ask(self._socket, "reload")
            assert (answer["ok"], answer["result"]["changes"]) == (False, []), answer
            self.refused += 1

    def obey(self, daemon: RunningDaemon, text: str) -> None:
        """Puts a config in the place of the last one, and waits until it is in force."""
        before = stats(daemon)["reloads"]
        _put(daemon, text)
        hang_up(daemon)
        until(lambda: stats(daemon)["reloads"] > before)

    def _text(self, config: AppConfig) -> str:
        """As a file, with the module that knows the processors, and one place for stats."""
        values = readable(config, mask=False)
        backend: Mapping[str, Any] = values["backend_config"]
        modules = ["anyone", *backend.get("import", [])]
        values["backend_config"] = {**backend, "import": modules}
        return toml({**values, "control_socket": self._socket})


def _put(daemon: RunningDaemon, text: str) -> None:
    fresh = daemon.config_file.with_suffix(".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(daemon.config_file)


def mails(number: int) -> list[Mail]:
    """Small ones, which no limit of the storm forbids."""
    return [
        Mail(f"{at:06d}", b"X-Ledger: %06d\r\n\r\n" % at + b"x" * (at % 7 * 500) + b"\r\n")
        for at in range(number)
    ]


def left_behind(daemon: RunningDaemon) -> tuple[int, int]:
    """Descriptors but for those of the database, and threads but for the one that writes files.

    SQLite keeps a descriptor for the next who opens the file while somebody has a lock on it. That
    thread comes with the first message that is a file, and stays.
    """
    folder = f"/proc/{daemon.pid}/fd"
    names = []
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # of the moment
            names.append(os.readlink(f"{folder}/{name}"))
    database = [name for name in names if "mail.db" in name]
    assert len(database) <= 3 * MOST_WORKERS, database
    names_of_threads = threads(daemon.pid)
    return len(names) - len(database), len(names_of_threads) - names_of_threads.count(SPILLING)


def test_a_storm_of_reloads_under_load_is_heard_by_nobody(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    storm = Storm(tmp_path)
    to_send = mails(MAILS[full])
    with RunningDaemon(tmp_path, config=storm.calm) as daemon:
        for _ in range(BAD):  # what the first ones make is made once
            storm.reload(daemon)
        storm.obey(daemon, storm.calm)
        until(lambda: stats(daemon)["connections_open"] == 0)
        before = left_behind(daemon)
        first = storm.reloads

        def disturb(ledger: Ledger) -> None:
            # Who connects later may be asked for a PROXY header, or for LHLO.
            until(lambda: ledger.opened == CONNECTIONS)
            while ledger.delivered < len(to_send) or storm.reloads - first < RELOADS[full]:
                storm.reload(daemon)

        ledger = deliver(daemon.port, to_send, connections=CONNECTIONS, disturb=disturb)
        storm.obey(daemon, storm.calm)
        # Or less: what was left of the storm before may have been ending when it was counted.
        until(lambda: all(map(operator.le, left_behind(daemon), before)))
        found = stats(daemon)
    assert (found["reload_failures"], found["messages_deferred"], found["timeouts"]) == (0, 0, 0)
    assert (ledger.opened, ledger.unopened) == (CONNECTIONS, 0)
    rounds = storm.reloads - first
    assert storm.refused > rounds // BAD > 0
    row = tally("SIGHUP", "SQLite").audit(ledger, mails_in(tmp_path / "mail.db"), rounds=rounds)
    assert (row.sent, row.answered, row.refused, row.unanswered, row.doubled, ledger.dropped) == (
        *(len(to_send), len(to_send)),
        *(0, 0, 0, 0),
    )
