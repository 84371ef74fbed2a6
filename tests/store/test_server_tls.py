"""TLS to the database: who is trusted, and a certificate of one's own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.store import StoreError, Target, drivers, server
from tests.certificates import Authority, Pair
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import Place
from tests.store.mails import TABLE


@contextlib.contextmanager
def session(place: Place, dsn: str) -> Iterator[Any]:
    """The driver's own connection."""
    store = drivers.connect(place.driver, dsn, Target(TABLE))
    assert isinstance(store, server.ServerStore)
    try:
        yield store._kept.get()._connection  # type: ignore[attr-defined]
    finally:
        store.close()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that has signed nothing here."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def client(database_authority: Authority) -> Pair:
    """A client's certificate."""
    return database_authority.issue("/CN=guerrilla")


def cipher_of_mysql(connection: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        return str(cursor.fetchone()[1])


@pytest.mark.parametrize("tls", ["skip-verify", "preferred", "true"])
def test_mysql_over_tls(mariadb: MariaDB, database_authority: Authority, tls: str) -> None:
    place = mariadb.fresh()
    more = {"ssl_ca": str(database_authority.certificate)} if tls == "true" else {}
    with session(place, place.dsn(tls=tls, **more)) as connection:
        assert cipher_of_mysql(connection)


def test_mysql_without_tls(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    with session(place, place.dsn()) as connection:
        assert cipher_of_mysql(connection) == ""


def test_mysql_that_nobody_trusts_is_refused(mariadb: MariaDB, stranger: Authority) -> None:
    place = mariadb.fresh()
    for more in ({"tls": "true"}, {"ssl_ca": str(stranger.certificate)}):
        with pytest.raises(StoreError, match=r"cannot be reached.*CERTIFICATE_VERIFY_FAILED"):
            drivers.connect("mysql", place.dsn(**more), Target(TABLE))


def test_mysql_under_another_name_is_refused(
    mariadb: MariaDB, database_authority: Authority
) -> None:
    place = mariadb.fresh()
    dsn = place.dsn(ssl_ca=str(database_authority.certificate))
    with forwarded("127.0.0.9", mariadb.port) as port:
        elsewhere = dsn.replace(f"127.0.0.1:{mariadb.port}", f"127.0.0.9:{port}")
        with pytest.raises(StoreError, match=r"not valid for '127.0.0.9'"):
            drivers.connect("mysql", elsewhere, Target(TABLE))


@contextlib.contextmanager
def forwarded(host: str, port: int) -> Iterator[int]:
    """Another address of the server, for one connection: its port there."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65_536):
                sink.sendall(octets)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def forward() -> None:
        with listener.accept()[0] as near, socket.create_connection(("127.0.0.1", port)) as far:
            answers = threading.Thread(target=copy, args=(far, near))
            answers.start()
            copy(near, far)
            answers.join()

    with socket.create_server((host, 0)) as listener:
        thread = threading.Thread(target=forward)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


def test_mysql_that_wants_a_certificate(
    mariadb: MariaDB, database_authority: Authority, client: Pair
) -> None:
    place = mariadb.fresh()
    place.query(f"CREATE USER {place.database} IDENTIFIED BY 'x' REQUIRE X509")
    place.query(f"GRANT ALL ON {place.database}.* TO {place.database}")
    where = f"{place.database}:x@tcp(127.0.0.1:{mariadb.port})/{place.database}"
    where += f"?ssl_ca={database_authority.certificate}"
    with session(place, f"{where}&ssl_cert={client.certificate}&ssl_key={client.key}"):
        pass
    with pytest.raises(StoreError, match="refuses the user"):
        drivers.connect("mysql", where, Target(TABLE))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ssl_ca", "ssl_ca .*/none.pem: No such file"),
        ("ssl_cert", "ssl_cert .*/none.pem: No such file"),
    ],
)
def test_file_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    dsn = f"u:secret@tcp(127.0.0.1:1)/db?tls=true&{name}={tmp_path}/none.pem"
    with pytest.raises(StoreError, match=message):
        drivers.connect("mysql", dsn, Target(TABLE))


def test_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.pem"
    path.write_text("no certificate")
    for name in ("ssl_ca", "ssl_cert"):
        dsn = f"u:secret@tcp(127.0.0.1:1)/db?tls=true&{name}={path}"
        with pytest.raises(StoreError, match=f"{name} {path}: no certificate"):
            drivers.connect("mysql", dsn, Target(TABLE))


def test_postgresql_over_tls(
    postgresql: PostgreSQL, database_authority: Authority, client: Pair
) -> None:
    client.key.chmod(0o600)  # Else libpq does not take it.
    place = postgresql.fresh()
    dsn = place.dsn(
        sslmode="verify-full",
        sslrootcert=str(database_authority.certificate),
        sslcert=str(client.certificate),
        sslkey=str(client.key),
    )
    with session(place, dsn) as connection:
        shown = "SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.execute(shown).fetchone() == (True, "/CN=guerrilla")


def test_postgresql_that_nobody_trusts_is_refused(
    postgresql: PostgreSQL, stranger: Authority
) -> None:
    place = postgresql.fresh()
    dsn = place.dsn(sslmode="verify-ca", sslrootcert=str(stranger.certificate))
    with pytest.raises(StoreError, match=r"cannot be reached.*certificate verify failed"):
        drivers.connect("postgresql", dsn, Target(TABLE))
