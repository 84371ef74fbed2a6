"""A private PostgreSQL: its own data folder, port and socket, with a database `mail`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from tests.services.base import Service, free_port, program

USER = "mail"
PASSWORD = "p@ss:w/o'rd\\?#%(é)"
"""With all that means something somewhere in a DSN."""
QUOTED = "p%40ss%3Aw%2Fo%27rd%5C%3F%23%25%28%C3%A9%29"
"""As a URL has it."""

_VERSIONS = "/usr/lib/postgresql"


class PostgreSQL(Service):
    """A PostgreSQL that syncs each commit; `admin` may log in by the socket without a password.

    Args:
        folder: an empty one of its own.
        options: more of its settings.
    """

    name = "postgresql"
    stop_signal = signal.SIGINT  # a fast shutdown: ends the sessions

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.options = options
        self._data = folder / "data"
        self._made = False

    def dsn(self, database: str = "mail", **parameters: str) -> str:
        """As a URL."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        where = f"postgresql://{USER}:{QUOTED}@127.0.0.1:{self.port}/{database}"
        return f"{where}{'?' * bool(query)}{query}"

    def keywords(self) -> str:
        """As libpq's `name=value`."""
        password = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        where = f"host=127.0.0.1 port={self.port} dbname=mail"
        return f"{where} user={USER} password='{password}'"

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
                connection.execute("CREATE DATABASE mail OWNER mail TEMPLATE template0")
                self._made = True
        return True

    def admin(self, database: str = "mail") -> psycopg.Connection[Any]:
        """A connection of the superuser, which commits each statement."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user="admin",
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def query(self, statement: str, *values: object, database: str = "mail") -> list[Any]:
        """Every row, by the superuser."""
        with self.admin(database) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def _install(self) -> None:
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            owner = _owner()
            for path in (self.folder, self._data):
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
