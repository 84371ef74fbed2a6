"""A real daemon in a process of its own, for tests that need a socket and a database.

`RunningDaemon` is a context manager; the fixture `running_daemon` is one with the default config.
It waits for what the daemon prints, never for time to pass.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import apsw
import pytest

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
_LAST_LINE = "  stop"
_LISTENING = "  listening"


class DaemonError(Exception):
    """The daemon did not start; the text is what it said."""


class RunningDaemon:
    """A running `guerrillad serve` on 127.0.0.1, which stores into a SQLite file of its own.

    Args:
        folder: an empty folder: config, database and log come there, and the daemon runs there.
        chain: its `save_process`.
        top: more lines of TOML for the top level.
        server: more lines of TOML for the server.
        backend: more lines of TOML for `backend_config`.
        config: the whole config in place of all these; `db` then has to be its `sql_dsn`.
        command: what to run before `serve -c FILE`; `guerrillad` of this Python by default.
        options: of `serve`.
        environment: the environment; by default the one of the tests.
        descriptors: what it inherits beside its standard ones, by the same numbers.

    Raises:
        DaemonError: it ended, or did not listen within `START_TIMEOUT` seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        chain: str = "HeadersParser|Hasher|Header|SQL",
        top: str = "",
        server: str = "",
        backend: str = "",
        config: str | None = None,
        command: Sequence[str] = (sys.executable, "-m", "guerrilla"),
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.db = folder / "mail.db"
        self.config_file = folder / "guerrilla.toml"
        self._log = folder / "daemon.log"
        if config is None:
            config = _config(chain, top, server, backend, self.db)
        self.config_file.write_text(config, encoding="utf-8")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "-c", os.fspath(self.config_file), *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=None if environment is None else dict(environment),
                pass_fds=descriptors,
                text=True,
            )
        self.printed = self._read_start()
        """What it printed when it had started, a line each."""
        self.addresses = [
            line.split(maxsplit=1)[1] for line in self.printed if line.startswith(_LISTENING)
        ]
        """Where it listens, in the order of its servers."""

    @property
    def port(self) -> int:
        """The port of the first server."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def log_text(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def rows(self, table: str = "new_mail") -> list[dict[str, Any]]:
        """What is stored: every row by the names of its columns, oldest first."""
        connection = apsw.Connection(os.fspath(self.db), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5_000)
            cursor = connection.execute(f'SELECT * FROM "{table}" ORDER BY mail_id')
            # Without a row, apsw does not tell the columns either.
            return [
                dict(zip((column[0] for column in cursor.get_description()), row, strict=True))
                for row in cursor
            ]
        finally:
            connection.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stops it by a signal and asserts that it ended well. Idempotent.

        Raises:
            AssertionError: it ended with another status than 0, or not within `STOP_TIMEOUT`.
        """
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"did not stop within {STOP_TIMEOUT} s\n{self.log_text()}"
            ) from None
        self._close()
        assert status == 0, f"ended with status {status}\n{self.log_text()}"

    def kill(self) -> None:
        """Ends it at once, as a power failure would. Idempotent."""
        self.process.kill()
        self.process.wait()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:  # the test's own error is the one to see
            self.kill()

    def _read_start(self) -> list[str]:
        lines: list[str] = []
        out = self.process.stdout
        assert out is not None
        # A daemon that neither starts nor fails must not hang the reading.
        alarm = threading.Timer(START_TIMEOUT, self.process.kill)
        alarm.start()
        try:
            for line in out:
                lines.append(line.rstrip("\n"))
                if line.startswith(_LAST_LINE):
                    return lines
        finally:
            alarm.cancel()
            alarm.join()
        self.kill()
        raise DaemonError("\n".join([*lines, self.log_text()]))

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


def _config(chain: str, top: str, server: str, backend: str, db: Path) -> str:
    """A config as TOML; JSON's strings are TOML's."""
    return f"""\
allowed_hosts = ["."]
log_level = "info"
{top}

[[servers]]
listen_interface = "127.0.0.1:0"
host_name = "mx.example.com"
{server}

[backend_config]
save_process = {json.dumps(chain)}
sql_driver = "sqlite"
sql_dsn = {json.dumps(os.fspath(db))}
{backend}
"""


def listeners(folder: Path, *interfaces: str, servers: Sequence[str] = ()) -> str:
    """A config with several servers, which share one backend.

    Args:
        folder: for the database.
        interfaces: where they listen.
        servers: other keys of servers on ports of their own, a text of TOML each.
    """
    tables = [f"listen_interface = {json.dumps(name)}" for name in interfaces]
    tables += [f'listen_interface = "127.0.0.{n}:0"\n{keys}' for n, keys in enumerate(servers, 1)]
    lines = ['allowed_hosts = ["."]', 'log_level = "info"']
    for index, table in enumerate(tables):
        lines += ["[[servers]]", f'host_name = "mx{index}.example.com"', table]
    lines += ["[backend_config]", 'save_process = "HeadersParser|Hasher|Header|SQL"']
    return "\n".join([*lines, f"sql_dsn = {json.dumps(os.fspath(folder / 'mail.db'))}"])


@pytest.fixture
def running_daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon with the quick start's chain; the test fails when it does not stop well."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    with RunningDaemon(folder) as daemon:
        yield daemon
