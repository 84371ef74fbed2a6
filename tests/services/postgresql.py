"""A private PostgreSQL: its own data folder, port and socket, with a database `mail`."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.services.base import STOP_TIMEOUT, Service, free_port, program
from tests.services.sql import PASSWORD, USER, Place
from tests.wire import halt

_VERSIONS = "/usr/lib/postgresql"


class PostgreSQL(Service):
    """A PostgreSQL; `admin` may log in by the socket without a password.

    Args:
        folder: an empty one of its own.
        files: more of its settings that name files, of which it gets copies.
        options: more of its settings.
    """

    name = "postgresql"
    driver = "postgresql"
    stop_signal = signal.SIGINT  # a fast shutdown: ends the sessions

    def __init__(
        self, folder: Path, files: Mapping[str, Path] | None = None, **options: str
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.files = dict(files or {})
        self.options = {**options, **{name: str(folder / name) for name in self.files}}
        self._data = folder / "data"
        self._made = False

    def dsn(self, database: str, **parameters: str) -> str:
        """As a URL."""
        words = "&".join(f"{name}={value}" for name, value in parameters.items())
        where = f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"
        return f"{where}?{words}" if words else where

    def keywords(self, database: str) -> str:
        """As libpq's `name=value`."""
        password = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        where = f"host=127.0.0.1 port={self.port} dbname={database}"
        return f"{where} user={USER} password='{password}'"

    def fresh(self) -> Place:
        """A database that nobody has."""
        place = Place(self)
        self.query(f"CREATE DATABASE {place.database} OWNER {USER}", database="postgres")
        place.query(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {USER}")
        return place

    def command(self) -> Sequence[str]:
        """See `Service`; the data folder is made before the first start."""
        if not self._data.exists():
            self._install()
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "40",
            **self.options,
        }
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [*_as_other(), _program("postgres"), "-D", str(self._data), *flags]

    def is_ready(self) -> bool:
        """See `Service`."""
        with self.admin("postgres") as connection:
            if not self._made:
                quoted = psycopg.sql.Literal(PASSWORD)
                connection.execute(
                    psycopg.sql.SQL("CREATE ROLE mail LOGIN PASSWORD {}").format(quoted)
                )
                self._made = True
        return True

    def kill(self) -> None:
        """Ends all its processes at once. Idempotent."""
        children: list[str] = []
        if self.process is not None and self.process.poll() is None:
            halt(self.process.pid)  # So that it starts no others.
            children = self._signal_children(signal.SIGKILL)
        super().kill()
        # It does not start again while one of them has its memory.
        _wait_for_end(children)

    def pause(self) -> None:
        """See `Service`; each session has a process of its own."""
        super().pause()
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """See `Service`."""
        self._signal_children(signal.SIGCONT)
        super().resume()

    def _signal_children(self, number: signal.Signals) -> list[str]:
        """Their process ids; none where it has ended."""
        pid = self.process.pid if self.process is not None else 0
        children: list[str] = []
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)
        return children

    def discard(self) -> None:
        """Ends it at once: nobody will start it again. Idempotent."""
        children = self._signal_children(signal.SIGCONT)
        self._end(signal.SIGQUIT)
        # It does not wait for all of them, and they write until they have ended.
        _wait_for_end(children)

    def admin(self, database: str) -> psycopg.Connection[Any]:
        """A connection of the superuser, which commits each statement."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user="admin",
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def query(self, statement: str, *values: object, database: str) -> list[dict[str, Any]]:
        """Every row, by the superuser."""
        with (
            self.admin(database) as connection,
            connection.cursor(row_factory=psycopg.rows.dict_row) as cursor,
        ):
            cursor.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def _install(self) -> None:
        self._data.mkdir(mode=0o700)
        copies = [self.folder / name for name in self.files]
        for copy, source in zip(copies, self.files.values(), strict=True):
            copy.write_bytes(source.read_bytes())
            copy.chmod(0o600)  # Else it takes no key.
        if os.geteuid() == 0:
            owner = _owner()
            for path in (self.folder, self._data, *copies):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        words = ["-D", str(self._data), "-U", "admin", "-E", "UTF8", "--locale=C", "--no-sync"]
        command = [*_as_other(), _program("initdb"), *words, "--auth-local=trust"]
        subprocess.run(
            [*command, "--auth-host=scram-sha-256"],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=self.folder,
        )


def _owner() -> pwd.struct_passwd:
    """Whom root runs it as: it refuses to run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as_other() -> list[str]:
    if os.geteuid() != 0:
        return []
    owner = _owner()
    names = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    return [program("setpriv"), *names, "--"]


def _program(name: str) -> str:
    """Debian keeps the server's programs apart, by version: the newest."""
    versions = sorted(Path(_VERSIONS).glob(f"*/bin/{name}"), key=lambda path: path.parts[-3])
    return str(versions[-1]) if versions else shutil.which(name) or program(name)


def _wait_for_end(pids: Sequence[str]) -> None:
    limit = time.monotonic() + STOP_TIMEOUT
    while any(map(_lives, pids)) and time.monotonic() < limit:
        time.sleep(0.005)


def _lives(pid: str) -> bool:
    """Whether a process is there, and more than what is left until somebody asks for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
