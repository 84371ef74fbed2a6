"""A private MariaDB: its own data folder, port and socket, with a database `mail`."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql

from tests.services.base import Service, free_port, program
from tests.services.sql import PASSWORD, USER, Place

_SMALL = {"innodb-log-file-size": "16M"}
"""So that making one takes less time."""


class MariaDB(Service):
    """A MariaDB that syncs each commit; root may log in by the socket without a password.

    Args:
        folder: an empty one of its own.
        options: more of mariadbd's, without the dashes.
    """

    name = "mariadb"
    driver = "mysql"

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.options = options
        self._data = folder / "data"
        self._made = False

    @property
    def socket(self) -> str:
        """The path of its unix socket."""
        return str(self.folder / "my.sock")

    def dsn(self, database: str, **parameters: str) -> str:
        """As Go writes it."""
        return f"{USER}:{PASSWORD}@tcp(127.0.0.1:{self.port})/{database}{_query(parameters)}"

    def url(self, database: str, **parameters: str) -> str:
        """As a URL."""
        who = f"{USER}:{quote(PASSWORD, safe='')}"
        return f"mysql://{who}@127.0.0.1:{self.port}/{database}{_query(parameters)}"

    def fresh(self) -> Place:
        """A database that nobody has."""
        place = Place(self)
        self.query(f"CREATE DATABASE {place.database} CHARACTER SET utf8mb4", database="mysql")
        self.query(f"GRANT ALL ON {place.database}.* TO {USER}@'%'", database="mysql")
        return place

    def command(self) -> Sequence[str]:
        """See `Service`; the data folder is made before the first start."""
        if not self._data.exists():
            self._install()
        options = {
            "datadir": str(self._data),
            "socket": self.socket,
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "innodb-flush-log-at-trx-commit": "1",
            "innodb-buffer-pool-size": "64M",
            **_SMALL,
            "pid-file": str(self.folder / "pid"),
            **{name.replace("_", "-"): value for name, value in self.options.items()},
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [program("mariadbd", "mysqld"), "--no-defaults", *flags, *_as_root()]

    def environment(self) -> Mapping[str, str] | None:
        """See `Service`: a notify socket of the tests would be told of its start.

        It begins with deleting the temporary tables that it finds, of whomever: those of one that
        runs beside it too, where both have them in the same place.
        """
        own = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        return {**own, "TMPDIR": str(self.folder)}

    def is_ready(self) -> bool:
        """See `Service`."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.socket)  # PyMySQL would leave one open that is refused.
        with self.admin("mysql") as connection:
            if not self._made:
                cursor = connection.cursor()
                password = connection.escape(PASSWORD)
                cursor.execute(f"CREATE OR REPLACE USER {USER}@'%' IDENTIFIED BY {password}")
                self._made = True
        return True

    def discard(self) -> None:
        """Ends it at once: nobody will start it again. Idempotent."""
        self.kill()

    def admin(self, database: str) -> pymysql.Connection[Any]:
        """A connection of root, which commits each statement."""
        return pymysql.connect(
            unix_socket=self.socket,
            user="root",
            database=database,
            autocommit=True,
            ssl_disabled=True,
            connect_timeout=5,
            read_timeout=20,
        )

    def query(self, statement: str, *values: object, database: str) -> list[dict[str, Any]]:
        """Every row, by root."""
        with (
            self.admin(database) as connection,
            connection.cursor(pymysql.cursors.DictCursor) as cursor,
        ):
            cursor.execute(statement, values or None)
            return [dict(row) for row in cursor.fetchall()]

    def _install(self) -> None:
        done = subprocess.run(
            [
                program("mariadb-install-db", "mysql_install_db"),
                "--no-defaults",
                f"--datadir={self._data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *(f"--{name}={value}" for name, value in _SMALL.items()),
                *_as_root(),
            ],
            check=False,
            capture_output=True,
            env=self.environment(),
            timeout=60,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def _as_root() -> list[str]:
    """It refuses to run as root unless it is told to."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _query(parameters: Mapping[str, str]) -> str:
    """What stands behind a database; an underscore of a name stays."""
    words = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"?{words}" if words else ""
