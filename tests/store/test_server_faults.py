"""What can go wrong on a database server: between batches, and in the middle of one."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from guerrilla.errors import Unavailable
from guerrilla.store import StoreError, StoreFullError
from guerrilla.store.server import ServerStore
from tests.services.mariadb import MariaDB
from tests.services.relay import relay
from tests.services.sql import USER, Place
from tests.store.mails import TABLE, envelope, rows
from tests.store.opened import connect, connect_to, dialect, insert, limited, link, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guerrilla.store import Store


@pytest.fixture
def store(place: Place) -> Store:
    return connect(place, readTimeout="10s")


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
    store = connect(place, lifetime=3_600)
    insert(store)
    before = link(store)
    insert(store)
    assert link(store) is before
    assert isinstance(store, ServerStore)
    store._since -= 3_600
    insert(store)
    assert link(store) is not before
    assert place.count() == 3


def test_table_that_is_locked_is_unavailable_in_time(place: Place) -> None:
    store = connect(place, readTimeout="2s")
    insert(store)
    with other(place) as connection:
        if place.driver == "mysql":
            run(connection, f"LOCK TABLES {TABLE} WRITE")
        else:
            run(connection, f"BEGIN; LOCK TABLE {TABLE}")
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            insert(store)
        assert time.monotonic() - begin < 12
    insert(store)
    # The one that was given up may have waited for the lock, and been stored after all.
    assert 2 <= place.count() <= 3


def test_lock_on_the_row_is_unavailable_and_nothing_is_stored(place: Place) -> None:
    store = connect(place, readTimeout="6s")
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
    admin = place.server.admin(place.database)
    try:
        yield admin
    finally:
        admin.close()


def run(connection: Any, statement: str) -> None:
    connection.cursor().execute(statement)


WAITING = {
    "mysql": "SELECT count(*) AS n FROM information_schema.innodb_trx "
    "WHERE trx_state = 'LOCK WAIT'",
    "postgresql": "SELECT count(*) AS n FROM pg_locks WHERE NOT granted",
}
"""How many wait for a lock."""
LOSES = {
    "mysql": f"UPDATE {TABLE} SET spam_score = 1 WHERE subject = 'heavy'",
    "postgresql": "SET LOCAL deadlock_timeout = '1h'",
}
"""What makes a deadlock end with the other session as its victim."""


def test_deadlock_is_unavailable_and_nothing_is_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of two statements, and a session that does the same in the other order."""
    for module in ("mysql", "postgresql"):
        monkeypatch.setattr(f"guerrilla.store.{module}.STATEMENT_BYTES", 1)
    store = connect(place)
    first, second = rows(envelope()), rows(envelope())
    heavy = [envelope(b"Subject: heavy\r\n\r\n") for _ in range(20)]
    store.insert([*second, *rows(*heavy)])
    with other(place) as connection, ThreadPoolExecutor(1) as pool:
        # Else it would lock what is between rows as well.
        words = "" if place.driver == "mysql" else "CHARACTERISTICS AS "
        run(connection, f"SET SESSION {words}TRANSACTION ISOLATION LEVEL READ COMMITTED")
        run(connection, "BEGIN")
        run(connection, LOSES[place.driver])
        change = f"UPDATE {TABLE} SET recipient = 'x' WHERE queued_id = "
        run(connection, f"{change}'{second[0].envelope.queued_id}'")
        stored = pool.submit(store.insert, [*first, *second])
        await_true(lambda: place.query(WAITING[place.driver])[0]["n"] > 0)
        key = f"'{first[0].envelope.queued_id}', 'to@example.com', '2000-01-01'"
        empty = "X''" if place.driver == "mysql" else "''"
        date = dialect(place).quoted("date")
        into = f"INSERT INTO {TABLE} (queued_id, recipient, {date}, ip_addr, mail)"
        run(connection, f"{into} VALUES ({key}, {empty}, {empty})")
        with pytest.raises(Unavailable, match=r"(?i)deadlock"):
            stored.result()
        run(connection, "ROLLBACK")
    assert place.count() == 21
    store.insert([*first, *second])
    assert place.count() == 22


def await_true(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not true():
        assert time.monotonic() < limit
        # InnoDB shows what waits as it was when nobody had looked for a tenth of a second.
        time.sleep(0.15)


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
        await_alone(place)
        store = connect(place)
        assert "takes no more connections" in str(refused(place, place.dsn()))
        insert(store)
        link(store).close()
        await_alone(place)
        another = connect(place)
        with pytest.raises(Unavailable, match="takes no more connections"):
            insert(store)
        another.close()
    finally:
        place.query(f"ALTER USER {USER}@'%' WITH MAX_USER_CONNECTIONS 0")


def await_alone(place: Place) -> None:
    """The server hears a little later that a connection was closed, and counts it until then."""
    await_true(lambda: all(row["User"] != USER for row in place.query("SHOW PROCESSLIST")))


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


def test_transaction_that_cannot_be_taken_back_is_left(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored next must not go into it: nobody would commit that."""
    place = mariadb.fresh()
    monkeypatch.setattr("guerrilla.store.mysql.STATEMENT_BYTES", 300)
    found = connect(place)
    place.query(f"CREATE UNIQUE INDEX by_recipient ON {TABLE} (recipient)")
    connection = link(found)._connection
    query = connection.query

    def interrupted(statement: bytes) -> Any:
        if statement == b"ROLLBACK":
            raise pymysql.OperationalError(1317, "Query execution was interrupted")
        return query(statement)

    monkeypatch.setattr(connection, "query", interrupted)
    with pytest.raises(pymysql.IntegrityError):
        found.insert(rows(envelope(), envelope()))
    place.query(f"DROP INDEX by_recipient ON {TABLE}")
    insert(found)
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


def test_garbage_is_unavailable_and_the_next_connection_is_made(place: Place) -> None:
    own = str(place.server.port)
    with relay(place.server.port) as between:
        connect(place).close()  # It makes the table, without that limit.
        limit = {"readTimeout": "2s"}
        store = connect_to(place, place.dsn(**limit).replace(own, str(between.port), 1))
        for _ in range(5):
            between.garbage = True
            with pytest.raises(Unavailable):
                insert(store)
            between.garbage = False
            until_stored(store)
        between.garbage = True
        with pytest.raises(StoreError):
            connect_to(place, place.dsn(**limit).replace(own, str(between.port), 1))
    assert 5 <= place.count() <= 10


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
        assert time.monotonic() - begin < 4
    mortal.server.start()
    until_stored(store)
    assert mortal.count() == 2


def test_server_that_is_paused_holds_nobody_for_long(mortal: Place) -> None:
    store = connect(mortal, readTimeout="3s")
    insert(store)
    mortal.server.pause()
    begin = time.monotonic()
    with pytest.raises(Unavailable):
        insert(store)
    assert time.monotonic() - begin < 10
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
