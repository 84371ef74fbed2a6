"""The servers of a test session, as fixtures: each is started when a test first asks for it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import Place, SQLServer


@pytest.fixture(scope="session")
def database_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has signed the certificates of the databases, and may sign those of clients."""
    return Authority(tmp_path_factory.mktemp("databases"), "databases")


@pytest.fixture(scope="session")
def mariadb(
    tmp_path_factory: pytest.TempPathFactory, database_authority: Authority
) -> Iterator[MariaDB]:
    """A MariaDB that offers TLS. Nobody stops it."""
    pair = database_authority.issue_server()
    tls = {"ssl_cert": str(pair.certificate), "ssl_key": str(pair.key)}
    options = {"ssl_ca": str(database_authority.certificate), "max_allowed_packet": "128M"}
    server = MariaDB(tmp_path_factory.mktemp("mariadb"), **tls, **options)
    with _running(server):
        yield server


@pytest.fixture(scope="session")
def postgresql(database_authority: Authority) -> Iterator[PostgreSQL]:
    """A PostgreSQL that offers TLS. Nobody stops it, so it need not sync anything."""
    pair = database_authority.issue_server()
    files = {"ssl_cert_file": pair.certificate, "ssl_key_file": pair.key}
    files["ssl_ca_file"] = database_authority.certificate
    with _open_folder() as folder:
        server = PostgreSQL(folder, files, ssl="on", fsync="off")
        with _running(server):
            yield server


@pytest.fixture(scope="session")
def mortal_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A MariaDB that tests kill, and start again before they end."""
    server = MariaDB(tmp_path_factory.mktemp("mortal-mariadb"))
    with _running(server):
        yield server


@pytest.fixture(scope="session")
def mortal_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that tests kill, and start again before they end.

    What it has written outlives the end of its processes without a sync: only a machine's end
    would lose it.
    """
    with _open_folder() as folder:
        server = PostgreSQL(folder, fsync="off")
        with _running(server):
            yield server


@pytest.fixture(params=["mariadb", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """A fresh database on each server in turn."""
    server: SQLServer = request.getfixturevalue(request.param)
    return server.fresh()


@pytest.fixture(params=["mortal_mariadb", "mortal_postgresql"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Place]:
    """As `place`, on servers that a test may kill, stop and pause; they run when it has ended."""
    server: SQLServer = request.getfixturevalue(request.param)
    yield server.fresh()
    server.resume()


@contextlib.contextmanager
def _open_folder() -> Iterator[Path]:
    """A folder that another user than root can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="guerrilla-tests-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def _running(server: MariaDB | PostgreSQL) -> Iterator[None]:
    """Until the session ends: what it holds is not worth a proper stop."""
    try:
        server.start()
        yield
    finally:
        server.discard()
