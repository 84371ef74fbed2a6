"""What can go wrong on a database server: at start, between batches, and in the middle of one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from guerrilla.errors import Unavailable
from guerrilla.store import StoreError, StoreFullError, Target, drivers, server
from guerrilla.store.dialects import Dialect
from tests.services.base import free_port
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import PASSWORD, USER, Place
from tests.store.mails import TABLE, envelope, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guerrilla.store import Store


OPEN: list[Store] = []
"""What the test has opened."""


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def connect(place: Place, lifetime: float = 0.0, **parameters: str) -> Store:
    return connect_to(place, place.dsn(**parameters), lifetime)


def connect_to(place: Place, dsn: str, lifetime: float = 0.0) -> Store:
    OPEN.append(drivers.connect(place.driver, dsn, Target(TABLE), lifetime))
    return OPEN[-1]


@pytest.fixture
def store(place: Place) -> Store:
    return connect(place, readTimeout="2s")


def insert(store: Store) -> None:
    store.insert(rows(envelope()))


def link(store: Store) -> Any:
    assert isinstance(store, server.ServerStore)
    return store._kept.get()


def dialect(place: Place) -> Dialect:
    return drivers.find(place.driver).dialect()


def refused(place: Place, dsn: str) -> StoreError:
    """The error of a start."""
    with pytest.raises(StoreError) as error:
        connect_to(place, dsn)
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
    return error.value


# --- At start ------------------------------------------------------------------------------------


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
    own = str(getattr(place.server, "port", 0))
    error = refused(place, place.dsn().replace(own, port, 1))
    assert f"127.0.0.1:{port}" in str(error)
    assert "cannot be reached" in str(error)


def test_server_that_does_not_answer_is_given_up(place: Place) -> None:
    """A socket that nobody accepts from: connected, then silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own = str(getattr(place.server, "port", 0))
        dsn = place.dsn().replace(own, str(silent.getsockname()[1]), 1)
        limit = "timeout=1s&readTimeout=1s" if place.driver == "mysql" else "connect_timeout=2"
        begin = time.monotonic()
        error = refused(place, f"{dsn}?{limit}")
    assert "cannot be reached" in str(error) or "Lost connection" in str(error)
    assert time.monotonic() - begin < 10


def limited(place: Place, *rights: str) -> str:
    """The DSN of a user of that name's own, who has these rights on the table alone."""
    name = f"limited_{place.database}"
    if place.driver == "mysql":
        place.query(f"CREATE USER {name} IDENTIFIED BY 'x'")
        # Without any right on the database it could not even be chosen.
        place.query(f"GRANT CREATE TEMPORARY TABLES ON {place.database}.* TO {name}")
        for right in rights:
            place.query(f"GRANT {right} ON {TABLE} TO {name}")
    else:
        place.query(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        place.query("REVOKE CREATE ON SCHEMA public FROM public")
        for right in rights:
            place.query(f"GRANT {right} ON {TABLE} TO {name}")
    who, _, where = place.dsn().rpartition("@")
    return f"{who.removesuffix(who[who.index(USER + ':') :])}{name}:x@{where}"


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


# --- While it runs -------------------------------------------------------------------------------


def kill_sessions(place: Place) -> None:
    """Ends the sessions of the store, as an administrator or an idle limit does."""
    if place.driver == "mysql":
        for row in place.query("SHOW PROCESSLIST"):
            if row["db"] == place.database and row["User"] != "root":
                place.query(f"KILL {row['Id']}")
    else:
        place.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND pid <> pg_backend_pid()",
            place.database,
        )


def await_gone(store: Store) -> None:
    limit = time.monotonic() + 10
    while not link(store).is_gone():
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_connection_that_was_dropped_while_idle_costs_no_mail(place: Place, store: Store) -> None:
    insert(store)
    kill_sessions(place)
    await_gone(store)
    insert(store)
    assert place.count() == 2


def test_connection_is_made_anew_after_its_lifetime(place: Place) -> None:
    store = connect(place, lifetime=0.05)
    insert(store)
    before = link(store)
    insert(store)
    assert link(store) is before
    time.sleep(0.06)  # what is measured
    insert(store)
    assert link(store) is not before
    assert place.count() == 3


def test_table_that_is_locked_is_unavailable_in_time(place: Place, store: Store) -> None:
    insert(store)
    with other(place) as connection:
        if place.driver == "mysql":
            run(connection, f"LOCK TABLES {TABLE} WRITE")
        else:
            run(connection, f"BEGIN; LOCK TABLE {TABLE}")
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            insert(store)
        assert time.monotonic() - begin < 8
    insert(store)
    # The one that was given up may have waited for the lock, and been stored after all.
    assert 2 <= place.count() <= 3


def test_lock_on_the_row_is_unavailable_and_nothing_is_stored(place: Place, store: Store) -> None:
    one = rows(envelope())
    store.insert(one)
    with other(place) as connection:
        run(connection, "BEGIN")
        run(connection, f"UPDATE {TABLE} SET spam_score = 1, recipient = 'x'")
        with pytest.raises(Unavailable):
            store.insert([*rows(envelope()), *one])
        run(connection, "ROLLBACK")
    assert place.count() == 1
    insert(store)
    assert place.count() == 2


@contextlib.contextmanager
def other(place: Place) -> Iterator[Any]:
    """A session of somebody else's."""
    admin = place.server.admin(place.database)  # type: ignore[attr-defined]
    try:
        yield admin
    finally:
        admin.close()


