"""What can be wrong with a database server at start, and what is said of it."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from guerrilla.store import Target, drivers
from tests.services.base import free_port
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import USER, Place
from tests.store.mails import TABLE
from tests.store.opened import connect, connect_to, dialect, insert, limited, link, refused

if TYPE_CHECKING:
    pass


def test_wrong_password_is_said(place: Place) -> None:
    dsn = place.dsn().replace(f"{USER}:", f"{USER}:x", 1)
    error = refused(place, dsn)
    assert "refuses the user or password" in str(error)
    assert error.key == "sql_dsn"


def test_database_that_is_not_there_is_said(place: Place) -> None:
    error = refused(place, place.server.dsn("nowhere"))
    # MariaDB does not tell whether one exists to who may not see it.
    assert "nowhere" in str(error)
    assert "CREATE DATABASE" in str(error) or "GRANT" in str(error)


def test_database_that_root_does_not_find_is_said(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    error = refused(place, f"root@unix({mariadb.socket})/nowhere")
    assert "Unknown database 'nowhere': make it with CREATE DATABASE" in str(error)


def test_server_that_is_not_there_is_said(place: Place) -> None:
    port = str(free_port())
    own = str(place.server.port)
    error = refused(place, place.dsn().replace(own, port, 1))
    assert f"127.0.0.1:{port}" in str(error)
    assert "cannot be reached" in str(error)


def test_server_that_does_not_answer_is_given_up(place: Place) -> None:
    """A socket that nobody accepts from: connected, then silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own = str(place.server.port)
        dsn = place.dsn().replace(own, str(silent.getsockname()[1]), 1)
        limit = "timeout=1s&readTimeout=1s" if place.driver == "mysql" else "connect_timeout=2"
        begin = time.monotonic()
        error = refused(place, f"{dsn}?{limit}")
    assert "cannot be reached" in str(error) or "Lost connection" in str(error)
    assert time.monotonic() - begin < 10


def test_no_right_to_make_the_table_is_said(place: Place) -> None:
    error = refused(place, limited(place))
    assert f"has no table {TABLE} that the user may use, and it cannot be made" in str(error)
    assert f"guerrillad schema --driver {place.driver}" in str(error)
    assert error.key == "mail_table"


def test_no_right_to_write_is_said(place: Place) -> None:
    place.query(dialect(place).create_table(TABLE))
    error = refused(place, limited(place, "SELECT"))
    assert "GRANT the user SELECT and INSERT on the table" in str(error)
    assert error.key == "mail_table"


def test_who_may_only_insert_needs_no_right_to_make_tables(place: Place) -> None:
    place.query(dialect(place).create_table(TABLE))
    needed = "SELECT, INSERT, UPDATE" if place.driver == "mysql" else "SELECT, INSERT"
    dsn = limited(place, needed)
    insert(connect_to(place, dsn))
    assert place.count() == 1


def test_commits_that_do_not_outlive_a_crash_are_warned_of(
    mariadb: MariaDB, postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    connect(postgresql.fresh()).close()
    assert "fsync is off" in caplog.text
    place = mariadb.fresh()
    place.query("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    try:
        connect(place).close()
    finally:
        place.query("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    assert "innodb_flush_log_at_trx_commit is 2" in caplog.text


def test_database_of_postgresql_that_cannot_hold_every_character(postgresql: PostgreSQL) -> None:
    postgresql.query(
        f"CREATE DATABASE latin OWNER {USER} ENCODING 'LATIN1' TEMPLATE template0",
        database="postgres",
    )
    place = postgresql.fresh()
    error = refused(place, postgresql.dsn("latin"))
    assert "keeps text as LATIN1" in str(error)


def test_asynchronous_commits_of_postgresql_are_not_used(postgresql: PostgreSQL) -> None:
    place = postgresql.fresh()
    place.query(f"ALTER DATABASE {place.database} SET synchronous_commit = off")
    store = connect(place)
    shown = link(store)._connection.execute("SHOW synchronous_commit").fetchone()
    assert shown == ("on",)


def test_table_is_made_once_by_many_who_start_together(place: Place) -> None:
    for number in range(8):
        errors: list[BaseException] = []
        target = Target(f"mails{number}")
        together = threading.Barrier(6)
        threads = [
            threading.Thread(target=start, args=(place, target, together, errors)) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def start(
    place: Place, target: Target, together: threading.Barrier, errors: list[BaseException]
) -> None:
    try:
        together.wait(10)
        drivers.connect(place.driver, place.dsn(), target).close()
    except BaseException as error:  # noqa: BLE001  # told by the test
        errors.append(error)