def run(connection: Any, statement: str) -> None:
    connection.cursor().execute(statement)


def test_table_that_went_is_unavailable_and_made_again(place: Place, store: Store) -> None:
    insert(store)
    place.query(f"DROP TABLE {TABLE}")
    with pytest.raises(Unavailable, match=TABLE):
        insert(store)
    insert(store)
    assert place.count() == 1


def test_right_that_was_taken_is_unavailable(place: Place) -> None:
    place.query(dialect(place).create_table(TABLE))
    dsn = limited(place, "SELECT, INSERT" + ", UPDATE" * (place.driver == "mysql"))
    store = connect_to(place, dsn)
    insert(store)
    place.query(f"REVOKE INSERT ON {TABLE} FROM limited_{place.database}")
    for _ in range(2):
        with pytest.raises(Unavailable, match="denied"):
            insert(store)
    assert place.count() == 1


def set_read_only(place: Place, *, on: bool) -> None:
    if place.driver == "mysql":
        place.query(f"SET GLOBAL read_only = {int(on)}")
    else:
        value = "on" if on else "off"
        place.query(f"ALTER DATABASE {place.database} SET default_transaction_read_only = {value}")


def test_read_only_server_is_unavailable_and_refused_at_start(mortal: Place) -> None:
    store = connect(mortal)
    insert(store)
    set_read_only(mortal, on=True)
    try:
        kill_sessions(mortal)
        await_gone(store)
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"(?i)read.only"):
                insert(store)
        assert "read" in str(refused(mortal, mortal.dsn()))
    finally:
        with other(mortal) as connection:
            if mortal.driver != "mysql":
                run(connection, "SET default_transaction_read_only = off")
                run(connection, f"ALTER DATABASE {mortal.database} RESET ALL")
            else:
                run(connection, "SET GLOBAL read_only = 0")
    limit = time.monotonic() + 10
    while True:
        try:
            insert(store)
            break
        except Unavailable:
            assert time.monotonic() < limit
            time.sleep(0.02)
    assert mortal.count() == 2


def test_server_with_too_many_connections_is_unavailable(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    place.query(f"ALTER USER {USER}@'%' WITH MAX_USER_CONNECTIONS 1")
    try:
        store = connect(place)
        assert "takes no more connections" in str(refused(place, place.dsn()))
        insert(store)
        link(store).close()
        another = connect(place)
        with pytest.raises(Unavailable, match="takes no more connections"):
            insert(store)
        another.close()
    finally:
        place.query(f"ALTER USER {USER}@'%' WITH MAX_USER_CONNECTIONS 0")


def test_full_disk_is_said_so(place: Place, store: Store) -> None:
    """The server's own words for it, since a disk of a test's own needs root."""
    if place.driver == "mysql":
        raise_it = (
            "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'"
        )
        place.query(
            f"CREATE TRIGGER no_room BEFORE INSERT ON {TABLE} FOR EACH ROW BEGIN {raise_it}; END"
        )
    else:
        place.query(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        place.query(f"CREATE TRIGGER no_room BEFORE INSERT ON {TABLE} EXECUTE FUNCTION no_room()")
    with pytest.raises(StoreFullError, match="no room left"):
        insert(store)
    place.query(f"DROP TRIGGER no_room{f' ON {TABLE}' * (place.driver != 'mysql')}")
    insert(store)
    assert place.count() == 1


def test_many_workers_at_once_disturb_each_other_never(place: Place) -> None:
    """As the workers of a daemon: rows side by side at the end of the same index."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with contextlib.closing(connect(place)) as own:
                for _ in range(30):
                    own.insert(rows(*[envelope() for _ in range(20)]))
        except BaseException as error:  # noqa: BLE001  # told by the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert place.count() == 6 * 30 * 20


# --- A server that goes --------------------------------------------------------------------------


def until_stored(store: Store) -> None:
    limit = time.monotonic() + 20
    while True:
        try:
            insert(store)
        except Unavailable:
            assert time.monotonic() < limit
            time.sleep(0.01)
        else:
            return


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_server_that_went_is_unavailable_until_it_is_back(mortal: Place, how: str) -> None:
    store = connect(mortal)
    insert(store)
    getattr(mortal.server, how)()
    for _ in range(3):
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            insert(store)
        assert time.monotonic() - begin < 2
    mortal.server.start()
    until_stored(store)
    assert mortal.count() == 2


def test_server_that_is_paused_holds_nobody_for_long(mortal: Place) -> None:
    store = connect(mortal, readTimeout="1s")
    insert(store)
    mortal.server.pause()
    begin = time.monotonic()
    with pytest.raises(Unavailable):
        insert(store)
    assert time.monotonic() - begin < 4
    mortal.server.resume()
    until_stored(store)
    assert mortal.count() >= 2


def test_server_killed_in_the_middle_of_a_batch_has_all_of_it_or_nothing(mortal: Place) -> None:
    """A batch of 40 mails of 400 KiB: several statements, among which the server dies."""
    store = connect(mortal)
    stored = 0
    for delay in (0.02, 0.05, 0.1):
        batch = rows(*[envelope(b"x" * 400_000) for _ in range(40)])
        timer = threading.Timer(delay, mortal.server.kill)
        timer.start()
        with contextlib.suppress(Unavailable):
            store.insert(batch)
            stored += len(batch)
        timer.join()
        mortal.server.start()
        until_stored(store)
        stored += 1
        found = mortal.count()
        # Where it was committed and the answer lost, all of it is there.
        assert found in {stored, stored + len(batch)}
        stored = found
